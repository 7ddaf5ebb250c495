//! Which trunk a pair takes, and what trunks are told of each other. No trunk is behind the handles.

use super::*;
use crate::{config::trunk_name::TrunkName, stream::trunk::figures::TrunkFigures};

fn name(text: &str) -> TrunkName {
    text.parse().expect("a name")
}

fn domain(text: &str) -> DomainName {
    DomainName::parse(text).expect("valid")
}

fn facts(address: u16) -> TrunkFacts {
    TrunkFacts {
        version: "1.1.0".parse().expect("a version"),
        address: Some(([127, 0, 0, 1], address).into()),
        since: Timestamp::now(),
        certificate_not_after: None,
        key_sha256: None,
        figures: Arc::<TrunkFigures>::default(),
    }
}

fn inactive() -> Activity {
    Activity {
        is_active: false,
        claim: None,
    }
}

fn pod(text: &str, priority: u16) -> FarEdge {
    FarEdge {
        pool: name("hq"),
        pod: name(text),
        facts: EdgeFacts {
            priority,
            weight: 100,
            is_withdrawn: false,
            replicas: 1,
        },
    }
}

fn sidecar(instance: &str, servers: SidecarServers) -> FarSidecar {
    FarSidecar {
        gateway: "org".to_owned(),
        id: SidecarId {
            instance: name(instance),
            start: None,
        },
        domains: vec![domain("org.example")],
        servers,
        server: ServerState::Up,
    }
}

/// Trunks by their handles, and what each was told since.
#[derive(Default)]
struct Handles(BTreeMap<u64, Arc<StreamHandle>>);

impl Handles {
    fn of(&mut self, id: u64) -> Arc<StreamHandle> {
        Arc::clone(self.0.entry(id).or_default())
    }

    fn told(&self, id: u64) -> Vec<Command> {
        std::iter::from_fn(|| self.0[&id].told()).collect()
    }

    fn is_drained(&self, id: u64) -> bool {
        self.told(id)
            .iter()
            .any(|command| matches!(command, Command::Drain))
    }
}

fn outbound() -> Pair {
    Pair {
        from: domain("org.example"),
        to: domain("partner.example"),
    }
}

fn chosen(registry: &TrunkRegistry, side: Side, pair: &Pair) -> Option<u64> {
    registry.choose(side, pair).map(|(id, _)| id)
}

/// B-34: two trunks are opened at once, and the first edge that answers knows an older claim.
#[test]
fn an_edge_that_answers_to_an_earlier_claim_is_told_what_is_claimed_now() {
    let (registry, mut handles) = (TrunkRegistry::default(), Handles::default());
    let since = Timestamp::UNIX_EPOCH;
    assert_eq!(registry.opening(1, since), Some(since));
    assert_eq!(registry.opening(2, Timestamp::now()), Some(since));
    let stands_by = Activity {
        is_active: false,
        claim: Some(since),
    };
    for id in [1, 2] {
        let far = pod(&format!("hq-{id}"), 10);
        let address = u16::try_from(id).expect("small");
        let stands = (stands_by, TrunkDial::Further);
        registry
            .stands_to_edge(id, handles.of(id), far, facts(address), stands)
            .expect("another pod");
    }
    for id in [1, 2] {
        let told = handles.told(id);
        let withdrawn = told.iter().filter(|command| {
            matches!(
                command,
                Command::Trunk(TrunkCommand::Say(Nonza::Claim(None)))
            )
        });
        assert_eq!(withdrawn.count(), 1, "edge {id}: {told:?}");
    }
}

#[test]
fn an_edge_of_lower_priority_is_taken_while_the_others_are_withdrawn_or_drain() {
    let (registry, mut handles) = (TrunkRegistry::default(), Handles::default());
    let chosen = || chosen(&registry, Side::Partner, &outbound());
    assert_eq!(chosen(), None);
    for (id, priority) in [(1, 10), (2, 20)] {
        let far = pod(&format!("hq-{id}"), priority);
        let address = u16::try_from(id).expect("small");
        registry
            .stands_to_edge(
                id,
                handles.of(id),
                far,
                facts(address),
                (inactive(), TrunkDial::Further),
            )
            .expect("another pod");
    }
    assert_eq!(chosen(), Some(1));
    let withdrawn = |is_withdrawn| EdgeChange {
        is_withdrawn: Some(is_withdrawn),
        ..EdgeChange::default()
    };
    registry.edge_changed(1, withdrawn(true));
    assert_eq!(chosen(), Some(2));
    registry.edge_changed(1, withdrawn(false));
    assert_eq!(chosen(), Some(1));
    registry.drains(1);
    assert_eq!(chosen(), Some(2));
    registry.gone(2);
    assert_eq!(chosen(), None, "what drains takes nothing");
    assert_eq!(
        chosen_inbound(&registry),
        None,
        "an edge is no way to a server"
    );
}

