//! Partners, access and explanations, on one small organisation.
#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::{edge_config::EdgeConfig, jid::BareJid};

fn partner(name: &str, domains: &[&str], partner_type: PartnerType) -> Value {
    json!({
        "name": name, "domains": domains, "partnerType": partner_type, "connectionLimit": 20,
        "negotiation": { "tls": "Required", "sasl": "Required", "dialback": true },
        "methods": ["SaslOverTls"], "enableKeepAlive": true,
    })
}

fn policy(name: &str, scope: Value) -> Value {
    json!({
        "name": name, "scope": scope, "enableFederationAccess": true,
        "enableXmppAccess": true, "enablePublicCloudAccess": true,
    })
}

fn config(partners: Value, policies: Value) -> EdgeConfig {
    serde_json::from_value(json!({
        "version": { "major": 1, "minor": 0 }, "generation": 1, "namespace": "n", "pool": "p",
        "site": "east", "fqdn": "edge.org.example", "domains": ["org.example", "sub.org.example"],
        "namespaceDomains": ["org.example", "sub.org.example", "own.agency.example"],
        "listeners": { "s2s": 5269, "directTls": 5270, "internal": 23456, "admin": 9090, "dns": 0 },
        "gateways": [], "partners": partners,
        "access": {
            "policies": policies,
            "homeSites": { "org.example": "east", "sub.org.example": "west" },
        },
        "settings": {}, "contacts": "Embedded",
    }))
    .unwrap()
}

#[test]
fn p_09_p_10_the_most_specific_listing_has_the_domain_and_wildcards_pass_own_domains_by() {
    let config = config(
        json!([
            partner("wide", &["*.agency.example"], PartnerType::Federated),
            partner(
                "narrow",
                &["*.lab.agency.example", "agency.example"],
                PartnerType::Federated
            ),
            partner("exact", &["x.lab.agency.example"], PartnerType::Federated),
        ]),
        json!([]),
    );
    let partners = Partners::build(&config);
    for (domain, expected) in [
        ("x.agency.example", Some("wide")),
        ("a.b.agency.example", Some("wide")),
        ("lab.agency.example", Some("wide")),
        ("y.lab.agency.example", Some("narrow")),
        ("a.y.lab.agency.example", Some("narrow")),
        ("x.lab.agency.example", Some("exact")),
        ("z.x.lab.agency.example", Some("narrow")),
        ("agency.example", Some("narrow")),
        ("xagency.example", None),
        ("own.agency.example", None),
        ("sub.own.agency.example", Some("wide")),
        ("org.example", None),
        ("example", None),
        ("", None),
    ] {
        let found = partners
            .find(domain)
            .map(|at| config.partners[at.as_usize()].name.as_str());
        assert_eq!(found, expected, "{domain}");
    }
}

/// Name of the policy in force, by the index.
fn in_force(config: &EdgeConfig, user: &str) -> Option<String> {
    let user = BareJid::parse(user).unwrap();
    let index = AccessIndex::build(config, &Partners::build(config));
    let at = index.in_force(user.local().unwrap(), user.domain().as_str())?;
    Some(config.access.policies[at].name.clone())
}

#[test]
fn a_04_user_beats_site_beats_global_and_an_exact_user_beats_his_domain() {
    let all = config(
        json!([]),
        json!([
            policy("global", json!("Global")),
            policy("west", json!({ "Site": "west" })),
            policy(
                "domain",
                json!({ "User": { "users": [], "domains": ["org.example"] } })
            ),
            policy(
                "exact",
                json!({ "User": { "users": ["alice@org.example", "ann@sub.org.example"] } })
            ),
        ]),
    );
    let without = |name: &str| {
        let mut config = all.clone();
        config.access.policies.retain(|policy| policy.name != name);
        config
    };
    for (config, user, expected) in [
        (all.clone(), "alice@org.example", Some("exact")),
        (all.clone(), "bob@org.example", Some("domain")),
        (all.clone(), "ann@sub.org.example", Some("exact")),
        (all.clone(), "bob@sub.org.example", Some("west")),
        (all.clone(), "bob@elsewhere.example", None),
        (without("domain"), "bob@org.example", Some("global")),
        (without("west"), "bob@sub.org.example", Some("global")),
        (without("exact"), "alice@org.example", Some("domain")),
    ] {
        assert_eq!(in_force(&config, user).as_deref(), expected, "{user}");
    }
}

/// One partner of each type, one policy; which of the three it opens.
fn opened(change: Value) -> Vec<bool> {
    let mut only = policy("only", json!("Global"));
    for (field, value) in change.as_object().unwrap() {
        only[field] = value.clone();
    }
    let config = config(
        json!([
            partner("f", &["f.example"], PartnerType::Federated),
            partner("v", &["v.example"], PartnerType::PublicVerified),
            partner("u", &["u.example"], PartnerType::PublicUnverified),
        ]),
        json!([only]),
    );
    let partners = Partners::build(&config);
    let index = AccessIndex::build(&config, &partners);
    ["f.example", "v.example", "u.example"]
        .iter()
        .map(|domain| {
            let found = partners.find(domain).unwrap();
            let partner_type = partners.partner_type(found);
            index.decide("alice", index.own("org.example"), found, partner_type) == Access::Granted
        })
        .collect()
}

