//! The bounds without sockets: who makes room for whom.

use super::*;

fn v4(number: u32) -> IpAddr {
    number.to_be_bytes().into()
}

fn v6(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// Addresses of as many networks as there are.
fn scattered(number: u32) -> IpAddr {
    v4(number.wrapping_mul(0x9e37_79b1))
}

/// So many newcomers from addresses that `address` makes of a number.
fn flood(
    limiter: &Arc<UnauthenticatedLimiter>,
    count: u32,
    address: impl Fn(u32) -> IpAddr,
) -> Vec<ConnectionSlot> {
    (0..count)
        .map(|number| limiter.enter(address(number), false).0)
        .collect()
}

fn left(slots: &[ConnectionSlot]) -> usize {
    slots
        .iter()
        .filter(|slot| !slot.evicted.is_cancelled())
        .count()
}

/// This partner object has authenticated from these addresses.
fn know(
    limiter: &Arc<UnauthenticatedLimiter>,
    object: &str,
    addresses: impl IntoIterator<Item = IpAddr>,
) {
    for address in addresses {
        limiter.enter(address, false).0.authenticated(Some(object));
    }
}

/// The 1,024 connections that one partner holds, silent, from 16 addresses that it is known by; each
/// is opened again where it is lost.
fn occupied(
    limiter: &Arc<UnauthenticatedLimiter>,
    address: impl Fn(u32) -> IpAddr,
) -> Vec<ConnectionSlot> {
    know(limiter, "greedy", (0..16).map(&address));
    flood(limiter, 1300, |number| address(number % 16))
}

#[test]
fn one_address_takes_its_own_places_only() {
    let limiter = Arc::new(UnauthenticatedLimiter::default());
    let partner = limiter.enter(v4(0xc000_0209), false).0;
    let slots = flood(&limiter, 200, |number| v6(&format!("2001:db8::{number:x}")));
    assert_eq!(left(&slots), PER_ADDRESS);
    assert!(!partner.evicted.is_cancelled());
    assert!(slots[0].evicted.is_cancelled(), "the oldest first");
    assert!(!slots[199].evicted.is_cancelled());
    drop((slots, partner));
    assert!(limiter.is_empty());
    let state = limiter.state.lock();
    assert!(state.of_network.is_empty() && state.of_object.is_empty());
    assert_eq!(state.of_kind, [0; 3]);
}

#[test]
fn networks_have_bounds_at_each_width_known_ones_too() {
    type Addresses = fn(u32) -> IpAddr;
    let cases: [(_, _, Addresses); 3] = [
        ("/56", PER_SITE, |n| {
            v6(&format!("2001:db8:1:{:x}::1", n % 256))
        }),
        ("/48", PER_NETWORK, |n| {
            v6(&format!("2001:db8:1:{:x}::1", n * 7 % 65_536))
        }),
        ("an IPv4 network", TOTAL, |n| {
            v4(0x0a00_0000 + n * 7 % 65_536)
        }),
    ];
    for (what, most, address) in cases {
        for known in [0, 64] {
            let limiter = Arc::new(UnauthenticatedLimiter::default());
            know(&limiter, "partner", (0..known).map(address));
            let slots = flood(&limiter, 1500, address);
            assert_eq!(left(&slots), most, "{what}, {known} known");
            assert_eq!(limiter.len(), most, "{what}, {known} known");
        }
    }
}

#[test]
fn the_total_holds_and_the_newest_gets_in() {
    let limiter = Arc::new(UnauthenticatedLimiter::default());
    let slots = flood(&limiter, 1500, scattered);
    assert_eq!(limiter.len(), TOTAL);
    assert!(!slots[1499].evicted.is_cancelled());
}

#[test]
fn who_achieved_something_is_not_pushed_out_by_those_who_did_not() {
    for rank in [Rank::Spoke, Rank::Admitted, Rank::Encrypted] {
        let limiter = Arc::new(UnauthenticatedLimiter::default());
        let partner = limiter.enter(v4(0xc000_0209), false).0;
        partner.rank().raise(rank);
        partner.rank().raise(Rank::Silent);
        let slots = flood(&limiter, 1100, |number| v4(0x0a00_0000 + number));
        assert!(!partner.evicted.is_cancelled(), "{rank:?}");
        if rank == Rank::Encrypted {
            // Those who go as far push themselves out, being more of one network.
            for slot in &slots {
                slot.rank().raise(Rank::Encrypted);
            }
            let _more = flood(&limiter, 300, scattered);
            assert!(!partner.evicted.is_cancelled());
        }
    }
}

#[test]
fn s06_one_partner_does_not_lock_out_those_who_have_not_authenticated_since_the_start() {
    type Addresses = fn(u32) -> IpAddr;
    let cases: [(_, Addresses); 3] = [
        ("IPv4 networks of their own", scattered),
        ("one IPv4 /24", |n| v4(0xcb00_7100 + n)),
        ("IPv6 /48s", |n| v6(&format!("2001:db8:{n:x}::1"))),
    ];
    for (what, address) in cases {
        let limiter = Arc::new(UnauthenticatedLimiter::default());
        let _greedy = occupied(&limiter, address);
        assert_eq!(limiter.len(), TOTAL, "{what}");
        // After a restart every partner is a stranger.
        let newcomer = limiter.enter(v4(0xc633_6401), false).0;
        newcomer.rank().raise(Rank::Spoke);
        let _silent = flood(&limiter, 200, |number| address(number % 16));
        assert!(!newcomer.evicted.is_cancelled(), "{what}");
        newcomer.rank().raise(Rank::Encrypted);
        let spoke = flood(&limiter, 200, |number| address(number % 16));
        spoke
            .iter()
            .for_each(|slot| slot.rank().raise(Rank::Admitted));
        let _again = flood(&limiter, 200, |number| address(number % 16));
        assert!(!newcomer.evicted.is_cancelled(), "{what}: in SASL");
    }
}

#[test]
fn s06_who_finishes_tls_a_thousand_times_from_few_networks_keeps_nobody_out() {
    type Addresses = fn(u32) -> IpAddr;
    let cases: [(_, Addresses); 3] = [
        ("32 IPv4 addresses", |n| scattered(n % 32)),
        ("8 IPv4 /24s", |n| v4(((n % 8) << 16) | (n % 128))),
        ("12 IPv6 /48s", |n| {
            v6(&format!("2001:db8:{:x}:{n:x}::1", n % 12))
        }),
    ];
    for (what, address) in cases {
        let limiter = Arc::new(UnauthenticatedLimiter::default());
        let flooded = |count| {
            let slots = flood(&limiter, count, address);
            slots
                .iter()
                .for_each(|slot| slot.rank().raise(Rank::Encrypted));
            slots
        };
        let _encrypted = flooded(1200);
        assert_eq!(limiter.len(), TOTAL, "{what}");
        let newcomer = limiter.enter(v4(0xc633_6401), false).0;
        let _more = flooded(200);
        assert!(!newcomer.evicted.is_cancelled(), "{what}");
    }
}

#[test]
fn s06_servers_inside_push_nobody_out_before_they_prove_anything() {
    let limiter = Arc::new(UnauthenticatedLimiter::default());
    let newcomer = limiter.enter(v4(0xc633_6401), false).0;
    newcomer.rank().raise(Rank::Encrypted);
    let inside: Vec<_> = (0..1500)
        .map(|number| limiter.enter(v4(0x0a00_0000 + number % 64), true).0)
        .collect();
    assert!(!newcomer.evicted.is_cancelled());
    // Nor is the eighth that is kept for them taken by others.
    let strangers = flood(&limiter, 1500, scattered);
    for slot in &strangers {
        slot.rank().raise(Rank::Encrypted);
    }
    let _more = flood(
        &limiter,
        3000,
        |number| v4(number.wrapping_mul(0x85eb_ca6b)),
    );
    assert_eq!(left(&inside), SlotKind::Inside.kept());
}

#[test]
fn s06_a_partner_with_many_addresses_flushes_only_its_own_of_what_is_known() {
    let limiter = Arc::new(UnauthenticatedLimiter::default());
    know(&limiter, "good", [v4(0xc633_6401)]);
    let own = |number| v6(&format!("2001:db8:1:{number:x}::1"));
    know(&limiter, "greedy", (0..6000).map(own));
    assert!(limiter.is_known(v4(0xc633_6401), "good"));
    assert!(!limiter.is_known(v4(0xc633_6401), "greedy"));
    assert!(limiter.is_known(own(5999), "greedy") && !limiter.is_known(own(0), "greedy"));
    assert_eq!(limiter.state.lock().known.len(), 1 + ADDRESSES_OF_PARTNER);
}

#[test]
fn a_place_is_never_taken_while_a_verification_is_under_way() {
    let limiter = Arc::new(UnauthenticatedLimiter::default());
    let partner = limiter.enter(v4(1), false).0;
    let held = partner.rank().hold();
    let slots = flood(&limiter, 1500, scattered);
    for slot in &slots {
        slot.rank().raise(Rank::Encrypted);
    }
    let more = flood(
        &limiter,
        1500,
        |number| v4(number.wrapping_mul(0x85eb_ca6b)),
    );
    assert!(!partner.evicted.is_cancelled());
    let count = || limiter.state.lock().open[&partner.rank().number].held;
    assert_eq!(count(), 1);
    drop(held);
    assert_eq!(count(), 0);
    drop((slots, more));
}

#[test]
fn a_quarter_is_kept_for_those_who_are_known() {
    let limiter = Arc::new(UnauthenticatedLimiter::default());
    know(&limiter, "partner", [v6("2001:db8::1")]);
    let strangers = flood(&limiter, 1500, scattered);
    strangers
        .iter()
        .for_each(|slot| slot.rank().raise(Rank::Encrypted));
    let known = limiter.enter(v6("2001:db8::2"), false).0;
    let inside = limiter.enter(v4(0x0a00_0001), true).0;
    let more = flood(
        &limiter,
        1500,
        |number| v4(number.wrapping_mul(0x85eb_ca6b)),
    );
    assert!(!known.evicted.is_cancelled() && !inside.evicted.is_cancelled());
    assert!(limiter.len() <= TOTAL);
    drop((strangers, more));
}

#[test]
fn s06_each_partner_object_behind_one_address_is_known_there() {
    let limiter = Arc::new(UnauthenticatedLimiter::default());
    for object in ["one", "two"] {
        limiter.enter(v4(1), false).0.authenticated(Some(object));
    }
    assert!(limiter.is_known(v4(1), "one") && limiter.is_known(v4(1), "two"));
    assert!(!limiter.is_known(v4(2), "one") && !limiter.is_known(v4(1), "three"));
}
