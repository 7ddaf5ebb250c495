//! The four rules, as tables over directions, partner types and stanzas.
#![allow(clippy::unwrap_used)]

mod addresses;
mod contacts;
mod explain;
mod judged;
mod properties;

use proptest::prelude::*;
use serde_json::{Value, json};

use judged::judged;

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
        Cause::Rule(Reason::Content) | Cause::Join(Reason::Content) => 'c',
        Cause::Rule(Reason::Contact) | Cause::Join(Reason::Contact) => 'a',
        Cause::Rule(Reason::AccessPolicy) | Cause::Join(Reason::AccessPolicy) => 'x',
        Cause::Rule(_) | Cause::Join(_) => 'p',
        Cause::Malformed | Cause::Faulty(_) | Cause::Unaddressed | Cause::Misdirected => 'm',
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

const PROPOSE: &str = "<propose xmlns='urn:xmpp:jingle-message:0' id='7'>\
    <description xmlns='urn:xmpp:jingle:apps:rtp:1' media='audio'/></propose>";

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
        (format!("message|chat|{PROPOSE}"), "cccc ccc"),
        (
            "message||<retract xmlns='urn:xmpp:jingle-message:1' id='7'/>".into(),
            "cccc ccc",
        ),
        (
            format!("message|error|{PROPOSE}<error type='cancel'/>"),
            "++A+ +++",
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
        (format!("presence||{muc}"), "cccc ccc"),
        (format!("presence|subscribe|{muc}"), "CCCC ccc"),
        ("presence||<m:x/>".into(), "cccc ccc"),
        // What an occupant says is no join.
        (
            "presence||<x xmlns='http://jabber.org/protocol/muc#user'/>".into(),
            "CCCC CCC",
        ),
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
        ("iq|error|<error type='cancel'/>".into(), "++e+ +++"),
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

/// Phones ring where the call itself may follow, and nowhere else.
#[test]
fn the_offer_of_a_call_passes_where_calls_do() {
    let offer = format!("message|chat|{PROPOSE}<store xmlns='urn:xmpp:hints'/>");
    let call = "iq|set|<jingle xmlns='urn:xmpp:jingle:1'/>";
    for (listed, expected) in [
        (vec![], "cccc ccc"),
        (vec!["urn:xmpp:jingle-message:0"], "cccc ccc"),
        (vec!["urn:xmpp:jingle:1"], "++a+ +++"),
    ] {
        let policy = policy(|c| c["content"] = json!({ "iqNamespaces": listed }));
        for body in [offer.as_str(), call] {
            assert_eq!(
                row(&policy, USER, "bob@", body),
                expected,
                "{listed:?} {body}"
            );
        }
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
        ("iq|error|<error/>", "++e +++", "+++ +++"),
        ("message|error|<error/>", "++e +++", "+++ +++"),
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
            "++a+ +++",
        ),
    ] {
        assert_eq!(row(&policy, USER, "bob@", &body), expected, "{body}");
    }
}

#[test]
fn a_sidecar_judges_nothing_and_nobody_of_its_own_is_a_partner() {
    let document = policy(|config| {
        config["partners"] = json!([partner("all", &[], Federated)]);
        config["access"]["policies"] = json!([]);
    });
    let own = Policy::passing(Arc::clone(&document.config));
    let contacts = Contacts::in_memory();
    for xml in [
        "<message from='alice@org.example/r' to='x@any.example' type='groupchat'><x/></message>",
        "<iq from='any.example' to='org.example' type='set' id='1'><x xmlns='urn:x'/></iq>",
    ] {
        for direction in [Inbound, Outbound] {
            let (outcome, audited) = judged(&own, direction, xml, &contacts);
            assert_eq!((outcome, audited), (Outcome::Pass(Shape::Whole), None));
        }
    }
    assert!(own.admit("any.example").is_ok());
    assert_eq!(
        own.allows(Some("alice"), "org.example", "any.example"),
        Ok(())
    );
    for mine in ["org.example", "other.example"] {
        assert_eq!(own.admit(mine), Err(Reason::PartnerNotAllowed), "{mine}");
    }
}
