use proptest::prelude::*;

use super::*;
use crate::{
    sip::address::AddressFault,
    xml::document::{DocumentFault, DocumentLimits, read_document},
};
use xmpp_edge_crds::{edge_config::SipDialect, jid::BareJid};

const HEAD: &str = "<presence xmlns='urn:ietf:params:xml:ns:pidf' \
    xmlns:dm='urn:ietf:params:xml:ns:pidf:data-model' xmlns:rpid='urn:ietf:params:xml:ns:pidf:rpid' \
    xmlns:es='urn:ietf:params:xml:ns:pidf:status:rpid-status' entity='sip:alice@org.example'>";

fn alice() -> BareJid {
    BareJid::parse("alice@org.example").expect("a JID")
}

fn read_all(inner: &str) -> ReadPresence {
    let document = format!("<?xml version='1.0'?>{HEAD}{inner}</presence>");
    read(document.as_bytes(), &alice(), None).unwrap_or_else(|fault| panic!("{inner}: {fault}"))
}

fn read_one(inner: &str) -> ReadDevice {
    let mut read = read_all(inner);
    assert_eq!((read.devices.len(), read.left_out), (1, 0), "{inner}");
    read.devices.remove(0)
}

fn tuple(inner: &str) -> String {
    format!("<tuple id='t1'><status><basic>open</basic></status>{inner}</tuple>")
}

/// Language and text.
type SaidNote = (Option<String>, String);

fn said(inner: &str) -> (Option<Show>, Vec<SaidNote>, u8) {
    match read_one(inner).availability {
        Availability::Available {
            show,
            notes,
            priority,
        } => {
            let notes = notes.into_iter().map(|it| (it.language, it.text));
            (show, notes.collect(), priority)
        }
        Availability::Unavailable => panic!("{inner}: unavailable"),
    }
}

fn show(inner: &str) -> Option<Show> {
    said(inner).0
}

#[test]
fn sip_32_a_tuple_is_a_device_and_one_that_says_nothing_is_none() {
    for (tuple, resource) in [
        ("<tuple id='ID-phone'>", "phone"),
        ("<tuple id='phone'>", "phone"),
        ("<tuple id='ID-'>", "ID-"),
        ("<tuple id='a/b &amp; c'>", "a/b & c"),
        ("<tuple id=' a'>", "t-9bd16f3b4fc1f8e2"),
        ("<tuple id=''>", "t-"),
        ("<tuple>", "t-"),
    ] {
        let open = format!("{tuple}<status><basic> open </basic></status></tuple>");
        let found = read_one(&open).resource;
        let hashed = resource.starts_with("t-") && found.starts_with("t-") && found.len() == 18;
        assert!(found == resource || hashed, "{tuple}: {found}");
        let closed = format!("{tuple}<status><basic>closed</basic></status></tuple>");
        assert_eq!(
            read_one(&closed).availability,
            Availability::Unavailable,
            "{tuple}"
        );
        assert_eq!(
            read_one(&closed).resource,
            found,
            "the same, whatever it says"
        );
    }
    for nothing in [
        "",
        "<tuple id='a'/>",
        "<tuple id='a'><status/></tuple>",
        "<tuple id='a'><status><basic>maybe</basic></status></tuple>",
        "<tuple id='a'><status><basic xmlns='urn:x'>open</basic></status></tuple>",
        "<tuple xmlns='urn:x' id='a'><status><basic>open</basic></status></tuple>",
        "<x xmlns='urn:x'><tuple xmlns='urn:ietf:params:xml:ns:pidf' id='a'><status>\
         <basic>open</basic></status></tuple></x>",
    ] {
        let read = read_all(nothing);
        assert!(read.devices.is_empty() && read.left_out == 0, "{nothing}");
    }
}

#[test]
fn a_device_is_named_once_and_ten_are_kept_of_those_that_can_be_reached() {
    let tuple = |id: &str, basic: &str| {
        format!("<tuple id='{id}'><status><basic>{basic}</basic></status></tuple>")
    };
    let read = read_all(&(tuple("a", "closed") + &tuple("ID-a", "open") + &tuple("a", "closed")));
    assert_eq!((read.devices.len(), read.left_out), (1, 2));
    assert!(matches!(
        read.devices[0].availability,
        Availability::Available { .. }
    ));

    let mut many = String::new();
    for at in 0..15 {
        many += &tuple(&format!("t{at}"), if at < 8 { "closed" } else { "open" });
    }
    let read = read_all(&many);
    assert_eq!((read.devices.len(), read.left_out), (MAX_DEVICES, 5));
    let open = read
        .devices
        .iter()
        .filter(|it| it.availability != Availability::Unavailable);
    assert_eq!(open.count(), 7);
}

