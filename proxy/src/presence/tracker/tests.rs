use std::sync::LazyLock;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::{
    config::fixture,
    negotiation::WireNames,
    presence::seen::DEVICES,
    xml::{Item, Limits, Scanner},
};

const GONE: &str = "type='unavailable'";

static CONFIG: LazyLock<ActiveConfig> = LazyLock::new(|| config(|_| ()));

/// `p` and its like are partners, but for this change of the partner object.
fn config(change: impl FnOnce(&mut Value)) -> ActiveConfig {
    fixture::active_config(|document| {
        let partner = &mut document["partners"][0];
        partner["domains"] = json!(["p.example", "p0.example", "p1.example"]);
        change(partner);
    })
}

/// Notes a presence with these attributes as one of partner object `object`.
fn note(
    tracker: &PresenceTracker,
    object: &str,
    direction: Direction,
    attributes: &str,
) -> Option<NotedPresence> {
    const HEADER: &str = "<stream:stream xmlns='jabber:server' \
        xmlns:stream='http://etherx.jabber.org/streams' version='1.0'>";
    let text = format!("{HEADER}<presence {attributes}/>");
    let mut scanner = Scanner::new(Limits::default());
    let taken = scanner.next(text.as_bytes()).unwrap().unwrap().len();
    match scanner.next(&text.as_bytes()[taken..]) {
        Ok(Some(Item::Stanza(stanza))) => tracker.note(Some(object), direction, &stanza),
        other => panic!("{text}: {other:?}"),
    }
}

fn inbound(tracker: &PresenceTracker, object: &str, type_: &str, from: &str, to: &str) {
    let attributes = format!("{type_} from='{from}' to='{to}'");
    let _ = note(tracker, object, Direction::Inbound, &attributes);
}

fn sides(own: &[OwnPresence]) -> Vec<Side> {
    own.iter().map(|own| own.side).collect()
}

fn text_of(own: &OwnPresence) -> String {
    String::from_utf8(own.write(WireNames::default())).unwrap()
}

fn domain(text: &str) -> DomainName {
    DomainName::parse(text).unwrap()
}

/// Everything there is of a domain: pairs of domains and stanzas.
fn take_all(tracker: &PresenceTracker, name: &str) -> Vec<(Side, String, String)> {
    let name = domain(name);
    let shard = tracker.shard(name.as_str());
    let mut held = shard.held.lock();
    let HeldPresence { domains, users } = &mut *held;
    let mut stanzas = Vec::new();
    if let Some(remote) = domains.get_mut(&name) {
        let freed = remote.seen.take(
            &name,
            users,
            |_, _| true,
            |_, _, _, mut own| stanzas.append(&mut own),
        );
        tracker.release(remote, freed);
        tracker.forget_if_idle(domains, name.as_str());
    }
    let told = |own: OwnPresence| (own.side, own.pair.to_string(), text_of(&own));
    stanzas.into_iter().map(told).collect()
}

#[test]
fn unavailable_goes_where_the_presence_was_seen_last() {
    const ROB: &str = "rob@p.example";
    const DESK: &str = "rob@p.example/desk";
    const NICK: &str = "room@p.example/alice";
    const RENAMED: &str = "room@p.example/ally";
    for (presences, taken_back) in [
        (&[("", ROB)] as &[_], &[ROB] as &[_]),
        (&[("", NICK)], &[NICK]),
        (&[("", NICK), ("", RENAMED)], &[RENAMED]),
        (&[("", NICK), (GONE, NICK)], &[]),
        (&[("", ROB), ("", DESK)], &[ROB, DESK]),
        // The account sees her still.
        (&[("", ROB), ("", DESK), (GONE, DESK)], &[ROB]),
        (&[("", ROB), ("", DESK), (GONE, ROB)], &[]),
        (&[(GONE, ROB), ("type='probe'", ROB)], &[]),
    ] {
        let tracker = PresenceTracker::default();
        for (type_, to) in presences {
            let attributes = format!("{type_} from='alice@org.example/phone' to='{to}'");
            note(&tracker, "p", Direction::Outbound, &attributes);
        }
        let told = take_all(&tracker, "p.example");
        assert_eq!(told.len(), taken_back.len(), "{presences:?}: {told:?}");
        for ((side, pair, told), to) in told.iter().zip(taken_back) {
            assert_eq!(
                (*side, pair.as_str()),
                (Side::Partner, "org.example to p.example")
            );
            assert!(told.contains("from='alice@org.example/phone'"), "{told}");
            assert!(
                told.contains(&format!("to='{to}'")),
                "{presences:?}: {told}"
            );
            assert!(told.contains(GONE), "{told}");
        }
        assert_eq!(tracker.bytes(), 0);
    }
}

