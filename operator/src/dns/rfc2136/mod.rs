//! Dynamic updates (RFC 2136) under TSIG (RFC 8945), over TCP: the backend `spec.dns.rfc2136`.
//!
//! A [`Publisher`] is one pool's. It keeps the key last read, so that records can be withdrawn when
//! the Secret is gone, and the places at which records may lie, so that what is no longer wanted is
//! found again: DNS cannot be asked for that.

mod session;

use std::collections::BTreeSet;

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
use crate::certificates::store::Material;

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
        let Some(settings) = &self.settings else {
            let error = self.key_fault.clone().unwrap_or(DnsError::NoSettings);
            return Report::failed(wanted, self.memory.places.iter(), &error);
        };
        let mut report = Report {
            standing: wanted.standing,
            address_pending: wanted.address_pending,
            places: Vec::new(),
            key_fault: None,
        };
        let mut session = Session::new(settings);
        let mut stopped: Option<DnsError> = None;
        for (place, standing) in order(wanted, &self.memory) {
            let outcome = match &stopped {
                Some(error) => Err(error.clone()),
                None => {
                    let records = wanted.places.get(&place);
                    at(
                        &mut session,
                        &self.claim,
                        &place,
                        standing,
                        records,
                        settings.ttl,
                    )
                    .await
                }
            };
            match &outcome {
                Err(error) if error.concerns_all() => stopped = Some(error.clone()),
                Ok(PlaceState::Withdrawn | PlaceState::Foreign)
                    if !wanted.places.contains_key(&place) || standing == Standing::Out =>
                {
                    self.memory.places.remove(&place);
                }
                _ => {}
            }
            report.places.push((place, outcome));
        }
        report
    }
}

/// Places with the standing they have, in the order in which they are dealt with: a name has
/// addresses before it is an SRV target, and loses them after.
fn order(wanted: &Wanted, memory: &Memory) -> Vec<(Place, Standing)> {
    let is_host = |place: &Place| matches!(place, Place::Host(_));
    let mut places: Vec<(Place, Standing)> = wanted
        .places
        .keys()
        .map(|place| (place.clone(), wanted.standing))
        .collect();
    let gone = memory
        .places
        .iter()
        .filter(|place| !wanted.places.contains_key(*place))
        .map(|place| (place.clone(), Standing::Out));
    places.extend(gone);
    places.sort_by_key(|(place, standing)| match (is_host(place), standing) {
        (true, Standing::Serving) => 0,
        (false, Standing::Serving) => 1,
        (false, _) => 2,
        (true, _) => 3,
    });
    places
}

async fn at(
    session: &mut Session<'_>,
    claim: &Claim,
    place: &Place,
    standing: Standing,
    records: Option<&Records>,
    ttl: u32,
) -> Result<PlaceState, DnsError> {
    let none;
    let records = match records {
        Some(records) => records,
        None => {
            let names = place
                .names()
                .map_err(|_| DnsError::NoName(place.text().to_owned()))?;
            none = names
                .into_iter()
                .map(|name| (name, BTreeSet::new()))
                .collect();
            &none
        }
    };
    let goal = Goal {
        claim,
        standing,
        place,
        records,
        ttl,
    };
    let settled = authority::converge(session, &goal).await?;
    Ok(PlaceState::of(&settled))
}
