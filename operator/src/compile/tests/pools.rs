//! Pools and the whole: gateways, what broke stays, generations, sizes.

use super::*;

#[test]
fn what_broke_stays_as_last_compiled_and_all_else_goes_through() {
    let ca = rcgen::generate_simple_self_signed(["ca.example".to_owned()])
        .unwrap()
        .cert
        .pem();
    let ca_map = config_map("ca", "ca.crt", &ca.replace('\n', "\\n"));
    let trusting = |more: &str| {
        partner(
            "p",
            "p.example",
            &format!(", trust: {{caConfigMapRef: {{name: ca, key: ca.crt}}}}{more}"),
        )
    };
    let hq = pool("hq", HQ, "");
    let good = run(&(hq.clone() + &ca_map + &trusting("")), &Configs::new());
    assert_eq!(reason(&good, "p"), Reason::Accepted);
    let in_force = good.configs["hq"].partners[0].clone();
    assert_eq!(in_force.trust.ca.as_deref(), Some(ca.as_str()));

    let rows = [
        (
            "the map is gone",
            trusting(", connectionLimit: 3"),
            Reason::ReferenceMissing,
        ),
        (
            "the key is gone",
            config_map("ca", "other", "x") + &trusting(""),
            Reason::ReferenceMissing,
        ),
        (
            "no PEM",
            config_map("ca", "ca.crt", "hello") + &trusting(""),
            Reason::InvalidCertificate,
        ),
        (
            "more than proxies take",
            config_map("ca", "ca.crt", &ca.replace('\n', "\\n").repeat(1001)) + &trusting(""),
            Reason::InvalidCertificate,
        ),
    ];
    for (case, yaml, wanted) in rows {
        let after = run(
            &(hq.clone() + &yaml + &partner("q", "q.example", "")),
            &good.configs,
        );
        assert_eq!(after.configs["hq"].partners[0], in_force, "{case}");
        assert_eq!(
            partners(&after.configs).len(),
            2,
            "{case}: the other change goes through"
        );
        let (_, got, message) = accepted(&after, "p");
        assert_eq!(got, wanted, "{case}");
        assert!(
            message.contains("last good form stays"),
            "{case}: {message}"
        );
        let never = run(&(hq.clone() + &yaml), &Configs::new());
        assert!(
            never.configs["hq"].partners.is_empty(),
            "{case}: never in force is left out"
        );
    }
    let killed = run(
        &(hq.clone() + &trusting(", suspended: true")),
        &good.configs,
    );
    assert!(
        killed.configs["hq"].partners[0].suspended,
        "the kill switch always takes effect"
    );
    assert!(
        run(&hq, &good.configs).configs["hq"].partners.is_empty(),
        "so does a deletion"
    );
}

#[test]
fn a_pool_that_broke_stays_as_last_compiled_with_its_kill_switch_and_fresh_partners() {
    let good = run(&pool("hq", HQ, ""), &Configs::new());
    let broken = pool("hq", "org.example, more.example", ", suspended: true").replace(
        "gateways: [{domains: [org.example, more.example]",
        "gateways: [{domains: [org.example]",
    );
    let mut world = world(&(pool("spare", "spare.example", "") + &partner("p", "p.example", "")));
    let documents = documents::read(&broken).unwrap();
    let spec = serde_json::from_value(documents[0].value.clone()).unwrap();
    world.pools.push(spec);
    let after = compile(&world, &good.configs);
    let (status, got, message) = accepted(&after, "hq");
    assert_eq!((status, got), (false, Reason::Invalid));
    assert!(message.contains("more.example has no gateway"), "{message}");
    let config = &after.configs["hq"];
    assert!(config.suspended);
    assert_eq!(config.domains, good.configs["hq"].domains);
    assert_eq!(config.partners.len(), 1);
    assert!(
        !compile(&world, &Configs::new()).configs.contains_key("hq"),
        "never in force is left out"
    );
}

#[test]
fn each_own_domain_has_exactly_one_gateway() {
    for (gateways, says) in [
        (
            "[{domains: [org.example], address: 'a:1'}, {domains: [org.example], address: 'b:1'}]",
            "exactly one",
        ),
        (
            "[{domains: [other.example], address: 'a:1'}]",
            "not among spec.domains",
        ),
    ] {
        let yaml = pool("hq", HQ, "").replace(
            "[{domains: [org.example], address: 'inside.example:5269'}]",
            gateways,
        );
        let mut world = NamespaceInputs {
            namespace: "default".into(),
            ..NamespaceInputs::default()
        };
        let value = documents::read(&yaml).unwrap()[0].value.clone();
        world.pools.push(serde_json::from_value(value).unwrap());
        let (status, _, message) = accepted(&compile(&world, &Configs::new()), "hq");
        assert!(!status && message.contains(says), "{message}");
    }
}

#[test]
fn a_generation_counts_changes_of_content_and_nothing_else() {
    let yaml = pool("hq", HQ, "") + &partner("p", "p.example", "");
    let first = run(&yaml, &Configs::new());
    assert_eq!(first.configs["hq"].generation, 1);
    let same = run(&yaml, &first.configs);
    assert_eq!(same.configs, first.configs);
    let described = run(
        &yaml.replace("p.example", "p.example, description: hello"),
        &first.configs,
    );
    assert_eq!(
        described.configs["hq"].generation, 1,
        "a description is nothing to the proxy"
    );
    let changed = run(&(yaml + &partner("q", "q.example", "")), &first.configs);
    assert_eq!(changed.configs["hq"].generation, 2);
}