#[test]
fn a_flood_of_presence_stays_within_its_partners_share_and_leaves_the_others_theirs() {
    let tracker = PresenceTracker::default();
    let long = "r".repeat(1000);
    for number in 0..50_000 {
        let from = format!("u{number}@evil.example/{long}");
        inbound(
            &tracker,
            "evil",
            "",
            &from,
            &format!("u{number}@org.example/{long}"),
        );
    }
    let held = tracker.bytes();
    assert!(
        held <= SHARE_BYTES && held > SHARE_BYTES / 2,
        "{held} bytes"
    );
    // Under other names of the same object too.
    for number in 0..1000 {
        let from = format!("u@n{number}.evil.example/{long}");
        inbound(&tracker, "evil", "", &from, "alice@org.example");
    }
    assert!(tracker.bytes() <= SHARE_BYTES);
    inbound(
        &tracker,
        "good",
        "",
        "bob@good.example/desk",
        "alice@org.example",
    );
    assert_eq!(take_all(&tracker, "good.example").len(), 1);
}

#[test]
fn s02_however_many_partners_use_up_their_shares_there_is_room_for_the_next() {
    let tracker = PresenceTracker::default();
    let long = "r".repeat(1000);
    for object in 0..10 {
        let domain = format!("evil{object}.example");
        let before = tracker.bytes();
        for number in 0..8_000 {
            let from = format!("u{number}@{domain}/{long}");
            let to = format!("u{number}@org.example");
            inbound(&tracker, &domain, "", &from, &to);
        }
        let own = tracker.bytes() - before;
        assert!(
            own <= SHARE_BYTES && own > TOTAL_BYTES / 1000,
            "{object}: {own} bytes"
        );
    }
    assert!(tracker.bytes() < TOTAL_BYTES);
    for number in 0..100 {
        let from = format!("bob{number}@good.example/desk");
        inbound(&tracker, "good", "", &from, "alice@org.example");
    }
    assert_eq!(take_all(&tracker, "good.example").len(), 100);
}

#[test]
fn of_one_pair_of_users_the_newest_devices_are_remembered() {
    let tracker = PresenceTracker::default();
    for number in 0..20_000 {
        let from = format!("bob@evil.example/{number}");
        inbound(&tracker, "evil", "", &from, "alice@org.example");
    }
    let told = take_all(&tracker, "evil.example");
    assert_eq!(told.len(), DEVICES);
    assert!(told.last().unwrap().2.contains("/19999'"));
    assert_eq!(tracker.bytes(), 0);
}

#[test]
fn presence_of_a_partner_without_a_stream_for_a_minute_is_taken_back_and_asked_for_when_it_is_back()
{
    let tracker = Arc::new(PresenceTracker::default());
    let (first, probes) = tracker.attend(&domain("p.example"), &CONFIG);
    let (second, _) = tracker.attend(&domain("p.example"), &CONFIG);
    assert!(probes.is_empty());
    for from in ["bob@p.example/desk", "bob@p.example/phone"] {
        inbound(&tracker, "p", "", from, "alice@org.example");
    }
    let attributes = "from='alice@org.example/phone' to='bob@p.example'";
    note(&tracker, "p", Direction::Outbound, attributes);
    let later = |seconds| Instant::now() + Duration::from_secs(seconds);
    drop(first);
    assert!(tracker.next_gone(later(100)).is_none(), "a stream stands");
    drop(second);
    assert!(tracker.next_gone(later(30)).is_none());
    // A stream that comes in time keeps it all.
    drop(tracker.attend(&domain("p.example"), &CONFIG));
    let gone = tracker.next_gone(later(61)).unwrap();
    assert_eq!((gone.domain.as_str(), gone.pairs), ("p.example", 1));
    assert_eq!(gone.stanzas.len(), 2);
    assert!(gone.stanzas.iter().all(|own| own.side == Side::Gateway));
    assert!(tracker.next_gone(later(1000)).is_none());
    let (_stands, probes) = tracker.attend(&domain("p.example"), &CONFIG);
    assert_eq!(sides(&probes), [Side::Partner]);
    let probe = text_of(&probes[0]);
    assert!(
        probe.contains("type='probe'")
            && probe.contains("from='alice@org.example'")
            && probe.contains("to='bob@p.example'"),
        "{probe}"
    );
    assert!(tracker.attend(&domain("p.example"), &CONFIG).1.is_empty());
}

