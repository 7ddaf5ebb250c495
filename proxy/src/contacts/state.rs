//! The contact between one user and one remote address: two halves, and what moves them.
//!
//! Pure. *to* is the user's subscription to the remote's presence, *from* the remote's to the
//! user's. A contact may stand with neither: a message with a body made it, or the remote ended
//! both. Only the user ends it (behaviour, section 2, rule 4).

/// A contact that exists, and which halves stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Contact {
    Neither,
    To,
    From,
    Both,
}

/// What was seen between user U and remote R.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ContactEvent {
    /// U's `subscribe` or `probe`: U follows R.
    UserFollows,
    /// U's `subscribed` or available presence: R may follow U.
    UserLetsFollow,
    /// U's message with a body.
    UserWrites,
    /// U's `unsubscribe`.
    UserUnfollows,
    /// U's `unsubscribed`.
    UserWithdraws,
    /// R's `unsubscribed`.
    RemoteWithdraws,
    /// R's `unsubscribe`.
    RemoteUnfollows,
}

impl ContactEvent {
    pub const ALL: [Self; 7] = [
        Self::UserFollows,
        Self::UserLetsFollow,
        Self::UserWrites,
        Self::UserUnfollows,
        Self::UserWithdraws,
        Self::RemoteWithdraws,
        Self::RemoteUnfollows,
    ];

    /// Whether this may make a contact where none was. The others only move or end one.
    #[must_use]
    pub fn adds(self) -> bool {
        matches!(
            self,
            Self::UserFollows | Self::UserLetsFollow | Self::UserWrites
        )
    }

    /// Whether this may end a contact: the user alone does.
    #[must_use]
    pub fn ends(self) -> bool {
        matches!(self, Self::UserUnfollows | Self::UserWithdraws)
    }
}

impl Contact {
    fn of(to: bool, from: bool) -> Self {
        match (to, from) {
            (false, false) => Self::Neither,
            (true, false) => Self::To,
            (false, true) => Self::From,
            (true, true) => Self::Both,
        }
    }

    fn to(self) -> bool {
        matches!(self, Self::To | Self::Both)
    }

    fn from(self) -> bool {
        matches!(self, Self::From | Self::Both)
    }

    /// The state after `event`; `None` is no contact.
    #[must_use]
    pub fn after(state: Option<Self>, event: ContactEvent) -> Option<Self> {
        let (to, from) = state.map_or((false, false), |s| (s.to(), s.from()));
        match event {
            ContactEvent::UserFollows => Some(Self::of(true, from)),
            ContactEvent::UserLetsFollow => Some(Self::of(to, true)),
            ContactEvent::UserWrites => Some(Self::of(to, from)),
            ContactEvent::UserUnfollows => Self::while_any(state, false, from),
            ContactEvent::UserWithdraws => Self::while_any(state, to, false),
            ContactEvent::RemoteWithdraws => state.map(|_| Self::of(false, from)),
            ContactEvent::RemoteUnfollows => state.map(|_| Self::of(to, false)),
        }
    }

    /// The user ended a half: the contact ends with the last one.
    fn while_any(state: Option<Self>, to: bool, from: bool) -> Option<Self> {
        state.filter(|_| to || from).map(|_| Self::of(to, from))
    }

    /// How the stores write it; 0 is no contact.
    #[must_use]
    pub fn encode(state: Option<Self>) -> u8 {
        match state {
            None => 0,
            Some(Self::Neither) => 1,
            Some(Self::To) => 2,
            Some(Self::From) => 3,
            Some(Self::Both) => 4,
        }
    }

    /// A number that no version wrote reads as a contact without halves: it was one.
    #[must_use]
    pub fn decode(code: u8) -> Option<Self> {
        match code {
            0 => None,
            2 => Some(Self::To),
            3 => Some(Self::From),
            4 => Some(Self::Both),
            _ => Some(Self::Neither),
        }
    }
}

/// Any run of events, as what it does to each state: it never grows, whatever happened meanwhile.
/// Stores apply it to what they hold, so that two replicas' events combine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transition([u8; 5]);

impl Transition {
    #[must_use]
    pub fn of(event: ContactEvent) -> Self {
        Self(
            [0, 1, 2, 3, 4]
                .map(|code| Contact::encode(Contact::after(Contact::decode(code), event))),
        )
    }

    /// This, then `next`.
    #[must_use]
    pub fn then(self, next: Self) -> Self {
        Self(self.0.map(|code| next.0[usize::from(code)]))
    }

    #[must_use]
    pub fn apply(self, state: Option<Contact>) -> Option<Contact> {
        Contact::decode(self.0[usize::from(Contact::encode(state))])
    }
}

#[cfg(test)]
mod tests {
    use super::{Contact::*, ContactEvent::*, *};
    use proptest::prelude::*;

    #[test]
    fn each_event_moves_each_state_as_the_design_says() {
        // Rows: event; columns: no contact, neither half, to, from, both.
        let table: [(ContactEvent, [Option<Contact>; 5]); 7] = [
            (
                UserFollows,
                [Some(To), Some(To), Some(To), Some(Both), Some(Both)],
            ),
            (
                UserLetsFollow,
                [Some(From), Some(From), Some(Both), Some(From), Some(Both)],
            ),
            (
                UserWrites,
                [
                    Some(Neither),
                    Some(Neither),
                    Some(To),
                    Some(From),
                    Some(Both),
                ],
            ),
            (UserUnfollows, [None, None, None, Some(From), Some(From)]),
            (UserWithdraws, [None, None, Some(To), None, Some(To)]),
            (
                RemoteWithdraws,
                [None, Some(Neither), Some(Neither), Some(From), Some(From)],
            ),
            (
                RemoteUnfollows,
                [None, Some(Neither), Some(To), Some(Neither), Some(To)],
            ),
        ];
        for (event, expected) in table {
            for (before, after) in [None, Some(Neither), Some(To), Some(From), Some(Both)]
                .into_iter()
                .zip(expected)
            {
                assert_eq!(
                    Contact::after(before, event),
                    after,
                    "{event:?} on {before:?}"
                );
            }
        }
    }

    fn any_event() -> impl Strategy<Value = ContactEvent> {
        (0..ContactEvent::ALL.len()).prop_map(|at| ContactEvent::ALL[at])
    }

    proptest! {
        #[test]
        fn a_run_of_events_combined_does_what_they_do_one_by_one(
            events in prop::collection::vec(any_event(), 1..12), code in 0_u8..5,
        ) {
            let before = Contact::decode(code);
            let one_by_one = events.iter().fold(before, |s, e| Contact::after(s, *e));
            let combined = events.iter().map(|e| Transition::of(*e)).reduce(Transition::then).expect("not empty");
            prop_assert_eq!(combined.apply(before), one_by_one);
        }

        #[test]
        fn only_the_user_makes_or_ends_a_contact(code in 0_u8..5, event in any_event()) {
            let before = Contact::decode(code);
            if Contact::after(before, event).is_some() != before.is_some() {
                prop_assert!(!matches!(event, RemoteWithdraws | RemoteUnfollows));
            }
        }

        #[test]
        fn removing_someone_from_the_roster_ends_the_contact(code in 0_u8..5, first in any::<bool>()) {
            let order = if first { [UserUnfollows, UserWithdraws] } else { [UserWithdraws, UserUnfollows] };
            prop_assert_eq!(order.iter().fold(Contact::decode(code), |s, e| Contact::after(s, *e)), None);
        }
    }
}
