//! Which partner a domain belongs to.
//!
//! Exact beats wildcard, the longer wildcard beats the shorter, and wildcards pass the own domains
//! of the namespace by. A look-up costs one hash for the domain and one for each label above it.

use foldhash::HashMap;

use super::{PartnerType, Reason};
use crate::{
    domain::{DomainName, DomainPattern},
    edge_config::EdgeConfig,
};

/// Position of a partner in [`EdgeConfig::partners`]; valid for the configuration it came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PartnerIndex(u32);

impl PartnerIndex {
    #[must_use]
    pub fn as_usize(self) -> usize {
        self.0 as usize
    }
}

/// Whether a listed partner may talk at all (rule 1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    Open,
    Suspended,
    /// Accepted, but not served by this pool (`ContactsNotShared`): as if not listed. Its domains do
    /// not fall to a shorter wildcard.
    LeftOut,
}

impl Admission {
    /// # Errors
    /// The reason why the partner may not talk.
    pub fn check(self) -> Result<(), Reason> {
        match self {
            Self::Open => Ok(()),
            Self::Suspended => Err(Reason::PartnerSuspended),
            Self::LeftOut => Err(Reason::PartnerNotAllowed),
        }
    }
}

/// The index over all partners' domains.
#[derive(Clone, Debug, Default)]
pub struct Partners {
    /// `None`: an own domain of some pool of the namespace. In one map, for one hash.
    exact: HashMap<DomainName, Option<PartnerIndex>>,
    /// By suffix: `*.agency.example` stands under `agency.example`.
    below: HashMap<DomainName, PartnerIndex>,
    /// Whose every other domain is that is not own.
    others: Option<PartnerIndex>,
    facts: Vec<(PartnerType, Admission)>,
    by_name: HashMap<Box<str>, PartnerIndex>,
}

impl Partners {
    /// Where two partners list the same domain or wildcard, the first one has it; the compile step
    /// never lets that happen.
    #[must_use]
    pub fn build(config: &EdgeConfig) -> Self {
        let own = config.namespace_domains.iter().chain(&config.domains);
        let mut index = Self {
            exact: own.map(|domain| (domain.clone(), None)).collect(),
            ..Self::default()
        };
        for (position, partner) in (0_u32..).zip(&config.partners) {
            let position = PartnerIndex(position);
            let admission = if partner.left_out {
                Admission::LeftOut
            } else if partner.suspended {
                Admission::Suspended
            } else {
                Admission::Open
            };
            index.facts.push((partner.partner_type, admission));
            index
                .by_name
                .entry(partner.name.as_str().into())
                .or_insert(position);
            for pattern in &partner.domains {
                match pattern {
                    DomainPattern::Exact(domain) => {
                        index.exact.entry(domain.clone()).or_insert(Some(position));
                    }
                    DomainPattern::Below(suffix) => {
                        index.below.entry(suffix.clone()).or_insert(position);
                    }
                }
            }
        }
        index
    }

    /// As [`Self::build`], with every domain that is neither listed nor own in the hands of the first partner.
    #[must_use]
    pub fn with_others_first(config: &EdgeConfig) -> Self {
        Self {
            others: (!config.partners.is_empty()).then_some(PartnerIndex(0)),
            ..Self::build(config)
        }
    }

    /// The partner that `domain` (in the form of [`DomainName`]) belongs to, whether it may talk or
    /// not; `None` where no accepted partner lists it, and for own domains.
    #[must_use]
    pub fn find(&self, domain: &str) -> Option<PartnerIndex> {
        if let Some(found) = self.exact.get(domain) {
            return *found;
        }
        if self.below.is_empty() {
            return self.others;
        }
        let mut rest = domain;
        while let Some((_, parent)) = rest.split_once('.') {
            if let Some(found) = self.below.get(parent) {
                return Some(*found);
            }
            rest = parent;
        }
        self.others
    }

    /// By the object's name.
    #[must_use]
    pub fn named(&self, name: &str) -> Option<PartnerIndex> {
        self.by_name.get(name).copied()
    }

    /// # Panics
    /// Where `partner` came from a larger configuration.
    #[must_use]
    #[inline]
    pub fn partner_type(&self, partner: PartnerIndex) -> PartnerType {
        self.facts[partner.as_usize()].0
    }

    /// # Panics
    /// Where `partner` came from a larger configuration.
    #[must_use]
    #[inline]
    pub fn admission(&self, partner: PartnerIndex) -> Admission {
        self.facts[partner.as_usize()].1
    }

    /// Whether `domain` is an own domain of any pool of the namespace.
    #[must_use]
    pub fn is_own(&self, domain: &str) -> bool {
        matches!(self.exact.get(domain), Some(None))
    }
}
