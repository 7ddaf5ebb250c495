//! What must hold of dialback keys for any addresses, ids and keys: shared by the fuzz target and the
//! replay of its corpus in `proxy/tests/negotiation.rs`. Panics where it does not hold.
//!
//! - A `db:verify` is `valid` exactly if its key is ours for those domains and that id (XEP-0185).
//! - Two questions that differ have keys that differ: no concatenation makes them one.
//! - Every answer is one right element with the addresses swapped, whatever was asked.
//!
//! Input: lines: from, to, id, key; and the same again for the comparison. A key of `=` is made right.

use xmpp_edge_crds::{
    domain::{DomainName, NameForm},
    negotiation::{Method, MethodSet},
};
use xmpp_edge_proxy::{
    negotiation::{
        Carries, CertificateRejection, Environment, Inbound, Input, Link, Output, Pair, PeerRole,
        Refusal, Side, StreamLimits, Terms, VerifyRequest, WireNames, dialback::Secret,
    },
    xml::{Element, Item, Limits, Scanner, StreamHeader, ns},
};

struct World(Secret);

impl Environment for World {
    fn admit(&self, _: Side, _: &DomainName, _: &DomainName) -> Result<Terms, Refusal> {
        let methods = MethodSet::try_from(vec![Method::TlsDialback]).expect("one method is a set");
        Ok(Terms {
            methods,
            bidi: false,
            acks: false,
            carries: Carries::Pairs,
        })
    }
    fn lists(&self, _: Side, _: &DomainName) -> bool {
        true
    }

    fn serves(&self, _: Side, _: &DomainName) -> bool {
        true
    }
    fn verify_certificate(
        &self,
        _: Side,
        _: PeerRole,
        peer: &DomainName,
    ) -> Result<(), CertificateRejection> {
        Err(CertificateRejection {
            label: "NoCertificate",
            text: peer.to_string(),
        })
    }
    fn dialback(&self) -> &Secret {
        &self.0
    }
    fn limits(&self) -> StreamLimits {
        StreamLimits::default()
    }
}

/// Checks all promises for one input.
pub fn check(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let mut lines = text.split('\n');
    let mut question = || Some((lines.next()?, lines.next()?, lines.next()?, lines.next()?));
    let Some((from, to, id, key)) = question() else {
        return;
    };
    let world = World(Secret::new(b"secret", Some(b"previous")));
    ask(&world, from, to, id, key);

    let Some((other_from, other_to, other_id, _)) = question() else {
        return;
    };
    let parsed = |from, to, id| {
        Some((
            DomainName::parse(from).ok()?,
            DomainName::parse(to).ok()?,
            id,
        ))
    };
    if let (Some(one), Some(two)) = (parsed(from, to, id), parsed(other_from, other_to, other_id)) {
        let key = |(from, to, id): &(DomainName, DomainName, &str)| {
            world.0.key(to.as_str(), from.as_str(), id)
        };
        assert_eq!(one == two, key(&one) == key(&two), "{one:?} {two:?}");
    }
}

/// The peer asks whether we made a key.
fn ask(world: &World, from: &str, to: &str, id: &str, key: &str) {
    let mut machine = Inbound::new(Side::Partner, Link::Tls);
    let header = StreamHeader {
        from: Some("partner.example".to_owned()),
        to: Some("org.example".to_owned()),
        version: Some("1.0".into()),
        content_namespace: Some(ns::SERVER.into()),
        ..StreamHeader::default()
    };
    let mut out = Vec::new();
    machine.step(Input::Header(&header), world, &mut out);
    let domains = DomainName::parse(from).ok().zip(DomainName::parse(to).ok());
    let right = domains
        .as_ref()
        .map(|(from, to)| world.0.key(from.as_str(), to.as_str(), id));
    let key = if key == "=" {
        right.as_deref().unwrap_or(key)
    } else {
        key
    };
    let verify = Element::new(ns::DIALBACK, "verify")
        .with_attribute("from", from)
        .with_attribute("to", to)
        .with_attribute("id", id)
        .with_text(key);
    let before = out.len();
    machine.step(Input::Element(&verify), world, &mut out);
    let sent: Vec<u8> = out[..]
        .iter()
        .filter_map(|output| match output {
            Output::Send(bytes) => Some(bytes.as_slice()),
            _ => None,
        })
        .collect::<Vec<_>>()
        .concat();
    read(&sent);
    let answer: String = out[before..]
        .iter()
        .filter_map(|output| match output {
            Output::Send(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
            _ => None,
        })
        .collect();
    let (from_form, to_form) = (NameForm::of(from), NameForm::of(to));
    let Some((from, to)) = domains else {
        assert!(machine.is_closed(), "no domains, no answer: {answer}");
        return;
    };
    let made = world.0.made(&VerifyRequest {
        pair: Pair {
            from: to.clone(),
            to: from.clone(),
        },
        stream_id: id.to_owned(),
        key: key.trim().to_owned(),
        names: WireNames::default(),
    });
    assert_eq!(
        answer.contains(" type='valid'/>"),
        made && !id.is_empty() && id.len() <= 1024,
        "{answer}"
    );
    if !machine.is_closed() {
        // In the form of the question.
        let (from, to) = (from_form.write(&from), to_form.write(&to));
        assert!(
            answer.starts_with(&format!("<db:verify from='{to}' to='{from}'")),
            "{answer}"
        );
    }
}

/// What we wrote is a right stream without stanzas.
fn read(mut sent: &[u8]) {
    let mut scanner = Scanner::new(Limits::default());
    while !sent.is_empty() {
        let item = scanner
            .next(sent)
            .expect("what we write is well-formed")
            .expect("and whole");
        assert!(!matches!(item, Item::Stanza(_)));
        let len = item.len();
        sent = &sent[len..];
    }
}
