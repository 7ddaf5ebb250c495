//! What the rules say of a pair of domains, whoever writes, and of two people of it: found once, and not
//! for each stanza.

use std::sync::atomic::{AtomicU64, Ordering};

use xmpp_edge_crds::{
    jid::DomainRange,
    verdict::{Access, OwnIndex, PartnerIndex, Reason},
};

use super::{Policy, address::AddressEnds};
use crate::xml::{rewrite::Shape, stanza::PatternNumber};

/// Which [`Policy`] of the process it is: facts of another one say nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Snapshot(u64);

impl Snapshot {
    pub(super) fn next() -> Self {
        static LAST: AtomicU64 = AtomicU64::new(0);
        Self(LAST.fetch_add(1, Ordering::Relaxed))
    }
}

/// A pair's partner and own domain in one [`Policy`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResolvedPair {
    snapshot: Snapshot,
    pub(super) partner: Option<PartnerIndex>,
    pub(super) own: Option<OwnIndex>,
}

impl ResolvedPair {
    /// Of an own domain and a partner's, both in the form of a `DomainName`.
    #[must_use]
    pub fn new(policy: &Policy, own: &str, remote: &str) -> Self {
        Self {
            snapshot: policy.snapshot,
            partner: policy.partners.find(remote),
            own: policy.access.own(own),
        }
    }

    /// Whether they were found in this very policy.
    pub(super) fn are_of(&self, policy: &Policy) -> bool {
        self.snapshot == policy.snapshot
    }
}

/// What one [`Policy`] found of the addresses of two people as they stand in a stanza. It holds for each
/// stanza with the same text in both, and for no other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResolvedPeople {
    snapshot: Snapshot,
    pub(super) from: AddressEnds,
    pub(super) to: AddressEnds,
    /// Rule 2 for the user.
    pub(super) access: Access,
}

impl ResolvedPeople {
    pub(super) fn new(
        facts: &ResolvedPair,
        (from, to): (AddressEnds, AddressEnds),
        access: Access,
    ) -> Self {
        Self {
            snapshot: facts.snapshot,
            from,
            to,
            access,
        }
    }

    fn are_of(&self, policy: &Policy) -> bool {
        self.snapshot == policy.snapshot
    }
}

/// What one [`Policy`] found of a message or an available presence between two people that passes. It holds for each
/// stanza of the same pattern with the same text in both addresses, while no contact changes: nothing else of such
/// a stanza is asked for, and nothing of it changes a contact.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PassedBefore {
    pub(super) snapshot: Snapshot,
    /// [`Contacts::changes`](crate::contacts::Contacts::changes) when it was judged.
    pub(super) contact_changes: u64,
    pub(super) pattern: PatternNumber,
    pub(super) shape: Shape,
    pub(super) audited: Option<Reason>,
}

/// A stanza's pair, and what is known of its addresses, which name the two domains as the pair has them.
#[derive(Clone, Copy, Debug)]
pub struct AddressedPair<'f> {
    pub facts: &'f ResolvedPair,
    pub written: Written,
}

/// What is known of a stanza's two addresses as they stand.
#[derive(Clone, Copy, Debug)]
pub enum Written {
    /// Where their domains are.
    Domains { from: DomainRange, to: DomainRange },
    /// All that policy asks.
    People(ResolvedPeople),
}

impl AddressedPair<'_> {
    /// `None` where another policy found it.
    pub(super) fn of(self, policy: &Policy) -> Option<Self> {
        let holds = match &self.written {
            Written::Domains { .. } => true,
            Written::People(people) => people.are_of(policy),
        };
        (holds && self.facts.are_of(policy)).then_some(self)
    }
}