#[test]
fn sip_33_activities_are_shows_whoever_they_are_of() {
    use Show::{Away, Chat, DoNotDisturb, ExtendedAway};
    for (names, expected) in [
        (
            "busy on-the-phone meeting appointment presentation performance",
            Some(DoNotDisturb),
        ),
        (
            "vacation holiday permanent-absence sleeping travel",
            Some(ExtendedAway),
        ),
        (
            "away lunch breakfast dinner meal in-transit shopping steering",
            Some(Away),
        ),
        ("tv worship other unknown", None),
    ] {
        for name in names.split(' ') {
            for inner in [
                tuple("")
                    + &format!(
                        "<dm:person id='p'><rpid:activities><rpid:{name}/></rpid:activities></dm:person>"
                    ),
                tuple(&format!(
                    "<rpid:activities><rpid:{name}/></rpid:activities>"
                )),
                format!(
                    "<tuple id='t'><status><basic>open</basic><es:activities><es:activity>{name}\
                     </es:activity></es:activities></status></tuple>"
                ),
                format!(
                    "<tuple id='t'><status><basic>open</basic><es:activities><es:{name}/>\
                     </es:activities></status></tuple>"
                ),
            ] {
                assert_eq!(show(&inner), expected, "{inner}");
            }
        }
    }
    let with_show = |text: &str, more: &str| {
        show(&format!(
            "<tuple id='t'><status><basic>open</basic><show xmlns='jabber:client'>{text}</show>\
             </status>{more}</tuple>"
        ))
    };
    let away = "<rpid:activities><rpid:away/></rpid:activities>";
    for (text, expected) in [
        ("chat", Chat),
        ("away", Away),
        ("xa", ExtendedAway),
        (" dnd ", DoNotDisturb),
        // What means nothing leaves it to the activity.
        ("frob", Away),
        ("", Away),
    ] {
        assert_eq!(with_show(text, away), Some(expected), "{text}");
    }
    let person = |names: &str| {
        let each: String = names
            .split(' ')
            .map(|name| format!("<rpid:{name}/>"))
            .collect();
        tuple("")
            + &format!("<dm:person id='p'><rpid:activities>{each}</rpid:activities></dm:person>")
    };
    assert_eq!(show(&person("away busy sleeping")), Some(DoNotDisturb));
    assert_eq!(show(&person("away sleeping")), Some(ExtendedAway));
    // Of another namespace it is another thing.
    assert_eq!(show(&tuple("<activities><away/></activities>")), None);
}

#[test]
fn sip_33_notes_are_the_nearest_ones_in_three_languages() {
    let note = |language: Option<&str>, text: &str| (language.map(str::to_owned), text.to_owned());
    let person = "<dm:person id='p'><dm:note xml:lang='fr'>personne</dm:note></dm:person>";
    let around = "<note>document</note>";
    let own =
        tuple("<note xml:lang='en'>tuple</note><note xml:lang='en'>again</note><note> </note>");
    for (inner, expected) in [
        (own + person + around, note(Some("en"), "tuple")),
        (tuple("") + person + around, note(Some("fr"), "personne")),
        (tuple("") + around, note(None, "document")),
        (
            tuple("<note xml:lang='no language'>x &lt; y</note>"),
            note(None, "x < y"),
        ),
    ] {
        assert_eq!(said(&inner).1, [expected], "{inner}");
    }
    let many = tuple(
        "<note>0</note><note xml:lang='a1'>1</note><note xml:lang='de'>2</note>\
         <note xml:lang='fr'>3</note><note xml:lang='it'>4</note>",
    );
    let found: Vec<String> = said(&many).1.into_iter().map(|(_, text)| text).collect();
    assert_eq!(found, ["0", "2", "3"]);
    let long = tuple(&format!("<note>{}</note>", "\u{e9}".repeat(2_000)));
    assert_eq!(said(&long).1[0].1.chars().count(), MAX_NOTE_CHARACTERS);
}

