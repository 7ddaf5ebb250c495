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
    domains: HashMap<DomainName, OwnDomain>,
}

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
            index.domains.insert(
                domain.clone(),
                OwnDomain {
                    users: HashMap::default(),
                    others,
                },
            );
        }
        for (at, policy) in (0_u32..).zip(policies) {
            let AccessScope::User(granted) = &policy.scope else {
                continue;
            };
            for user in &granted.users {
                if let (Some(local), Some(own)) =
                    (user.local(), index.domains.get_mut(user.domain()))
                {
                    own.users.entry(local.into()).or_insert(at);
                }
            }
        }
        index
    }

    /// Position in the configuration's policies of the one in force for a user; `local` prepared
    /// ([`crate::jid::prepare_local`]), `domain` in the form of [`DomainName`].
    #[must_use]
    pub fn in_force(&self, local: &str, domain: &str) -> Option<usize> {
        let own = self.domains.get(domain)?;
        own.users
            .get(local)
            .copied()
            .or(own.others)
            .map(|at| at as usize)
    }

    /// Rule 2 for a user (arguments as in [`Self::in_force`]) and a partner.
    #[must_use]
    pub fn decide(
        &self,
        local: &str,
        domain: &str,
        partner: PartnerIndex,
        partner_type: PartnerType,
    ) -> Access {
        let Some(gate) = self.in_force(local, domain).map(|at| &self.gates[at]) else {
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
