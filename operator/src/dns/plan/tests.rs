#![allow(clippy::unwrap_used)]
//! A model primary with any number of owners whose reads and updates interleave at will.

use proptest::{collection::vec, prelude::*};

use super::*;
use crate::dns::{marker::among, rrset::name, wanted::RecordGroup};

const TTL: u32 = 60;

fn claim(owner: usize) -> RecordOwner {
    RecordOwner {
        owner: format!("cluster-{owner}").parse().unwrap(),
        namespace: "org".to_owned(),
        pool: "edge".to_owned(),
    }
}

fn names() -> Vec<Name> {
    RecordGroup::Domain("org.example".to_owned())
        .names()
        .unwrap()
}

fn srv(priority: u16, target: &str) -> RecordData {
    RecordData::Srv {
        priority,
        weight: 100,
        port: 5269,
        target: name(target).unwrap(),
    }
}

fn txt(text: &str) -> RecordData {
    RecordData::Txt(vec![text.as_bytes().to_vec()])
}

/// What an owner wants at both names.
fn wanted(priority: u16, target: &str, direct: bool) -> Records {
    let mut records = Records::new();
    for (at, there) in names().into_iter().zip([true, direct]) {
        let data = there.then(|| srv(priority, target));
        records.insert(at, data.into_iter().collect());
    }
    records
}

fn look(
    claim: &RecordOwner,
    standing: Availability,
    records: &Records,
    seen: &ObservedRrset,
) -> DnsPlan {
    PlanInput {
        claim,
        standing,
        records,
        kinds: kinds(false),
        ttl: TTL,
        seen,
    }
    .plan()
}

/// RFC 2136 section 3, as far as we use it; false where a prerequisite does not hold.
fn apply(zone: &mut ObservedRrset, update: &Update) -> bool {
    let holds = update
        .prerequisites
        .iter()
        .all(|(key, seen)| zone.get(key).map(|set| &set.data) == seen.as_ref());
    if !holds {
        return false;
    }
    for (name, data) in &update.delete {
        let key = (name.clone(), data.kind());
        let set = zone.get_mut(&key).expect("only what was seen is deleted");
        assert!(set.data.remove(data), "only what was seen is deleted");
        if set.data.is_empty() {
            zone.remove(&key);
        }
    }
    for ((name, data), ttl) in &update.add {
        let set = zone.entry((name.clone(), data.kind())).or_default();
        set.data.insert(data.clone());
        set.ttl = *ttl;
    }
    true
}

fn publish(
    zone: &mut ObservedRrset,
    claim: &RecordOwner,
    standing: Availability,
    records: &Records,
) -> PlanResult {
    for _ in 0..3 {
        match look(claim, standing, records, zone) {
            DnsPlan::PlanResult(settled) => return settled,
            DnsPlan::Update(update) => assert!(apply(zone, &update), "nothing else writes"),
        }
    }
    panic!("not settled after two updates");
}

fn zone_of(records: &[(usize, RecordData)]) -> ObservedRrset {
    let mut zone = ObservedRrset::new();
    for (at, data) in records {
        let set: &mut RrSet = zone.entry((names()[*at].clone(), data.kind())).or_default();
        set.ttl = 300;
        set.data.insert(data.clone());
    }
    zone
}

fn srvs(zone: &ObservedRrset) -> Vec<RecordData> {
    let sets = zone
        .iter()
        .filter(|((_, kind), _)| *kind == RecordKind::Srv);
    sets.flat_map(|(_, set)| set.data.clone()).collect()
}

#[test]
fn a_pool_is_published_changed_and_withdrawn_by_single_records() {
    let (me, mut zone) = (claim(1), ObservedRrset::new());
    let first = wanted(10, "edge.example", true);
    assert!(publish(&mut zone, &me, Availability::Serving, &first).published);
    assert_eq!(
        zone.len(),
        4,
        "SRV and marker at each of two names: {zone:?}"
    );

    let second = wanted(20, "edge.example", true);
    let DnsPlan::Update(update) = look(&me, Availability::Serving, &second, &zone) else {
        panic!("the priority differs");
    };
    assert_eq!((update.delete.len(), update.add.len()), (4, 4));
    assert_eq!(update.prerequisites.len(), 4);
    assert!(apply(&mut zone, &update));
    assert_eq!(srvs(&zone), vec![srv(20, "edge.example"); 2]);

    publish(&mut zone, &me, Availability::OutOfService, &second);
    assert!(zone.is_empty(), "{zone:?}");
}

#[test]
fn a_foreign_record_that_is_just_what_is_wanted_is_left_to_its_owner() {
    let mut zone = zone_of(&[(0, srv(10, "edge.example"))]);
    let before = zone.clone();
    let records = wanted(10, "edge.example", false);
    let settled = publish(&mut zone, &claim(1), Availability::Serving, &records);
    assert_eq!(settled.foreign.len(), 1);
    publish(&mut zone, &claim(1), Availability::OutOfService, &records);
    assert_eq!(zone, before);
}

