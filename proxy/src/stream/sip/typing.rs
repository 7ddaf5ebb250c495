//! Who was told that somebody is writing, and who does not want to hear it (RFC 3994, XEP-0085).

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use xmpp_edge_crds::jid::BareJid;

use crate::sip::{code::StatusCode, message::ChatState, turns::TwoPeople};

/// Most that are remembered of each kind. Of who is beyond these, an end of writing is not told.
const MOST: usize = 10_000;
/// After this what was told is over by itself: twice the `refresh` that is said.
const TOLD_FOR: Duration = Duration::from_secs(120);
/// Who refused it is not told again for so long.
const REFUSED_FOR: Duration = Duration::from_secs(3_600);

/// What SIP users were told of users of XMPP.
#[derive(Debug, Default)]
pub(super) struct ToldTyping {
    told: HashMap<TwoPeople, Instant>,
    refuse: HashMap<BareJid, Instant>,
}

impl ToldTyping {
    /// Whether the addressee is to be told, and remembers that.
    pub(super) fn tells(&mut self, people: &TwoPeople, state: ChatState, now: Instant) -> bool {
        let refuses = self.refuse.get(&people.to);
        if refuses.is_some_and(|until| now < *until) {
            return false;
        }
        let told = self.told.remove(people).is_some_and(|until| now < until);
        match state {
            ChatState::NotComposing => told,
            ChatState::Composing => {
                remember_until(&mut self.told, people.clone(), now + TOLD_FOR, now);
                true
            }
        }
    }

    /// A text goes: it says by itself that its sender has stopped writing (RFC 3994 section 3.3).
    pub(super) fn texted(&mut self, people: &TwoPeople) {
        self.told.remove(people);
    }

    /// How `to` answered.
    pub(super) fn answered(&mut self, to: &BareJid, code: StatusCode, now: Instant) {
        if matches!(code.get(), 405 | 406 | 415 | 501) {
            remember_until(&mut self.refuse, to.clone(), now + REFUSED_FOR, now);
        }
    }
}

/// SIP users that are writing, until they say more or their time is over.
#[derive(Debug, Default)]
pub(super) struct WritingUsers(HashMap<TwoPeople, Instant>);

impl WritingUsers {
    /// They write for so long. `false`: nobody will be told that they stopped, so that nobody is told that they write.
    pub(super) fn writes(&mut self, people: TwoPeople, refresh: Duration, now: Instant) -> bool {
        if self.0.len() >= MOST && !self.0.contains_key(&people) {
            return false;
        }
        self.0.insert(people, now + refresh);
        true
    }

    /// They do not write any more, by their own word or by a text; says whether they did.
    pub(super) fn stops(&mut self, people: &TwoPeople) -> bool {
        self.0.remove(people).is_some()
    }

    /// Those whose time is over.
    pub(super) fn expired(&mut self, now: Instant) -> Vec<TwoPeople> {
        let over = self.0.extract_if(|_, until| *until <= now);
        over.map(|(people, _)| people).collect()
    }

    /// Whether nobody writes.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// `key` is remembered until then; of more than there is room for, what is over is forgotten.
pub(super) fn remember_until<K: std::hash::Hash + Eq>(
    map: &mut HashMap<K, Instant>,
    key: K,
    until: Instant,
    now: Instant,
) {
    if map.len() >= MOST {
        map.retain(|_, until| now < *until);
    }
    if map.len() < MOST {
        map.insert(key, until);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn people(from: &str) -> TwoPeople {
        TwoPeople {
            from: BareJid::parse(from).expect("a JID"),
            to: BareJid::parse("u@org.example").expect("a JID"),
        }
    }

    #[test]
    fn sip_12_only_who_was_told_of_writing_is_told_of_its_end() {
        let (mut told, now) = (ToldTyping::default(), Instant::now());
        let (a, b) = (people("a@partner.example"), people("b@partner.example"));
        assert!(!told.tells(&a, ChatState::NotComposing, now));
        assert!(told.tells(&a, ChatState::Composing, now));
        assert!(!told.tells(&b, ChatState::NotComposing, now));
        assert!(told.tells(&a, ChatState::NotComposing, now));
        assert!(!told.tells(&a, ChatState::NotComposing, now), "once");
        assert!(told.tells(&a, ChatState::Composing, now));
        told.texted(&a);
        assert!(!told.tells(&a, ChatState::NotComposing, now));
        assert!(told.tells(&a, ChatState::Composing, now));
        assert!(!told.tells(&a, ChatState::NotComposing, now + TOLD_FOR));
    }

    #[test]
    fn sip_14_who_refuses_it_is_left_alone_for_an_hour() {
        let (mut told, now) = (ToldTyping::default(), Instant::now());
        let a = people("a@partner.example");
        let code = |code| StatusCode::new(code).expect("a code");
        told.answered(&a.to, code(480), now);
        assert!(told.tells(&a, ChatState::Composing, now));
        told.answered(&a.to, code(415), now);
        assert!(!told.tells(&a, ChatState::Composing, now));
        assert!(told.tells(&a, ChatState::Composing, now + REFUSED_FOR));
    }

    #[test]
    fn sip_13_writing_is_over_with_its_time() {
        let (mut writing, now) = (WritingUsers::default(), Instant::now());
        let a = people("a@partner.example");
        assert!(writing.writes(a.clone(), Duration::from_secs(60), now));
        assert!(writing.expired(now + Duration::from_secs(59)).is_empty());
        assert_eq!(
            writing.expired(now + Duration::from_secs(60)),
            std::slice::from_ref(&a)
        );
        assert!(!writing.stops(&a) && writing.is_empty());
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let (mut told, mut writing) = (ToldTyping::default(), WritingUsers::default());
        let now = Instant::now();
        for number in 0..=MOST {
            let who = people(&format!("r{number}@partner.example"));
            told.tells(&who, ChatState::Composing, now);
            assert_eq!(writing.writes(who, TOLD_FOR, now), number < MOST);
        }
        assert_eq!(told.told.len(), MOST);
        // What is over makes room.
        assert!(told.tells(
            &people("x@partner.example"),
            ChatState::Composing,
            now + TOLD_FOR
        ));
        assert_eq!(told.told.len(), 1);
    }
}
