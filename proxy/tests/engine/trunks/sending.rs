//! What a sidecar sends on its trunks: all pairs on one connection, each with its own window, and what of
//! it goes again where a trunk dies.

use std::sync::Arc;

use xmpp_edge_proxy::{
    negotiation::{Pair, Side},
    routing::acknowledgement::AckTracker,
};

use super::{
    engines::{BareSidecar, at, domain, ledger, sidecar, until},
    pki::Pki,
    scripted::{End, ScriptedEdge},
};

/// A sidecar of its own, with a trunk to an edge that the test plays.
struct Sending {
    sidecar: BareSidecar,
    edge: ScriptedEdge,
}

impl Sending {
    async fn begin(number: u8) -> (Self, End) {
        let pki = Pki::new();
        let edge = ScriptedEdge::open(at(number, 1, 23456), &pki).await;
        let shown = pki.sidecar(&["org.example"]);
        let settings = sidecar(number, &pki, &shown, &[edge.address]);
        let sidecar = BareSidecar::start(settings);
        let trunk = edge.next().await;
        (Self { sidecar, edge }, trunk)
    }
}

fn partner(number: usize) -> String {
    format!("x{number}.many.example")
}

fn ack(counts: &[(u32, u64)]) -> String {
    let counts: String = counts
        .iter()
        .map(|(pair, h)| format!("<p i='{pair}' h='{h}'/>"))
        .collect();
    format!("<a xmlns='urn:xmpp-edge:trunk:0'>{counts}</a>")
}

#[tokio::test]
async fn b12_a_thousand_pairs_are_on_one_connection_and_written_before_the_first_answer() {
    let (own, trunk) = Sending::begin(11).await;
    let ledgers: Vec<_> = (0..1_000).map(|_| ledger()).collect();
    for (number, ledger) in ledgers.iter().enumerate() {
        own.sidecar.send(&partner(number), 0, 1, ledger);
    }
    // The edge has said nothing of any of them.
    trunk.hears_times("</message>", 1_000).await;
    assert_eq!(trunk.heard_times("<pair "), 1_000);
    assert!(ledgers.iter().all(|own| own.settled() == 0));
    let mut trunk = trunk;
    let counts: Vec<_> = (0..1_000).map(|number| (number, 1)).collect();
    trunk.say(&ack(&counts)).await;
    until("all are settled", || {
        ledgers.iter().all(|own| own.settled() == 1)
    })
    .await;
}

#[tokio::test]
async fn b13_a_partner_that_takes_nothing_keeps_nobody_else_waiting() {
    let (own, mut trunk) = Sending::begin(12).await;
    let stuck = ledger();
    // Three times what the edge takes of one pair.
    let message = 100;
    let batches = 3 * 1_048_576 / (40 * message);
    for batch in 0..batches {
        own.sidecar.send(&partner(0), batch * 40, 40, &stuck);
    }
    until("its window is used up", || trunk.heard().len() > 1_048_576).await;
    let ledgers: Vec<_> = (0..99).map(|_| ledger()).collect();
    let mut numbers = Vec::new();
    for round in 0..20_u64 {
        for (number, ledger) in ledgers.iter().enumerate() {
            own.sidecar.send(&partner(number + 1), round, 1, ledger);
        }
        let last = format!("id='{}:{round}'", partner(99));
        trunk.hears(&last).await;
        if round == 0 {
            numbers.extend((1..100).map(|number| trunk.number(&partner(number))));
        }
        let counts: Vec<_> = numbers.iter().map(|number| (*number, round + 1)).collect();
        trunk.say(&ack(&counts)).await;
        until("the others are settled", || {
            ledgers.iter().all(|own| own.settled() == round + 1)
        })
        .await;
    }
    assert_eq!(stuck.settled(), 0);
    let first = trunk.number(&partner(0));
    // One ack of its own, and it goes on.
    let came = trunk.heard_times(&format!("id='{}:", partner(0)));
    trunk.say(&ack(&[(first, came as u64)])).await;
    let held = came + 1;
    trunk
        .hears_times(&format!("id='{}:", partner(0)), held)
        .await;
    assert_eq!(stuck.settled(), came as u64);
}

