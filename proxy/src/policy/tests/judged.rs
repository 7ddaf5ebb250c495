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
    let (Some(from), Some(to)) = (from, to) else {
        return policy.judge(direction, stanza, None, contacts);
    };
    let ranges = (DomainRange::of(from), DomainRange::of(to));
    let (own, remote) = match direction {
        Inbound => (ranges.1.domain(to), ranges.0.domain(from)),
        Outbound => (ranges.0.domain(from), ranges.1.domain(to)),
    };
    let are_canonical = [own, remote]
        .iter()
        .all(|domain| xmpp_edge_crds::domain::is_canonical(domain.as_bytes()));
    let facts = if are_canonical {
        ResolvedPair::new(policy, own, remote)
    } else {
        ResolvedPair::new(&Policy::new(Arc::clone(&policy.config)), own, remote)
    };
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