#[test]
fn presence_that_a_policy_took_back_is_asked_for_once_it_is_allowed_again() {
    let tracker = Arc::new(PresenceTracker::default());
    let suspended = config(|partner| partner["suspended"] = json!(true));
    let name = domain("p.example");
    let (stands, _) = tracker.attend(&name, &CONFIG);
    inbound(&tracker, "p", "", "bob@p.example/desk", "alice@org.example");
    let attributes = "from='alice@org.example/phone' to='bob@p.example'";
    note(&tracker, "p", Direction::Outbound, attributes);
    assert_eq!(tracker.take_allowed(&name, &CONFIG).len(), 0);
    let told = tracker.take_forbidden(&name, &suspended);
    assert_eq!(
        sides(&told),
        [Side::Gateway, Side::Partner],
        "both see the other leave"
    );
    assert_eq!(
        tracker.take_allowed(&name, &suspended).len(),
        0,
        "it is not allowed yet"
    );
    let probes = tracker.take_allowed(&name, &CONFIG);
    assert_eq!(sides(&probes), [Side::Partner]);
    let probe = text_of(&probes[0]);
    assert!(probe.contains("type='probe'") && probe.contains("from='alice@org.example'"));
    drop(stands);

    // The stream ended with the suspension, and another comes after it.
    inbound(&tracker, "p", "", "bob@p.example/desk", "alice@org.example");
    assert_eq!(tracker.take_forbidden(&name, &suspended).len(), 1);
    assert_eq!(
        tracker.take_allowed(&name, &CONFIG).len(),
        0,
        "no stream stands"
    );
    assert_eq!(tracker.attend(&name, &CONFIG).1.len(), 1);

    // Of one that is no partner any more nothing is kept.
    inbound(&tracker, "p", "", "bob@p.example/desk", "alice@org.example");
    let other = config(|partner| partner["domains"] = json!(["other.example"]));
    assert_eq!(tracker.take_forbidden(&name, &suspended).len(), 1);
    assert_eq!(tracker.take_forbidden(&name, &other).len(), 0);
    assert_eq!((tracker.bytes(), tracker.domains().len()), (0, 0));
}

#[test]
fn who_is_there_is_remembered_before_who_was() {
    let tracker = Arc::new(PresenceTracker::default());
    let suspended = config(|partner| partner["suspended"] = json!(true));
    let name = domain("p.example");
    for number in 0.. {
        let before = tracker.bytes();
        let from = format!("bob{number}@p.example/desk");
        inbound(&tracker, "p", "", &from, "alice@org.example");
        if tracker.bytes() == before {
            break;
        }
    }
    assert!(!tracker.take_forbidden(&name, &suspended).is_empty());
    for number in 0..10_000 {
        let from = format!("rob{number}@p.example/desk");
        inbound(&tracker, "p", "", &from, "alice@org.example");
    }
    assert!(tracker.bytes() <= SHARE_BYTES);
    assert_eq!(tracker.take_forbidden(&name, &suspended).len(), 10_000);
}