#[test]
fn a_policy_opens_what_its_three_switches_and_its_partners_say() {
    for (change, expected) in [
        (json!({}), [true, true, true]),
        (
            json!({ "enableFederationAccess": false }),
            [false, false, false],
        ),
        (json!({ "enableXmppAccess": false }), [false, false, false]),
        (
            json!({ "enablePublicCloudAccess": false }),
            [true, false, false],
        ),
        (json!({ "partners": ["v"] }), [false, true, false]),
        (json!({ "partners": ["v", "gone"] }), [false, true, false]),
        (json!({ "partners": ["gone"] }), [false, false, false]),
        (
            json!({ "partners": ["v"], "enablePublicCloudAccess": false }),
            [false, false, false],
        ),
    ] {
        assert_eq!(opened(change.clone()), expected, "{change}");
    }
}

fn explained(
    config: &EdgeConfig,
    from: &str,
    to: &str,
    contact: Option<bool>,
) -> Result<Explanation, ExplainError> {
    let jid = |text: &str| BareJid::parse(text).unwrap();
    explain(config, &jid(from), &jid(to), Known { contact })
}

#[test]
fn an_explanation_names_the_rule_and_the_object_that_decided() {
    let mut suspended = partner("off", &["off.example"], PartnerType::Federated);
    suspended["suspended"] = json!(true);
    let mut audit = policy("trial", json!({ "User": { "users": ["eve@org.example"] } }));
    audit["mode"] = json!("Audit");
    audit["enableXmppAccess"] = json!(false);
    let config = config(
        json!([
            partner("f", &["f.example"], PartnerType::Federated),
            partner("u", &["u.example"], PartnerType::PublicUnverified),
            suspended,
        ]),
        json!([
            policy(
                "some",
                json!({ "User": { "users": ["alice@org.example"] } })
            ),
            audit
        ]),
    );
    let alice = "alice@org.example";
    for (from, to, contact, reason, last) in [
        (alice, "bob@f.example", None, None, "passes"),
        ("bob@f.example", alice, None, None, "passes"),
        (
            alice,
            "bob@nowhere.example",
            None,
            Some(Reason::PartnerNotAllowed),
            "nowhere.example",
        ),
        (
            alice,
            "bob@off.example",
            None,
            Some(Reason::PartnerSuspended),
            "XmppFederatedPartner/off",
        ),
        (
            "carl@org.example",
            "bob@f.example",
            None,
            Some(Reason::AccessPolicy),
            "no policy",
        ),
        ("bob@u.example", alice, Some(true), None, "has added"),
        (
            "bob@u.example",
            alice,
            Some(false),
            Some(Reason::Contact),
            "has not added",
        ),
        ("bob@u.example", alice, None, None, "ask the running proxy"),
        (
            alice,
            "f.example",
            None,
            Some(Reason::Content),
            "servers may exchange",
        ),
        ("eve@org.example", "bob@f.example", None, None, "mode Audit"),
    ] {
        let got = explained(&config, from, to, contact).unwrap();
        assert_eq!(got.reason, reason, "{from} {to}");
        assert_eq!(got.rules.len(), 5, "{from} {to}: every rule is named");
        let shown = serde_json::to_string(&got).unwrap();
        assert!(
            last == "passes" || shown.contains(last),
            "{from} {to}: {shown}"
        );
        assert_eq!(
            got.depends_on_contact,
            last == "ask the running proxy",
            "{from} {to}"
        );
        assert_eq!(got.audited, last == "mode Audit", "{from} {to}");
    }
}

#[test]
fn what_does_not_cross_this_edge_has_no_verdict() {
    let config = config(
        json!([partner("f", &["f.example"], PartnerType::Federated)]),
        json!([]),
    );
    for (from, to) in [
        ("alice@org.example", "bob@sub.org.example"),
        ("bob@f.example", "eve@other.example"),
        ("bob@f.example", "x@own.agency.example"),
    ] {
        assert!(explained(&config, from, to, None).is_err(), "{from} {to}");
    }
}

proptest! {
    /// The index against the plain reading of the patterns.
    #[test]
    fn find_agrees_with_the_patterns(
        lists in prop::collection::vec(prop::collection::vec("(\\*\\.)?([ab]\\.){0,3}agency\\.example", 1..4), 1..5),
        domain in "([ab]\\.){0,4}agency\\.example",
    ) {
        let partners: Vec<Value> = lists.iter().enumerate().map(|(at, domains)| {
            let domains: Vec<&str> = domains.iter().map(String::as_str).collect();
            partner(&at.to_string(), &domains, PartnerType::Federated)
        }).collect();
        let config = config(json!(partners), json!([]));
        let name = crate::domain::DomainName::parse(&domain).unwrap();
        let best = config.partners.iter().enumerate()
            .flat_map(|(at, p)| p.domains.iter().map(move |pattern| (at, pattern)))
            .filter(|(_, pattern)| pattern.matches(&name))
            .map(|(at, pattern)| (matches!(pattern, crate::domain::DomainPattern::Exact(_)), pattern.to_string().len(), std::cmp::Reverse(at)))
            .max();
        let found = Partners::build(&config).find(&domain).map(PartnerIndex::as_usize);
        prop_assert_eq!(found, best.map(|(_, _, at)| at.0));
    }
}
