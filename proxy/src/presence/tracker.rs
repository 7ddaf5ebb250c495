//! Which presence crossed the edge, so that it can be taken back: when a policy forbids it, and when
//! a partner is gone. In memory, per replica, bounded; a restart forgets it.

use std::collections::{BTreeSet, HashMap};

use parking_lot::Mutex;
use xmpp_edge_crds::{domain::DomainName, jid::BareJid, verdict::Direction};

use crate::{
    config::ActiveConfig,
    negotiation::{Pair, Side},
    xml::{
        rewrite,
        stanza::{Stanza, StanzaKind},
    },
};

/// Most presences remembered; more are not remembered.
const MOST: usize = 200_000;

#[derive(Debug, Default)]
pub struct PresenceTracker {
    state: Mutex<HashMap<Key, SeenPresence>>,
}

/// How somebody was seen.
#[derive(Clone, Debug)]
struct SeenPresence {
    direction: Direction,
    /// By the account: each of its devices.
    by_account: bool,
    /// By one device, or by a room under this nickname: the full JID of the last such presence. A
    /// room does not let go of an occupant whose `unavailable` comes to the room itself.
    by_resource: Option<Box<str>>,
}

/// Full JID that is available, and the bare JID that saw it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    from: Box<str>,
    to: Box<str>,
}

/// Who sees whose presence: user and contact, bare.
pub type Subscriptions = BTreeSet<(String, String)>;

/// A stanza of our own: to whom, and its bytes.
pub type OwnStanza = (Side, Pair, Vec<u8>);

impl PresenceTracker {
    /// A presence passed.
    pub fn note(&self, direction: Direction, stanza: &Stanza<'_>) {
        debug_assert_eq!(stanza.kind, StanzaKind::Presence);
        let (Some(from), Some(to_text)) = (stanza.from.as_deref(), stanza.to.as_deref()) else {
            return;
        };
        let Ok(to) = BareJid::of_full(to_text) else {
            return;
        };
        let key = Key {
            from: from.into(),
            to: to.to_string().into(),
        };
        let resource = to_text.contains('/').then_some(to_text);
        let mut state = self.state.lock();
        match stanza.type_.as_deref() {
            None => {
                if state.len() >= MOST && !state.contains_key(&key) {
                    return;
                }
                let sight = state.entry(key).or_insert(SeenPresence {
                    direction,
                    by_account: false,
                    by_resource: None,
                });
                match resource {
                    Some(resource) => sight.by_resource = Some(resource.into()),
                    None => sight.by_account = true,
                }
            }
            Some("unavailable") => match state.get_mut(&key) {
                Some(sight) if resource.is_some() && sight.by_account => sight.by_resource = None,
                Some(_) => {
                    state.remove(&key);
                }
                None => {}
            },
            _ => {}
        }
    }

    /// `unavailable` for all that a new configuration forbids; it is forgotten.
    pub fn forbidden(&self, config: &ActiveConfig) -> Vec<OwnStanza> {
        self.take(|key, direction| {
            let (Ok(from), Ok(to)) = (BareJid::of_full(&key.from), BareJid::of_full(&key.to))
            else {
                return true;
            };
            let (user, remote) = match direction {
                Direction::Outbound => (&from, &to),
                Direction::Inbound => (&to, &from),
            };
            config
                .policy
                .allows(
                    user.local(),
                    user.domain().as_str(),
                    remote.domain().as_str(),
                )
                .is_err()
        })
    }

    /// `unavailable` to everyone inside who saw somebody of `domain`, and who that was, for the
    /// probes when it is back.
    pub fn gone(&self, domain: &DomainName) -> (Vec<OwnStanza>, Subscriptions) {
        let mut pairs = BTreeSet::new();
        let stanzas = self.take(|key, direction| {
            direction == Direction::Inbound
                && BareJid::of_full(&key.from).is_ok_and(|from| {
                    let is = from.domain() == domain;
                    if is {
                        pairs.insert((key.to.to_string(), from.to_string()));
                    }
                    is
                })
        });
        (stanzas, pairs)
    }

