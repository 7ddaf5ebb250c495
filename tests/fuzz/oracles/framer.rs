//! What must hold of the framer for any bytes: shared by the fuzz target and the replay of its
//! corpus in `proxy/tests/framer.rs`. Panics where it does not hold.
//!
//! - How the bytes were cut changes neither what comes out nor the error.
//! - What the scanner takes, rxml takes too, and both see the same tree.
//!   Where rxml 0.14 differs, and why the check allows for it:
//!   - A carriage return alone in an attribute value: rxml loses it, or refuses what follows. XML
//!     (section 2.11) makes it a line feed before anything else, so rxml is given that.
//!   - White space before the XML declaration: to the scanner it belongs to what was before a
//!     restart, so rxml is not given it.
//! - What relaying, stripping and answering write is again exactly one right stanza, and relaying
//!   keeps its meaning.

use rxml::{Parse, WithOptions};
use xmpp_edge_crds::jid::in_one_spelling;
use xmpp_edge_proxy::xml::{
    Element, FaultyStanza, Item, Limits, Scanner, Stanza, StanzaKind, StreamHeader, XmlError,
    element::{Attribute, Node},
    ns, rewrite,
};

/// A header with prefixes and a language that are not ours.
pub const HEADER: &str = "<?xml version='1.0'?><stream:stream xmlns='jabber:server' \
    xmlns:stream='http://etherx.jabber.org/streams' xmlns:db='jabber:server:dialback' \
    xmlns:s='jabber:server' xmlns:x='urn:x' version='1.0' xml:lang='ru'>";

/// The header that our streams have.
const OURS: &str = "<stream:stream xmlns='jabber:server' \
    xmlns:stream='http://etherx.jabber.org/streams' xmlns:db='jabber:server:dialback' \
    version='1.0' xml:lang='en'>";

const LIMITS: Limits = Limits {
    stanza_bytes: 4096,
    depth: 16,
    attributes: 16,
    namespaces: 16,
    all_namespaces: 24,
    namespaces_in_force: 20,
    name_bytes: 64,
};

/// Checks all promises for `data` as the content of a stream, and as a stream by itself.
pub fn check(data: &[u8]) {
    let mut stream = HEADER.as_bytes().to_vec();
    stream.extend_from_slice(data);
    check_stream(&stream);
    // What comes again fits a pattern by then.
    stream.extend_from_slice(data);
    stream.extend_from_slice(data);
    check_stream(&stream);
    check_stream(data);
}

/// One item, kept.
#[derive(Clone, Debug, PartialEq)]
pub enum Kept {
    Whitespace(usize),
    Header(StreamHeader),
    Close,
    /// All that the scanner says of it, as text, and the bytes.
    Element(String, Vec<u8>),
    /// All bytes of a stanza that was skipped, and what is said of it: nothing where the stream ended
    /// amid it.
    Faulty(usize, Option<Result<FaultyStanza, XmlError>>),
}

impl Kept {
    fn of(item: &Item<'_>) -> Self {
        match item {
            Item::Whitespace { len } => Self::Whitespace(*len),
            Item::Header { header, .. } => Self::Header(StreamHeader::clone(header)),
            Item::Close { .. } => Self::Close,
            Item::Stanza(stanza) => {
                // Each scanner numbers its own.
                let mut unnumbered = stanza.clone();
                unnumbered.pattern = None;
                Self::Element(format!("{unnumbered:?}"), stanza.bytes().to_vec())
            }
            Item::Other(other) => Self::Element(format!("{other:?}"), other.bytes.to_vec()),
            Item::Skipped { len } => Self::Faulty(*len, None),
            Item::Faulty { len, stanza } => Self::Faulty(*len, Some(Ok(stanza.clone()))),
            Item::Dropped { len, error } => Self::Faulty(*len, Some(Err(*error))),
        }
    }
}

/// What comes out when the bytes come in pieces of that size; white space, and what is skipped, in one
/// piece.
pub fn scan(stream: &[u8], piece: usize, limits: Limits) -> (Vec<Kept>, Option<XmlError>, usize) {
    run(Scanner::new(limits), stream, piece)
}

fn run(mut scanner: Scanner, stream: &[u8], piece: usize) -> (Vec<Kept>, Option<XmlError>, usize) {
    let mut kept = Vec::new();
    let (mut taken, mut come) = (0, 0);
    loop {
        match scanner.next(&stream[taken..come]) {
            Ok(Some(item)) => {
                match (kept.last_mut(), Kept::of(&item)) {
                    (Some(Kept::Whitespace(len)), Kept::Whitespace(more)) => *len += more,
                    (Some(Kept::Faulty(len, of @ None)), Kept::Faulty(more, stanza)) => {
                        *len += more;
                        *of = stanza;
                    }
                    (_, item) => kept.push(item),
                }
                taken += item.len();
            }
            Ok(None) if come == stream.len() => return (kept, None, taken),
            Ok(None) => come = stream.len().min(come + piece),
            Err(error) => {
                assert_eq!(
                    scanner.next(&stream[taken..come]).err(),
                    Some(error),
                    "an error is final"
                );
                return (kept, Some(error), taken);
            }
        }
    }
}

