//! Partners: negotiation, who has a domain, contacts.

use super::*;

#[test]
fn the_negotiation_matrix_is_what_a_partners_manifest_means() {
    const N: &str = "InvalidNegotiation";
    // tls, sasl, dialback, without allowPlaintext, with it
    let rows = [
        ("Required", "Required", true, "SaslOverTls", "SaslOverTls"),
        ("Required", "Required", false, "SaslOverTls", "SaslOverTls"),
        (
            "Optional",
            "Required",
            true,
            N,
            "SaslOverTls TlsDialback TcpDialback",
        ),
        ("Optional", "Required", false, "SaslOverTls", "SaslOverTls"),
        ("NotSupported", "Required", true, N, N),
        ("NotSupported", "Required", false, N, N),
        (
            "Required",
            "Optional",
            true,
            "SaslOverTls TlsDialback",
            "SaslOverTls TlsDialback",
        ),
        ("Required", "Optional", false, "SaslOverTls", "SaslOverTls"),
        (
            "Optional",
            "Optional",
            true,
            N,
            "SaslOverTls TlsDialback TcpDialback",
        ),
        ("Optional", "Optional", false, "SaslOverTls", "SaslOverTls"),
        ("NotSupported", "Optional", true, N, N),
        ("NotSupported", "Optional", false, N, N),
        (
            "Required",
            "NotSupported",
            true,
            "TlsDialback",
            "TlsDialback",
        ),
        ("Required", "NotSupported", false, N, N),
        (
            "Optional",
            "NotSupported",
            true,
            N,
            "TlsDialback TcpDialback",
        ),
        ("Optional", "NotSupported", false, N, N),
        ("NotSupported", "NotSupported", true, N, "TcpDialback"),
        ("NotSupported", "NotSupported", false, N, N),
    ];
    for (row, (tls, sasl, dialback, guarded, open)) in rows.into_iter().enumerate() {
        for (plaintext, expected) in [(false, guarded), (true, open)] {
            let more = format!(
                ", tlsNegotiation: {tls}, saslNegotiation: {sasl}, supportDialbackNegotiation: {dialback}, allowPlaintext: {plaintext}"
            );
            let mut world = world(&pool("hq", HQ, ""));
            // Past admission, as an object stored before a rule was there: compiling judges alone.
            let spec = format!("{{domain: partner.example{more}}}");
            let spec = serde_saphyr::from_str(&spec).unwrap();
            world
                .partners
                .push(xmpp_edge_crds::kinds::XmppFederatedPartner::new("p", spec));
            let compiled = compile(&world, &Configs::new());
            let row = format!("row {}, allowPlaintext {plaintext}", row + 1);
            let Some(partner) = compiled.configs["hq"].partners.first() else {
                assert_eq!(expected, reason(&compiled, "p").as_str(), "{row}");
                continue;
            };
            let methods: Vec<&str> = partner
                .methods
                .iter()
                .map(|method| method.as_str())
                .collect();
            assert_eq!(methods.join(" "), expected, "{row}");
            let secure = compiled
                .diagnostics
                .iter()
                .find(|d| d.condition == ConditionType::Secure)
                .unwrap();
            assert_eq!(secure.status, !expected.contains("TcpDialback"), "{row}");
        }
    }
}

#[test]
fn who_has_a_domain_keeps_it_and_the_other_is_left_out_whole() {
    let rows: &[Row] = &[
        (
            "the first by name",
            String::new(),
            partner("a", "x.example", "")
                + &partner("b", "b.example", ", additionalDomains: [x.example]"),
            &[("a", "x.example")],
            &[("a", Reason::Accepted), ("b", Reason::DomainConflict)],
        ),
        (
            "who has it in force",
            partner("b", "x.example", ""),
            partner("a", "x.example", "") + &partner("b", "x.example", ""),
            &[("b", "x.example")],
            &[("a", Reason::DomainConflict), ("b", Reason::Accepted)],
        ),
        (
            "what grew into a conflict stays as it was",
            partner("a", "x.example", "") + &partner("b", "b.example", ""),
            partner("a", "x.example", "")
                + &partner("b", "b.example", ", additionalDomains: [x.example]"),
            &[("a", "x.example"), ("b", "b.example")],
            &[("b", Reason::DomainConflict)],
        ),
        (
            "the same wildcard twice",
            String::new(),
            partner("a", "a.example", ", additionalDomains: ['*.net.example']")
                + &partner("b", "b.example", ", additionalDomains: ['*.net.example']"),
            &[("a", "a.example *.net.example")],
            &[("b", Reason::DomainConflict)],
        ),
        (
            "exact, wildcard and longer wildcard are no conflict",
            String::new(),
            partner("a", "a.example", ", additionalDomains: ['*.net.example']")
                + &partner(
                    "b",
                    "x.net.example",
                    ", additionalDomains: ['*.y.net.example']",
                ),
            &[
                ("a", "a.example *.net.example"),
                ("b", "x.net.example *.y.net.example"),
            ],
            &[("a", Reason::Accepted), ("b", Reason::Accepted)],
        ),
        (
            "a deleted partner's domain is free",
            partner("b", "x.example", ""),
            partner("a", "x.example", ""),
            &[("a", "x.example")],
            &[("a", Reason::Accepted)],
        ),
        (
            "an own domain belongs to no partner",
            String::new(),
            partner("a", "org.example", ""),
            &[],
            &[("a", Reason::OwnDomain)],
        ),
    ];
    for (case, before, after, expected, reasons) in rows {
        let hq = pool("hq", HQ, "");
        let first = run(&(hq.clone() + before), &Configs::new());
        let second = run(&(hq + after), &first.configs);
        assert_eq!(partners(&second.configs), pairs(expected), "{case}");
        for (name, wanted) in *reasons {
            let (_, got, message) = accepted(&second, name);
            assert_eq!(got, *wanted, "{case}: {name}: {message}");
            if got == Reason::DomainConflict {
                let winner = if *name == "a" { "\"b\"" } else { "\"a\"" };
                assert!(message.contains(winner), "{case}: {message}");
            }
        }
    }
}

