//! How many there may be, and how fast they go.

use super::*;

#[test]
fn sip_39_those_who_watched_before_are_asked_for_50_a_second() {
    let mut bench = Bench::new();
    for number in 0..200 {
        let share = bench.share();
        bench.step(|watchers, step| watchers.resume(step, &numbered(number), share));
    }
    let mut asked = 0;
    for second in 0..4 {
        bench.now = second;
        while bench.asks().is_some() {
            asked += 1;
        }
        let most = 50 * usize::try_from(second).expect("small") + 1;
        assert_eq!(asked, most, "at {second}");
    }
}

#[test]
fn one_partner_of_whom_many_are_asked_for_keeps_no_other_waiting() {
    let mut bench = Bench::new();
    let (much, little) = (SipShare::of(Some("much")), SipShare::of(Some("little")));
    for number in 0..100 {
        let share = much.clone();
        bench.step(|watchers, step| watchers.subscribe(step, &numbered(number), share));
    }
    bench.now = 1;
    bench.step(|watchers, step| watchers.subscribe(step, &numbered(100), little.clone()));
    let mut asked = Vec::new();
    for _ in 0..2 {
        bench.asks().expect("one is due");
        asked.push(bench.ticket.as_ref().expect("one went").share().clone());
    }
    assert_eq!(asked, [much.clone(), little]);
    // Who has as much in work as may be waits, and nothing wakes anybody for it.
    let may = |share: &SipShare| *share != much;
    let call = || CallKey {
        call_id: "x".into(),
        tag: "x".into(),
    };
    let moment = bench.moment();
    assert!(bench.watchers.ask(call, moment, may).is_none());
    assert_eq!(bench.watchers.next_ask(may), None);
}

#[test]
fn sip_43_watches_and_what_they_know_are_bounded_for_each_partner() {
    let mut bench = Bench::new();
    let (share, moment) = (bench.share(), bench.moment());
    let (mut taken, mut events) = (0, Vec::new());
    for number in 0..=MAX_DIALOGS / 4 {
        let mut step = WatchStep {
            ledger: &mut bench.ledger,
            moment,
            events: &mut events,
        };
        let room = bench
            .watchers
            .subscribe(&mut step, &numbered(number), share.clone());
        taken += usize::from(room == WatchRoom::Taken);
    }
    assert_eq!(taken, MAX_DIALOGS / 4);
    let other = bench.ledger.share(Some("other"));
    let full = bench.step(|watchers, step| {
        assert_eq!(
            watchers.subscribe(step, &numbered(usize::MAX), other),
            WatchRoom::Taken
        );
    });
    assert_eq!(full, NOTHING);
}

#[test]
fn sip_43_a_document_without_room_is_told_without_notes_or_not_at_all() {
    let mut bench = Bench::active("a:there");
    let note = Note {
        language: None,
        text: "x".repeat(1_024),
    };
    let full = ReadPresence {
        devices: vec![ReadDevice {
            resource: "a".to_owned(),
            availability: Availability::Available {
                show: None,
                notes: vec![note],
                priority: 0,
            },
        }],
        left_out: 0,
    };
    let said = bench.notifies("active", NotifiedPresence::Document(full.clone()));
    assert_eq!(said, ["a:there"]);
    assert!(bench.ledger.total().presence_bytes > 1_024);
    // Somebody else of the same partner takes the rest.
    let share = bench.share();
    let free = crate::sip::ledger::MAX_PRESENCE_BYTES / 4 - bench.ledger.total().presence_bytes;
    let rest = crate::sip::ledger::HeldSubscriptions {
        presence_bytes: free,
        ..Default::default()
    };
    let nothing = crate::sip::ledger::HeldSubscriptions::default();
    assert!(bench.ledger.change(&share, nothing, rest));
    bench.notifies("active", NotifiedPresence::None);
    let room = bench.ledger.total().presence_bytes;
    assert_eq!(room, free);
    let taken = crate::sip::ledger::HeldSubscriptions {
        presence_bytes: 500,
        ..Default::default()
    };
    assert!(bench.ledger.change(&share, nothing, taken));
    let said = bench.notifies("active", NotifiedPresence::Document(full.clone()));
    assert_eq!(said, ["a:there"]);
    let more = crate::sip::ledger::HeldSubscriptions {
        presence_bytes: 200,
        ..Default::default()
    };
    let _ = bench.ledger.change(&share, nothing, more);
    let mut two = full;
    let mut second = two.devices[0].clone();
    "b".clone_into(&mut second.resource);
    for number in 0..9 {
        second.resource = format!("b{number}");
        two.devices.push(second.clone());
    }
    assert_eq!(
        bench.notifies("active", NotifiedPresence::Document(two)),
        ["a:gone"]
    );
}
