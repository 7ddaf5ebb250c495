use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use proptest::prelude::*;
use xmpp_edge_crds::jid::BareJid;

use super::*;
use crate::sip::{
    dialog::{Dialog, DialogFault},
    share::SipShare,
    turns::TwoPeople,
};

fn people(number: usize) -> TwoPeople {
    TwoPeople {
        from: BareJid::parse(&format!("r{number}@partner.example")).expect("a JID"),
        to: BareJid::parse("alice@org.example").expect("a JID"),
    }
}

struct Bench {
    sessions: Sessions,
    start: Instant,
}

impl Bench {
    fn new() -> Self {
        Self {
            sessions: Sessions::default(),
            start: Instant::now(),
        }
    }

    fn at(&self, seconds: u64) -> Instant {
        self.start + Duration::from_secs(seconds)
    }

    /// U invites R with a call of this name.
    fn accept(
        &mut self,
        call: &str,
        who: usize,
        seconds: u64,
    ) -> Result<SessionNumber, NoSessionRoom> {
        let invite = request("INVITE", call, ("hers", ""), 1);
        let dialog = Dialog::of_request(&invite, "ours", 0).expect("a dialog");
        let now = self.at(seconds);
        let share = SipShare::of(Some("partner"));
        self.sessions
            .accepted(share, people(who), dialog, TypingForm::Activity, now)
    }

    fn take(
        &mut self,
        method: &str,
        call: &str,
        cseq: u32,
        seconds: u64,
    ) -> Result<TwoPeople, DialogFault> {
        let asked = request(method, call, ("hers", "ours"), cseq);
        let now = self.at(seconds);
        self.sessions.take(&asked, now).map(|(_, people)| people)
    }

    fn acknowledge(&mut self, call: &str) {
        let ack = request("ACK", call, ("hers", "ours"), 1);
        self.sessions.acknowledged(&ack);
    }

    fn ended(&mut self, seconds: u64) -> usize {
        let now = self.at(seconds);
        self.sessions.end_due(now).len()
    }
}

#[test]
fn a_session_ends_without_its_ack_and_after_ten_minutes_of_silence() {
    let mut bench = Bench::new();
    assert!(bench.accept("a", 1, 0).is_ok());
    assert!(bench.accept("b", 2, 0).is_ok());
    bench.acknowledge("b");
    assert_eq!(bench.ended(31), 0);
    assert_eq!(bench.ended(32), 1);
    assert_eq!(bench.sessions.of_people(&people(1)), None);
    assert_eq!(bench.take("MESSAGE", "b", 2, 300), Ok(people(2)));
    assert_eq!(bench.sessions.next_deadline(), Some(bench.at(900)));
    let (number, _) = bench.sessions.of_people(&people(2)).expect("it stands");
    let now = bench.at(500);
    assert!(
        bench
            .sessions
            .begin(number, SipMethod::Message, BY, now)
            .is_some()
    );
    assert_eq!(bench.ended(1_099), 0);
    let bye = bench
        .sessions
        .end_due(bench.at(1_100))
        .pop()
        .expect("it is idle");
    let bye = text(bye.bye(BY).expect("written"));
    assert!(
        bye.starts_with("BYE sip:alice@10.0.0.1 SIP/2.0\r\n"),
        "{bye}"
    );
    assert!(bye.contains("CSeq: 2 BYE"), "{bye}");
    assert!(bench.sessions.is_empty() && bench.sessions.next_deadline().is_none());
}

#[test]
fn what_is_of_no_session_or_older_is_not_taken() {
    let mut bench = Bench::new();
    assert!(bench.accept("a", 1, 0).is_ok());
    bench.acknowledge("a");
    assert_eq!(
        bench.take("MESSAGE", "other", 2, 1),
        Err(DialogFault::Other)
    );
    let forged = request("MESSAGE", "a", ("hers", "else"), 2);
    let now = bench.at(1);
    assert_eq!(
        bench.sessions.take(&forged, now).err(),
        Some(DialogFault::Other)
    );
    assert_eq!(
        bench.take("MESSAGE", "a", 1, 1),
        Err(DialogFault::OutOfOrder)
    );
    assert_eq!(bench.take("MESSAGE", "a", 2, 1), Ok(people(1)));
    assert!(
        bench
            .sessions
            .has_call(&request("INVITE", "a", ("hers", ""), 1))
    );
    assert!(
        !bench
            .sessions
            .has_call(&request("INVITE", "a", ("his", ""), 1))
    );
}

#[test]
fn a_cancel_is_of_something_until_the_ack_and_a_second_invite_wants_its_own() {
    let mut bench = Bench::new();
    let number = bench.accept("a", 1, 0).expect("room");
    let cancel = request("CANCEL", "a", ("hers", ""), 1);
    assert!(bench.sessions.is_cancelled_late(&cancel));
    bench.acknowledge("a");
    assert!(!bench.sessions.is_cancelled_late(&cancel));
    let now = bench.at(10);
    bench
        .sessions
        .accepted_again(number, TypingForm::Composing, now);
    assert_eq!(
        bench.sessions.of_people(&people(1)),
        Some((number, TypingForm::Composing))
    );
    assert_eq!(bench.ended(42), 1);
}