#[test]
fn the_older_object_wins_where_the_age_is_known() {
    let aged = |name: &str, time: &str| {
        partner(name, "x.example", "").replace(
            &format!("{{name: {name}}}"),
            &format!("{{name: {name}, creationTimestamp: '{time}'}}"),
        )
    };
    let yaml = pool("hq", HQ, "")
        + &aged("a", "2026-02-01T00:00:00Z")
        + &aged("b", "2026-01-01T00:00:00Z");
    assert_eq!(
        partners(&run(&yaml, &Configs::new()).configs),
        pairs(&[("b", "x.example")])
    );
}

#[test]
fn a_partner_below_an_own_domain_needs_dialback_inside() {
    let strict = ", negotiation: {saslNegotiation: Required}";
    for (domain, more, gateway, wanted) in [
        ("sub.org.example", "", "", Reason::Accepted),
        ("sub.org.example", "", strict, Reason::BelowOwnDomain),
        (
            "a.example",
            ", additionalDomains: ['*.org.example']",
            strict,
            Reason::BelowOwnDomain,
        ),
        (
            "a.example",
            ", additionalDomains: ['*.x.org.example']",
            strict,
            Reason::BelowOwnDomain,
        ),
        ("notorg.example", "", strict, Reason::Accepted),
    ] {
        let hq = pool("hq", HQ, "").replace("5269'}", &format!("5269'{gateway}}}"));
        let compiled = run(&(hq + &partner("p", domain, more)), &Configs::new());
        assert_eq!(reason(&compiled, "p"), wanted, "{domain}{more} {gateway}");
    }
}

#[test]
fn unverified_partners_need_contacts_that_all_share() {
    let postgres =
        |name: &str| format!(", contacts: {{postgres: {{secretRef: {{name: {name}}}}}}}");
    let rows = [
        ("one process", false, pool("a", HQ, ""), vec![]),
        (
            "two replicas",
            true,
            pool("a", HQ, ", replicas: 2"),
            vec!["a"],
        ),
        ("the smallest pool", true, pool("a", HQ, ""), vec![]),
        ("one replica", true, pool("a", HQ, ", replicas: 1"), vec![]),
        (
            "replicas with a database",
            true,
            pool("a", HQ, &postgres("db")),
            vec![],
        ),
        (
            "two pools of a domain",
            false,
            pool("a", HQ, "") + &pool("b", HQ, ""),
            vec!["a", "b"],
        ),
        (
            "two pools, one database",
            false,
            pool("a", HQ, &postgres("db")) + &pool("b", HQ, &postgres("db")),
            vec![],
        ),
        (
            "two databases",
            false,
            pool("a", HQ, &postgres("db")) + &pool("b", HQ, &postgres("db2")),
            vec!["a", "b"],
        ),
        (
            "pools of different domains",
            false,
            pool("a", HQ, "") + &pool("b", "b.example", ""),
            vec![],
        ),
    ];
    for (case, cluster, pools, left_out) in rows {
        let mut world = world(
            &(pools
                + &partner("p", "p.example", "")
                + &partner("f", "f.example", ", partnerType: Federated")),
        );
        world.single_process = !cluster;
        let compiled = compile(&world, &Configs::new());
        let out: Vec<&str> = compiled
            .configs
            .iter()
            .filter(|(_, config)| {
                config
                    .partners
                    .iter()
                    .any(|partner| partner.name == "p" && partner.left_out)
            })
            .map(|(name, _)| name.as_str())
            .collect();
        assert_eq!(out, left_out, "{case}");
        assert!(
            compiled
                .configs
                .values()
                .all(|c| !c.partners.iter().any(|p| p.name == "f" && p.left_out))
        );
        let said: Vec<&Diagnostic> = compiled
            .diagnostics
            .iter()
            .filter(|d| d.reason == Reason::ContactsNotShared)
            .collect();
        assert_eq!(said.len(), left_out.len(), "{case}");
        for diagnostic in said {
            assert!(
                diagnostic.message.contains("postgres")
                    && diagnostic.message.contains("one replica"),
                "{}",
                diagnostic.message
            );
        }
        assert!(!compiled.has_errors(), "{case}");
    }
}
