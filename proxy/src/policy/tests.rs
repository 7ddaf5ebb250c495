//! The four rules, as tables over directions, partner types and stanzas.
#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::{
    contacts::Contact,
    xml::{Item, Limits, Scanner},
};
use Direction::{Inbound, Outbound};
use PartnerType::{Federated, PublicUnverified, PublicVerified};

const USER: &str = "alice@org.example";

fn partner(name: &str, domains: &[&str], partner_type: PartnerType) -> Value {
    json!({
        "name": name, "domains": domains, "partnerType": partner_type, "connectionLimit": 20,
        "negotiation": { "tls": "Required", "sasl": "Required", "dialback": true },
        "methods": ["SaslOverTls"], "enableKeepAlive": true,
    })
}

fn open_to(scope: Value) -> Value {
    json!({
        "name": "open", "scope": scope, "enableFederationAccess": true,
        "enableXmppAccess": true, "enablePublicCloudAccess": true,
    })
}

/// One partner of each type (`federated.example`, `verified.example`, `unverified.example`), all
/// users granted, changed by `change`.
fn policy(change: impl FnOnce(&mut Value)) -> Policy {
    let mut config = json!({
        "version": { "major": 1, "minor": 0 }, "generation": 1, "namespace": "n", "pool": "p",
        "site": "s", "fqdn": "edge.org.example", "domains": ["org.example"],
        "namespaceDomains": ["org.example", "other.example"],
        "listeners": { "s2s": 5269, "directTls": 5270, "internal": 23456, "admin": 9090, "dns": 0 },
        "gateways": [],
        "partners": [
            partner("federated", &["federated.example", "*.agency.example"], Federated),
            partner("verified", &["verified.example"], PublicVerified),
            partner("unverified", &["unverified.example"], PublicUnverified),
        ],
        "access": { "policies": [open_to(json!("Global"))], "homeSites": { "org.example": "s" } },
        "settings": {}, "contacts": "Embedded",
    });
    change(&mut config);
    Policy::new(Arc::new(serde_json::from_value(config).unwrap()))
}

fn domain(partner_type: PartnerType) -> &'static str {
    match partner_type {
        Federated => "federated.example",
        PublicVerified => "verified.example",
        PublicUnverified => "unverified.example",
    }
}