fn check_stream(stream: &[u8]) {
    let (kept, error, taken) = scan(stream, usize::MAX / 2, LIMITS);
    for piece in [1, 3, 64] {
        let cut = scan(stream, piece, LIMITS);
        assert_eq!(
            (&kept, &error, &taken),
            (&cut.0, &cut.1, &cut.2),
            "cut every {piece} bytes"
        );
    }
    let mut header = None;
    let mut ours = Vec::new();
    for item in &kept {
        match item {
            Kept::Header(found) => header = Some(found.clone()),
            Kept::Element(_, bytes) => {
                let header = header.as_ref().expect("an element comes after the header");
                ours.push(
                    Element::parse(bytes, header).expect("the tree takes what the scanner took"),
                );
            }
            Kept::Whitespace(_) | Kept::Close | Kept::Faulty(..) => {}
        }
    }
    if header.is_some() {
        let theirs = elements_by_rxml(&stream[..taken]);
        assert_eq!(
            ours.iter().map(canonical).collect::<Vec<_>>(),
            theirs,
            "rxml sees the same elements"
        );
    }
    check_stanzas(stream);
    check_skipping(stream);
}

/// With skipping the same comes out up to the first fault; and what follows a stanza that was skipped
/// is what would come without it.
fn check_skipping(stream: &[u8]) {
    let skipping = || {
        let mut scanner = Scanner::new(LIMITS);
        scanner.skip_faulty();
        scanner
    };
    let whole = run(skipping(), stream, usize::MAX / 2);
    for piece in [1, 5, 64] {
        assert_eq!(
            run(skipping(), stream, piece),
            whole,
            "cut every {piece} bytes"
        );
    }
    let mut rest = Vec::new();
    let (mut at, mut good, mut faults) = (0, Vec::new(), 0);
    for item in whole.0 {
        let len = match &item {
            Kept::Faulty(len, stanza) => {
                faults += usize::from(stanza.is_some());
                at += len;
                continue;
            }
            Kept::Element(_, bytes) => bytes.len(),
            Kept::Whitespace(len) => *len,
            // Where it ends is not kept; nothing was skipped before it.
            Kept::Header(_) => header_end(stream),
            Kept::Close => continue,
        };
        rest.extend_from_slice(&stream[at..at + len]);
        at += len;
        good.push(item);
    }
    if faults > 0 {
        let (mut alone, ..) = scan(&rest, usize::MAX / 2, LIMITS);
        let elements = |kept: &[Kept]| -> Vec<Kept> {
            let is = |item: &&Kept| matches!(item, Kept::Element(..));
            kept.iter().filter(is).cloned().collect()
        };
        alone.retain(|item| *item != Kept::Close);
        assert_eq!(
            elements(&alone),
            elements(&good),
            "what is skipped takes nothing along"
        );
    }
}

fn header_end(stream: &[u8]) -> usize {
    let mut scanner = Scanner::new(LIMITS);
    let mut taken = 0;
    while let Ok(Some(item)) = scanner.next(&stream[taken..]) {
        let len = item.len();
        if matches!(item, Item::Header { .. }) {
            return len;
        }
        taken += len;
    }
    0
}

