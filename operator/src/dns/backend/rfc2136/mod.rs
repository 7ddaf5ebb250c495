//! Dynamic updates (RFC 2136) under TSIG (RFC 8945), over TCP: the backend `spec.dns.rfc2136`.
//!
//! A [`Publisher`] is one pool's. It keeps the key last read, so that records can be withdrawn when
//! the Secret is gone, and the places at which records may lie, so that what is no longer wanted is
//! found again: DNS cannot be asked for that.

mod session;

use std::collections::BTreeSet;

use futures::future::join_all;
use serde::{Deserialize, Serialize};
use xmpp_edge_crds::kinds::pool::Rfc2136;

use self::session::Session;
use crate::dns::{
    authority::{self, Goal},
    error::DnsError,
    key::TsigKey,
    marker::{OwnerId, RecordOwner},
    report::{DnsReport, RecordGroupState},
    rrset::{Name, name},
    wanted::{Availability, DesiredRecords, RecordGroup, Records},
};
use crate::secrets::store::SecretData;

/// Where and how to publish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpdateSettings {
    /// `host` or `host:port`, as in the spec.
    pub server: String,
    /// Zone of all names; `None`: found by SOA.
    pub zone: Option<Name>,
    /// Seconds.
    pub ttl: u32,
    pub key: TsigKey,
    /// What it was read from: a pool's records are withdrawn by it when its spec does not say any more.
    pub spec: Rfc2136,
}

impl UpdateSettings {
    /// Reads `spec.dns.rfc2136`; `secret` is the data of the Secret it names, where there is one.
    ///
    /// # Errors
    /// [`DnsError::KeyMissing`], [`DnsError::KeyInvalid`], [`DnsError::NoName`].
    pub fn read(spec: &Rfc2136, secret: Option<&SecretData>) -> Result<Self, DnsError> {
        let zone = spec
            .zone
            .as_ref()
            .map(|zone| name(zone).map_err(|_| DnsError::NoName(zone.clone())))
            .transpose()?;
        Ok(Self {
            server: spec.server.clone(),
            zone,
            ttl: spec.ttl_seconds,
            key: TsigKey::read(&spec.tsig_secret_ref.name, secret, spec.tsig_algorithm)?,
            spec: spec.clone(),
        })
    }
}

/// Where records of a pool may lie. To be kept across restarts; holds no secret.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DnsMemory {
    pub places: BTreeSet<RecordGroup>,
    /// In whose name and by which server they were published last, where that is known.
    pub source: Option<RecordSource>,
}

/// What it takes to withdraw records of a pool, beside the key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordSource {
    /// The owner id in their markers.
    pub owner: String,
    /// `spec.dns.rfc2136` as it was.
    pub rfc2136: Rfc2136,
}

/// Publishes one pool.
#[derive(Debug)]
pub struct Publisher {
    claim: RecordOwner,
    memory: DnsMemory,
    settings: Option<UpdateSettings>,
    key_fault: Option<DnsError>,
}

impl Publisher {
    /// A publisher for `claim` that recalls what `memory` says.
    #[must_use]
    pub fn new(claim: RecordOwner, memory: DnsMemory) -> Self {
        Self {
            claim,
            memory,
            settings: None,
            key_fault: None,
        }
    }

    #[must_use]
    pub fn claim(&self) -> &RecordOwner {
        &self.claim
    }

    /// What is to be kept across restarts.
    #[must_use]
    pub fn memory(&self) -> &DnsMemory {
        &self.memory
    }

    /// Takes settings as they are now. Where they cannot be read, those last read stay in use, and
    /// each report says so.
    pub fn configure(&mut self, settings: Result<UpdateSettings, DnsError>) {
        match settings {
            Ok(settings) => {
                self.settings = Some(settings);
                self.key_fault = None;
            }
            Err(error) => self.key_fault = Some(error),
        }
    }

    /// Notes the places of `wanted`; true where something is new, and the memory is to be kept before
    /// anything is published. Without a key nothing can be published, and nothing is noted.
    pub fn remember(&mut self, wanted: &DesiredRecords) -> bool {
        let Some(settings) = &self.settings else {
            return false;
        };
        let before = self.memory.clone();
        if matches!(
            wanted.standing,
            Availability::Serving | Availability::Unready
        ) {
            self.memory.places.extend(wanted.places.keys().cloned());
        }
        if !self.memory.places.is_empty() {
            self.memory.source = Some(RecordSource {
                owner: self.claim.owner.to_string(),
                rfc2136: settings.spec.clone(),
            });
        }
        self.memory != before
    }

