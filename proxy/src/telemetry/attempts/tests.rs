use std::time::Duration;

use super::{super::attempt::Step, *};

const WILDCARD: AttemptPeer<'_> = AttemptPeer::Partner {
    object: "agencies",
    listed: false,
};
const LISTED: AttemptPeer<'_> = AttemptPeer::Partner {
    object: "partner",
    listed: true,
};

fn attempts() -> Attempts {
    Attempts::new(Arc::default(), Arc::default())
}

fn domain(text: &str) -> DomainName {
    DomainName::parse(text).unwrap()
}

fn refused(domain: &DomainName, text: &str) -> AttemptStep {
    AttemptStep {
        step: Step::Dialback,
        direction: Direction::Inbound,
        domain: domain.clone(),
        outcome: "DialbackNotAllowed",
        address: None,
        text: text.to_owned(),
        took: Duration::from_millis(1),
    }
}

/// The longest name of this number below a wildcard.
fn long_name(number: usize) -> DomainName {
    let label = "a".repeat(60);
    domain(&format!("x{number}.{label}.{label}.{label}.agency.example"))
}

#[test]
fn names_below_a_wildcard_cost_their_partner_object_a_constant() {
    let attempts = attempts();
    let most = WILDCARD_BYTES + size_of::<PartnerRecord>() + "agencies".len();
    for number in 0..20_000 {
        let name = long_name(number);
        for _ in 0..3 {
            attempts.note(WILDCARD, refused(&name, &"\u{7f}text".repeat(1000)));
        }
        assert!(attempts.bytes() <= most, "{number}: {}", attempts.bytes());
    }
    // Those that get a stream too: the partner's own servers may have many names.
    for number in 0..1000 {
        attempts.connected(WILDCARD, &long_name(number));
    }
    assert!(attempts.bytes() <= most, "{}", attempts.bytes());
}

#[test]
fn a_flood_of_names_hides_nothing_of_listed_domains_gateways_and_domains_that_had_a_stream() {
    let attempts = attempts();
    attempts.connected(WILDCARD, &domain("real.agency.example"));
    for number in 0..20_000 {
        attempts.note(WILDCARD, refused(&long_name(number), "no"));
    }
    // New since the flood: after a start the attacker may be first.
    let (good, own) = (domain("good.example"), domain("org.example"));
    attempts.connected(LISTED, &good);
    attempts.failed(AttemptPeer::Gateway, &own);
    attempts.note(LISTED, refused(&good, "why"));
    let shown = attempts.partner("partner");
    assert!(shown.last_connected_time.is_some());
    assert_eq!(shown.last_attempt[0].text, "why");
    assert_eq!(attempts.gateway_reachable(&own), Some(false));
    let state = attempts.state.lock();
    let agencies = &state.partners["agencies"];
    assert_eq!(agencies.connected[0].0, domain("real.agency.example"));
    assert_eq!(agencies.named.len(), NAMED_DOMAINS);
}

#[test]
fn a_partner_shows_what_fails_at_a_listed_domain_before_what_somebody_named() {
    let attempts = attempts();
    let agencies = |listed| AttemptPeer::Partner {
        object: "agencies",
        listed,
    };
    let listed = domain("agency.example");
    attempts.note(agencies(true), refused(&listed, "the cause"));
    attempts.note(agencies(false), refused(&long_name(1), "noise"));
    let text = |attempts: &Attempts| attempts.partner("agencies").last_attempt[0].text.clone();
    assert_eq!(text(&attempts), "the cause");
    attempts.connected(agencies(true), &listed);
    assert_eq!(text(&attempts), "noise");
}

#[test]
fn strangers_are_counted_and_not_remembered() {
    let attempts = attempts();
    let name = domain("nobody.example");
    for peer in [AttemptPeer::Stranger, AttemptPeer::NoGateway] {
        attempts.note(peer, refused(&name, "no"));
        attempts.failed(peer, &name);
        attempts.connected(peer, &name);
    }
    assert_eq!(attempts.bytes(), 0);
}

#[test]
fn an_attempt_keeps_its_newest_steps_within_its_bytes() {
    let attempts = attempts();
    let good = domain("good.example");
    for number in 0..100 {
        attempts.note(
            LISTED,
            refused(&good, &format!("{number} {}", "x".repeat(900))),
        );
    }
    let shown = attempts.partner("partner").last_attempt;
    assert!(shown.last().unwrap().text.starts_with("99 "));
    assert!(attempts.bytes() <= DOMAIN_BYTES + size_of::<PartnerRecord>() + 16);
    attempts.begin(LISTED, &good);
    assert!(attempts.last_failure(LISTED, &good).is_none());
}

#[test]
fn a_domain_that_changes_hands_takes_what_is_known_of_it_along_and_a_removed_one_is_forgotten() {
    let attempts = attempts();
    let (moved, gone) = (domain("moved.example"), domain("gone.example"));
    for name in [&moved, &gone] {
        attempts.note(LISTED, refused(name, "why"));
    }
    attempts.failed(AttemptPeer::Gateway, &domain("org.example"));
    attempts.reassign(|_, domain| match domain.as_str() {
        "moved.example" => AttemptPeer::Partner {
            object: "new",
            listed: false,
        },
        _ => AttemptPeer::Stranger,
    });
    assert_eq!(attempts.partner("new").last_attempt.len(), 1);
    assert!(attempts.changed("new").is_some() && attempts.changed("partner").is_none());
    assert!(attempts.gateway_reachable(&domain("org.example")).is_none());
}

#[test]
fn who_only_claims_to_be_a_partner_hides_nothing_that_was_told_and_costs_a_constant() {
    let attempts = attempts();
    let (good, other) = (domain("good.example"), domain("other.example"));
    let ours = AttemptStep {
        direction: Direction::Outbound,
        outcome: "TcpTimeout",
        ..refused(&good, "our own dial")
    };
    attempts.note(LISTED, ours);
    attempts.note(LISTED, refused(&good, "of one that was proven"));
    for number in 0..10_000 {
        for claimed in [&good, &other] {
            attempts.claim(
                LISTED,
                &refused(claimed, &format!("claim {number} {}", "x".repeat(900))),
            );
        }
    }
    let most = 2 * DOMAIN_BYTES + size_of::<PartnerRecord>() + "partner".len();
    assert!(attempts.bytes() <= most, "{}", attempts.bytes());
    let shown = attempts.partner("partner").last_attempt;
    let told: Vec<&str> = shown
        .iter()
        .filter(|step| !step.unproven)
        .map(|step| step.text.as_str())
        .collect();
    assert_eq!(told, ["of one that was proven", "our own dial"]);
    let first_told = shown.iter().position(|step| !step.unproven);
    assert_eq!(
        first_told,
        Some(shown.len() - 2),
        "a list that is cut keeps them"
    );

    // Who proves it told what it claimed; of the others nothing is left.
    let address = SocketAddr::from(([192, 0, 2, 7], 40_000));
    let own = AttemptStep {
        outcome: "Ok",
        address: Some(address),
        ..refused(&good, "its own")
    };
    attempts.claim(LISTED, &own);
    attempts.proved(LISTED, &good, address);
    attempts.connected(LISTED, &good);
    let shown = attempts.partner("partner").last_attempt;
    let of_good = shown.iter().filter(|step| step.domain == good.as_str());
    let of_good: Vec<(&str, bool)> = of_good.map(|it| (it.text.as_str(), it.unproven)).collect();
    assert_eq!(
        of_good,
        [
            ("of one that was proven", false),
            ("its own", false),
            ("our own dial", false)
        ]
    );
}
