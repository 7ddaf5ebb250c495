#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;

fn service(target: &str, priority: u16, weight: u16, direct_tls: bool) -> Service {
    let target = DomainName::parse(target).unwrap();
    Service {
        priority,
        weight,
        port: 5269,
        target,
        direct_tls,
    }
}

/// Reproducible draws (xorshift64).
fn seeded(mut state: u64) -> impl FnMut(u64) -> u64 {
    move |n| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % n
    }
}

///
#[test]
fn weights_one_and_nine_share_in_exact_proportion() {
    let mut below = seeded(0x9e37_79b9_7f4a_7c15);
    let records = [
        service("one.example", 10, 1, false),
        service("nine.example", 10, 9, true),
    ];
    let first = |_| order(records.to_vec(), &mut below)[0].weight;
    let ones = (0..10_000).map(first).filter(|weight| *weight == 1).count();
    // Expected 1,000; four standard deviations are 120.
    assert!((880..=1_120).contains(&ones), "{ones} of 10,000");
}

/// one list of both services, priority before all else.
#[test]
fn both_services_are_one_list_by_priority() {
    let records = vec![
        service("c.example", 20, 0, true),
        service("a.example", 5, 1, false),
        service("b.example", 10, 65_535, true),
        service("d.example", 20, 7, false),
    ];
    let ordered = order(records, seeded(7));
    let names: Vec<_> = ordered
        .iter()
        .map(|record| record.target.as_str())
        .collect();
    assert_eq!(names, ["a.example", "b.example", "d.example", "c.example"]);
}

#[test]
fn records_of_weight_zero_alone_share_evenly() {
    let mut below = seeded(99);
    let records: Vec<_> = ["a.example", "b.example", "c.example"]
        .map(|t| service(t, 1, 0, false))
        .into();
    let mut first = [0; 3];
    for _ in 0..3_000 {
        let winner = order(records.clone(), &mut below)[0].target.clone();
        first[records
            .iter()
            .position(|record| record.target == winner)
            .unwrap()] += 1;
    }
    assert!(
        first.iter().all(|count| (870..=1_130).contains(count)),
        "{first:?}"
    );
}

proptest! {
    #[test]
    fn order_loses_and_invents_nothing(
        shape in proptest::collection::vec((0_u16..4, 0_u16..=u16::MAX, any::<bool>()), 0..20),
        seed in 1_u64..,
    ) {
        let records: Vec<_> = shape
            .iter()
            .enumerate()
            .map(|(n, (priority, weight, direct))| service(&format!("h{n}.example"), *priority, *weight, *direct))
            .collect();
        let ordered = order(records.clone(), seeded(seed));
        prop_assert!(ordered.is_sorted_by_key(|record| record.priority));
        prop_assert_eq!(ordered.len(), records.len());
        prop_assert!(records.iter().all(|record| ordered.contains(record)));
    }
}