#[test]
fn pools_of_a_domain_with_different_dialback_secrets_are_told() {
    let with = |name: &str| format!(", settings: {{dialbackSecretRef: {{name: {name}}}}}");
    let secret = |name: &str, value: &str| {
        format!(
            "---\napiVersion: v1\nkind: Secret\nmetadata: {{name: {name}}}\nstringData: {{secret: {value}}}\n"
        )
    };
    for (yaml, differ) in [
        (pool("a", HQ, "") + &pool("b", HQ, ""), false),
        (pool("a", HQ, &with("s")) + &pool("b", HQ, ""), true),
        (
            pool("a", HQ, &with("s"))
                + &pool("b", HQ, &with("t"))
                + &secret("s", "one")
                + &secret("t", "one"),
            false,
        ),
        (
            pool("a", HQ, &with("s"))
                + &pool("b", HQ, &with("t"))
                + &secret("s", "one")
                + &secret("t", "two"),
            true,
        ),
    ] {
        let compiled = run(&yaml, &Configs::new());
        let told = compiled
            .diagnostics
            .iter()
            .any(|d| d.reason == Reason::DialbackSecretsDiffer);
        assert_eq!(told, differ, "{yaml}");
    }
}

#[test]
fn a_pool_out_of_the_records_drains_once_they_have_run_out_and_servers_inside_pass_it_by() {
    for (more, after) in [
        ("", None),
        (", route: {enabled: false}", Some(70)),
        (
            ", route: {enabled: false}, dns: {externalDns: {ttlSeconds: 300}}",
            Some(310),
        ),
    ] {
        let compiled = run(&pool("hq", HQ, more), &Configs::new());
        let config = &compiled.configs["hq"];
        assert_eq!(config.drain_after_seconds, after, "{more}");
        assert_eq!(config.edges[0].withdrawn, after.is_some(), "{more}");
    }
}

/// B-31.
#[test]
fn a_pool_without_a_way_inside_drains_as_one_out_of_the_records() {
    let mut world = world(&pool("hq", HQ, ""));
    world.withdrawn = ["hq".to_owned()].into();
    let config = &compile(&world, &Configs::new()).configs["hq"];
    assert_eq!(config.drain_after_seconds, Some(70));
    assert!(config.edges[0].withdrawn);
}

#[test]
fn ten_thousand_partners_and_a_hundred_thousand_users_compile_and_change_nothing_twice() {
    let mut world = world(&pool("hq", HQ, ""));
    for index in 0..10_000 {
        let spec =
            serde_json::from_value(serde_json::json!({ "domain": format!("p{index}.example") }))
                .unwrap();
        let name = format!("p{index}");
        world
            .partners
            .push(xmpp_edge_crds::kinds::XmppFederatedPartner::new(
                &name, spec,
            ));
    }
    let lines: String = (0..100_000)
        .map(|index| format!("user{index}@org.example\n"))
        .collect();
    world
        .config_maps
        .insert("grants".into(), [("list".to_owned(), lines)].into());
    let spec = serde_json::json!({ "scope": "User", "usersFrom": [{ "configMapRef": { "name": "grants", "key": "list" } }] });
    world
        .policies
        .push(xmpp_edge_crds::kinds::ExternalAccessPolicy::new(
            "granted",
            serde_json::from_value(spec).unwrap(),
        ));
    let first = compile(&world, &Configs::new());
    assert_eq!(first.configs["hq"].partners.len(), 10_000);
    let AccessScope::User(granted) = &first.configs["hq"].access.policies[0].scope else {
        panic!("a User policy")
    };
    assert_eq!(granted.users.len(), 100_000);
    assert_eq!(compile(&world, &first.configs).configs, first.configs);
}

/// Finding S-14, the same in `validate`, standalone and a cluster: they all compile.
#[test]
fn a_pool_whose_secrets_would_be_the_namespaces_is_rejected() {
    for name in ["xmpp-edge-internal", "xmpp-edge-gateway-org"] {
        let compiled = run(&pool(name, "org.example", ""), &Configs::new());
        let (accepted, reason, message) = accepted(&compiled, name);
        assert!(!accepted && reason == Reason::Invalid, "{message}");
        assert!(message.contains("choose another name"), "{message}");
        assert!(compiled.configs.is_empty());
    }
}

/// Were it rejected only where it is provisioned, nothing would reach its pods any more.
#[test]
fn a_pool_that_a_cluster_cannot_provision_stays_as_last_compiled_and_is_reached_by_kill_switches() {
    let more = partner("p", "p.example", "") + &partner("q", "q.example", "");
    let good = run(&(pool("hq", HQ, "") + &more), &Configs::new());
    let label = "a".repeat(60);
    let long = format!("{label}.{label}.{label}.{label}.org");
    let suspended = partner("p", "p.example", ", suspended: true");
    let mut edited = world(&(pool("hq", &long, "") + &suspended));
    assert_eq!(
        reason(&compile(&edited, &good.configs), "hq"),
        Reason::Accepted
    );
    edited.single_process = false;
    let after = compile(&edited, &good.configs);
    let (accepted, reason, message) = accepted(&after, "hq");
    assert!(!accepted && reason == Reason::Invalid, "{message}");
    assert!(message.contains("list a shorter domain first"), "{message}");
    let config = &after.configs["hq"];
    assert_eq!(config.domains, good.configs["hq"].domains);
    let partners = config.partners.iter();
    let said: Vec<_> = partners.map(|it| (&*it.name, it.suspended)).collect();
    assert_eq!(said, [("p", true)]);
}
