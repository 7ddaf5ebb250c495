//! What a peer ends its stream over is found, and its neighbours are delivered.

use super::*;

/// How a peer ends its streams.
#[derive(Clone, Copy, Debug)]
enum Ends {
    /// It says that it is over what it was sent.
    Saying,
    WithoutWord,
    /// The first stream ends for another reason, before anything is handled; the others as above.
    AfterRestart,
    /// Each stream ends without a word over whatever comes.
    Always,
}

#[derive(Debug, Default)]
struct Told {
    arrived: Vec<u64>,
    /// Those that the peer ended a stream over, or that were given up.
    answered: Vec<u64>,
    streams: usize,
    /// How often each was handed to the peer, at most.
    sent: usize,
}

/// One pair whose peer confirms stanza by stanza, up to the one that it ends the stream over.
fn peer_that_ends_streams(ends: Ends, bad: &[u64], count: u64) -> Told {
    let total = MemoryBudget::default();
    let mut lane = Lane::new(0, &total);
    let ledger = Arc::clone(&lane.ledger);
    let now = Instant::now();
    let mut builder = BatchBuilder::default();
    for number in 0..count {
        builder.add(number, 8, |out| out.extend(format!("<0-{number}>").bytes()));
    }
    let batch = builder.take(Some(&ledger), now).expect("some");
    lane.route.enqueue(Queued::Stanzas(batch), now);
    let (mut told, mut sent) = (Told::default(), BTreeMap::<u64, usize>::new());
    while lane.route.waiting() > 0 {
        told.streams += 1;
        assert!(told.streams < 100, "it does not end");
        let restarts = matches!(ends, Ends::AfterRestart) && told.streams == 1;
        let mut hop = Hop::new(Way::Acks);
        assert!(lane.route.attach(&hop.wake, 0).is_some());
        let mut handled = 0;
        let ended = 'stream: loop {
            let window = hop.egress.window();
            if hop.egress.takes_more()
                && let Some(Queued::Stanzas(batch)) = lane.route.dequeue(&hop.wake, window)
            {
                hop.egress.send(&lane.route, batch, now);
                continue;
            }
            if hop.egress.is_empty() {
                break false;
            }
            while !hop.egress.is_empty() {
                let front = hop.egress.front().to_vec();
                hop.bytes.extend(&front);
                hop.egress.wrote(front.len());
            }
            let got = hop.got();
            for (_, number) in &got[handled as usize..] {
                if restarts || matches!(ends, Ends::Always) || bad.contains(number) {
                    break 'stream true;
                }
                told.arrived.push(*number);
                handled += 1;
            }
            hop.egress.acked(handled, now).expect("a right count");
        };
        for (_, number) in hop.got() {
            *sent.entry(number).or_default() += 1;
        }
        let blame = match ends {
            _ if !ended => Blame::Nothing,
            Ends::Saying => Blame::Content,
            Ends::AfterRestart if !restarts => Blame::Size,
            Ends::AfterRestart | Ends::WithoutWord | Ends::Always => Blame::Unsaid,
        };
        // What it had handled, it had confirmed.
        hop.egress.acked(handled, now).expect("a right count");
        let mut again = Vec::new();
        let has_confirmed = hop.egress.has_confirmed();
        for returned in hop.egress.hand_back(blame, now) {
            if blame == Blame::Unsaid && returned.lost.iter().any(|batch| batch.is_suspect) {
                returned.route.searched(has_confirmed);
            }
            again.extend(returned.again);
            for mut batch in returned.culprits.into_iter().chain(returned.lost) {
                while let Some((bytes, receipt)) = batch.take_first() {
                    let text = std::str::from_utf8(&bytes).expect("ASCII");
                    told.answered.push(read(text).1);
                    receipt.expect("custody").settle();
                }
            }
        }
        lane.dial = lane
            .route
            .detach(&hop.wake, again)
            .map_or(lane.dial, |dial| dial.number);
    }
    assert_eq!((ledger.settled(), total.held()), (count, 0));
    told.sent = sent.into_values().max().unwrap_or_default();
    told
}

proptest! {
    /// Issue: a fault is as small as it can be.
    #[test]
    fn what_ends_a_stream_is_found_and_answered_and_each_neighbour_arrives_once(
        bad in prop::collection::btree_set(0_u64..20, 0..4),
        ends in prop::sample::select(vec![Ends::Saying, Ends::WithoutWord, Ends::AfterRestart]),
    ) {
        let bad: Vec<_> = bad.into_iter().collect();
        let told = peer_that_ends_streams(ends, &bad, 20);
        let good: Vec<_> = (0..20).filter(|number| !bad.contains(number)).collect();
        prop_assert_eq!(&told.arrived, &good, "{:?}", told);
        prop_assert_eq!(&told.answered, &bad, "{:?}", told);
        prop_assert!(told.sent <= 3, "{:?}", told);
    }
}

#[test]
fn a_server_that_ends_every_stream_gets_nothing_a_fourth_time_and_few_streams() {
    let told = peer_that_ends_streams(Ends::Always, &[], 50);
    assert_eq!((told.arrived.len(), told.answered.len()), (0, 50));
    assert!(told.sent <= 3 && told.streams <= 8, "{told:?}");
}

