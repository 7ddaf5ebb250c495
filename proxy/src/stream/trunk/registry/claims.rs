//! Who of several sidecars of a gateway gets what comes in, and what each is told of that.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::{FarEnd, FarSidecar, SidecarId, TrunkFacts, TrunkIntake, TrunkTable};
use crate::trunk::{
    claim::Claimants,
    nonza::{Activity, Nonza},
};

/// Most octets of what a sidecar is called where it is shown: a pool's status has room for so many.
const MOST_SHOWN: usize = 253;

impl TrunkTable {
    /// A sidecar claims this; those to whom it makes a difference are told, but for `silent`.
    pub(super) fn claims(
        &mut self,
        gateway: &str,
        sidecar: &SidecarId,
        since: Option<Timestamp>,
        silent: Option<u64>,
    ) {
        let claimants = self.claimants.entry(gateway.to_owned()).or_default();
        let before = activities(claimants);
        claimants.claims(sidecar.clone(), since);
        let after = activities(claimants);
        self.tell_activities(gateway, &before, &after, silent);
    }

    /// The trunk `id` is drained or gone: its sidecar claims nothing here, unless it has another one.
    pub(super) fn look_at_claims(&mut self, id: u64) {
        let Some(far) = self.sidecar(id).cloned() else {
            return;
        };
        let has_another = self.sidecars().any(|(other, intake, own)| {
            other != id
                && intake == TrunkIntake::Open
                && (&own.gateway, &own.id) == (&far.gateway, &far.id)
        });
        let Some(claimants) = self.claimants.get_mut(&far.gateway) else {
            return;
        };
        if has_another {
            return;
        }
        let before = activities(claimants);
        claimants.gone(&far.id);
        let after = activities(claimants);
        if after.is_empty() {
            self.claimants.remove(&far.gateway);
        }
        self.tell_activities(&far.gateway, &before, &after, None);
    }

    /// A sidecar of the same name and key that began anew: what stands to the process before it leads nowhere, though
    /// nobody may have noticed yet.
    pub(super) fn succeeds(&mut self, far: &FarSidecar, facts: &TrunkFacts) {
        if far.id.start.is_none() || facts.key_sha256.is_none() {
            return;
        }
        let before = self.trunks.iter().filter_map(|(id, own)| match &own.far {
            FarEnd::Sidecar(old) => (own.intake == TrunkIntake::Open
                && old.gateway == far.gateway
                && old.id.instance == far.id.instance
                && old.id.start.is_some()
                && old.id.start != far.id.start
                && own.facts.key_sha256 == facts.key_sha256)
                .then_some(*id),
            FarEnd::Edge(_) => None,
        });
        for id in before.collect::<Vec<_>>() {
            if let Some(old) = self.trunks.get_mut(&id) {
                old.intake = TrunkIntake::Draining;
            }
            self.look_at_claims(id);
        }
    }

    /// What a sidecar is called where it is shown: two of one name by their keys, too.
    pub(super) fn shown_name(&self, far: &FarSidecar, facts: &TrunkFacts) -> String {
        let is_twin = self.sidecars().any(|(_, _, own)| {
            own.gateway == far.gateway
                && own.id.instance == far.id.instance
                && own.id.start != far.id.start
        });
        let key = facts.key_sha256.as_deref().and_then(|key| key.get(..8));
        match key {
            Some(key) if is_twin => {
                let whose = format!(" (key {key}…)");
                let name = far.id.instance.as_str();
                let end = name.floor_char_boundary(MOST_SHOWN - whose.len());
                format!("{}{whose}", &name[..end])
            }
            _ => far.id.instance.to_string(),
        }
    }

    fn tell_activities(
        &self,
        gateway: &str,
        before: &BTreeMap<SidecarId, Activity>,
        after: &BTreeMap<SidecarId, Activity>,
        silent: Option<u64>,
    ) {
        for (id, own) in &self.trunks {
            if let FarEnd::Sidecar(far) = &own.far
                && far.gateway == gateway
                && let Some(activity) = after.get(&far.id)
                && before.get(&far.id) != Some(activity)
                && silent != Some(*id)
            {
                own.tell(*activity);
            }
        }
    }

    /// An edge says of this sidecar's claim what `activity` is. Whether it claims another from here on, which
    /// every edge is told.
    pub(super) fn told(&mut self, id: u64, activity: Activity) -> bool {
        let is_another = self.claim.told(id, activity, Timestamp::now());
        if is_another {
            self.tell_claim();
        }
        is_another
    }

    /// Every edge is told what is claimed now.
    pub(super) fn tell_claim(&self) {
        let claim = self.claim.claim();
        for own in self.trunks.values() {
            own.say(Nonza::Claim(claim));
        }
    }
}

/// What each sidecar of a gateway is told.
fn activities(claimants: &Claimants<SidecarId>) -> BTreeMap<SidecarId, Activity> {
    let sidecars = claimants.sidecars();
    sidecars
        .map(|sidecar| (sidecar.clone(), claimants.activity(sidecar)))
        .collect()
}