fn chosen_inbound(registry: &TrunkRegistry) -> Option<u64> {
    chosen(registry, Side::Gateway, &outbound().reversed())
}

#[test]
fn a_renewed_trunk_drains_the_one_before_and_another_address_of_the_pod_is_of_no_use() {
    let (registry, mut handles) = (TrunkRegistry::default(), Handles::default());
    let mut stands = |id, address, dial| {
        let (handle, far) = (handles.of(id), pod("hq-0", 10));
        registry.stands_to_edge(id, handle, far, facts(address), (inactive(), dial))
    };
    assert_eq!(stands(1, 1, TrunkDial::Further), Ok(()));
    assert_eq!(stands(2, 2, TrunkDial::Further), Err(PodIsReached));
    let by_the_same = stands(2, 1, TrunkDial::Further);
    assert_eq!(by_the_same, Err(PodIsReached), "a load balancer is there");
    assert_eq!(stands(3, 1, TrunkDial::Renewal), Ok(()));
    assert!(handles.is_drained(1) && !handles.is_drained(3));
    assert_eq!(chosen(&registry, Side::Partner, &outbound()), Some(3));
    registry.drains(1);
    registry.gone(1);
    assert_eq!(chosen(&registry, Side::Partner, &outbound()), Some(3));
}

/// What a sidecar was told last of its claim.
fn activity(handles: &Handles, id: u64) -> Option<Activity> {
    let told = handles.told(id).into_iter();
    let activities = told.filter_map(|command| match command {
        Command::Trunk(TrunkCommand::Say(Nonza::Edge(change))) => change.activity,
        _ => None,
    });
    activities.last()
}

#[test]
fn of_single_servers_the_oldest_claim_is_active_until_its_last_trunk_is_gone() {
    let (registry, mut handles) = (TrunkRegistry::default(), Handles::default());
    let at = |seconds| Timestamp::from_second(seconds).ok();
    let mut stands = |id, instance, claim| {
        let (handle, far) = (handles.of(id), sidecar(instance, SidecarServers::Single));
        registry
            .stands_to_sidecar(id, handle, far, facts(1), claim)
            .expect("few")
            .is_active
    };
    assert!(stands(1, "b", at(20)));
    assert!(stands(2, "a", at(10)), "it is older");
    assert!(stands(3, "a", at(10)), "and renews its trunk");
    let other = activity(&handles, 1).expect("it is told");
    assert_eq!((other.is_active, other.claim), (false, at(20)));
    assert_eq!(chosen_inbound(&registry), Some(2), "until that drains");
    registry.drains(2);
    assert_eq!(chosen_inbound(&registry), Some(3));
    registry.claims(1, None);
    registry.gone(2);
    assert_eq!(activity(&handles, 1), Some(inactive()));
    registry.gone(3);
    let free = activity(&handles, 1).expect("it is told");
    assert!(free.is_active && free.claim.is_none());
    assert_eq!(chosen_inbound(&registry), None, "it has not claimed yet");
    registry.claims(1, at(30));
    assert_eq!(chosen_inbound(&registry), Some(1));
    let elsewhere = Pair {
        from: domain("partner.example"),
        to: domain("org2.example"),
    };
    assert_eq!(chosen(&registry, Side::Gateway, &elsewhere), None);
}

fn place(text: &str) -> TrunkPlace {
    TrunkPlace::Server(domain(text))
}

#[test]
fn since_when_nobody_is_there_counts_from_the_last_trunk_s_end() {
    let (registry, mut handles) = (TrunkRegistry::default(), Handles::default());
    registry.are_to_lead_to(&[domain("org.example"), domain("org2.example")].into());
    let before = registry.absence(&place("org.example")).since;
    let uncovered = registry.absence(&place("org2.example")).since;
    let far = sidecar("a", SidecarServers::Clustered);
    registry
        .stands_to_sidecar(1, handles.of(1), far, facts(1), None)
        .expect("few");
    assert_eq!(
        registry.absence(&place("org2.example")).since,
        uncovered,
        "it does not speak for that one"
    );
    registry.gone(1);
    let since = registry.absence(&place("org.example")).since;
    assert!(since > before);
}