#[test]
fn a_record_that_two_pools_want_goes_with_the_second() {
    let mut zone = ObservedRrset::new();
    let records = wanted(10, "anycast.example", true);
    publish(&mut zone, &claim(1), Availability::Serving, &records);
    publish(&mut zone, &claim(2), Availability::Serving, &records);
    assert_eq!(srvs(&zone).len(), 2);
    publish(&mut zone, &claim(1), Availability::Unready, &records);
    assert_eq!(srvs(&zone).len(), 2, "the other still wants it");
    publish(&mut zone, &claim(2), Availability::OutOfService, &records);
    assert!(zone.is_empty(), "{zone:?}");
}

#[test]
fn the_last_record_stays_for_unreadiness_alone() {
    let me = claim(1);
    let records = wanted(10, "edge.example", true);
    for (others, leaves) in [
        (vec![], false),
        // A record that says that there is no service leads nobody anywhere.
        (vec![(1, srv(0, "."))], false),
        (vec![(0, txt("v=spf1 -all"))], false),
        (vec![(0, srv(5, "elsewhere.example"))], true),
        (vec![(1, srv(5, "elsewhere.example"))], true),
    ] {
        let mut zone = zone_of(&others);
        let before = zone.clone();
        publish(&mut zone, &me, Availability::Serving, &records);
        let settled = publish(&mut zone, &me, Availability::Unready, &records);
        assert_eq!(settled.kept_as_last, !leaves, "{others:?}");
        assert_eq!(zone == before, leaves, "{others:?}");
        publish(&mut zone, &me, Availability::OutOfService, &records);
        assert_eq!(zone, before, "{others:?}");
    }
}

#[test]
fn a_pool_that_was_never_ready_is_not_published() {
    let mut zone = ObservedRrset::new();
    let records = wanted(10, "edge.example", true);
    let settled = publish(&mut zone, &claim(1), Availability::Unready, &records);
    assert_eq!(settled, PlanResult::default());
    assert!(zone.is_empty());
}

#[test]
fn addresses_of_a_pool_whose_load_balancer_lost_them_stay_until_others_are_there() {
    let host = name("edge.example").unwrap();
    let me = claim(1);
    let of = |data: &[RecordData]| Records::from([(host.clone(), data.iter().cloned().collect())]);
    let at = |seen: &ObservedRrset, standing, records: &Records| {
        PlanInput {
            claim: &me,
            standing,
            records,
            kinds: kinds(true),
            ttl: TTL,
            seen,
        }
        .plan()
    };
    let one = RecordData::A("192.0.2.1".parse().unwrap());
    let mut zone = ObservedRrset::new();
    let DnsPlan::Update(update) = at(&zone, Availability::Serving, &of(&[one])) else {
        panic!("nothing is there");
    };
    assert!(apply(&mut zone, &update));
    let DnsPlan::PlanResult(settled) = at(&zone, Availability::Unready, &of(&[])) else {
        panic!("the last address stays");
    };
    assert!(settled.kept_as_last);
    let other = RecordData::Aaaa("2001:db8::1".parse().unwrap());
    zone.entry((host.clone(), RecordKind::Aaaa))
        .or_default()
        .data
        .insert(other);
    assert!(matches!(
        at(&zone, Availability::Unready, &of(&[])),
        DnsPlan::Update(_)
    ));
}

#[test]
fn a_ttl_is_changed_where_nobody_else_has_records() {
    let records = wanted(10, "edge.example", false);
    let mut zone = ObservedRrset::new();
    publish(&mut zone, &claim(1), Availability::Serving, &records);
    for set in zone.values_mut() {
        set.ttl = 5;
    }
    let mut shared = zone.clone();
    publish(&mut zone, &claim(1), Availability::Serving, &records);
    assert!(zone.values().all(|set| set.ttl == TTL));

    let key = (names()[0].clone(), RecordKind::Srv);
    let set = shared.get_mut(&key).unwrap();
    set.data.insert(srv(1, "foreign.example"));
    publish(
        &mut shared,
        &claim(1),
        Availability::Serving,
        &wanted(20, "edge.example", false),
    );
    assert_eq!(shared[&key].ttl, 5);
}

fn standings() -> impl Strategy<Value = Availability> {
    prop_oneof![
        Just(Availability::Serving),
        Just(Availability::Unready),
        Just(Availability::OutOfService)
    ]
}

fn foreign() -> impl Strategy<Value = Vec<(usize, RecordData)>> {
    let data = prop_oneof![
        (0_u16..3, 0_u8..4).prop_map(|(priority, n)| srv(priority, &format!("f{n}.example"))),
        Just(srv(0, ".")),
        "[a-z =\"]{0,20}".prop_map(|text| txt(&text)),
    ];
    vec((0_usize..2, data), 0..4)
}