#[test]
fn r_writes_in_the_newest_session_and_both_are_read() {
    let mut bench = Bench::new();
    let first = bench.accept("a", 1, 0).expect("room");
    let second = bench.accept("b", 1, 0).expect("room");
    bench.acknowledge("a");
    bench.acknowledge("b");
    let newest = bench.sessions.of_people(&people(1));
    assert_eq!(newest.map(|(number, _)| number), Some(second));
    assert_eq!(bench.take("MESSAGE", "a", 2, 1), Ok(people(1)));
    assert!(bench.sessions.end(first).is_some() && bench.sessions.end(first).is_none());
    assert!(bench.sessions.of_people(&people(1)).is_some());
}

#[test]
fn a_2xx_that_comes_again_is_acknowledged_by_its_session_alone() {
    let mut sessions = Sessions::default();
    let contact = "Contact: <sip:alice@10.0.0.1>\r\n";
    let answer = response(200, "theirs", contact, "v=0\r\nm=message 1 sip x\r\n");
    let (dialog, typing) = accepted(&answer).expect("a dialog");
    let share = SipShare::of(None);
    let begun = sessions.begun(
        share,
        people(1),
        dialog,
        typing.expect("messages"),
        Instant::now(),
    );
    assert!(begun.is_ok());
    let again = sessions
        .acknowledge_again(&answer.response, BY)
        .expect("its own");
    assert!(text(again.expect("written")).contains("CSeq: 1 ACK"));
    let fork = response(200, "fork", contact, "");
    assert!(sessions.acknowledge_again(&fork.response, BY).is_none());
}

#[test]
fn sip_43_one_partner_has_a_quarter_of_the_sessions() {
    let mut bench = Bench::new();
    for number in 0..MAX_SESSIONS / 4 {
        assert!(
            bench.accept(&format!("c{number}"), number, 0).is_ok(),
            "{number}"
        );
    }
    assert_eq!(bench.accept("more", 0, 0), Err(NoSessionRoom::Count));
    assert!(!bench.sessions.has_room(&SipShare::of(Some("partner"))));
    assert!(bench.sessions.has_room(&SipShare::of(Some("another"))));
    let over = bench
        .sessions
        .end_where(|people| people.from.local() == Some("r0"));
    assert_eq!(over.len(), 1);
    assert!(bench.accept("more", 0, 0).is_ok());
    let other = bench.sessions.end_where(|_| true);
    assert_eq!(other.len(), MAX_SESSIONS / 4);
    let long = "c".repeat(4_080);
    assert_eq!(bench.accept(&long, 0, 0).err(), Some(NoSessionRoom::Bytes));
}

proptest! {
    /// Whatever happens, what is held is what stands, and each session is found by its people until a newer one is.
    #[test]
    fn nothing_is_left_of_who_ended(steps in proptest::collection::vec((0_usize..4, 0_u8..4), 1..100)) {
        let mut bench = Bench::new();
        let mut open: HashMap<usize, (SessionNumber, usize)> = HashMap::new();
        for (at, (who, what)) in steps.into_iter().enumerate() {
            let seconds = at as u64;
            match what {
                0 => {
                    let number = bench.accept(&format!("c{at}"), who, seconds).expect("room");
                    bench.acknowledge(&format!("c{at}"));
                    open.insert(at, (number, who));
                }
                1 => {
                    let own: Vec<usize> = open.keys().copied().collect();
                    if let Some(call) = own.iter().min() {
                        let (number, _) = open.remove(call).expect("open");
                        prop_assert!(bench.sessions.end(number).is_some());
                    }
                }
                2 => {
                    let over = bench.sessions.end_where(|it| *it == people(who));
                    let before = open.len();
                    open.retain(|_, (_, own)| *own != who);
                    prop_assert_eq!(over.len(), before - open.len());
                }
                _ => {
                    for call in open.keys() {
                        let cseq = u32::try_from(at).expect("small") + 2;
                        let taken = bench.take("MESSAGE", &format!("c{call}"), cseq, seconds);
                        prop_assert!(taken.is_ok());
                    }
                }
            }
            prop_assert_eq!(bench.sessions.len(), open.len());
            for who in 0..4 {
                if let Some((number, _)) = bench.sessions.of_people(&people(who)) {
                    prop_assert!(open.values().any(|it| *it == (number, who)));
                }
            }
        }
        let left = bench.sessions.end_where(|_| true);
        prop_assert_eq!(left.len(), open.len());
        prop_assert!(bench.sessions.next_deadline().is_none());
    }
}