/// Ids of one pair, by number.
fn of(trunk: &End, partner: &str) -> Vec<u64> {
    let prefix = format!("{partner}:");
    let ids = trunk.ids();
    let numbers = ids.iter().filter_map(|id| id.strip_prefix(&prefix));
    numbers.map(|own| own.parse().expect("a number")).collect()
}

#[tokio::test]
async fn b14_when_a_trunk_is_cut_exactly_what_each_pair_has_unacknowledged_goes_again_once() {
    let (own, mut trunk) = Sending::begin(13).await;
    let ledgers: Vec<Arc<AckTracker>> = (0..3).map(|_| ledger()).collect();
    for (number, ledger) in ledgers.iter().enumerate() {
        own.sidecar.send(&partner(number), 0, 5, ledger);
        own.sidecar.send(&partner(number), 5, 5, ledger);
    }
    trunk.hears_times("</message>", 30).await;
    let numbers = [0, 1, 2].map(|number| trunk.number(&partner(number)));
    trunk
        .say(&ack(&[(numbers[0], 3), (numbers[1], 10), (numbers[2], 0)]))
        .await;
    until("what was acknowledged is settled", || {
        (ledgers[0].settled(), ledgers[1].settled()) == (3, 10)
    })
    .await;
    trunk.cut();
    let next = own.edge.next().await;
    // What comes meanwhile comes after what was unacknowledged.
    own.sidecar.send(&partner(0), 10, 1, &ledgers[0]);
    own.sidecar.send(&partner(1), 10, 1, &ledgers[1]);
    next.hears_times("</message>", 7 + 10 + 2).await;
    assert_eq!(of(&next, &partner(0)), (3..11).collect::<Vec<_>>());
    assert_eq!(of(&next, &partner(1)), [10]);
    assert_eq!(of(&next, &partner(2)), (0..10).collect::<Vec<_>>());
    // A second trunk that dies over them: they are not sent a third time.
    next.cut();
    let third = own.edge.next().await;
    own.sidecar.send(&partner(2), 10, 1, &ledgers[2]);
    third.hears(&format!("id='{}:10'", partner(2))).await;
    assert_eq!(of(&third, &partner(2)), [10]);
}

#[tokio::test]
async fn b18_one_pair_more_than_ten_thousand_is_answered_with_resource_constraint() {
    let (own, trunk) = Sending::begin(14).await;
    let ledger = ledger();
    for number in 0..10_000 {
        own.sidecar
            .send(&partner(number), number as u64, 1, &ledger);
    }
    trunk.hears_times("<pair ", 10_000).await;
    own.sidecar.send(&partner(10_000), 10_000, 1, &ledger);
    // Its answer goes to the server, which is not there: it waits in that queue.
    let back = Pair {
        from: domain(&partner(10_000)),
        to: domain("org.example"),
    };
    let router = &own.sidecar.context.router;
    let back = router.route(Side::Gateway, &back);
    until("it is answered", || back.waiting() == 1).await;
    assert_eq!(trunk.heard_times("<pair "), 10_000);
}

#[tokio::test]
async fn an_edge_that_drains_gets_nothing_more_and_what_it_did_not_take_goes_to_the_next() {
    let (own, mut trunk) = Sending::begin(15).await;
    let ledger = ledger();
    own.sidecar.send(&partner(0), 0, 4, &ledger);
    trunk.hears_times("</message>", 4).await;
    let number = trunk.number(&partner(0));
    trunk.say("<drain xmlns='urn:xmpp-edge:trunk:0'/>").await;
    let other = Pair {
        from: domain("org.example"),
        to: domain(&partner(1)),
    };
    let trunks = &own.sidecar.context.trunks;
    until("it is known", || {
        trunks.choose(Side::Partner, &other).is_none()
    })
    .await;
    own.sidecar.send(&partner(1), 4, 1, &ledger);
    trunk
        .say(&format!("{}</stream:stream>", ack(&[(number, 2)])))
        .await;
    trunk.hears("</stream:stream>").await;
    let next = own.edge.next().await;
    next.hears_times("</message>", 3).await;
    assert_eq!(of(&next, &partner(0)), [2, 3]);
    assert_eq!(of(&next, &partner(1)), [4]);
    assert_eq!(of(&trunk, &partner(1)), [0; 0]);
}