/// Scans `xml` as a stanza, as the engine would, and hands it to `look`.
fn with_stanza<T>(xml: &str, look: impl FnOnce(&Stanza<'_>) -> T) -> T {
    let header = "<stream:stream xmlns='jabber:server' \
        xmlns:stream='http://etherx.jabber.org/streams' xmlns:m='http://jabber.org/protocol/muc' \
        version='1.0'>";
    let text = format!("{header}{xml}");
    let mut scanner = Scanner::new(Limits::default());
    let taken = scanner.next(text.as_bytes()).unwrap().unwrap().len();
    match scanner.next(&text.as_bytes()[taken..]) {
        Ok(Some(Item::Stanza(stanza))) => look(&stanza),
        other => panic!("{xml}: {other:?}"),
    }
}

fn judged(
    policy: &Policy,
    direction: Direction,
    xml: &str,
    contacts: &Contacts,
) -> (Outcome, Option<Reason>) {
    with_stanza(xml, |stanza| {
        let judgement = policy.judge(direction, stanza, contacts);
        (judgement.outcome, judgement.audited)
    })
}

/// A stanza between `USER` (or `user`) and `bob` of a partner; `body` is `kind|type|children`.
fn stanza(direction: Direction, user: &str, remote: &str, body: &str) -> String {
    let mut parts = body.splitn(3, '|');
    let (kind, type_, children) = (
        parts.next().unwrap(),
        parts.next().unwrap(),
        parts.next().unwrap_or(""),
    );
    let (from, to) = match direction {
        Inbound => (remote, user),
        Outbound => (user, remote),
    };
    let type_ = if type_.is_empty() {
        String::new()
    } else {
        format!(" type='{type_}'")
    };
    format!("<{kind} from='{from}/r' to='{to}' id='1'{type_}>{children}</{kind}>")
}

/// One letter an outcome: `+` passes, `s` without its status note, `b` bare, `e` its error alone; then
/// the reasons
/// `c`ontent, cont`a`ct, acces`x`, `p`artner; upper case: dropped.
fn letter(outcome: Outcome) -> char {
    let of = |cause| match cause {
        Cause::Rule(Reason::Content) => 'c',
        Cause::Rule(Reason::Contact) => 'a',
        Cause::Rule(Reason::AccessPolicy) => 'x',
        Cause::Rule(_) => 'p',
        Cause::Malformed | Cause::Faulty(_) => 'm',
    };
    match outcome {
        Outcome::Pass(Shape::Whole) => '+',
        Outcome::Pass(Shape::WithoutStatus) => 's',
        Outcome::Pass(Shape::Bare) => 'b',
        Outcome::Pass(Shape::ErrorAlone) => 'e',
        Outcome::Refuse(cause) => of(cause),
        Outcome::Drop(cause) => of(cause).to_ascii_uppercase(),
    }
}

const BODY: &str = "<body>hi</body>";
const STATUS: &str = "<status>busy</status>";
const AVATAR: &str = "<event xmlns='http://jabber.org/protocol/pubsub#event'><items node='urn:xmpp:avatar:metadata'/></event>";
const TUNE: &str = "<event xmlns='http://jabber.org/protocol/pubsub#event'><items node='http://jabber.org/protocol/tune'/></event>";

/// Each stanza: inbound from strangers of the three types, inbound from an added person, outbound
/// to the three types.
fn table() -> Vec<(String, &'static str)> {
    let muc = "<x xmlns='http://jabber.org/protocol/muc'/>";
    let read = |node: &str| {
        format!("<pubsub xmlns='http://jabber.org/protocol/pubsub'><items node='{node}'/></pubsub>")
    };
    vec![
        (format!("message||{BODY}"), "++a+ +++"),
        (format!("message|chat|{BODY}"), "++a+ +++"),
        (format!("message|normal|{BODY}"), "++a+ +++"),
        (format!("message|unheard|{BODY}"), "++a+ +++"),
        (
            "message|chat|<composing xmlns='http://jabber.org/protocol/chatstates'/>".into(),
            "++a+ +++",
        ),
        (
            "message||<received xmlns='urn:xmpp:receipts' id='7'/>".into(),
            "++a+ +++",
        ),
        (
            format!("message|error|{BODY}<error type='cancel'/>"),
            "++A+ +++",
        ),
        (format!("message|groupchat|{BODY}"), "cccc ccc"),
        (format!("message|headline|{BODY}"), "CCCC CCC"),
        (format!("message|headline|{AVATAR}"), "++A+ ++A"),
        (format!("message|headline|{TUNE}"), "CCCC CCC"),
        (format!("message|headline|{AVATAR}{TUNE}"), "CCCC CCC"),
        (format!("message||{TUNE}"), "cccc ccc"),
        (format!("message||{AVATAR}"), "++a+ ++a"),
        (
            format!("message||{BODY}<x xmlns='http://jabber.org/protocol/muc#user'><invite/></x>"),
            "cccc ccc",
        ),
        (
            format!("message||{BODY}<q:x xmlns:q='jabber:x:conference' jid='r@muc.example'/>"),
            "cccc ccc",
        ),
        (
            format!("message||{BODY}<x xmlns='jabber:x:oob'/><x xmlns='jabber:x:conference'/>"),
            "cccc ccc",
        ),
        (
            format!("message|chat|<forwarded xmlns='urn:xmpp:forward:0'>{BODY}</forwarded>"),
            "++a+ +++",
        ),
        ("presence||".into(), "++A+ +++"),
        (format!("presence||{STATUS}"), "++A+ +ss"),
        (format!("presence|unavailable|{STATUS}"), "++b+ +ss"),
        (
            "presence||<status xmlns='jabber:client'>busy</status>".into(),
            "++A+ +ss",
        ),
        (
            "presence|unavailable|<status xmlns=''>busy</status>".into(),
            "++b+ +ss",
        ),
        ("presence|subscribe|".into(), "++A+ +++"),
        ("presence|subscribed|".into(), "++A+ +++"),
        ("presence|probe|".into(), "++A+ +++"),
        ("presence|unsubscribe|".into(), "++b+ +++"),
        ("presence|unsubscribed|".into(), "++b+ +++"),
        ("presence|error|".into(), "++A+ +++"),
        ("presence|unheard|".into(), "CCCC CCC"),
        (format!("presence||{muc}"), "CCCC CCC"),
        (format!("presence|subscribe|{muc}"), "CCCC ccc"),
        ("presence||<m:x/>".into(), "CCCC CCC"),
        (format!("presence|unavailable|{muc}"), "bbbb bbb"),
        (format!("presence|unsubscribed|{muc}"), "bbbb bbb"),
        ("iq|get|<ping xmlns='urn:xmpp:ping'/>".into(), "++a+ +++"),
        ("iq|get|<v:vCard xmlns:v='vcard-temp'/>".into(), "++a+ +++"),
        (
            "iq|get|<query xmlns='http://jabber.org/protocol/disco#info'/>".into(),
            "++a+ +++",
        ),
        (
            "iq|get|<query xmlns='http://jabber.org/protocol/disco#items'/>".into(),
            "cccc ccc",
        ),
        (
            "iq|get|<ping xmlns='urn:xmpp:ping'/><query xmlns='jabber:iq:last'/>".into(),
            "cccc ccc",
        ),
        (
            format!("iq|get|{}", read("urn:xmpp:avatar:data")),
            "++a+ +++",
        ),
        (
            format!("iq|set|{}", read("urn:xmpp:avatar:data")),
            "cccc ccc",
        ),
        (format!("iq|get|{}", read("storage:bookmarks")), "cccc ccc"),
        (
            "iq|set|<jingle xmlns='urn:xmpp:jingle:1'/>".into(),
            "cccc ccc",
        ),
        ("iq|get|".into(), "cccc ccc"),
        (
            "iq|result|<query xmlns='jabber:iq:last'/>".into(),
            "++++ +++",
        ),
        ("iq|error|<error type='cancel'/>".into(), "++++ +++"),
        (
            "iq|error|<query xmlns='jabber:iq:last'/><error type='cancel'/>".into(),
            "++e+ +++",
        ),
        ("iq||<ping xmlns='urn:xmpp:ping'/>".into(), "CCCC CCC"),
    ]
}

fn row(policy: &Policy, local: &str, remote_local: &str, body: &str) -> String {
    let strangers = Contacts::in_memory();
    let friends = Contacts::in_memory();
    let added = ContactChange {
        user: local.into(),
        remote: format!("{remote_local}unverified.example").into(),
        event: ContactEvent::UserWrites,
    };
    friends.record(&added).unwrap();
    let types = [Federated, PublicVerified, PublicUnverified];
    let one = |direction, partner_type, contacts: &Contacts| {
        let remote = format!("{remote_local}{}", domain(partner_type));
        letter(
            judged(
                policy,
                direction,
                &stanza(direction, local, &remote, body),
                contacts,
            )
            .0,
        )
    };
    let mut letters: String = types.iter().map(|t| one(Inbound, *t, &strangers)).collect();
    letters.push(one(Inbound, PublicUnverified, &friends));
    letters.push(' ');
    letters.extend(types.iter().map(|t| one(Outbound, *t, &strangers)));
    letters
}

#[test]
fn content_and_contact_by_direction_partner_type_and_stanza() {
    let policy = policy(|_| {});
    for (body, expected) in table() {
        assert_eq!(row(&policy, USER, "bob@", &body), expected, "{body}");
    }
}

/// S-15.
#[test]
fn what_speaks_for_the_own_server_is_refused_whatever_else_passes() {
    let forwarded = "<forwarded xmlns='urn:xmpp:forward:0'><message xmlns='jabber:client'><body>x</body></message></forwarded>";
    let never = [
        format!("<received xmlns='urn:xmpp:carbons:2'>{forwarded}</received>"),
        format!("<q:sent xmlns:q='urn:xmpp:carbons:1'>{forwarded}</q:sent>"),
        format!("<result xmlns='urn:xmpp:mam:2' queryid='q'>{forwarded}</result>"),
        "<result xmlns='urn:xmpp:mam:tmp'/>".to_owned(),
        "<perm xmlns='urn:xmpp:privilege:2' access='roster'/>".to_owned(),
        "<privileged_iq xmlns='urn:xmpp:privilege:2'/>".to_owned(),
        "<delegation xmlns='urn:xmpp:delegation:2'/>".to_owned(),
        "<x xmlns='http://jabber.org/protocol/rosterx'><item action='add' jid='a@b.example'/></x>"
            .to_owned(),
        "<x xmlns='jabber:x:roster'/>".to_owned(),
    ];
    let lists =
        json!({ "iqNamespaces": ["http://jabber.org/protocol/rosterx", "urn:xmpp:delegation:2"] });
    for policy in [policy(|_| {}), policy(|c| c["content"] = lists)] {
        for child in &never {
            for (body, expected) in [
                (format!("message|chat|{BODY}{child}"), "cccc ccc"),
                (format!("message|error|{child}<error/>"), "CCCC CCC"),
                (format!("iq|set|{child}"), "cccc ccc"),
                (format!("iq|result|{child}"), "CCCC CCC"),
                (format!("presence||{child}"), "CCCC CCC"),
                (format!("presence|unavailable|{child}"), "bbbb bbb"),
            ] {
                assert_eq!(row(&policy, USER, "bob@", &body), expected, "{body}");
            }
        }
        let mine = "message|chat|<private xmlns='urn:xmpp:carbons:2'/><body>x</body>";
        assert_eq!(
            row(&policy, USER, "bob@", mine),
            "++a+ +++",
            "XEP-0280 section 10"
        );
        let deeper = format!("message|chat|<x xmlns='urn:x'>{}</x>", never[0]);
        assert_eq!(row(&policy, USER, "bob@", &deeper), "++a+ +++");
    }
    let rooms = policy(|c| c["content"] = json!({ "messageTypes": ["groupchat"] }));
    let archive = format!("message||{}", never[2]);
    assert_eq!(
        row(&rooms, USER, "bob@", &archive),
        "++a+ +++",
        "a room's archive"
    );
}

/// `explain` tells of each chat message what happens to it.
#[test]
fn explain_and_judge_agree() {
    use xmpp_edge_crds::{
        jid::BareJid,
        verdict::{Known, explain},
    };
    let changes: [fn(&mut Value); 6] = [
        |_| {},
        |c| c["suspended"] = json!(true),
        |c| c["partners"][2]["suspended"] = json!(true),
        |c| c["partners"][1]["leftOut"] = json!(true),
        |c| c["access"]["policies"] = json!([]),
        |c| {
            c["access"]["policies"] = json!([
                open_to(json!({ "User": { "users": [USER] } })),
                { "name": "audit", "scope": "Global", "mode": "Audit", "enableFederationAccess": false,
                  "enableXmppAccess": false, "enablePublicCloudAccess": false },
            ]);
        },
    ];
    let locals = [USER, "carol@org.example", "org.example"];
    let remotes = [
        "bob@federated.example",
        "bob@a.agency.example",
        "bob@verified.example",
        "bob@unverified.example",
        "unverified.example",
        "bob@nowhere.example",
    ];
    for (number, change) in changes.into_iter().enumerate() {
        let policy = policy(change);
        for (local, remote) in locals
            .iter()
            .flat_map(|l| remotes.iter().map(move |r| (*l, *r)))
        {
            for (direction, contact) in [
                (Inbound, false),
                (Inbound, true),
                (Outbound, false),
                (Outbound, true),
            ] {
                let contacts = Contacts::in_memory();
                if contact {
                    let change = ContactChange {
                        user: local.into(),
                        remote: remote.into(),
                        event: ContactEvent::UserWrites,
                    };
                    contacts.record(&change).unwrap();
                }
                let (from, to) = match direction {
                    Inbound => (remote, local),
                    Outbound => (local, remote),
                };
                let jid = |text: &str| BareJid::parse(text).unwrap();
                let known = Known {
                    contact: Some(contact),
                };
                let told = explain(&policy.config, &jid(from), &jid(to), known).unwrap();
                let (outcome, audited) = judged(
                    &policy,
                    direction,
                    &stanza(direction, local, remote, "message|chat|<body>x</body>"),
                    &contacts,
                );
                let what = format!("change {number}: {from} to {to}, contact {contact}");
                let reason = match outcome {
                    Outcome::Pass(_) => None,
                    Outcome::Refuse(cause) | Outcome::Drop(cause) => Some(cause),
                };
                assert_eq!(told.reason.map(Cause::Rule), reason, "{what}");
                assert_eq!(told.audited, audited.is_some(), "{what}");
            }
        }
    }
}

#[test]
fn a_server_side_exchanges_a_few_requests_their_results_and_errors_alone() {
    let policy = policy(|_| {});
    let ping = "iq|get|<ping xmlns='urn:xmpp:ping'/>";
    for (body, of_remote_server, to_own_server) in [
        // A partner's server is a stranger to a user; to our server, rule 4 does not apply.
        (ping, "++a +++", "+++ +++"),
        (
            "iq|get|<query xmlns='jabber:iq:version'/>",
            "++a +++",
            "+++ +++",
        ),
        (
            "iq|get|<query xmlns='http://jabber.org/protocol/disco#items'/>",
            "ccc ccc",
            "ccc ccc",
        ),
        ("iq|get|", "ccc ccc", "ccc ccc"),
        ("iq|result|", "+++ +++", "+++ +++"),
        (
            "iq|result|<query xmlns='http://jabber.org/protocol/disco#info'/>",
            "+++ +++",
            "+++ +++",
        ),
        (
            "iq|result|<query xmlns='jabber:iq:roster'/>",
            "CCC CCC",
            "CCC CCC",
        ),
        ("iq|error|<error/>", "+++ +++", "+++ +++"),
        ("message|error|<error/>", "+++ +++", "+++ +++"),
        (
            "message|error|<body>hi</body><error/>",
            "++e +++",
            "+++ +++",
        ),
        ("presence|error|<x xmlns='urn:x'/>", "++e +++", "+++ +++"),
        ("message|chat|<body>hi</body>", "ccc ccc", "ccc ccc"),
        ("presence||", "CCC CCC", "CCC CCC"),
        ("presence|subscribe|", "CCC ccc", "CCC ccc"),
        ("presence|unavailable|", "bbb bbb", "bbb bbb"),
    ] {
        let strangers = |letters: String| format!("{}{}", &letters[..3], &letters[4..]);
        assert_eq!(
            strangers(row(&policy, USER, "", body)),
            of_remote_server,
            "{body}"
        );
        assert_eq!(
            strangers(row(&policy, "org.example", "bob@", body)),
            to_own_server,
            "{body}"
        );
    }
}

#[test]
fn rule_2_is_skipped_for_our_server_and_holds_for_our_users() {
    let policy = policy(|config| config["access"]["policies"] = json!([]));
    let ping = "iq|get|<ping xmlns='urn:xmpp:ping'/>";
    assert_eq!(row(&policy, "org.example", "bob@", ping), "++++ +++");
    assert_eq!(row(&policy, USER, "bob@", ping), "xxxx xxx");
    assert_eq!(row(&policy, USER, "bob@", "presence|probe|"), "XXXX XXX");
    assert_eq!(
        row(&policy, USER, "bob@", "presence|unsubscribed|"),
        "bbbb bbb"
    );
}

#[test]
fn the_first_rule_that_fails_is_the_reason() {
    let contacts = Contacts::in_memory();
    let invitation = "message||<x xmlns='jabber:x:conference'/>";
    type Step = (fn(&mut Value), &'static str, Reason);
    let steps: [Step; 6] = [
        (|_| {}, "bob@unverified.example", Reason::Content),
        (
            |c| c["access"]["policies"] = json!([]),
            "bob@unverified.example",
            Reason::AccessPolicy,
        ),
        (
            |c| c["partners"][2]["suspended"] = json!(true),
            "bob@unverified.example",
            Reason::PartnerSuspended,
        ),
        (
            |c| c["partners"][2]["leftOut"] = json!(true),
            "bob@unverified.example",
            Reason::PartnerNotAllowed,
        ),
        (|_| {}, "bob@nowhere.example", Reason::PartnerNotAllowed),
        (
            |c| c["suspended"] = json!(true),
            "bob@nowhere.example",
            Reason::PoolSuspended,
        ),
    ];
    for (change, remote, reason) in steps {
        let policy = policy(change);
        for direction in [Inbound, Outbound] {
            let got = judged(
                &policy,
                direction,
                &stanza(direction, USER, remote, invitation),
                &contacts,
            );
            assert_eq!(
                got.0,
                Outcome::Refuse(Cause::Rule(reason)),
                "{direction:?} {remote}"
            );
        }
        if reason == Reason::PartnerSuspended {
            let last = stanza(Inbound, USER, remote, "presence|unavailable|");
            let got = judged(&policy, Inbound, &last, &contacts).0;
            assert_eq!(
                got,
                Outcome::Drop(Cause::Rule(reason)),
                "rule 1 holds for all"
            );
        }
    }
}

#[test]
fn an_address_that_two_servers_read_as_two_people_is_malformed() {
    let policy = policy(|_| {});
    let contacts = Contacts::in_memory();
    for (from, to) in [
        ("\u{2163}@federated.example", USER),
        ("@federated.example", USER),
        ("bob@federated.example", "a@b@org.example"),
        ("bob@federated.example", "alice@org.example/"),
    ] {
        let xml = format!("<message from='{from}' to='{to}'/>");
        assert_eq!(
            judged(&policy, Inbound, &xml, &contacts).0,
            Outcome::Refuse(Cause::Malformed),
            "{xml}"
        );
        let xml = format!("<presence from='{from}' to='{to}'/>");
        assert_eq!(
            judged(&policy, Inbound, &xml, &contacts).0,
            Outcome::Drop(Cause::Malformed),
            "{xml}"
        );
    }
    assert_eq!(
        judged(&policy, Inbound, "<message/>", &contacts).0,
        Outcome::Refuse(Cause::Malformed)
    );
}

#[test]
fn a_06_every_form_of_an_address_meets_the_same_rule() {
    let policy = policy(|c| {
        c["access"]["policies"] = json!([open_to(json!({ "User": { "users": [USER] } }))]);
    });
    let contacts = Contacts::in_memory();
    for (user, expected) in [
        ("alice@org.example", '+'),
        ("ALICE@Org.Example", '+'),
        ("alice@org.example.", '+'),
        ("alice\\20x@org.example", 'x'),
        ("bob@org.example", 'x'),
    ] {
        let xml = stanza(
            Outbound,
            user,
            "bob@Federated.Example",
            "message|chat|<body>x</body>",
        );
        assert_eq!(
            letter(judged(&policy, Outbound, &xml, &contacts).0),
            expected,
            "{user}"
        );
    }
}

#[test]
fn audit_delivers_what_its_policy_would_refuse_and_nothing_more() {
    let policy = policy(|c| {
        c["access"]["policies"] = json!([{
            "name": "trial", "scope": "Global", "enableFederationAccess": false,
            "enableXmppAccess": true, "enablePublicCloudAccess": true, "mode": "Audit",
        }]);
    });
    let contacts = Contacts::in_memory();
    let chat = stanza(
        Inbound,
        USER,
        "bob@federated.example",
        "message|chat|<body>x</body>",
    );
    assert_eq!(
        judged(&policy, Inbound, &chat, &contacts),
        (Outcome::Pass(Shape::Whole), Some(Reason::AccessPolicy))
    );
    let room = stanza(
        Inbound,
        USER,
        "bob@federated.example",
        "message|groupchat|<body>x</body>",
    );
    assert_eq!(
        judged(&policy, Inbound, &room, &contacts),
        (Outcome::Refuse(Cause::Rule(Reason::Content)), None)
    );
}

#[test]
fn content_is_widened_by_what_the_pool_lists() {
    let policy = policy(|c| {
        c["content"] = json!({
            "iqNamespaces": ["urn:xmpp:jingle:1"],
            "pepNodes": ["http://jabber.org/protocol/tune", "eu.siacs.conversations.axolotl.bundles:*"],
            "messageTypes": ["groupchat"],
        });
    });
    let read = |node: &str| {
        format!(
            "iq|get|<pubsub xmlns='http://jabber.org/protocol/pubsub'><items node='{node}'/></pubsub>"
        )
    };
    for (body, expected) in [
        (
            "iq|set|<jingle xmlns='urn:xmpp:jingle:1'/>".to_owned(),
            "++a+ +++",
        ),
        (
            read("eu.siacs.conversations.axolotl.bundles:12"),
            "++a+ +++",
        ),
        (
            read("eu.siacs.conversations.axolotl.devicelist"),
            "cccc ccc",
        ),
        (format!("message|headline|{AVATAR}{TUNE}"), "++A+ ++A"),
        (format!("message|groupchat|{BODY}"), "++a+ +++"),
        (
            "presence||<x xmlns='http://jabber.org/protocol/muc'/>".to_owned(),
            "++A+ +++",
        ),
    ] {
        assert_eq!(row(&policy, USER, "bob@", &body), expected, "{body}");
    }
}

#[test]
fn p_15_a_stranger_reaches_a_user_once_the_user_has_added_him() {
    let policy = policy(|_| {});
    let remote = "bob@unverified.example";
    let subscribe = stanza(Inbound, USER, remote, "presence|subscribe|");
    for first in [
        "presence|subscribe|",
        "presence|subscribed|",
        "presence|probe|",
        "presence||",
        "message|chat|<body>x</body>",
        "message||<b:body xmlns:b='jabber:server'>x</b:body>",
    ] {
        let contacts = Contacts::in_memory();
        assert_eq!(
            letter(judged(&policy, Inbound, &subscribe, &contacts).0),
            'A',
            "{first}"
        );
        let change = with_stanza(&stanza(Outbound, USER, remote, first), |s| {
            policy.judge(Outbound, s, &contacts).contact
        });
        contacts.record(&change.expect(first)).unwrap();
        assert_eq!(
            letter(judged(&policy, Inbound, &subscribe, &contacts).0),
            '+',
            "{first}"
        );
        let again = with_stanza(&stanza(Outbound, USER, remote, first), |s| {
            policy.judge(Outbound, s, &contacts).contact
        });
        assert_eq!(again, None, "{first}: what changes nothing costs nothing");
    }
    for none in [
        "message|chat|",
        "message|error|<body>x</body>",
        "presence|unavailable|",
        "presence|unsubscribe|",
        "presence|error|",
        "message|chat|<body xmlns='urn:other'>x</body>",
        "message|groupchat|<body>x</body>",
    ] {
        let contacts = Contacts::in_memory();
        let change = with_stanza(&stanza(Outbound, USER, remote, none), |s| {
            policy.judge(Outbound, s, &contacts).contact
        });
        assert_eq!(change, None, "{none}");
    }
}

#[test]
fn contacts_begin_for_unverified_partners_only_but_end_for_all() {
    let policy = policy(|_| {});
    let contacts = Contacts::in_memory();
    let change = |body: &str, remote: &str, contacts: &Contacts| {
        with_stanza(&stanza(Outbound, USER, remote, body), |s| {
            policy.judge(Outbound, s, contacts).contact
        })
    };
    assert_eq!(
        change("presence|subscribe|", "bob@verified.example", &contacts),
        None
    );
    // The partner was PublicUnverified when this contact began.
    let remote = "bob@verified.example";
    contacts
        .record(&ContactChange {
            user: USER.into(),
            remote: remote.into(),
            event: ContactEvent::UserFollows,
        })
        .unwrap();
    let end = change("presence|unsubscribe|", remote, &contacts).expect("followed");
    contacts.record(&end).unwrap();
    assert!(!contacts.has_added(USER, remote));
    let refused = with_stanza(
        &stanza(Outbound, USER, "bob@nowhere.example", "presence|subscribe|"),
        |s| policy.judge(Outbound, s, &contacts).contact,
    );
    assert_eq!(refused, None, "what is refused adds nobody");
}

#[test]
fn the_remote_ends_halves_and_the_user_the_contact() {
    let policy = policy(|_| {});
    let contacts = Contacts::in_memory();
    let remote = "bob@unverified.example";
    for (direction, body, after) in [
        (Outbound, "presence|subscribe|", Some(Contact::To)),
        (Outbound, "presence|subscribed|", Some(Contact::Both)),
        (Inbound, "presence|unsubscribe|", Some(Contact::To)),
        (Inbound, "presence|unsubscribed|", Some(Contact::Neither)),
        (Inbound, "presence|unsubscribed|", Some(Contact::Neither)),
        (Outbound, "presence|unsubscribed|", None),
        (Inbound, "presence|unsubscribe|", None),
    ] {
        let change = with_stanza(&stanza(direction, USER, remote, body), |s| {
            policy.judge(direction, s, &contacts).contact
        });
        if let Some(change) = change {
            contacts.record(&change).unwrap();
        }
        assert_eq!(contacts.state(USER, remote), after, "{direction:?} {body}");
    }
}

fn any_body() -> impl Strategy<Value = String> {
    let rows: Vec<String> = table().into_iter().map(|(body, _)| body).collect();
    prop::sample::select(rows)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn goodbyes_pass_whatever_rules_2_to_4_say(
        granted in any::<bool>(), partner_type in prop::sample::select(vec![Federated, PublicVerified, PublicUnverified]),
        inbound in any::<bool>(), type_ in prop::sample::select(vec!["unavailable", "unsubscribe", "unsubscribed"]),
        children in prop::sample::select(vec!["", STATUS, TUNE, "<x xmlns='http://jabber.org/protocol/muc'/>"]),
    ) {
        let policy = policy(|c| if !granted { c["access"]["policies"] = json!([]); });
        let direction = if inbound { Inbound } else { Outbound };
        let remote = format!("bob@{}", domain(partner_type));
        let xml = stanza(direction, USER, &remote, &format!("presence|{type_}|{children}"));
        let (outcome, _) = judged(&policy, direction, &xml, &Contacts::in_memory());
        let Outcome::Pass(shape) = outcome else {
            return Err(TestCaseError::fail(format!("{xml}: {outcome:?}")));
        };
        // With what an available presence may not bring, nothing comes (S-12).
        let available = stanza(direction, USER, &remote, &format!("presence||{children}"));
        let (available, _) = judged(&policy, direction, &available, &Contacts::in_memory());
        prop_assert_eq!(shape == Shape::Bare, !matches!(available, Outcome::Pass(_)), "{}", xml);
    }

    #[test]
    fn a_friend_may_do_all_that_a_stranger_may(body in any_body()) {
        let letters = row(&policy(|_| {}), USER, "bob@", &body);
        let (stranger, friend) = (letters.as_bytes()[2], letters.as_bytes()[3]);
        prop_assert!(stranger == friend || matches!(stranger, b'a' | b'A' | b'b' | b'e'), "{body}: {letters}");
    }

    #[test]
    fn a_stricter_partner_type_never_opens_anything(body in any_body()) {
        let letters = row(&policy(|_| {}), USER, "bob@", &body);
        let passes = |at: usize| matches!(letters.as_bytes()[at], b'+' | b's' | b'b' | b'e');
        for (wide, narrow) in [(0, 1), (1, 2), (5, 6), (6, 7)] {
            prop_assert!(passes(wide) || !passes(narrow), "{body}: {letters}");
        }
    }
}