#[test]
fn what_a_partner_leaves_behind_is_bounded_however_often_it_comes_and_goes() {
    let tracker = Arc::new(PresenceTracker::default());
    for round in 0..20 {
        let (stands, _) = tracker.attend(&domain("p.example"), &CONFIG);
        for number in 0..2000 {
            let from = format!("u{round}-{number}@p.example/x");
            let to = format!("v{round}-{number}@org.example");
            inbound(&tracker, "p", "", &from, &to);
        }
        drop(stands);
        let gone = tracker.next_gone(Instant::now() + ABSENCE);
        assert_eq!(gone.unwrap().pairs, 2000);
        assert!(tracker.bytes() <= SHARE_BYTES);
    }
    drop(tracker.attend(&domain("p.example"), &CONFIG));
    assert_eq!(tracker.bytes(), 0);
    let shard = tracker.shard("p.example").held.lock();
    assert!(shard.users.is_empty() && shard.domains.is_empty());
    assert!(tracker.absent.lock().is_empty());
}

#[derive(Clone, Debug)]
enum TrackerStep {
    Presence {
        inbound: bool,
        gone: bool,
        user: u8,
        contact: u8,
        from: u8,
        to: u8,
    },
    Attend(u8),
    Leave,
    Minute,
}

fn step() -> impl Strategy<Value = TrackerStep> {
    prop_oneof![
        8 => (any::<bool>(), any::<bool>(), 0..3_u8, 0..4_u8, 0..4_u8, 0..4_u8).prop_map(
            |(inbound, gone, user, contact, from, to)| TrackerStep::Presence {
                inbound, gone, user, contact, from, to
            }
        ),
        1 => (0..2_u8).prop_map(TrackerStep::Attend),
        1 => Just(TrackerStep::Leave),
        1 => Just(TrackerStep::Minute),
    ]
}

proptest! {
    #[test]
    fn every_byte_that_is_taken_is_given_back_and_what_is_still_had_changes_nothing_when_it_comes_again(
        steps in proptest::collection::vec(step(), 0..60),
    ) {
        let tracker = Arc::new(PresenceTracker::default());
        let mut streams = Vec::new();
        let mut now = Instant::now();
        let mut noted = Vec::new();
        for step in steps {
            match step {
                TrackerStep::Presence { inbound, gone, user, contact, from, to } => {
                    let resource = |length: u8| match length {
                        0 => String::new(),
                        // Two of one length.
                        3 => format!("/{}", "r".repeat(10)),
                        other => format!("/{other}desk"),
                    };
                    let user = format!("user{user}@org.example");
                    let contact = format!("c{contact}@p{}.example", contact % 2);
                    let (from_bare, to_bare, direction) = if inbound {
                        (contact, user, Direction::Inbound)
                    } else {
                        (user, contact, Direction::Outbound)
                    };
                    let attributes = format!(
                        "{} from='{from_bare}{}' to='{to_bare}{}'",
                        if gone { GONE } else { "" }, resource(from), resource(to)
                    );
                    if let Some(token) = note(&tracker, "p", direction, &attributes) {
                        noted.push((token, direction, attributes));
                    }
                }
                TrackerStep::Attend(number) => {
                    let name = domain(&format!("p{number}.example"));
                    streams.push(tracker.attend(&name, &CONFIG).0);
                }
                TrackerStep::Leave => drop(streams.pop()),
                TrackerStep::Minute => {
                    now += ABSENCE + Duration::from_secs(1);
                    while tracker.next_gone(now).is_some() {}
                }
            }
            noted.retain(|(token, ..)| tracker.still_has(*token));
            for (token, direction, attributes) in &noted {
                let all = || format!("{:?}", tracker.shards);
                let before = all();
                prop_assert_eq!(note(&tracker, "p", *direction, attributes), Some(*token));
                prop_assert_eq!(all(), before, "{} again", attributes);
            }
        }
        drop(streams);
        for name in ["p0.example", "p1.example"] {
            take_all(&tracker, name);
            drop(tracker.attend(&domain(name), &CONFIG));
        }
        prop_assert_eq!(tracker.bytes(), 0);
        prop_assert!(tracker.domains().is_empty());
        for shard in &tracker.shards {
            let held = shard.held.lock();
            prop_assert!(held.domains.is_empty() && held.users.is_empty());
        }
        prop_assert!(tracker.absent.lock().is_empty());
    }
}
