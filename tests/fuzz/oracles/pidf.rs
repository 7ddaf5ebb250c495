//! What must hold for any presence document.
//!
//! - A document that is taken is one that rxml takes too, and both see the same tree. Comments are left
//!   out: rxml takes none, and no white space before a root without XML declaration.
//! - What is read of it is bounded, is what a stanza can carry, and written anew is read the same.

use rxml::{Parse, WithOptions};
use xmpp_edge_crds::{
    edge_config::SipDialect,
    jid::{BareJid, check_resource},
};
use xmpp_edge_proxy::{
    sip::pidf::{
        self, Availability, MAX_DEVICES, MAX_LANGUAGES, MAX_NOTE_CHARACTERS, WatchedDevice,
    },
    xml::{
        DocumentLimits, Element,
        element::{Attribute, Node},
        read_document, text,
    },
};

const LIMITS: DocumentLimits = DocumentLimits {
    bytes: 8_192,
    depth: 12,
    elements: 256,
    attributes: 16,
    namespaces: 64,
    name_bytes: 128,
};

pub fn check(data: &[u8]) {
    if let Ok(root) = read_document(data, &LIMITS) {
        assert!(depth(&root) <= LIMITS.depth);
        let commented = data.windows(4).any(|it| it == b"<!--");
        if !commented {
            assert_eq!(
                canonical(&by_rxml(data)),
                canonical(&root),
                "rxml sees another tree"
            );
        }
    }
    let alice = BareJid::parse("alice@org.example").expect("a JID");
    let Ok(read) = pidf::read(data, &alice, Some("de")) else {
        return;
    };
    assert!(read.devices.len() <= MAX_DEVICES);
    let mut devices = Vec::new();
    for device in &read.devices {
        assert!(!device.resource.is_empty() && check_resource(&device.resource).is_ok());
        let others = read
            .devices
            .iter()
            .filter(|it| it.resource == device.resource);
        assert_eq!(others.count(), 1);
        if let Availability::Available {
            notes, priority, ..
        } = &device.availability
        {
            assert!(notes.len() <= MAX_LANGUAGES && *priority <= 127);
            for note in notes {
                let characters = note.text.chars().count();
                assert!((1..=MAX_NOTE_CHARACTERS).contains(&characters));
                assert!(note.text.chars().all(text::is_xml_char));
            }
        }
        devices.push(WatchedDevice {
            resource: device.resource.clone(),
            availability: device.availability.clone(),
            since: jiff::Timestamp::UNIX_EPOCH,
        });
    }
    let dialect = if data.len().is_multiple_of(2) {
        SipDialect::Simple
    } else {
        SipDialect::Lync
    };
    let written = pidf::write(&alice, &devices, dialect).expect("a user");
    assert_eq!(written.left_out, 0);
    let again = pidf::read(&written.document, &alice, None).expect("ours");
    let said = |availability: &Availability| format!("{availability:?}");
    let mut before: Vec<String> = devices.iter().map(|it| said(&it.availability)).collect();
    let mut after: Vec<String> = again
        .devices
        .iter()
        .map(|it| said(&it.availability))
        .collect();
    // Who is nowhere is written as one device that is not there.
    if devices.is_empty() {
        before.push(said(&Availability::Unavailable));
    }
    before.sort();
    after.sort();
    // Of several devices those without a show are read as doing what the person does, who is the first.
    if devices.len() < 2 {
        assert_eq!(before, after);
    } else {
        assert_eq!(before.len(), after.len());
    }
}

fn depth(element: &Element) -> usize {
    1 + element.children().map(depth).max().unwrap_or(0)
}

/// Attributes sorted, and text whole.
fn canonical(element: &Element) -> Element {
    let mut one = Element::new(element.namespace.as_str(), element.name.as_str());
    one.attributes.clone_from(&element.attributes);
    one.attributes
        .sort_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
    for node in &element.content {
        one = match node {
            Node::Element(child) => one.with_child(canonical(child)),
            Node::Text(text) => one.with_text(text),
        };
    }
    one
}

fn by_rxml(data: &[u8]) -> Element {
    let mut lines = Vec::with_capacity(data.len());
    let data = data.strip_prefix("\u{feff}".as_bytes()).unwrap_or(data);
    let data = data.trim_ascii_start();
    for (at, byte) in data.iter().enumerate() {
        match byte {
            b'\r' if data.get(at + 1) == Some(&b'\n') => {}
            b'\r' => lines.push(b'\n'),
            other => lines.push(*other),
        }
    }
    let mut rest = lines.as_slice();
    let mut parser = rxml::Parser::with_options(rxml::Options {
        max_token_length: 1 << 16,
        ..Default::default()
    });
    let mut open: Vec<Element> = Vec::new();
    let mut root = None;
    loop {
        match parser.parse(&mut rest, true) {
            Ok(Some(rxml::Event::XmlDeclaration(..))) => {}
            Ok(Some(rxml::Event::StartElement(_, (namespace, name), attributes))) => {
                let mut element = Element::new(namespace.as_str(), name.as_str());
                let attributes = attributes
                    .iter()
                    .map(|((namespace, name), value)| Attribute {
                        namespace: namespace.as_str().to_owned(),
                        name: name.as_str().to_owned(),
                        value: value.as_str().to_owned(),
                    });
                element.attributes = attributes.collect();
                open.push(element);
            }
            Ok(Some(rxml::Event::EndElement(_))) => {
                let element = open.pop().expect("rxml matches tags");
                match open.last_mut() {
                    Some(parent) => *parent = std::mem::take(parent).with_child(element),
                    None => root = Some(element),
                }
            }
            Ok(Some(rxml::Event::Text(_, text))) => {
                if let Some(parent) = open.last_mut() {
                    *parent = std::mem::take(parent).with_text(&text);
                }
            }
            Ok(None) => return root.expect("a root"),
            Err(error) => panic!(
                "rxml refuses: {error:?} in {}",
                String::from_utf8_lossy(data)
            ),
        }
    }
}
