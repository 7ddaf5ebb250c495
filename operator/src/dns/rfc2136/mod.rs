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
use super::{
    authority::{self, Goal},
    error::DnsError,
    key::TsigKey,
    marker::Claim,
    report::{PlaceState, Report},
    rrset::{Name, name},
    wanted::{Place, Records, Standing, Wanted},
};
use crate::secrets::store::Material;

/// Where and how to publish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// `host` or `host:port`, as in the spec.
    pub server: String,
    /// Zone of all names; `None`: found by SOA.
    pub zone: Option<Name>,
    /// Seconds.
    pub ttl: u32,
    pub key: TsigKey,
}

impl Settings {
    /// Reads `spec.dns.rfc2136`; `secret` is the data of the Secret it names, where there is one.
    ///
    /// # Errors
    /// [`DnsError::KeyMissing`], [`DnsError::KeyInvalid`], [`DnsError::NoName`].
    pub fn read(spec: &Rfc2136, secret: Option<&Material>) -> Result<Self, DnsError> {
        let zone = spec
            .zone
            .as_ref()
            .map(|zone| name(zone).map_err(|_| DnsError::NoName(zone.clone())))
            .transpose()?;
        Ok(Self {
            server: spec.server.clone(),
            zone,
            ttl: spec.ttl,
            key: TsigKey::read(&spec.tsig_secret_ref.name, secret, spec.tsig_algorithm)?,
        })
    }
}

/// Places at which records of a pool may lie. To be kept across restarts; holds no secret.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Memory {
    pub places: BTreeSet<Place>,
}

/// Publishes one pool.
#[derive(Debug)]
pub struct Publisher {
    claim: Claim,
    memory: Memory,
    settings: Option<Settings>,
    key_fault: Option<DnsError>,
}

impl Publisher {
    /// A publisher for `claim` that recalls what `memory` says.
    #[must_use]
    pub fn new(claim: Claim, memory: Memory) -> Self {
        Self {
            claim,
            memory,
            settings: None,
            key_fault: None,
        }
    }

    #[must_use]
    pub fn claim(&self) -> &Claim {
        &self.claim
    }

    /// What is to be kept across restarts.
    #[must_use]
    pub fn memory(&self) -> &Memory {
        &self.memory
    }

    /// Takes settings as they are now. Where they cannot be read, those last read stay in use, and
    /// each report says so.
    pub fn configure(&mut self, settings: Result<Settings, DnsError>) {
        match settings {
            Ok(settings) => {
                self.settings = Some(settings);
                self.key_fault = None;
            }
            Err(error) => self.key_fault = Some(error),
        }
    }

    /// Notes the places of `wanted`; true where one is new, and the memory is to be kept before
    /// anything is published.
    pub fn remember(&mut self, wanted: &Wanted) -> bool {
        let before = self.memory.places.len();
        if wanted.standing != Standing::Out {
            self.memory.places.extend(wanted.places.keys().cloned());
        }
        self.memory.places.len() != before
    }

    /// Makes DNS hold what is wanted, withdraws what was wanted before, and asks the server for the
    /// outcome. Only one call at a time for a pool; several pools and operators may run at once.
    pub async fn publish(&mut self, wanted: &Wanted) -> Report {
        self.remember(wanted);
        let mut report = self.carry_out(wanted).await;
        report.key_fault.clone_from(&self.key_fault);
        report
    }

    /// Withdraws every record of the pool, with the key last read; `wanted` names places that the
    /// memory may not know.
    pub async fn withdraw(&mut self, wanted: &Wanted) -> Report {
        let wanted = Wanted {
            standing: Standing::Out,
            ..wanted.clone()
        };
        self.carry_out(&wanted).await
    }

    async fn carry_out(&mut self, wanted: &Wanted) -> Report {
        let mut report = Report {
            standing: wanted.standing,
            address_pending: wanted.address_pending,
            places: Vec::new(),
            key_fault: None,
        };
        if wanted.places.is_empty() && self.memory.places.is_empty() {
            return report;
        }
        let Some(settings) = &self.settings else {
            let error = self.key_fault.clone().unwrap_or(DnsError::NoSettings);
            return Report::failed(wanted, self.memory.places.iter(), &error);
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
            });
            for done in join_all(lanes.map(Lane::go)).await.into_iter().flatten() {
                if let (_, Err(error)) = &done
                    && error.concerns_all()
                {
                    stopped = Some(error.clone());
                }
                report.places.push(done);
            }
        }
        self.forget(wanted, &mut report);
        report
    }

    /// Forgets places where nothing is left, and those no longer wanted whose zone is not there any
    /// more: nobody could ever withdraw them.
    fn forget(&mut self, wanted: &Wanted, report: &mut Report) {
        let out = wanted.standing == Standing::Out;
        report.places.retain(|(place, outcome)| {
            let gone = !wanted.places.contains_key(place);
            match outcome {
                Ok(PlaceState::Withdrawn | PlaceState::Foreign) if gone || out => {
                    self.memory.places.remove(place);
                }
                Err(error) if gone && error.zone_is_gone() => {
                    tracing::warn!("records may be left behind, {place}: {error}");
                    self.memory.places.remove(place);
                    return false;
                }
                _ => {}
            }
            true
        });
    }
}

/// Connections at once: a far server is asked for many domains in bearable time.
const LANES: usize = 4;

/// Places that are dealt with one after the other on one connection.
struct Lane<'a> {
    settings: &'a Settings,
    claim: &'a Claim,
    wanted: &'a Wanted,
    places: &'a [(Place, Standing)],
    /// What made further attempts useless.
    stopped: Option<DnsError>,
}

impl Lane<'_> {
    async fn go(mut self) -> Vec<(Place, Result<PlaceState, DnsError>)> {
        let mut session = Session::new(self.settings);
        let mut done = Vec::new();
        for (place, standing) in self.places {
            let outcome = match &self.stopped {
                Some(error) => Err(error.clone()),
                None => self.at(&mut session, place, *standing).await,
            };
            if let Err(error) = &outcome
                && error.concerns_all()
            {
                self.stopped = Some(error.clone());
            }
            done.push((place.clone(), outcome));
        }
        done
    }

    async fn at(
        &self,
        session: &mut Session<'_>,
        place: &Place,
        standing: Standing,
    ) -> Result<PlaceState, DnsError> {
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
        Ok(PlaceState::of(&settled))
    }
}

/// Places with the standing they have, in the order in which they are dealt with: a name has
/// addresses before it is an SRV target, and loses them after.
fn phases(wanted: &Wanted, memory: &Memory) -> [Vec<(Place, Standing)>; 4] {
    let now = wanted.places.keys().map(|place| (place, wanted.standing));
    let gone = memory
        .places
        .iter()
        .filter(|place| !wanted.places.contains_key(*place))
        .map(|place| (place, Standing::Out));
    let mut phases: [Vec<(Place, Standing)>; 4] = Default::default();
    for (place, standing) in now.chain(gone) {
        let phase = match (place, standing) {
            (Place::Host(_), Standing::Serving) => 0,
            (Place::Domain(_), Standing::Serving) => 1,
            (Place::Domain(_), _) => 2,
            (Place::Host(_), _) => 3,
        };
        phases[phase].push((place.clone(), standing));
    }
    phases
}
