//! How many there may be of two people, and what they take.

use super::*;
use crate::sip::{
    dialog::DialogFault,
    ledger::{HeldSubscriptions, MAX_DIALOG_BYTES},
};

#[test]
fn sip_43_a_refresh_that_takes_more_is_charged_or_changes_nothing() {
    let mut bench = Bench::active("a");
    let before = bench.ledger.total();
    let refresh = |bench: &mut Bench, host: &str, cseq| {
        let request = subscribe_from(host, "a", ";tag=ours", cseq);
        let at_end = bench.at_end;
        bench.step(|notifiers, step| notifiers.refresh(step, &request, &wish(600), at_end))
    };
    let longer = "x".repeat("10.0.0.1".len() + 100);
    assert_eq!(refresh(&mut bench, &longer, 2), Ok(600));
    let grown = bench.ledger.total().dialog_bytes - before.dialog_bytes;
    assert_eq!(grown, 200, "in the index, too");

    // The rest is somebody else's of the same partner.
    let rest = HeldSubscriptions {
        dialog_bytes: MAX_DIALOG_BYTES / 4 - bench.ledger.total().dialog_bytes,
        ..HeldSubscriptions::default()
    };
    let share = bench.ledger.share(Some("partner"));
    assert!(
        bench
            .ledger
            .change(&share, HeldSubscriptions::default(), rest)
    );
    let full = bench.ledger.total();
    let longest = format!("{longer}x");
    assert_eq!(refresh(&mut bench, &longest, 3), Err(DialogFault::TooLong));
    assert_eq!(bench.ledger.total(), full);
    assert_eq!(refresh(&mut bench, &longer, 3), Ok(600), "it is as before");
    bench.all();
    assert_eq!(refresh(&mut bench, &longer, 4).map(|_| ()), Ok(()));
    bench.ledger.release(&share, rest);
    assert_eq!(bench.refreshes("a", 5, 0), Some(0));
    bench.all();
    assert!(bench.is_forgotten());
    assert_eq!(bench.ledger.total(), HeldSubscriptions::default());
}

#[test]
fn sip_43_of_two_people_the_oldest_subscription_ends_where_there_are_too_many() {
    let mut bench = Bench::active("0");
    for number in 1..16 {
        bench.subscribes(&number.to_string());
        bench.all();
    }
    assert_eq!(bench.notifiers.counts(), (16, 16));
    bench.subscribes("16");
    let mut said = bench.all();
    said.sort();
    assert_eq!(said, ["active", "terminated;reason=deactivated"]);
    assert_eq!(bench.notifiers.counts(), (16, 16));
    assert_eq!(bench.refreshes("0", 2, 600), None, "the oldest is over");
    assert_eq!(bench.refreshes("1", 2, 600), Some(600));
    // Who takes no NOTIFY gets no more of them.
    let taken = (17..100).filter(|number| bench.opens(&number.to_string(), 600).is_ok());
    assert_eq!(taken.count(), 16);
    assert_eq!(bench.opens("more", 600), Err(NotifierRefusal::Full));
}
