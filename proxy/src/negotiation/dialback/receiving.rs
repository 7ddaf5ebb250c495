//! The pairs that a peer asked for on one stream, and the verifications under way: bounded, and
//! every verdict is matched by the number it was asked under.

use xmpp_edge_crds::{domain::DomainName, negotiation::Method};

use crate::negotiation::{
    MAX_PAIRS, MAX_PENDING, Pair, WireNames,
    pairs::{AuthenticatedPair, PairClaim},
};

/// What to do with a pair that the peer asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::negotiation) enum KeyRequest {
    /// New: verify it under this number.
    Ask(u32),
    /// The stream carries it already: that is answered at once (XEP-0220 section 2.1.1), and changes nothing.
    Authenticated,
    /// Its key is being verified; the answer to that is the answer to both.
    Pending,
    /// One too many.
    Full,
}

/// By what the peer's domain of a pair was admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::negotiation) enum Admitted {
    /// It is named itself: there are as many as somebody wrote down.
    ByName,
    ByWildcard,
}

/// Pairs of one inbound stream.
#[derive(Debug, Default)]
pub(in crate::negotiation) struct PairTable {
    authenticated: Vec<AuthenticatedPair>,
    /// With how the peer wrote its names.
    pending: Vec<(u32, PairClaim, WireNames)>,
    next: u32,
}

impl PairTable {
    pub(crate) fn authenticated(&self) -> &[AuthenticatedPair] {
        &self.authenticated
    }

    /// Whether nothing is authenticated and nothing may yet become so.
    pub(crate) fn is_empty(&self) -> bool {
        self.authenticated.is_empty() && self.pending.is_empty()
    }

    /// The peer asks for `pair` by a key.
    pub(crate) fn request(
        &mut self,
        pair: &Pair,
        admitted: Admitted,
        method: Method,
        names: WireNames,
    ) -> KeyRequest {
        if self.authenticated.iter().any(|known| known.pair() == pair) {
            return KeyRequest::Authenticated;
        }
        if self.pending.iter().any(|(_, claim, _)| claim.pair == *pair) {
            return KeyRequest::Pending;
        }
        let most = match admitted {
            Admitted::ByName => MAX_PAIRS,
            Admitted::ByWildcard => MAX_PENDING,
        };
        if self.pending.len() >= most || self.authenticated.len() + self.pending.len() >= MAX_PAIRS
        {
            return KeyRequest::Full;
        }
        self.next = self.next.wrapping_add(1);
        self.pending.push((
            self.next,
            PairClaim {
                pair: pair.clone(),
                method,
            },
            names,
        ));
        KeyRequest::Ask(self.next)
    }

    /// The sender of the pair whose key is being verified under this number.
    pub(crate) fn asker(&self, request: u32) -> Option<&DomainName> {
        let own = self.pending.iter().find(|(number, ..)| *number == request);
        own.map(|(_, claim, _)| &claim.pair.from)
    }

    /// Takes the verification of this number out; `None` if there is none (any more).
    pub(crate) fn settle(&mut self, request: u32) -> Option<(PairClaim, WireNames)> {
        let at = self
            .pending
            .iter()
            .position(|(number, ..)| *number == request)?;
        let (_, claim, names) = self.pending.swap_remove(at);
        Some((claim, names))
    }

    /// Takes the pair as authenticated; `false` if it already was.
    pub(crate) fn authenticate(&mut self, pair: AuthenticatedPair) -> bool {
        let new = !self
            .authenticated
            .iter()
            .any(|old| old.pair() == pair.pair());
        if new {
            // Most streams carry one pair for all their life.
            self.authenticated.reserve_exact(1);
            self.authenticated.push(pair);
        }
        new
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::negotiation::pairs;

    fn pair(number: usize) -> Pair {
        Pair {
            from: format!("p{number}.example").parse().expect("valid"),
            to: "org.example".parse().expect("valid"),
        }
    }

    #[test]
    fn s15_keys_of_a_listed_domain_wait_for_one_another_up_to_the_bound_on_pairs() {
        let mut receiving = PairTable::default();
        let mut ask = |number| {
            let names = WireNames::default();
            receiving.request(&pair(number), Admitted::ByName, Method::TlsDialback, names)
        };
        for number in 0..MAX_PAIRS {
            assert!(matches!(ask(number), KeyRequest::Ask(_)), "{number}");
        }
        assert_eq!(ask(MAX_PAIRS), KeyRequest::Full);
        assert_eq!(ask(0), KeyRequest::Pending);
    }

    /// D-20, D-21.
    #[test]
    fn verifications_in_flight_and_pairs_are_bounded() {
        let ask = |receiving: &mut PairTable, number| {
            let names = WireNames::default();
            let admitted = Admitted::ByWildcard;
            receiving.request(&pair(number), admitted, Method::TlsDialback, names)
        };
        let mut receiving = PairTable::default();
        let mut numbers = Vec::new();
        for number in 0..MAX_PENDING {
            let KeyRequest::Ask(asked) = ask(&mut receiving, number) else {
                panic!("{number} was refused");
            };
            numbers.push(asked);
        }
        assert_eq!(ask(&mut receiving, MAX_PENDING), KeyRequest::Full);
        assert_eq!(ask(&mut receiving, 0), KeyRequest::Pending);
        let (settled, _) = receiving.settle(numbers[0]).expect("asked");
        assert_eq!(receiving.settle(numbers[0]), None, "a verdict counts once");
        assert!(receiving.authenticate(pairs::taken(settled.clone())));
        assert!(!receiving.authenticate(pairs::taken(settled)));
        assert_eq!(ask(&mut receiving, 0), KeyRequest::Authenticated);
        for number in 0..MAX_PAIRS {
            if let KeyRequest::Ask(asked) = ask(&mut receiving, number) {
                let (known, _) = receiving.settle(asked).expect("asked");
                receiving.authenticate(pairs::taken(known));
            }
        }
        for asked in &numbers[1..] {
            let (known, _) = receiving.settle(*asked).expect("asked");
            receiving.authenticate(pairs::taken(known));
        }
        let mut more = MAX_PAIRS;
        while let KeyRequest::Ask(asked) = ask(&mut receiving, more) {
            let (known, _) = receiving.settle(asked).expect("asked");
            receiving.authenticate(pairs::taken(known));
            more += 1;
        }
        assert_eq!(receiving.authenticated().len(), MAX_PAIRS);
    }
}