/// Runs the scanner once more and looks at each stanza while it is borrowed.
fn check_stanzas(stream: &[u8]) {
    let mut scanner = Scanner::new(LIMITS);
    let mut taken = 0;
    let mut header = None;
    while let Ok(Some(item)) = scanner.next(&stream[taken..]) {
        taken += item.len();
        match item {
            Item::Header { header: found, .. } => header = Some(found),
            Item::Stanza(stanza) => {
                let header = header.as_deref().expect("a stanza comes after the header");
                let tree = Element::parse(stanza.bytes(), header).expect("checked before");
                assert_eq!(tree.namespace, ns::SERVER);
                assert_eq!(tree.name, stanza.kind.name());
                assert_eq!(tree.attribute("from"), stanza.from.as_deref());
                assert_eq!(tree.attribute("to"), stanza.to.as_deref());
                assert_eq!(tree.attribute("type"), stanza.type_.as_deref());
                assert_eq!(tree.attribute("id"), stanza.id.as_deref());
                assert_eq!(stanza.bytes()[stanza.start_tag - 1], b'>');
                let children: Vec<_> = stanza
                    .children()
                    .map(|(name, namespace, _)| (name, namespace))
                    .collect();
                let expected: Vec<_> = tree
                    .children()
                    .map(|c| (c.name.as_str(), c.namespace.as_str()))
                    .collect();
                assert_eq!(children, expected);

                let mut out = Vec::new();
                rewrite::relay(&stanza, header, &mut out).expect("relayed");
                assert_eq!(
                    out == stanza.bytes(),
                    rewrite::stands_as_is(&stanza, header)
                );
                let mut meant = meant_by(&tree, &stanza, header);
                assert_eq!(
                    canonical(&as_sent(&out)),
                    canonical(&meant),
                    "relaying keeps the meaning"
                );

                let mut out = Vec::new();
                let shape = rewrite::Shape::WithoutStatus;
                rewrite::shaped(shape, &stanza, header, &mut out).expect("stripped");
                meant.content.retain(|node| {
                    !matches!(node, Node::Element(child) if child.name == "status"
                    && matches!(child.namespace.as_str(), ns::SERVER | ns::CLIENT | ""))
                });
                assert_eq!(
                    canonical(&as_sent(&out)),
                    canonical(&meant),
                    "only the notes are gone"
                );

                let mut out = Vec::new();
                let mut readdressed = stanza.clone();
                readdressed.form.readdressed = true;
                readdressed.from = stanza.from.as_ref().map(|_| "a@b.example/<'&\">".into());
                rewrite::relay(&readdressed, header, &mut out).expect("readdressed");
                let mut meant_anew = meant_by(&tree, &stanza, header);
                for attribute in &mut meant_anew.attributes {
                    if attribute.namespace.is_empty() && attribute.name == "from" {
                        attribute.value = "a@b.example/<'&\">".into();
                    }
                }
                assert_eq!(
                    canonical(&as_sent(&out)),
                    canonical(&meant_anew),
                    "only the address is another"
                );

                let mut out = Vec::new();
                rewrite::shaped(rewrite::Shape::Bare, &stanza, header, &mut out).expect("bare");
                let bare = as_sent(&out);
                assert!(bare.content.is_empty(), "nothing goes with it");
                for name in ["from", "to", "type"] {
                    assert_eq!(bare.attribute(name), tree.attribute(name));
                }
                assert_eq!(
                    bare.attribute("id"),
                    None,
                    "an id can be as long as a stanza"
                );

                let mut out = Vec::new();
                let shape = rewrite::Shape::ErrorAlone;
                rewrite::shaped(shape, &stanza, header, &mut out).expect("reduced");
                let reduced = as_sent(&out);
                let had = tree.child(ns::SERVER, "error");
                assert_eq!(reduced.content.len(), usize::from(had.is_some()));
                if let Some(error) = reduced.child(ns::SERVER, "error") {
                    let condition = error.children().next().expect("a condition");
                    assert!(error.attribute("type").is_some() && condition.content.is_empty());
                    assert!(error.content.len() <= 2, "and a text");
                }
                let parts = ["from", "to", "type"].map(|name| tree.attribute(name));
                let kept: usize = parts.into_iter().flatten().map(str::len).sum();
                let most = 6 * kept + 6 * 1023 + 5 * 256 + 1000;
                assert!(out.len() <= most, "{} bytes of {most}", out.len());

                let mut out = Vec::new();
                let text = tree.text();
                let reply = rewrite::Reply {
                    error_type: "cancel",
                    condition: "not-allowed",
                    text: Some(&text),
                    reason: stanza.id.as_deref(),
                };
                rewrite::error_reply(&stanza, reply, &mut out);
                let answer = as_sent(&out);
                let spelled = |address: Option<&str>| {
                    address.map(|text| in_one_spelling(text, None).unwrap_or_else(|| text.into()))
                };
                assert_eq!(
                    answer.attribute("to"),
                    spelled(stanza.from.as_deref()).as_deref()
                );
                assert_eq!(
                    answer.attribute("from"),
                    spelled(stanza.to.as_deref()).as_deref()
                );
                assert_eq!(answer.attribute("id"), stanza.id.as_deref());
                assert_eq!(answer.attribute("type"), Some("error"));
            }
            _ => {}
        }
    }
}

/// What the stanza means in a stream of ours: its tree, with the language of its stream.
fn meant_by(tree: &Element, stanza: &Stanza<'_>, header: &StreamHeader) -> Element {
    let mut meant = tree.clone();
    if stanza.form.ill_lang {
        let is_lang = |own: &Attribute| own.namespace == ns::XML && own.name == "lang";
        meant.attributes.retain(|own| !is_lang(own));
    }
    if !stanza.form.has_lang {
        meant.attributes.push(Attribute {
            namespace: ns::XML.into(),
            name: "lang".into(),
            value: header.lang.as_deref().unwrap_or("en").to_owned(),
        });
    }
    meant
}

