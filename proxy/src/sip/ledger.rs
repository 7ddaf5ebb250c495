//! What is kept for subscriptions of one SIP server, and how much of it each partner object may take: none takes the
//! room of the others.

use std::collections::HashMap;

use super::share::{SHARES, SipShare};

/// Most dialogs, both ways together.
pub const MAX_DIALOGS: usize = 200_000;
/// Most bytes of dialogs: addresses, tags, hops.
pub const MAX_DIALOG_BYTES: usize = 128 << 20;
/// Most bytes of presence that was told.
pub const MAX_PRESENCE_BYTES: usize = 64 << 20;
/// What is held now.
#[derive(Debug, Default)]
pub struct SubscriptionLedger {
    total: HeldSubscriptions,
    shares: HashMap<SipShare, HeldSubscriptions>,
}

/// What one account holds, or what is put on one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HeldSubscriptions {
    pub dialogs: usize,
    pub dialog_bytes: usize,
    pub presence_bytes: usize,
}

const BOUND: HeldSubscriptions = HeldSubscriptions {
    dialogs: MAX_DIALOGS,
    dialog_bytes: MAX_DIALOG_BYTES,
    presence_bytes: MAX_PRESENCE_BYTES,
};

impl SubscriptionLedger {
    /// The account of a partner object; `None`: of those who are nobody's.
    #[must_use]
    pub fn share(&self, object: Option<&str>) -> SipShare {
        let share = SipShare::of(object);
        let known = self.shares.get_key_value(&share);
        known.map_or(share, |(known, _)| known.clone())
    }

    /// `new` is held in place of `old`; `false`: there is no room, and nothing has changed. What grows in nothing is
    /// always taken.
    #[must_use]
    pub fn change(
        &mut self,
        share: &SipShare,
        old: HeldSubscriptions,
        new: HeldSubscriptions,
    ) -> bool {
        let held = self.shares.get(share).copied().unwrap_or_default();
        let fits = |held: HeldSubscriptions, parts: usize| {
            let after = held.with(old, new);
            let pairs = [
                (old.dialogs, new.dialogs, after.dialogs, BOUND.dialogs),
                (
                    old.dialog_bytes,
                    new.dialog_bytes,
                    after.dialog_bytes,
                    BOUND.dialog_bytes,
                ),
                (
                    old.presence_bytes,
                    new.presence_bytes,
                    after.presence_bytes,
                    BOUND.presence_bytes,
                ),
            ];
            let within = |(old, new, after, most)| new <= old || after <= most / parts;
            pairs.into_iter().all(within)
        };
        if !fits(held, SHARES) || !fits(self.total, 1) {
            return false;
        }
        self.total = self.total.with(old, new);
        let held = held.with(old, new);
        if held == HeldSubscriptions::default() {
            self.shares.remove(share);
        } else {
            self.shares.insert(share.clone(), held);
        }
        true
    }

    /// `old` is held no more.
    pub fn release(&mut self, share: &SipShare, old: HeldSubscriptions) {
        let released = self.change(share, old, HeldSubscriptions::default());
        debug_assert!(released, "less always fits");
    }

    /// All that is held.
    #[must_use]
    pub fn total(&self) -> HeldSubscriptions {
        self.total
    }
}

impl HeldSubscriptions {
    fn with(self, old: Self, new: Self) -> Self {
        let of = |held: usize, old: usize, new: usize| (held + new).saturating_sub(old);
        Self {
            dialogs: of(self.dialogs, old.dialogs, new.dialogs),
            dialog_bytes: of(self.dialog_bytes, old.dialog_bytes, new.dialog_bytes),
            presence_bytes: of(self.presence_bytes, old.presence_bytes, new.presence_bytes),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dialogs(dialogs: usize) -> HeldSubscriptions {
        HeldSubscriptions {
            dialogs,
            ..HeldSubscriptions::default()
        }
    }

    fn presence(presence_bytes: usize) -> HeldSubscriptions {
        HeldSubscriptions {
            presence_bytes,
            ..HeldSubscriptions::default()
        }
    }

    const NOTHING: HeldSubscriptions = HeldSubscriptions {
        dialogs: 0,
        dialog_bytes: 0,
        presence_bytes: 0,
    };

    #[test]
    fn sip_43_one_partner_takes_a_quarter_and_all_together_no_more_than_there_is() {
        let mut ledger = SubscriptionLedger::default();
        let quarter = MAX_DIALOGS / SHARES;
        for name in ["a", "b", "c", "d"] {
            let share = ledger.share(Some(name));
            assert!(ledger.change(&share, NOTHING, dialogs(quarter)), "{name}");
            assert!(!ledger.change(&share, NOTHING, dialogs(1)), "{name}");
        }
        let late = ledger.share(None);
        assert!(!ledger.change(&late, NOTHING, dialogs(1)));
        let first = ledger.share(Some("a"));
        ledger.release(&first, dialogs(1));
        assert!(ledger.change(&late, NOTHING, dialogs(1)));
        assert_eq!(ledger.total().dialogs, MAX_DIALOGS);
    }

    #[test]
    fn what_shrinks_is_taken_however_full_it_is_and_nothing_is_left_of_who_has_nothing() {
        let mut ledger = SubscriptionLedger::default();
        let share = ledger.share(Some("a"));
        let most = MAX_PRESENCE_BYTES / SHARES;
        assert!(ledger.change(&share, NOTHING, presence(most)));
        assert!(!ledger.change(&share, presence(10), presence(11)));
        assert!(ledger.change(&share, presence(most), presence(most - 1)));
        ledger.release(&share, presence(most - 1));
        assert_eq!(ledger.total(), NOTHING);
        assert!(ledger.shares.is_empty());
    }
}
