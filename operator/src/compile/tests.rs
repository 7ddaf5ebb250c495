//! Meaning, as tables: manifests in, documents and diagnostics out.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use xmpp_edge_crds::{
    edge_config::{AccessScope, EdgeConfig},
    kinds::conditions::{ConditionType, Reason},
};

use super::*;
use crate::standalone::{documents, manifests};

type Configs = BTreeMap<String, EdgeConfig>;

/// The world of namespace `default` that these manifests make; short forms as the helpers below
/// write them.
fn world(yaml: &str) -> World {
    let documents = documents::read(yaml).unwrap();
    let mut gathered = manifests::gather(
        [("test.yaml", documents.as_slice())],
        &manifests::Stored::new(),
    );
    assert!(gathered.problems.is_empty(), "{:?}", gathered.problems);
    let mut world = gathered.worlds.remove("default").unwrap_or_default();
    world.namespace = "default".into();
    world.single_process = true;
    world
}

fn run(yaml: &str, last: &Configs) -> Compiled {
    compile(&world(yaml), last)
}

/// A pool for `domains`, with more of its spec in flow style.
fn pool(name: &str, domains: &str, more: &str) -> String {
    format!(
        "---\napiVersion: xmpp-edge.dev/v1alpha1\nkind: EdgePool\nmetadata: {{name: {name}}}\nspec: {{site: {name}-site, domains: [{domains}], accessEdge: {{fqdn: {name}.edge.example}}, gateways: [{{domains: [{domains}], address: 'inside.example:5269'}}], certificate: {{selfSigned: {{}}}}{more}}}\n"
    )
}

fn partner(name: &str, domain: &str, more: &str) -> String {
    format!(
        "---\napiVersion: xmpp-edge.dev/v1alpha1\nkind: XmppFederatedPartner\nmetadata: {{name: {name}}}\nspec: {{domain: {domain}{more}}}\n"
    )
}

fn policy(name: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: xmpp-edge.dev/v1alpha1\nkind: ExternalAccessPolicy\nmetadata: {{name: {name}}}\nspec: {{{spec}}}\n"
    )
}

fn config_map(name: &str, key: &str, lines: &str) -> String {
    format!(
        "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}}}\ndata: {{{key}: \"{lines}\"}}\n"
    )
}

/// `Accepted` of an object: the reason, and the message.
fn accepted(compiled: &Compiled, name: &str) -> (bool, Reason, String) {
    let mut found = compiled.diagnostics.iter().filter(|diagnostic| {
        diagnostic.object.name == name && diagnostic.condition == ConditionType::Accepted
    });
    let diagnostic = found
        .next()
        .unwrap_or_else(|| panic!("nothing is said of {name}"));
    assert!(
        found.next().is_none(),
        "{name} is accepted or rejected once"
    );
    assert_eq!(diagnostic.status, diagnostic.severity != Severity::Error);
    (
        diagnostic.status,
        diagnostic.reason,
        diagnostic.message.clone(),
    )
}

fn reason(compiled: &Compiled, name: &str) -> Reason {
    accepted(compiled, name).1
}

/// Partners of the one pool: name and domains.
fn partners(configs: &Configs) -> Vec<(String, String)> {
    let config = configs.values().next().unwrap();
    config
        .partners
        .iter()
        .map(|partner| {
            let domains: Vec<String> = partner.domains.iter().map(ToString::to_string).collect();
            (partner.name.clone(), domains.join(" "))
        })
        .collect()
}

/// Policies of the one pool: name and who is granted.
fn policies(configs: &Configs) -> Vec<(String, String)> {
    let config = configs.values().next().unwrap();
    config
        .access
        .policies
        .iter()
        .map(|policy| {
            let scope = match &policy.scope {
                AccessScope::Global => "*".to_owned(),
                AccessScope::Site(site) => format!("site {site}"),
                AccessScope::User(granted) => {
                    let users = granted.users.iter().map(ToString::to_string);
                    let domains = granted.domains.iter().map(|domain| format!("*@{domain}"));
                    users.chain(domains).collect::<Vec<_>>().join(" ")
                }
            };
            (policy.name.clone(), scope)
        })
        .collect()
}

fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
    list.iter()
        .map(|(a, b)| ((*a).to_owned(), (*b).to_owned()))
        .collect()
}

/// A case: manifests before, manifests after, what is in force then, and what is said of whom.
type Row = (
    &'static str,
    String,
    String,
    &'static [(&'static str, &'static str)],
    &'static [(&'static str, Reason)],
);

const HQ: &str = "org.example";

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
        let mut world = World {
            namespace: "default".into(),
            ..World::default()
        };
        let value = documents::read(&yaml).unwrap()[0].value.clone();
        world.pools.push(serde_json::from_value(value).unwrap());
        let (status, _, message) = accepted(&compile(&world, &Configs::new()), "hq");
        assert!(!status && message.contains(says), "{message}");
    }
}

const ON: &str = "enableFederationAccess: true, enableXmppAccess: true";

#[test]
fn a_gateway_of_mode_sidecar_is_refused_and_what_is_in_force_stays() {
    let direct = pool("hq", HQ, "");
    let sidecar = direct.replace("address:", "mode: Sidecar, address:");
    let fresh = run(&sidecar, &Configs::new());
    let (status, reason, message) = accepted(&fresh, "hq");
    assert_eq!((status, reason), (false, Reason::Invalid));
    for says in ["spec.gateways[0].mode", "set Direct"] {
        assert!(message.contains(says), "{message}");
    }
    assert!(fresh.configs.is_empty());
    let before = run(&direct, &Configs::new()).configs;
    let after = run(&(sidecar + &partner("p", "p.example", "")), &before);
    assert_eq!(after.configs["hq"].gateways, before["hq"].gateways);
    assert_eq!(partners(&after.configs), pairs(&[("p", "p.example")]));
    assert!(accepted(&after, "hq").2.contains("stays in force"));
}

#[test]
fn a_user_stands_in_one_policy_at_most() {
    let user =
        |name: &str, users: &str| policy(name, &format!("scope: User, {ON}, users: [{users}]"));
    let rows: &[Row] = &[
        (
            "two Global",
            String::new(),
            policy("a", &format!("scope: Global, {ON}"))
                + &policy("b", &format!("scope: Global, {ON}")),
            &[("a", "*")],
            &[("b", Reason::Conflict)],
        ),
        (
            "who is in force stays",
            policy("b", &format!("scope: Global, {ON}")),
            policy("a", &format!("scope: Global, {ON}"))
                + &policy("b", &format!("scope: Global, {ON}")),
            &[("b", "*")],
            &[("a", Reason::Conflict), ("b", Reason::Accepted)],
        ),
        (
            "two for one site",
            String::new(),
            policy("a", "scope: Site, site: hq-site") + &policy("b", "scope: Site, site: hq-site"),
            &[("a", "site hq-site")],
            &[("b", Reason::Conflict)],
        ),
        (
            "a user twice, however written: left out whole",
            String::new(),
            user("a", "alice@org.example") + &user("b", "Alice@org.example, bob@org.example"),
            &[("a", "alice@org.example")],
            &[("b", Reason::Conflict)],
        ),
        (
            "a domain twice",
            String::new(),
            user("a", "'*@org.example'") + &user("b", "'*@org.example'"),
            &[("a", "*@org.example")],
            &[("b", Reason::Conflict)],
        ),
        (
            "a user beside his domain is no conflict",
            String::new(),
            user("a", "'*@org.example'") + &user("b", "bob@org.example"),
            &[("a", "*@org.example"), ("b", "bob@org.example")],
            &[("a", Reason::Accepted), ("b", Reason::Accepted)],
        ),
        (
            "a policy that grew into a conflict stays as it was",
            user("a", "alice@org.example") + &user("b", "bob@org.example"),
            user("a", "alice@org.example") + &user("b", "bob@org.example, alice@org.example"),
            &[("a", "alice@org.example"), ("b", "bob@org.example")],
            &[("b", Reason::Conflict)],
        ),
        (
            "a localpart that two servers read as two users",
            String::new(),
            user("a", "\u{2163}@org.example"),
            &[],
            &[("a", Reason::InvalidUser)],
        ),
    ];
    for (case, before, after, expected, reasons) in rows {
        let hq = pool("hq", HQ, "");
        let first = run(&(hq.clone() + before), &Configs::new());
        let second = run(&(hq + after), &first.configs);
        assert_eq!(policies(&second.configs), pairs(expected), "{case}");
        for (name, wanted) in *reasons {
            let (_, got, message) = accepted(&second, name);
            assert_eq!(got, *wanted, "{case}: {name}: {message}");
        }
    }
}

