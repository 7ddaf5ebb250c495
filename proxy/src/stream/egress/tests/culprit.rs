//! What a peer ends its stream over is found, and its neighbours are delivered.

use super::*;

/// One pair whose peer confirms stanza by stanza, up to the one that it ends the stream over.
fn peer_that_ends_streams(bad: &[u64], count: u64) -> (Vec<u64>, Vec<u64>, usize) {
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
    let (mut arrived, mut culprits, mut streams) = (Vec::new(), Vec::new(), 0);
    while lane.route.waiting() > 0 {
        streams += 1;
        assert!(streams < 100, "it does not end");
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
                if bad.contains(number) {
                    break 'stream true;
                }
                arrived.push(*number);
                handled += 1;
            }
            hop.egress.acked(handled, now).expect("a right count");
        };
        let blame = if ended {
            Blame::Content
        } else {
            Blame::Nothing
        };
        // What it had handled, it had confirmed.
        hop.egress.acked(handled, now).expect("a right count");
        let mut again = Vec::new();
        for returned in hop.egress.hand_back(blame, now) {
            assert!(returned.lost.is_empty(), "no neighbour is answered");
            again.extend(returned.again);
            for mut culprit in returned.culprits {
                while let Some((bytes, receipt)) = culprit.take_first() {
                    culprits.push(read(std::str::from_utf8(&bytes).expect("ASCII")).1);
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
    (arrived, culprits, streams)
}

proptest! {
    /// Issue: a fault is as small as it can be.
    #[test]
    fn what_ends_a_stream_is_found_and_answered_and_each_neighbour_arrives_once(
        bad in prop::collection::btree_set(0_u64..20, 0..4),
    ) {
        let bad: Vec<_> = bad.into_iter().collect();
        let (arrived, culprits, _) = peer_that_ends_streams(&bad, 20);
        let good: Vec<_> = (0..20).filter(|number| !bad.contains(number)).collect();
        prop_assert_eq!(arrived, good);
        prop_assert_eq!(culprits, bad);
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