#[test]
fn the_language_is_that_of_what_is_around_and_of_the_notify_last() {
    let said = |document: String| {
        let read = read(document.as_bytes(), &alice(), Some("it")).expect(&document);
        match &read.devices[0].availability {
            Availability::Available { notes, .. } => notes[0].language.clone(),
            Availability::Unavailable => panic!("{document}"),
        }
    };
    let of = |head: &str, note: &str| said(format!("{head}{}</presence>", tuple(note)));
    let german = HEAD.replace("entity", "xml:lang='de' entity");
    assert_eq!(of(HEAD, "<note>x</note>").as_deref(), Some("it"));
    assert_eq!(of(&german, "<note>x</note>").as_deref(), Some("de"));
    assert_eq!(
        of(&german, "<note xml:lang='en'>x</note>").as_deref(),
        Some("en")
    );
    assert_eq!(of(&german, "<note xml:lang=''>x</note>"), None);
}

#[test]
fn priorities_are_127ths_and_each_comes_back() {
    let of = |text: &str| {
        said(&tuple(&format!(
            "<contact priority='{text}'>sip:a@b</contact>"
        )))
        .2
    };
    for (text, expected) in [
        ("0", 0),
        ("1", 127),
        ("1.00", 127),
        ("0.5", 64),
        ("0.021", 3),
        ("0.992", 126),
        // Out of its range, or no number: as if there were none.
        ("1.001", 0),
        ("0.5000", 0),
        ("-1", 0),
        (".5", 0),
        ("9", 0),
        ("", 0),
    ] {
        assert_eq!(of(text), expected, "{text}");
    }
    for priority in 0..=127 {
        let document = written(&[device("x", None, priority)]);
        let back = read(&document, &bob(), None).expect("ours");
        assert_eq!(
            back.devices[0].availability,
            device("x", None, priority).availability
        );
    }
}

#[test]
fn sip_43_what_is_no_document_about_the_user_is_refused() {
    let presence = |head: &str| format!("{head}{}</presence>", tuple(""));
    let entity = |uri: &str| presence(&HEAD.replace("sip:alice@org.example", uri));
    let bomb = "<!DOCTYPE p [<!ENTITY a 'aaaaaaaaaa'><!ENTITY b '&a;&a;'>]>";
    let deep = format!("{}{}", "<x>".repeat(20), "</x>".repeat(20));
    let document = |fault| PidfFault::Document(fault);
    for (body, fault) in [
        (entity("sip:bob@org.example"), PidfFault::OtherEntity),
        (entity("sip:alice@192.0.2.1"), PidfFault::OtherEntity),
        (entity("alice"), PidfFault::OtherEntity),
        (
            HEAD.replace(" entity=", " e=") + "</presence>",
            PidfFault::OtherEntity,
        ),
        (
            "<presence xmlns='jabber:client'/>".to_owned(),
            PidfFault::NotPidf,
        ),
        (
            "<tuple xmlns='urn:ietf:params:xml:ns:pidf'/>".to_owned(),
            PidfFault::NotPidf,
        ),
        (
            bomb.to_owned() + &entity("&b;"),
            document(DocumentFault::DocumentType),
        ),
        (
            HEAD.to_owned() + &deep + "</presence>",
            document(DocumentFault::TooDeep),
        ),
        (
            HEAD.to_owned() + &"<x/>".repeat(2_048) + "</presence>",
            document(DocumentFault::TooManyElements),
        ),
        (
            HEAD.to_owned() + &"x".repeat(64 * 1024) + "</presence>",
            document(DocumentFault::TooLarge),
        ),
        (HEAD.to_owned(), document(DocumentFault::Malformed)),
        (String::new(), document(DocumentFault::Malformed)),
    ] {
        assert_eq!(
            read(body.as_bytes(), &alice(), None),
            Err(fault),
            "{body:.200}"
        );
    }
    for uri in [
        "pres:Alice@org.example",
        "im:alice@org.example",
        " sip:alice@ORG.example:5061 ",
    ] {
        assert!(
            read(entity(uri).as_bytes(), &alice(), None).is_ok(),
            "{uri}"
        );
    }
}

fn bob() -> BareJid {
    BareJid::parse(r"b\26b@partner.example").expect("a JID")
}

fn device(resource: &str, show: Option<Show>, priority: u8) -> WatchedDevice {
    let availability = Availability::Available {
        show,
        notes: Vec::new(),
        priority,
    };
    WatchedDevice {
        resource: resource.to_owned(),
        availability,
        since: Timestamp::UNIX_EPOCH,
    }
}

fn written(devices: &[WatchedDevice]) -> Vec<u8> {
    write(&bob(), devices, SipDialect::Simple)
        .expect("a user")
        .document
}