/// One stanza after the other of these sizes, written and by that delivered.
fn written(sizes: &[usize]) -> SendBuffer {
    let total = MemoryBudget::default();
    let lane = Lane::new(0, &total);
    let now = Instant::now();
    let mut buffer = SendBuffer::default();
    for size in sizes {
        buffer.send(&lane.route, Batch::reply(vec![b'x'; *size], None, now), now);
        while !buffer.is_empty() {
            let count = buffer.front().len();
            buffer.wrote(count);
        }
        buffer.flushed();
    }
    assert_eq!(buffer.in_custody(), 0, "written is delivered");
    buffer
}

#[test]
fn s9_the_size_that_ended_a_stream_is_known_where_the_peer_confirms_nothing() {
    let now = Instant::now();
    for (blame, sizes, expected) in [
        (Blame::Size, &[100, 16_000, 200][..], Some(16_000)),
        (Blame::Size, &[100, 200_000, 200], Some(200_000)),
        (Blame::Size, &[100, 9_000, 200], None),
        (Blame::Unread, &[100, 200_000, 200], Some(200_000)),
        // It may be anything that could not be read.
        (Blame::Unread, &[100, 16_000, 200], None),
        (Blame::Unread, &[100, 200_000, 190_000], None),
        (Blame::Content, &[100, 200_000, 200], None),
        (Blame::Unsaid, &[100, 200_000, 200], None),
    ] {
        let found = written(sizes).too_large_written(blame, now);
        let bytes = found.map(|(_, bytes)| bytes);
        assert_eq!(bytes, expected, "{blame:?} {sizes:?}");
    }
    let later = now + std::time::Duration::from_secs(60);
    let found = written(&[200_000]).too_large_written(Blame::Size, later);
    assert!(found.is_none(), "long ago");
}

#[test]
fn s9_sizes_are_told_by_what_peers_say_of_them() {
    let blame = |condition: &str| {
        Blame::of(&Fault::PeerError {
            condition: condition.to_owned(),
            text: String::new(),
        })
    };
    for condition in ["policy-violation", "not-well-formed", "xml-not-well-formed"] {
        assert!(blame(condition).may_be_size(), "{condition}");
    }
    for condition in ["invalid-xml", "system-shutdown", "conflict"] {
        assert!(!blame(condition).may_be_size(), "{condition}");
    }
}

/// Else each partner could have it refuse a stanza of his, and shrink what all others may send.
#[test]
fn a_server_inside_teaches_no_size_by_what_one_partner_had_it_refuse_but_of_large_stanzas() {
    let policy = Blame::Size;
    for (blame, side, bytes, expected) in [
        (policy, Side::Partner, 10_001, true),
        (Blame::Unread, Side::Partner, 10_001, true),
        (policy, Side::Partner, 10_000, false),
        (policy, Side::Gateway, 32_767, false),
        (policy, Side::Gateway, 32_768, true),
        (Blame::Unread, Side::Gateway, 200_000, false),
        (Blame::Content, Side::Partner, 200_000, false),
    ] {
        let teaches = blame.teaches_size(side, bytes);
        assert_eq!(teaches, expected, "{blame:?} {side:?} {bytes}");
    }
}

#[test]
fn a_stanza_that_is_large_where_no_other_is_does_not_go_again() {
    let total = MemoryBudget::default();
    let lane = Lane::new(0, &total);
    let now = Instant::now();
    let mut hop = Hop::new(Way::Acks);
    assert!(lane.route.attach(&hop.wake, 0).is_some());
    let mut builder = BatchBuilder::default();
    for (number, size) in [(0, 100), (1, 200_000), (2, 100)] {
        builder.add(number, size, |out| out.resize(out.len() + size, b'x'));
    }
    let batch = builder.take(Some(&lane.ledger), now).expect("three");
    lane.route.enqueue(Queued::Stanzas(batch), now);
    let Some(Queued::Stanzas(batch)) = lane.route.dequeue(&hop.wake, hop.egress.window()) else {
        panic!("they wait");
    };
    hop.egress.send(&lane.route, batch, now);
    // The peer reads a part of the large one.
    hop.egress.wrote(131_072);
    let [returned] = &hop.egress.hand_back(Blame::Size, now)[..] else {
        panic!("of one pair");
    };
    let sizes = |batches: &[Batch]| batches.iter().map(Batch::largest).collect::<Vec<_>>();
    assert_eq!(sizes(&returned.culprits), [200_000]);
    assert_eq!(sizes(&returned.again), [100, 100]);
    assert!(returned.lost.is_empty());
}

#[test]
fn errors_are_made_as_the_peer_confirms_those_before_them() {
    let total = MemoryBudget::default();
    let lane = Lane::new(0, &total);
    let mut hop = Hop::new(Way::Acks);
    let (now, mut sent) = (Instant::now(), 0);
    while hop.egress.window().takes_errors {
        let portion = Batch::reply(vec![b'e'; 32 * 1024], None, now);
        hop.egress.send(&lane.route, portion, now);
        sent += 1;
        while !hop.egress.is_empty() {
            let count = hop.egress.front().len();
            hop.egress.wrote(count);
        }
    }
    assert_eq!(sent, 8, "a quarter of a MiB is unconfirmed");
    hop.egress.acked(1, now).expect("it was written");
    assert!(hop.egress.window().takes_errors);
    hop.egress.hand_back(Blame::Nothing, now);
    assert!(hop.egress.window().takes_errors);
}