/// Two hosts of one name, each with a key of its own.
#[test]
fn of_two_sidecars_of_one_name_one_is_active_and_both_are_shown_by_their_keys() {
    let (registry, mut handles) = (TrunkRegistry::default(), Handles::default());
    let mut stands = |id, start, key: &str, claim: Option<i64>| {
        let mut far = sidecar("xmpp", SidecarServers::Single);
        far.id.start = Some(start);
        let facts = TrunkFacts {
            key_sha256: Some(key.repeat(64)),
            ..facts(1)
        };
        let claim = claim.and_then(|claim| Timestamp::from_second(claim).ok());
        registry
            .stands_to_sidecar(id, handles.of(id), far, facts, claim)
            .expect("few")
            .is_active
    };
    assert!(stands(1, 70, "a", Some(10)));
    assert!(!stands(2, 80, "b", Some(20)), "it is another one");
    assert_eq!(chosen_inbound(&registry), Some(1));
    let shown = registry.sidecars_of("org").into_iter();
    let shown: Vec<_> = shown.map(|own| (own.name, own.is_active)).collect();
    let expected = [
        ("xmpp (key aaaaaaaa…)".to_owned(), true),
        ("xmpp (key bbbbbbbb…)".to_owned(), false),
    ];
    assert_eq!(shown, expected);
    // The first one was killed and is back, before its trunk is known to be dead.
    assert!(!stands(3, 90, "a", Some(30)), "its claim of before is void");
    assert_eq!(chosen_inbound(&registry), Some(2));
    registry.claims(1, Timestamp::from_second(5).ok());
    assert_eq!(chosen_inbound(&registry), Some(2));
    registry.gone(1);
    registry.gone(2);
    assert_eq!(chosen_inbound(&registry), Some(3));
    assert_eq!(registry.sidecars_of("org")[0].name, "xmpp");
}

#[test]
fn pods_of_two_pools_on_one_host_may_be_called_alike() {
    let (registry, mut handles) = (TrunkRegistry::default(), Handles::default());
    for (id, pool) in [(1, "edge"), (2, "edge-b")] {
        let far = FarEdge {
            pool: name(pool),
            ..pod("edge-b.example", 10)
        };
        let address = u16::try_from(id).expect("small");
        let stands = (inactive(), TrunkDial::Further);
        let stands = registry.stands_to_edge(id, handles.of(id), far, facts(address), stands);
        assert_eq!(stands, Ok(()), "{pool}");
    }
}

/// B-16.
#[test]
fn b16_an_edge_that_calls_itself_as_another_does_not_keep_that_one_out() {
    let (registry, mut handles) = (TrunkRegistry::default(), Handles::default());
    let address = |port: u16| SocketAddr::from(([127, 0, 0, 1], port));
    for port in [1, 2, 3] {
        registry.dials(address(port), DialOutcome::None);
    }
    let mut stands = |id, port, key: &str, dial| {
        let facts = TrunkFacts {
            key_sha256: Some(key.repeat(64)),
            ..facts(port)
        };
        let stands = (inactive(), dial);
        registry.stands_to_edge(id, handles.of(id), pod("hq-0", 10), facts, stands)
    };
    assert_eq!(stands(1, 1, "a", TrunkDial::Further), Ok(()), "the other");
    assert_eq!(stands(2, 2, "b", TrunkDial::Further), Ok(()), "the pod");
    let again = stands(3, 3, "b", TrunkDial::Further);
    assert_eq!(again, Err(PodIsReached), "the pod, by another address");
    // It has another key after its intermediate was renewed.
    assert_eq!(stands(4, 2, "c", TrunkDial::Renewal), Ok(()));
    assert!(handles.is_drained(2) && !handles.is_drained(1));
    registry.drains(2);
    registry.gone(2);
    let behind = registry.behind(address(3));
    assert!(!behind.is_redundant, "nobody with that key is reached");
    registry.gone(1);
    assert_eq!(chosen(&registry, Side::Partner, &outbound()), Some(4));
    // What it says of its pool has an end.
    let change = EdgeChange {
        replicas: Some(u16::MAX),
        ..EdgeChange::default()
    };
    registry.edge_changed(4, change);
    for id in 10..73 {
        let own = format!("hq-{id}");
        let (handle, far) = (handles.of(id), pod(&own, 10));
        let stands = (inactive(), TrunkDial::Further);
        let port = u16::try_from(id).expect("small");
        registry
            .stands_to_edge(id, handle, far, facts(port), stands)
            .expect("another pod");
    }
    assert!(!registry.behind(address(2)).lacks_pods);
}

