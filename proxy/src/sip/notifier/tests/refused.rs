//! NOTIFYs that are refused for a cause that may pass.

use super::*;

/// So many milliseconds later, and just before nothing goes.
fn goes_after(bench: &mut Bench, milliseconds: u64) -> (NotifierNumber, String) {
    bench.waits(milliseconds - 1);
    assert_eq!(bench.notify(), None, "{milliseconds} ms");
    bench.waits(1);
    bench.notify().expect("it goes once more")
}

#[test]
fn a_notify_that_is_refused_for_now_is_owed_still_and_goes_once_more() {
    let mut bench = Bench::active("a");
    bench.waits(5_000);
    bench.hears(device("x", None));
    bench.hears(device("y", None));
    assert_eq!(bench.all(), ["active x+ y+"]);
    bench.waits(5_000);
    bench.hears(gone("x"));
    let (number, said) = bench.notify().expect("it goes");
    assert_eq!(said, "active y+ x-");
    bench.answers(number, 503);
    // Who went has not been told, and is once it is.
    let (number, said) = goes_after(&mut bench, 5_000);
    assert_eq!(said, "active y+ x-");
    bench.refuses(number, 500, Some(Duration::from_secs(20)));
    // What changes meanwhile waits for the pause that was asked for, too.
    bench.hears(device("y", Some(Show::Away)));
    let (number, said) = goes_after(&mut bench, 20_000);
    assert_eq!(said, "active y+ x-");
    bench.answers(number, 200);
    bench.waits(60_000);
    assert_eq!(bench.all(), NOTHING);
    bench.hears(device("y", None));
    assert_eq!(bench.all(), ["active y+"], "x was told");
}

#[test]
fn a_server_that_takes_none_is_asked_a_few_times_and_again_with_the_next_change() {
    let mut bench = Bench::active("a");
    bench.waits(5_000);
    bench.hears(device("x", None));
    let (mut number, _) = bench.notify().expect("it goes");
    for _ in 0..3 {
        // However long it wants to be left alone.
        bench.refuses(number, 503, Some(Duration::from_secs(86_400)));
        (number, _) = goes_after(&mut bench, 60_000);
    }
    bench.answers(number, 503);
    bench.waits(300_000);
    assert_eq!(bench.notify(), None);
    assert_eq!(bench.refreshes("a", 2, 600), Some(600));
    let (number, said) = bench.notify().expect("a refresh says all");
    assert_eq!(said, "active x+");
    bench.answers(number, 200);
}

#[test]
fn an_end_that_is_refused_is_told_once_more_and_forgotten() {
    let mut bench = Bench::active("a");
    bench.waits(5_000);
    assert_eq!(bench.refreshes("a", 2, 0), Some(0));
    let (mut number, said) = bench.notify().expect("it goes");
    assert_eq!(said, "terminated;reason=timeout none-");
    for _ in 0..3 {
        bench.answers(number, 500);
        (number, _) = goes_after(&mut bench, 5_000);
    }
    bench.answers(number, 500);
    assert!(bench.is_forgotten());
    // The edge's own end waits for nobody.
    let mut bench = Bench::active("a");
    let now = bench.at();
    bench.notifiers.end_all(now);
    let (number, _) = bench.notify().expect("it goes");
    bench.answers(number, 500);
    assert!(bench.is_forgotten());
}
