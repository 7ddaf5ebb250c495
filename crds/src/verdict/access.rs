//! Which access policy is in force for a user, and whether it opens a partner (rule 2).
//!
//! User beats Site beats Global, and the winner counts whole: nothing is merged. Within User an
//! exact grant beats that of the user's whole domain. No policy denies.

use foldhash::HashMap;

use super::{PartnerIndex, PartnerType, Partners, Reason};
use crate::{
    domain::DomainName,
    edge_config::{AccessScope, EdgeConfig, PolicyMode},
};

/// What rule 2 says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    Granted,
    /// A policy in mode `Audit` would refuse: delivered, counted and logged.
    Audited,
    Refused,
}

/// A policy reduced to what a decision needs.
#[derive(Clone, Debug)]
struct Gate {
    /// `enableFederationAccess` and `enableXmppAccess`.
    open: bool,
    public: bool,
    /// Sorted; `None`: all partners.
    partners: Option<Box<[PartnerIndex]>>,
    mode: PolicyMode,
}

/// Grants of one own domain: positions in [`EdgeConfig::access`]'s policies.
#[derive(Clone, Debug, Default)]
struct OwnDomain {
    users: HashMap<Box<str>, u32>,
    /// What counts for everyone else: the domain's grant, else its site's policy, else Global.
    others: Option<u32>,
}

/// The policies in force, by own domain: a look-up is two hashes and allocates nothing.
#[derive(Clone, Debug, Default)]
pub struct AccessIndex {
    gates: Vec<Gate>,
    own: Vec<OwnDomain>,
    domains: HashMap<DomainName, OwnIndex>,
}

/// Position of an own domain in the index that it came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OwnIndex(u32);

impl AccessIndex {
    /// `partners` must be of the same configuration. A policy that names no known partner opens
    /// none: it never widens to all. Of two policies for the same users the first is in force.
    #[must_use]
    pub fn build(config: &EdgeConfig, partners: &Partners) -> Self {
        let policies = &config.access.policies;
        let gates = policies.iter().map(|policy| Gate {
            open: policy.enable_federation_access && policy.enable_xmpp_access,
            public: policy.enable_public_cloud_access,
            partners: policy.partners.as_ref().map(|names| {
                let mut named: Vec<_> = names.iter().filter_map(|n| partners.named(n)).collect();
                named.sort_unstable();
                named.into()
            }),
            mode: policy.mode,
        });
        let mut index = Self {
            gates: gates.collect(),
            own: Vec::with_capacity(config.domains.len()),
            domains: HashMap::default(),
        };
        let global = position(config, |scope| matches!(scope, AccessScope::Global));
        for domain in &config.domains {
            let site = config.access.home_sites.get(domain).and_then(|home| {
                position(
                    config,
                    |scope| matches!(scope, AccessScope::Site(site) if site == home),
                )
            });
            let granted = position(
                config,
                |scope| matches!(scope, AccessScope::User(granted) if granted.domains.contains(domain)),
            );
            let others = granted.or(site).or(global);
            let at = OwnIndex(u32::try_from(index.own.len()).unwrap_or(u32::MAX));
            index.domains.insert(domain.clone(), at);
            index.own.push(OwnDomain {
                users: HashMap::default(),
                others,
            });
        }
        for (at, policy) in (0_u32..).zip(policies) {
            let AccessScope::User(granted) = &policy.scope else {
                continue;
            };
            for user in &granted.users {
                if let (Some(local), Some(own)) = (user.local(), index.own(user.domain().as_str()))
                {
                    index.own[own.0 as usize]
                        .users
                        .entry(local.into())
                        .or_insert(at);
                }
            }
        }
        index
    }

    /// Where an own domain (in the form of [`DomainName`]) stands.
    #[must_use]
    pub fn own(&self, domain: &str) -> Option<OwnIndex> {
        self.domains.get(domain).copied()
    }

    /// Position in the configuration's policies of the one in force for a user; `local` prepared
    /// ([`crate::jid::prepare_local`]), `domain` in the form of [`DomainName`].
    #[must_use]
    pub fn in_force(&self, local: &str, domain: &str) -> Option<usize> {
        self.in_force_of(local, self.own(domain)?)
    }

    fn in_force_of(&self, local: &str, own: OwnIndex) -> Option<usize> {
        let own = self.own.get(own.0 as usize)?;
        own.users
            .get(local)
            .copied()
            .or(own.others)
            .map(|at| at as usize)
    }

    /// Rule 2 for a user, whose localpart is prepared, of an own domain ([`Self::own`]) and a partner.
    #[must_use]
    #[inline]
    pub fn decide(
        &self,
        local: &str,
        own: Option<OwnIndex>,
        partner: PartnerIndex,
        partner_type: PartnerType,
    ) -> Access {
        let in_force = own.and_then(|own| self.in_force_of(local, own));
        let Some(gate) = in_force.map(|at| &self.gates[at]) else {
            return Access::Refused;
        };
        match gate.check(partner, partner_type) {
            Ok(()) => Access::Granted,
            Err(_) if gate.mode == PolicyMode::Audit => Access::Audited,
            Err(_) => Access::Refused,
        }
    }
}

impl Gate {
    fn check(&self, partner: PartnerIndex, partner_type: PartnerType) -> Result<(), Reason> {
        let listed = self
            .partners
            .as_ref()
            .is_none_or(|named| named.binary_search(&partner).is_ok());
        if self.open && (self.public || !partner_type.is_public()) && listed {
            Ok(())
        } else {
            Err(Reason::AccessPolicy)
        }
    }
}

fn position(config: &EdgeConfig, wanted: impl Fn(&AccessScope) -> bool) -> Option<u32> {
    (0_u32..)
        .zip(&config.access.policies)
        .find(|(_, policy)| wanted(&policy.scope))
        .map(|(at, _)| at)
}