/// A name with addresses of both families: the second one is of no use while the pod's trunk stands.
#[test]
fn a_second_address_of_a_pod_is_redundant_until_its_trunk_is_gone() {
    let (registry, mut handles) = (TrunkRegistry::default(), Handles::default());
    let addresses: [SocketAddr; 2] = [1, 2].map(|port| ([127, 0, 0, 1], port).into());
    for address in addresses {
        registry.dials(address, DialOutcome::None);
    }
    let mut stands = |id, address| {
        let dial = (inactive(), TrunkDial::Further);
        registry.stands_to_edge(id, handles.of(id), pod("hq-0", 10), facts(address), dial)
    };
    assert_eq!(stands(1, 1), Ok(()));
    assert_eq!(stands(2, 2), Err(PodIsReached));
    let behind = registry.behind(addresses[1]);
    assert!(behind.is_redundant && !behind.lacks_pods, "{behind:?}");
    let change = EdgeChange {
        replicas: Some(2),
        ..EdgeChange::default()
    };
    registry.edge_changed(1, change);
    assert!(
        registry.behind(addresses[1]).lacks_pods,
        "another may answer"
    );
    registry.drains(1);
    assert!(!registry.behind(addresses[1]).is_redundant);
    let behind = registry.behind(addresses[0]);
    assert!(!behind.has_open && behind.known == 1, "{behind:?}");
}

#[test]
fn what_comes_in_waits_while_no_sidecar_that_may_have_it_reaches_its_server() {
    use SidecarServers::{Clustered, Single};
    let away = || ServerState::Down {
        text: "it hangs".to_owned(),
    };
    for (servers, taken) in [(Single, None), (Clustered, Some(2))] {
        let (registry, mut handles) = (TrunkRegistry::default(), Handles::default());
        for (id, instance) in [(1, "a"), (2, "b")] {
            let (handle, far) = (handles.of(id), sidecar(instance, servers));
            let claim = Timestamp::from_second(id.cast_signed()).ok();
            registry
                .stands_to_sidecar(id, handle, far, facts(1), claim)
                .expect("few");
        }
        registry.server_is(1, away());
        assert_eq!(chosen_inbound(&registry), taken, "{servers:?}");
        registry.server_is(2, away());
        assert_eq!(chosen_inbound(&registry), None, "{servers:?}");
        let cause = AbsenceCause::ServerDown {
            instance: name("a"),
            text: "it hangs".to_owned(),
        };
        assert_eq!(registry.absence(&place("org.example")).cause, cause);
        registry.server_is(1, ServerState::Up);
        assert_eq!(chosen_inbound(&registry), Some(1), "{servers:?}");
        registry.gone(1);
        registry.gone(2);
        assert_eq!(
            registry.absence(&place("org.example")).cause,
            AbsenceCause::NoTrunk
        );
    }
}

/// B-32.
#[test]
fn pods_behind_one_address_are_counted_against_what_their_pool_says() {
    let (registry, mut handles) = (TrunkRegistry::default(), Handles::default());
    let address = ([127, 0, 0, 1], 1).into();
    assert!(
        !registry.behind(address).lacks_pods,
        "nothing is known of it"
    );
    let mut stands = |id, name| {
        let mut far = pod(name, 10);
        far.facts.replicas = 2;
        let dial = (inactive(), TrunkDial::Further);
        registry.stands_to_edge(id, handles.of(id), far, facts(1), dial)
    };
    assert_eq!(stands(1, "hq-0"), Ok(()));
    assert!(registry.behind(address).lacks_pods);
    assert_eq!(stands(2, "hq-1"), Ok(()));
    assert!(!registry.behind(address).lacks_pods);
    registry.dials(address, DialOutcome::None);
    let shown = registry.edges().into_iter().filter_map(|own| own.trunk);
    let shown: Vec<_> = shown.map(|(far, _, _)| far.pod.to_string()).collect();
    assert_eq!(shown, ["hq-0", "hq-1"], "each is shown");
    let change = EdgeChange {
        replicas: Some(3),
        ..EdgeChange::default()
    };
    registry.edge_changed(2, change);
    assert!(registry.behind(address).lacks_pods);
    assert!(!registry.behind(([127, 0, 0, 1], 2).into()).lacks_pods);
}