    /// Makes DNS hold what is wanted, withdraws what was wanted before, and asks the server for the
    /// outcome. Only one call at a time for a pool; several pools and operators may run at once.
    pub async fn publish(&mut self, wanted: &DesiredRecords) -> DnsReport {
        self.remember(wanted);
        let mut report = self.carry_out(wanted).await;
        report.key_fault.clone_from(&self.key_fault);
        report
    }

    /// Withdraws every record of the pool, with the key last read; `wanted` names places that the
    /// memory may not know.
    pub async fn withdraw(&mut self, wanted: &DesiredRecords) -> DnsReport {
        let wanted = DesiredRecords {
            standing: Availability::Removed,
            ..wanted.clone()
        };
        self.carry_out(&wanted).await
    }

    async fn carry_out(&mut self, wanted: &DesiredRecords) -> DnsReport {
        let mut report = DnsReport {
            standing: wanted.standing,
            address_pending: wanted.address_pending,
            places: Vec::new(),
            denied: Vec::new(),
            key_fault: None,
            namesakes: BTreeSet::new(),
        };
        if wanted.places.is_empty() && self.memory.places.is_empty() {
            return report;
        }
        let Some(settings) = &self.settings else {
            let error = self.key_fault.clone().unwrap_or(DnsError::NoSettings);
            return DnsReport::failed(wanted, self.memory.places.iter(), &error);
        };
        let mut stopped: Option<DnsError> = None;
        for phase in phases(wanted, &self.memory) {
            let lanes = phase.len().clamp(1, LANES);
            let lanes = phase.chunks(phase.len().div_ceil(lanes).max(1));
            let lanes = lanes.map(|places| Lane {
                settings,
                claim: &self.claim,
                wanted,
                places,
                stopped: stopped.clone(),
                namesakes: BTreeSet::new(),
                done: Vec::new(),
            });
            for lane in join_all(lanes.map(Lane::go)).await {
                report.namesakes.extend(lane.namesakes);
                stopped = stopped.or(lane.stopped);
                report.places.extend(lane.done);
            }
        }
        self.forget(wanted, &mut report);
        report
    }

    /// Forgets places where nothing is left, and tells apart those no longer wanted whose zone the server denies: they
    /// stay in memory, as it may be that we are only not allowed to see it.
    fn forget(&mut self, wanted: &DesiredRecords, report: &mut DnsReport) {
        let out = matches!(
            wanted.standing,
            Availability::OutOfService | Availability::Removed
        );
        let mut denied = Vec::new();
        report.places.retain(|(place, outcome)| {
            let gone = !wanted.places.contains_key(place);
            match outcome {
                Ok(RecordGroupState::Withdrawn | RecordGroupState::Foreign) if gone || out => {
                    self.memory.places.remove(place);
                }
                Err(error) if gone && error.denies_zone() => {
                    denied.push((place.clone(), error.clone()));
                    return false;
                }
                _ => {}
            }
            true
        });
        report.denied = denied;
        if self.memory.places.is_empty() {
            self.memory.source = None;
        }
    }
}

/// Connections at once: a far server is asked for many domains in bearable time.
const LANES: usize = 4;

/// Places that are dealt with one after the other on one connection.
struct Lane<'a> {
    settings: &'a UpdateSettings,
    claim: &'a RecordOwner,
    wanted: &'a DesiredRecords,
    places: &'a [(RecordGroup, Availability)],
    /// What made further attempts useless.
    stopped: Option<DnsError>,
    /// Other owners of pools of this namespace and name, as met so far.
    namesakes: BTreeSet<OwnerId>,
    done: Vec<(RecordGroup, Result<RecordGroupState, DnsError>)>,
}