/// An owner's step: it looks, or it sends what it planned when it looked last.
#[derive(Clone, Debug)]
enum PlanStep {
    PlanInput {
        owner: usize,
        standing: Availability,
        priority: u16,
    },
    Send {
        owner: usize,
    },
}

fn steps() -> impl Strategy<Value = Vec<PlanStep>> {
    let look = (0_usize..3, standings(), 0_u16..3).prop_map(|(owner, standing, priority)| {
        PlanStep::PlanInput {
            owner,
            standing,
            priority,
        }
    });
    vec(
        prop_oneof![
            look,
            (0_usize..3).prop_map(|owner| PlanStep::Send { owner })
        ],
        0..40,
    )
}

proptest! {
    /// Whatever owners do, and however their looks and updates interleave: foreign records stay,
    /// every record of ours has its marker, and once all have settled each has what it should.
    #[test]
    fn owners_that_interleave_never_harm_each_other_nor_what_is_foreign(
        foreign in foreign(),
        steps in steps(),
        last in vec(standings(), 3),
    ) {
        let before = zone_of(&foreign);
        let mut zone = before.clone();
        let mut planned: BTreeMap<usize, (Availability, Update)> = BTreeMap::new();
        for step in steps {
            match step {
                PlanStep::PlanInput { owner, standing, priority } => {
                    let records = wanted(priority, &format!("e{owner}.example"), owner != 1);
                    match look(&claim(owner), standing, &records, &zone) {
                        DnsPlan::PlanResult(_) => planned.remove(&owner),
                        DnsPlan::Update(update) => planned.insert(owner, (standing, update)),
                    };
                }
                PlanStep::Send { owner } => {
                    let served = |zone: &ObservedRrset| srvs(zone).iter().any(|data| !data.denies_service());
                    let was = served(&zone);
                    if let Some((standing, update)) = planned.remove(&owner) {
                        apply(&mut zone, &update);
                        prop_assert!(!was || served(&zone) || standing == Availability::OutOfService);
                    }
                }
            }
            for (key, set) in &before {
                prop_assert!(set.data.is_subset(&zone[key].data));
                prop_assert_eq!(set.ttl, zone[key].ttl);
            }
        }
        // Twice round: one that stayed as the last goes once another is there.
        for _ in 0..2 {
            for (owner, standing) in last.iter().enumerate() {
                let records = wanted(7, &format!("e{owner}.example"), owner != 1);
                publish(&mut zone, &claim(owner), *standing, &records);
                // Doing it again does nothing.
                prop_assert!(matches!(look(&claim(owner), *standing, &records, &zone), DnsPlan::PlanResult(_)));
            }
        }
        let all = srvs(&zone);
        let mut unready = 0;
        for (owner, standing) in last.iter().enumerate() {
            let there = all.contains(&srv(7, &format!("e{owner}.example")));
            match standing {
                Availability::Serving => prop_assert!(there),
                Availability::OutOfService | Availability::Removed => prop_assert!(!there),
                Availability::Unready => unready += usize::from(there),
            }
        }
        let others = last.contains(&Availability::Serving)
            || foreign.iter().any(|(_, data)| data.kind() == RecordKind::Srv && !data.denies_service());
        prop_assert!(unready <= usize::from(!others), "{all:?}");
        for at in names() {
            let Some(set) = zone.get(&(at.clone(), RecordKind::Txt)) else { continue };
            for (_, marker) in among(&set.data) {
                let marked = zone.get(&(at.clone(), RecordKind::Srv));
                prop_assert!(marked.is_some_and(|set| set.data.iter().any(|it| marker.marks(it))));
            }
        }
    }

    /// Unready owners alone never empty a domain, whichever look and update in whichever order.
    #[test]
    fn owners_that_lose_all_pods_at_once_leave_one_record(
        order in vec((0_usize..3, any::<bool>()), 0..30),
    ) {
        let mut zone = ObservedRrset::new();
        let records = |owner: usize| wanted(10, &format!("e{owner}.example"), owner != 1);
        for owner in 0..3 {
            publish(&mut zone, &claim(owner), Availability::Serving, &records(owner));
        }
        let mut planned: BTreeMap<usize, Update> = BTreeMap::new();
        for (owner, sends) in order {
            if sends {
                if let Some(update) = planned.remove(&owner) {
                    apply(&mut zone, &update);
                }
            } else if let DnsPlan::Update(update) =
                look(&claim(owner), Availability::Unready, &records(owner), &zone)
            {
                planned.insert(owner, update);
            }
            prop_assert!(!srvs(&zone).is_empty());
        }
        for owner in 0..3 {
            publish(&mut zone, &claim(owner), Availability::Unready, &records(owner));
        }
        let targets: BTreeSet<String> = srvs(&zone).iter().map(ToString::to_string).collect();
        prop_assert_eq!(targets.len(), 1);
    }
}