#[test]
fn sip_33_a_document_says_it_in_every_way_that_clients_read() {
    let mut laptop = device("laptop", Some(Show::DoNotDisturb), 5);
    if let Availability::Available { notes, .. } = &mut laptop.availability {
        notes.push(Note {
            language: Some("de".to_owned()),
            text: "<in> 'Ruhe'".to_owned(),
        });
    }
    let gone = WatchedDevice {
        availability: Availability::Unavailable,
        ..device("gone", None, 0)
    };
    let document = written(&[gone, device("t\u{e9}l", Some(Show::Away), 0), laptop]);
    let expected = "<?xml version='1.0' encoding='UTF-8'?>\r\n\
        <presence xmlns='urn:ietf:params:xml:ns:pidf' \
        xmlns:dm='urn:ietf:params:xml:ns:pidf:data-model' \
        xmlns:rpid='urn:ietf:params:xml:ns:pidf:rpid' entity='pres:b&amp;b@partner.example'>\
        <tuple id='ID-laptop'><status><basic>open</basic><show xmlns='jabber:client'>dnd</show>\
        </status><contact priority='0.039'>sip:b&amp;b@partner.example;gr=laptop</contact>\
        <note xml:lang='de'>&lt;in&gt; 'Ruhe'</note><timestamp>1970-01-01T00:00:00Z</timestamp></tuple>\
        <tuple id='t-HASH'><status><basic>open</basic><show xmlns='jabber:client'>away</show></status>\
        <contact priority='0.000'>sip:b&amp;b@partner.example;gr=t%C3%A9l</contact>\
        <timestamp>1970-01-01T00:00:00Z</timestamp></tuple>\
        <tuple id='ID-gone'><status><basic>closed</basic></status>\
        <timestamp>1970-01-01T00:00:00Z</timestamp></tuple>\
        <dm:person id='person'><rpid:activities><rpid:busy/></rpid:activities></dm:person></presence>";
    let expected = expected.replace("t-HASH", &stand_in("t\u{e9}l"));
    assert_eq!(String::from_utf8(document), Ok(expected));
}

#[test]
fn in_lync_s_dialect_users_are_named_as_its_clients_name_them() {
    let devices = [device("laptop", None, 5)];
    let written = write(&bob(), &devices, SipDialect::Lync).expect("a user");
    let text = String::from_utf8(written.document).expect("UTF-8");
    assert!(
        text.contains("entity='sip:b&amp;b@partner.example'"),
        "{text}"
    );
    assert!(
        text.contains(">sip:b&amp;b@partner.example</contact>"),
        "{text}"
    );
}

#[test]
fn whoever_is_nowhere_is_closed_and_of_many_devices_the_first_are_told() {
    let nobody = String::from_utf8(written(&[])).expect("UTF-8");
    assert!(nobody.contains("<tuple id='ID-none'><status><basic>closed</basic></status></tuple>"));
    let many: Vec<WatchedDevice> = (0..14)
        .map(|at| device(&format!("d{at}"), None, at))
        .collect();
    let written = write(&bob(), &many, SipDialect::Simple).expect("a user");
    assert_eq!(written.left_out, 4);
    let text = String::from_utf8(written.document).expect("UTF-8");
    assert!(text.contains("ID-d13") && text.contains("ID-d4'") && !text.contains("ID-d3'"));
    let domain = BareJid::parse("partner.example").expect("a JID");
    assert_eq!(
        write(&domain, &[], SipDialect::Simple),
        Err(AddressFault::NoUser)
    );
}

proptest! {
    /// Whatever users of XMPP say of themselves is a right document, and is read as it was said.
    #[test]
    fn what_is_written_is_read_the_same(
        resource in r"[a-z.-]{1,8}|\PC{1,8}",
        text in r"[a-z][a-z<>&'\x22 ]{0,20}[a-z]",
        priority in 0_u8..=127,
        show in proptest::option::of(proptest::sample::select(Show::ALL.to_vec())),
    ) {
        let availability = Availability::Available {
            show,
            notes: vec![Note { language: Some("en".to_owned()), text }],
            priority,
        };
        let device = WatchedDevice {
            resource: resource.clone(),
            availability: availability.clone(),
            since: Timestamp::UNIX_EPOCH,
        };
        let document = written(&[device]);
        let limits = DocumentLimits {
            bytes: 1 << 16, depth: 8, elements: 32, attributes: 8, namespaces: 8, name_bytes: 256,
        };
        prop_assert!(read_document(&document, &limits).is_ok());
        let back = read(&document, &bob(), None);
        let back = back.expect("ours");
        prop_assert_eq!(&back.devices[0].availability, &availability);
        if resource.bytes().all(|byte| byte.is_ascii_lowercase()) {
            prop_assert_eq!(&back.devices[0].resource, &resource);
        }
    }
}
