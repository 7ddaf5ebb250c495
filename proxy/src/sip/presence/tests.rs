use jiff::Timestamp;
use xmpp_edge_crds::jid::BareJid;

use super::*;
use crate::{
    sip::{
        pidf::{Availability, Note, ReadDevice, Show, WatchedDevice},
        turns::TwoPeople,
    },
    xml::{Element, StreamHeader},
};

fn people() -> TwoPeople {
    let jid = |text| BareJid::parse(text).expect("a JID");
    TwoPeople {
        from: jid("u@org.example"),
        to: jid("r@partner.example"),
    }
}

fn text(element: &Element) -> String {
    String::from_utf8(element.to_bytes()).expect("UTF-8")
}

fn read(text: &str) -> Option<SaidPresence> {
    let element = Element::parse(text.as_bytes(), &StreamHeader::implied()).expect("an element");
    said_by(&element, None, now())
}

fn now() -> Timestamp {
    "2026-11-30T12:00:00Z".parse().expect("a time")
}

#[test]
fn sip_33_what_a_document_says_of_a_device_is_a_presence_stanza() {
    let note = |language: Option<&str>, text: &str| Note {
        language: language.map(str::to_owned),
        text: text.to_owned(),
    };
    let device = |availability| ReadDevice {
        resource: "t'1".to_owned(),
        availability,
    };
    let stanza = device_stanza(
        &people(),
        &device(Availability::Available {
            show: Some(Show::DoNotDisturb),
            notes: vec![note(Some("de"), "in <Eile>"), note(None, "busy")],
            priority: 5,
        }),
    );
    let stanza = text(&stanza);
    for part in [
        "from='u@org.example/t&apos;1'",
        "to='r@partner.example'",
        "<show>dnd</show>",
        "<status xml:lang='de'>in &lt;Eile&gt;</status><status>busy</status>",
        "<priority>5</priority>",
    ] {
        assert!(stanza.contains(part), "{part}: {stanza}");
    }
    assert!(!stanza.contains("type="), "{stanza}");
    let gone = text(&device_stanza(
        &people(),
        &device(Availability::Unavailable),
    ));
    assert!(
        gone.contains("type='unavailable'") && gone.contains("/t&apos;1"),
        "{gone}"
    );
    let plain = text(&presence_stanza(&people(), PresenceType::Subscribed, "x"));
    assert!(
        plain.contains("from='u@org.example'") && plain.contains("type='subscribed'"),
        "{plain}"
    );
}

#[test]
fn sip_33_what_a_presence_stanza_says_is_what_a_document_has() {
    let Some(SaidPresence::Device(WatchedDevice {
        resource,
        availability,
        since,
    })) = read(
        "<presence from='r@partner.example/a/b' to='u@org.example' xml:lang='en'><show>xa</show>\
         <status>out</status><status xml:lang='de'>fort</status><status>again</status>\
         <priority>-3</priority><delay xmlns='urn:xmpp:delay' stamp='2026-11-30T11:00:00Z'/></presence>",
    )
    else {
        panic!("a device");
    };
    assert_eq!(resource, "a/b");
    assert_eq!(since, "2026-11-30T11:00:00Z".parse().expect("a time"));
    let expected = [("en", "out"), ("de", "fort")].map(|(language, text)| Note {
        language: Some(language.to_owned()),
        text: text.to_owned(),
    });
    assert_eq!(
        availability,
        Availability::Available {
            show: Some(Show::ExtendedAway),
            notes: expected.to_vec(),
            priority: 0
        }
    );
}

#[test]
fn an_account_that_is_unavailable_has_no_device_and_one_that_is_available_says_nothing() {
    let of = |more: &str| read(&format!("<presence from='r@partner.example{more}/>"));
    assert_eq!(of("' type='unavailable'"), Some(SaidPresence::NoDevice));
    assert_eq!(of("'"), None);
    let Some(SaidPresence::Device(device)) = of("/a' type='unavailable'") else {
        panic!("a device");
    };
    assert_eq!(device.availability, Availability::Unavailable);
    assert_eq!(device.since, now());
}