    fn take(&self, mut goes: impl FnMut(&Key, Direction) -> bool) -> Vec<OwnStanza> {
        let mut stanzas = Vec::new();
        self.state.lock().retain(|key, sight| {
            if !goes(key, sight.direction) {
                return true;
            }
            let pair = BareJid::of_full(&key.from)
                .ok()
                .zip(BareJid::of_full(&key.to).ok())
                .map(|(from, to)| Pair {
                    from: from.domain().clone(),
                    to: to.domain().clone(),
                });
            if let Some(pair) = pair {
                let side = match sight.direction {
                    Direction::Inbound => Side::Gateway,
                    Direction::Outbound => Side::Partner,
                };
                let account = sight.by_account.then_some(&*key.to);
                for to in account.into_iter().chain(sight.by_resource.as_deref()) {
                    let mut bytes = Vec::new();
                    rewrite::unavailable(&key.from, to, &mut bytes);
                    stanzas.push((side, pair.clone(), bytes));
                }
            }
            false
        });
        stanzas
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.state.lock().len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::xml::{Item, Limits, Scanner};

    /// Notes presences from alice's phone: type and `to` of each.
    fn crossed(presences: &[(&str, &str)]) -> PresenceTracker {
        const HEADER: &str = "<stream:stream xmlns='jabber:server' \
            xmlns:stream='http://etherx.jabber.org/streams' version='1.0'>";
        let crossed = PresenceTracker::default();
        for (type_, to) in presences {
            let text =
                format!("{HEADER}<presence {type_} from='alice@org.example/phone' to='{to}'/>");
            let mut scanner = Scanner::new(Limits::default());
            let taken = scanner.next(text.as_bytes()).unwrap().unwrap().len();
            match scanner.next(&text.as_bytes()[taken..]) {
                Ok(Some(Item::Stanza(stanza))) => crossed.note(Direction::Outbound, &stanza),
                other => panic!("{text}: {other:?}"),
            }
        }
        crossed
    }

    #[test]
    fn unavailable_goes_where_the_presence_was_seen_last() {
        const GONE: &str = "type='unavailable'";
        const ROB: &str = "rob@p.example";
        const DESK: &str = "rob@p.example/desk";
        const NICK: &str = "room@p.example/alice";
        const RENAMED: &str = "room@p.example/ally";
        for (presences, taken_back) in [
            (&[("", ROB)] as &[_], &[ROB] as &[_]),
            (&[("", NICK)], &[NICK]),
            (&[("", NICK), ("", RENAMED)], &[RENAMED]),
            (&[("", NICK), (GONE, NICK)], &[]),
            (&[("", ROB), ("", DESK)], &[ROB, DESK]),
            // The account sees her still.
            (&[("", ROB), ("", DESK), (GONE, DESK)], &[ROB]),
            (&[("", ROB), ("", DESK), (GONE, ROB)], &[]),
            (&[(GONE, ROB), ("type='probe'", ROB)], &[]),
        ] {
            let crossed = crossed(presences);
            let told: Vec<_> = crossed
                .take(|_, _| true)
                .into_iter()
                .map(|(side, pair, bytes)| {
                    assert_eq!(
                        (side, pair.to_string().as_str()),
                        (Side::Partner, "org.example to p.example")
                    );
                    String::from_utf8(bytes).unwrap()
                })
                .collect();
            assert_eq!(told.len(), taken_back.len(), "{presences:?}: {told:?}");
            for (told, to) in told.iter().zip(taken_back) {
                assert!(
                    told.contains(&format!("to='{to}'")),
                    "{presences:?}: {told}"
                );
                assert!(told.contains(GONE), "{told}");
            }
            assert!(crossed.is_empty());
        }
    }
}