#[test]
fn nobody_falls_to_a_wider_policy_because_a_list_could_not_be_read() {
    let hq = pool("hq", HQ, "") + &policy("wide", &format!("scope: Global, {ON}"));
    let narrow = policy(
        "narrow",
        "scope: User, usersFrom: [{configMapRef: {name: grants, key: list}}]",
    );
    let list = config_map(
        "grants",
        "list",
        "# the blocked\\n alice@org.example \\n\\n*@sub.example\\n",
    );
    let good = run(&(hq.clone() + &narrow + &list), &Configs::new());
    assert_eq!(
        policies(&good.configs)[0],
        pairs(&[("narrow", "alice@org.example *@sub.example")])[0]
    );
    for (case, rest, wanted) in [
        ("the map is gone", String::new(), Reason::ReferenceMissing),
        (
            "a line is no JID",
            config_map("grants", "list", "alice@org.example\\nx y@org.example"),
            Reason::InvalidUser,
        ),
    ] {
        let after = run(&(hq.clone() + &narrow + &rest), &good.configs);
        assert_eq!(policies(&after.configs), policies(&good.configs), "{case}");
        let (_, got, message) = accepted(&after, "narrow");
        assert_eq!(got, wanted, "{case}");
        if wanted == Reason::InvalidUser {
            assert!(message.contains("line 2"), "{message}");
        }
    }
    let gone = run(&hq, &good.configs);
    assert_eq!(
        policies(&gone.configs),
        pairs(&[("wide", "*")]),
        "a deletion always takes effect"
    );
}

#[test]
fn what_may_not_be_meant_so_is_a_warning() {
    for (spec, says) in [
        (format!("scope: Global, {ON}, partners: [nobody]"), "nobody"),
        (
            "scope: Global, enableXmppAccess: true".to_owned(),
            "enableFederationAccess",
        ),
        (format!("scope: Site, site: moon, {ON}"), "moon"),
        (
            format!("scope: User, {ON}, users: [a@elsewhere.example]"),
            "elsewhere.example",
        ),
    ] {
        let compiled = run(&(pool("hq", HQ, "") + &policy("p", &spec)), &Configs::new());
        let (status, _, message) = accepted(&compiled, "p");
        assert!(status && message.contains(says), "{spec}: {message}");
        assert!(
            compiled
                .diagnostics
                .iter()
                .any(|d| d.severity == Severity::Warning)
        );
        assert!(!compiled.has_errors());
    }
}

#[test]
fn the_home_site_is_the_preferred_pools_whatever_its_state() {
    for (a, b, expected) in [
        ("", "", "a-site"),
        (", route: {priority: 20}", "", "b-site"),
        (
            ", route: {priority: 5, enabled: false}, suspended: true",
            "",
            "a-site",
        ),
    ] {
        let yaml = pool("a", HQ, a) + &pool("b", "org.example, b.example", b);
        let compiled = run(&yaml, &Configs::new());
        for config in compiled.configs.values() {
            let home = config.access.home_sites.get(HQ).map(String::as_str);
            assert_eq!(home, Some(expected), "{a} | {b}");
        }
        let all: Vec<&str> = compiled.configs["a"]
            .namespace_domains
            .iter()
            .map(|d| d.as_str())
            .collect();
        assert_eq!(all, ["b.example", "org.example"]);
        assert_eq!(compiled.configs["a"].edges.len(), 2);
    }
}

#[test]
fn unverified_partners_need_contacts_that_all_share() {
    let postgres =
        |name: &str| format!(", contacts: {{postgres: {{secretRef: {{name: {name}}}}}}}");
    let rows = [
        ("one process", false, pool("a", HQ, ""), vec![]),
        ("two replicas", true, pool("a", HQ, ""), vec!["a"]),
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
