//! A stanza's judgement, by all that may be known of its addresses before: it is the same each time.

use xmpp_edge_crds::jid::DomainRange;

use super::*;

pub(super) fn judged(
    policy: &Policy,
    direction: Direction,
    xml: &str,
    contacts: &Contacts,
) -> (Outcome, Option<Reason>) {
    with_stanza(xml, |stanza| {
        let judgement = policy.judge(direction, stanza, None, contacts);
        let of_pair = known_first(policy, direction, stanza, None, contacts);
        let people = of_pair.people;
        let judged = |own: Judgement<'_>| {
            format!(
                "{:?}",
                Judgement {
                    people: None,
                    passed: None,
                    ..own
                }
            )
        };
        let (alone, of_pair) = (judged(judgement.clone()), judged(of_pair));
        assert_eq!(
            of_pair, alone,
            "{xml}: what is known of its pair changes nothing"
        );
        if people.is_some() {
            let again = known_first(policy, direction, stanza, people, contacts);
            assert_eq!(again.people, None, "{xml}: nothing is looked for again");
            assert_eq!(
                judged(again),
                alone,
                "{xml}: what is known of its people changes nothing"
            );
            let mut numbered = stanza.clone();
            numbered.pattern = Some(PatternNumber::next());
            let first = known_first(policy, direction, &numbered, people, contacts);
            if let (Some(passed), Some(facts)) = (first.passed, facts(policy, direction, stanza)) {
                assert_eq!(
                    first.contact, None,
                    "{xml}: what changes a contact is judged each time"
                );
                let again = |policy: &Policy, pattern| {
                    let again = policy.passes_again(&passed, pattern, &facts, contacts);
                    again.map(judged)
                };
                assert_eq!(
                    again(policy, numbered.pattern).as_deref(),
                    Some(&*alone),
                    "{xml}: one like it has the same judgement"
                );
                for other in [None, Some(PatternNumber::next())] {
                    assert_eq!(again(policy, other), None, "{xml}: of another pattern");
                }
                let other = Policy::new(Arc::clone(&policy.config));
                assert_eq!(
                    again(&other, numbered.pattern),
                    None,
                    "{xml}: of another policy"
                );
            }
        }
        (judgement.outcome, judgement.audited)
    })
}

/// The judgement by what is known of the pair, and of its people, where the stanza names its domains as pairs do; by facts of
/// another policy, which count for nothing, else.
fn known_first<'p>(
    policy: &'p Policy,
    direction: Direction,
    stanza: &Stanza<'_>,
    people: Option<ResolvedPeople>,
    contacts: &Contacts,
) -> Judgement<'p> {
    let (from, to) = (stanza.from.as_deref(), stanza.to.as_deref());
    let (Some(from), Some(to), Some(facts)) = (from, to, facts(policy, direction, stanza)) else {
        return policy.judge(direction, stanza, None, contacts);
    };
    let ranges = (DomainRange::of(from), DomainRange::of(to));
    let known = AddressedPair {
        facts: &facts,
        written: people.map_or(
            Written::Domains {
                from: ranges.0,
                to: ranges.1,
            },
            Written::People,
        ),
    };
    policy.judge(direction, stanza, Some(known), contacts)
}

/// What is known of the stanza's pair, if its addresses can be read.
fn facts(policy: &Policy, direction: Direction, stanza: &Stanza<'_>) -> Option<ResolvedPair> {
    let (from, to) = (stanza.from.as_deref()?, stanza.to.as_deref()?);
    let ranges = (DomainRange::of(from), DomainRange::of(to));
    let (own, remote) = match direction {
        Inbound => (ranges.1.domain(to), ranges.0.domain(from)),
        Outbound => (ranges.0.domain(from), ranges.1.domain(to)),
    };
    let are_canonical = [own, remote]
        .iter()
        .all(|domain| xmpp_edge_crds::domain::is_canonical(domain.as_bytes()));
    Some(if are_canonical {
        ResolvedPair::new(policy, own, remote)
    } else {
        ResolvedPair::new(&Policy::new(Arc::clone(&policy.config)), own, remote)
    })
}

#[test]
fn what_passed_before_is_judged_anew_once_a_contact_changes() {
    let (policy, contacts) = (policy(|_| {}), Contacts::in_memory());
    let add = |event| {
        let change = ContactChange {
            user: "alice@org.example".into(),
            remote: "rob@unverified.example".into(),
            event,
        };
        contacts.record(&change).unwrap();
    };
    add(ContactEvent::UserFollows);
    let xml =
        "<message from='rob@unverified.example/d' to='alice@org.example'><body>b</body></message>";
    with_stanza(xml, |stanza| {
        let mut numbered = stanza.clone();
        numbered.pattern = Some(PatternNumber::next());
        let facts = facts(&policy, Inbound, stanza).unwrap();
        let judged = known_first(&policy, Inbound, &numbered, None, &contacts);
        let passed = judged.passed.expect("it is a contact's");
        let again = |passed: &PassedBefore| {
            let again = policy.passes_again(passed, numbered.pattern, &facts, &contacts);
            again.is_some()
        };
        assert!(again(&passed));
        add(ContactEvent::UserFollows);
        assert!(again(&passed), "nothing changed by that");
        add(ContactEvent::UserUnfollows);
        assert!(!again(&passed));
        let judged = known_first(&policy, Inbound, &numbered, None, &contacts);
        assert_eq!(judged.passed, None, "what is refused is judged each time");
        assert!(matches!(
            judged.outcome,
            Outcome::Refuse(_) | Outcome::Drop(_)
        ));
    });
}
