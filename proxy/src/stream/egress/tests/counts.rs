//! Counts of XEP-0198 that are right, and that are not.

use super::*;

#[test]
fn an_ack_for_what_was_not_written_yet_is_refused_and_confirms_what_was() {
    let mut world = World::new();
    world.step(&Step::Enqueue(0, 3));
    world.step(&Step::Take(1));
    // Two stanzas of three and two bytes more.
    world.write(12);
    let egress = &mut world.hop.egress;
    assert!(egress.acked(3, world.now).is_err());
    assert_eq!(
        (egress.in_custody(), world.lanes[0].ledger.settled()),
        (1, 2)
    );
    assert!(egress.acked(2, world.now).is_ok());
}

/// A peer that counts one too many has got all the same what it was sent: nothing of it is sent again.
#[test]
fn a_count_ahead_confirms_all_that_was_written_and_one_that_goes_back_nothing() {
    for (handled, settled) in [(3, 2), (1_000, 2), (0, 1), (u32::MAX, 1)] {
        let mut world = World::new();
        world.step(&Step::Enqueue(0, 2));
        world.step(&Step::Take(1));
        world.write(usize::MAX);
        let egress = &mut world.hop.egress;
        assert!(egress.acked(1, world.now).is_ok());
        assert!(egress.acked(handled, world.now).is_err(), "{handled}");
        assert_eq!(world.lanes[0].ledger.settled(), settled, "{handled}");
        world.die();
        assert_eq!(world.lanes[0].route.waiting(), 2 - settled, "{handled}");
    }
}

#[test]
fn what_was_written_before_acks_were_agreed_on_is_not_counted_by_them() {
    let mut world = World::new();
    world.die();
    world.connect(Way::Written);
    world.step(&Step::Enqueue(0, 2));
    world.step(&Step::Take(1));
    world.hop.egress.confirm_by(acks());
    world.step(&Step::Enqueue(0, 1));
    world.step(&Step::Take(1));
    world.write(usize::MAX);
    assert_eq!(
        world.lanes[0].ledger.settled(),
        2,
        "written is all these can be"
    );
    let now = world.now;
    assert_eq!(world.lanes[0].ledger.settled(), 2);
    assert!(world.hop.egress.acked(2, now).is_err());
    assert!(world.hop.egress.acked(1, now).is_ok());
    assert_eq!(world.lanes[0].ledger.settled(), 3);
}