/// The tree of the one stanza that `bytes` are in a stream of ours, `xml:lang` made explicit.
fn as_sent(bytes: &[u8]) -> Element {
    let mut stream = OURS.as_bytes().to_vec();
    stream.extend_from_slice(bytes);
    // What is written anew is in proportion to what came, not within its limits.
    let limits = Limits {
        stanza_bytes: 1 << 24,
        depth: 64,
        attributes: 128,
        namespaces: 1024,
        all_namespaces: 8192,
        namespaces_in_force: 8192,
        name_bytes: 256,
    };
    let mut scanner = Scanner::new(limits);
    let header = match scanner.next(&stream) {
        Ok(Some(Item::Header { header, .. })) => header,
        other => panic!("our header: {other:?}"),
    };
    match scanner.next(bytes) {
        Ok(Some(Item::Stanza(stanza))) => {
            assert_eq!(
                stanza.bytes().len(),
                bytes.len(),
                "one stanza and nothing else"
            );
            assert!(matches!(
                stanza.kind,
                StanzaKind::Message | StanzaKind::Presence | StanzaKind::Iq
            ));
            assert!(rewrite::stands_as_is(&stanza, &header) || stanza.form.header_prefixes != 0);
        }
        other => panic!("{other:?} from {}", String::from_utf8_lossy(bytes)),
    }
    let mut tree = Element::parse(bytes, &header).expect("what we write is right");
    assert_eq!(
        vec![canonical(&tree)],
        elements_by_rxml(&stream),
        "rxml reads what we write alike"
    );
    if !tree
        .attributes
        .iter()
        .any(|a| a.namespace == ns::XML && a.name == "lang")
    {
        tree.attributes.push(Attribute {
            namespace: ns::XML.into(),
            name: "lang".into(),
            value: "en".into(),
        });
    }
    tree
}

/// A tree in one form whoever parsed it: attributes sorted, text merged.
fn canonical(element: &Element) -> Element {
    let mut out = Element::new(element.namespace.clone(), element.name.clone());
    out.attributes = element.attributes.clone();
    out.attributes
        .sort_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
    for node in &element.content {
        out = match node {
            Node::Element(child) => out.with_child(canonical(child)),
            Node::Text(text) => out.with_text(text),
        };
    }
    out
}

/// The top-level elements that rxml sees in a stream.
fn elements_by_rxml(stream: &[u8]) -> Vec<Element> {
    let mut lines = Vec::with_capacity(stream.len());
    for (at, byte) in stream.trim_ascii_start().iter().enumerate() {
        match byte {
            b'\r' if stream.trim_ascii_start().get(at + 1) == Some(&b'\n') => {}
            b'\r' => lines.push(b'\n'),
            other => lines.push(*other),
        }
    }
    let mut rest = lines.as_slice();
    let mut parser = rxml::Parser::with_options(rxml::Options {
        max_token_length: 1 << 24,
        ..Default::default()
    });
    let mut open: Vec<Element> = Vec::new();
    let mut depth = 0;
    let mut done = Vec::new();
    loop {
        match parser.parse(&mut rest, false) {
            Ok(Some(rxml::Event::XmlDeclaration(..))) => {}
            Ok(Some(rxml::Event::StartElement(_, (namespace, name), attributes))) => {
                depth += 1;
                if depth > 1 {
                    let mut element = Element::new(namespace.as_str(), name.as_str());
                    element.attributes = attributes
                        .iter()
                        .map(|((namespace, name), value)| Attribute {
                            namespace: namespace.as_str().to_owned(),
                            name: name.as_str().to_owned(),
                            value: value.as_str().to_owned(),
                        })
                        .collect();
                    open.push(element);
                }
            }
            Ok(Some(rxml::Event::EndElement(_))) => {
                depth -= 1;
                if let Some(element) = open.pop() {
                    match open.last_mut() {
                        Some(parent) => *parent = std::mem::take(parent).with_child(element),
                        None => done.push(canonical(&element)),
                    }
                }
            }
            Ok(Some(rxml::Event::Text(_, text))) => {
                if let Some(parent) = open.last_mut() {
                    *parent = std::mem::take(parent).with_text(&text);
                }
            }
            Ok(None) => return done,
            Err(rxml::error::EndOrError::NeedMoreData) => return done,
            Err(rxml::error::EndOrError::Error(error)) => {
                panic!(
                    "rxml refuses what the scanner took: {error} in {}",
                    String::from_utf8_lossy(stream)
                )
            }
        }
    }
}
