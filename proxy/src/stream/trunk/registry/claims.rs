//! Who of several sidecars of a gateway gets what comes in, and what each is told of that.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::{FarEnd, TrunkIntake, TrunkTable};
use crate::{
    config::trunk_name::TrunkName,
    trunk::{
        claim::Claimants,
        nonza::{Activity, Nonza},
    },
};

impl TrunkTable {
    /// A sidecar claims this; those to whom it makes a difference are told, but for `silent`.
    pub(super) fn claims(
        &mut self,
        gateway: &str,
        instance: &TrunkName,
        since: Option<Timestamp>,
        silent: Option<u64>,
    ) {
        let claimants = self.claimants.entry(gateway.to_owned()).or_default();
        let before = activities(claimants);
        claimants.claims(instance.clone(), since);
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
                && (&own.gateway, &own.instance) == (&far.gateway, &far.instance)
        });
        let Some(claimants) = self.claimants.get_mut(&far.gateway) else {
            return;
        };
        if has_another {
            return;
        }
        let before = activities(claimants);
        claimants.gone(&far.instance);
        let after = activities(claimants);
        if after.is_empty() {
            self.claimants.remove(&far.gateway);
        }
        self.tell_activities(&far.gateway, &before, &after, None);
    }

    fn tell_activities(
        &self,
        gateway: &str,
        before: &BTreeMap<TrunkName, Activity>,
        after: &BTreeMap<TrunkName, Activity>,
        silent: Option<u64>,
    ) {
        for (id, own) in &self.trunks {
            if let FarEnd::Sidecar(far) = &own.far
                && far.gateway == gateway
                && let Some(activity) = after.get(&far.instance)
                && before.get(&far.instance) != Some(activity)
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
fn activities(claimants: &Claimants) -> BTreeMap<TrunkName, Activity> {
    let instances = claimants.instances();
    instances
        .map(|instance| (instance.clone(), claimants.activity(instance)))
        .collect()
}