impl Lane<'_> {
    async fn go(mut self) -> Self {
        let mut session = Session::new(self.settings);
        let places = self.places;
        for (place, standing) in places {
            let outcome = match &self.stopped {
                Some(error) => Err(error.clone()),
                None => self.at(&mut session, place, *standing).await,
            };
            if let Err(error) = &outcome
                && error.concerns_all()
            {
                self.stopped = Some(error.clone());
            }
            self.done.push((place.clone(), outcome));
        }
        self
    }

    async fn at(
        &mut self,
        session: &mut Session<'_>,
        place: &RecordGroup,
        standing: Availability,
    ) -> Result<RecordGroupState, DnsError> {
        let none;
        let records = match self.wanted.places.get(place) {
            Some(records) => records,
            None => {
                let no_name = |_| DnsError::NoName(place.text().to_owned());
                let names = place.names().map_err(no_name)?.into_iter();
                none = names
                    .map(|name| (name, BTreeSet::new()))
                    .collect::<Records>();
                &none
            }
        };
        let goal = Goal {
            claim: self.claim,
            standing,
            place,
            records,
            ttl: self.settings.ttl,
        };
        let settled = authority::converge(session, &goal).await?;
        let state = RecordGroupState::of(&settled);
        self.namesakes.extend(settled.namesakes);
        Ok(state)
    }
}

/// Places with the standing they have, in the order in which they are dealt with: a name has
/// addresses before it is an SRV target, and loses them after.
fn phases(wanted: &DesiredRecords, memory: &DnsMemory) -> [Vec<(RecordGroup, Availability)>; 4] {
    let now = wanted
        .places
        .keys()
        .map(|place| (place, wanted.standing_at(place)));
    let gone = memory
        .places
        .iter()
        .filter(|place| !wanted.places.contains_key(*place))
        .map(|place| (place, Availability::Removed));
    let mut phases: [Vec<(RecordGroup, Availability)>; 4] = Default::default();
    for (place, standing) in now.chain(gone) {
        let phase = match (place, standing) {
            (RecordGroup::Host(_), Availability::Serving) => 0,
            (RecordGroup::Domain(_), Availability::Serving) => 1,
            (RecordGroup::Domain(_), _) => 2,
            (RecordGroup::Host(_), _) => 3,
        };
        phases[phase].push((place.clone(), standing));
    }
    phases
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_primary_that_denies_a_zone_has_nothing_forgotten_and_is_told() {
        let name = || Box::new(name("gone.example").unwrap());
        let server = || "ns.example".to_owned();
        let denials = [
            DnsError::NotServed {
                server: server(),
                name: name(),
            },
            DnsError::NotAuthoritative {
                server: server(),
                name: name(),
            },
            DnsError::NotInZone {
                name: name(),
                zone: name(),
            },
            DnsError::ZoneNotFound {
                server: server(),
                name: name(),
            },
        ];
        let place = |text: &str| RecordGroup::Domain(text.to_owned());
        for denial in denials {
            let claim = RecordOwner {
                owner: "one".parse().unwrap(),
                namespace: "n".to_owned(),
                pool: "hq".to_owned(),
            };
            let places = [place("gone.example"), place("left.example")];
            let memory = DnsMemory {
                places: places.clone().into(),
                source: None,
            };
            let mut publisher = Publisher::new(claim, memory);
            let wanted = DesiredRecords::nothing();
            let none = DnsError::NoSettings;
            let mut report = DnsReport::failed(&wanted, [].iter(), &none);
            report.places = vec![
                (places[0].clone(), Err(denial.clone())),
                (places[1].clone(), Ok(RecordGroupState::Withdrawn)),
            ];
            publisher.forget(&wanted, &mut report);
            let left: Vec<_> = publisher.memory().places.iter().collect();
            assert_eq!(left, [&places[0]], "{denial}");
            // All of it is to go: what cannot is a fault.
            assert!(!report.is_good());
            assert_eq!(report.errors(), [&denial]);
            let said = report.condition();
            assert!(!said.status && said.reason == denial.reason(), "{said:?}");
            assert!(said.message.contains("SRV of gone.example"), "{said:?}");
            // Of a pool that stays its own records say how it is; what is left is named.
            report.standing = Availability::Serving;
            let said = report.condition();
            assert!(said.status, "{said:?}");
            assert!(said.message.contains("SRV of gone.example"), "{said:?}");
        }
    }
}
