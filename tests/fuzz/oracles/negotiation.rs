//! What must hold of both negotiation machines whatever a peer and the world do: shared by the fuzz
//! target and the replay of its corpus in `proxy/tests/negotiation.rs`. Panics where it does not hold.
//!
//! - A pair is authenticated only by a certificate that proves it, or by a verdict that was asked for;
//!   only by a method that its terms allow, and never by a weaker link than the method's name says.
//! - A pair is ready only if it is admitted; the reverse way only where bidi was agreed on.
//! - All of this by the configuration of that moment, whether or not the machine was told of it.
//! - Everything written is a right stream to our own scanner, and never a stanza.
//! - `Close` is said once and last; after it nothing is done.
//!
//! Input: one byte of settings, then the peer's bytes, among which 0x01 to 0x08 and 0x0b
//! to 0x0e, but 0x0d, are events.

use std::{cell::Cell, collections::HashMap};

use xmpp_edge_crds::{
    domain::DomainName,
    negotiation::{Method, MethodSet},
    verdict::Reason,
};
use xmpp_edge_proxy::{
    negotiation::{
        Carries, CertificateRejection, Environment, Fault, Inbound, Input, KeyVerification, Link,
        Outbound, OutboundStart, Output, Pair, PeerRole, Purpose, Refusal, Side, StreamLimits,
        Terms, Unavailable, VerifyRequest, WireNames, dialback::Secret,
    },
    xml::{Element, Item, Limits, Scanner},
};

const LOCAL: &str = "org.example";
/// A certificate proves the first peer only.
const PEERS: [&str; 3] = ["partner.example", "second.example", "third.example"];

struct World {
    secret: Secret,
    methods: Cell<MethodSet>,
    proven: Cell<bool>,
    strangers: Cell<bool>,
    /// Whether the methods are others than those that the conversation began with.
    turned: Cell<bool>,
}

fn domain(text: &str) -> DomainName {
    DomainName::parse(text).expect("a domain of this file")
}

impl Environment for World {
    fn admit(&self, _: Side, peer: &DomainName, local: &DomainName) -> Result<Terms, Refusal> {
        if local.as_str() != LOCAL {
            return Err(Refusal::HostUnknown);
        }
        let known = PEERS.contains(&peer.as_str());
        if !known || (self.strangers.get() && peer.as_str() != PEERS[0]) {
            return Err(Refusal::Policy(Reason::PartnerNotAllowed));
        }
        Ok(Terms {
            methods: self.methods.get(),
            bidi: true,
            acks: true,
            carries: Carries::Pairs,
        })
    }

    fn lists(&self, _: Side, _: &DomainName) -> bool {
        true
    }

    fn serves(&self, _: Side, local: &DomainName) -> bool {
        local.as_str() == LOCAL
    }

    fn verify_certificate(
        &self,
        _: Side,
        _: PeerRole,
        peer: &DomainName,
    ) -> Result<(), CertificateRejection> {
        if self.proven.get() && peer.as_str() == PEERS[0] {
            Ok(())
        } else {
            Err(CertificateRejection {
                label: "NameMismatch",
                text: format!("not of {peer}"),
            })
        }
    }

    fn dialback(&self) -> &Secret {
        &self.secret
    }

    fn limits(&self) -> StreamLimits {
        StreamLimits {
            max_bytes: Some(262_144),
            idle_seconds: None,
        }
    }

    fn new_stream_id(&self) -> String {
        "ours".to_owned()
    }
}

enum Machine {
    In(Inbound),
    Out(Box<Outbound>),
}

struct Run {
    world: World,
    machine: Machine,
    /// As the session reads the peer.
    scanner: Scanner,
    unread: Vec<u8>,
    /// As the peer reads us.
    theirs: Scanner,
    written: Vec<u8>,
    tls: bool,
    handshaking: bool,
    bidi: bool,
    closed: bool,
    questions: HashMap<u32, Pair>,
    valid: Vec<Pair>,
    success: bool,
}

/// Checks all promises for one run.
pub fn check(data: &[u8]) {
    let Some((&settings, events)) = data.split_first() else {
        return;
    };
    let bit = |number: u8| settings >> number & 1 == 1;
    let mut methods = Vec::new();
    for (wanted, method) in [
        (bit(0), Method::SaslOverTls),
        (bit(1), Method::TlsDialback),
        (bit(2), Method::TcpDialback),
    ] {
        if wanted {
            methods.push(method);
        }
    }
    let Ok(methods) = MethodSet::try_from(methods) else {
        return;
    };
    let world = World {
        secret: Secret::new(b"secret", None),
        methods: Cell::new(methods),
        proven: Cell::new(bit(3)),
        strangers: Cell::new(false),
        turned: Cell::new(false),
    };
    let link = if bit(4) { Link::Tls } else { Link::Plain };
    let pair = Pair {
        from: domain(LOCAL),
        to: domain(PEERS[0]),
    };
    let mut out = Vec::new();
    let machine = if bit(5) {
        let purpose = if bit(6) {
            Purpose::Verify(VerifyRequest {
                pair: pair.reversed(),
                stream_id: "id".into(),
                key: "key".into(),
                names: WireNames::default(),
            })
        } else {
            Purpose::Stanzas(pair)
        };
        let start = OutboundStart {
            side: Side::Partner,
            purpose,
            link,
            skip_sasl: bit(7),
            skip_bidi: false,
            skip_acks: false,
            names: WireNames::default(),
        };
        Machine::Out(Box::new(Outbound::start(start, &world, &mut out)))
    } else {
        Machine::In(Inbound::new(Side::Partner, link))
    };
    let limits = Limits::with_stanza_bytes(10_000);
    let mut run = Run {
        world,
        machine,
        scanner: Scanner::new(limits),
        unread: Vec::new(),
        theirs: Scanner::new(Limits::default()),
        written: Vec::new(),
        tls: bit(4),
        handshaking: false,
        bidi: false,
        closed: false,
        questions: HashMap::new(),
        valid: Vec::new(),
        success: false,
    };
    run.judge(out);
    for piece in events.split_inclusive(|byte| is_event(*byte)) {
        let (bytes, event) = match piece.split_last() {
            Some((event, bytes)) if is_event(*event) => (bytes, *event),
            _ => (piece, 0),
        };
        run.hear(bytes);
        run.event(event);
    }
}

fn is_event(byte: u8) -> bool {
    matches!(byte, 1..=8 | 0x0b | 0x0c | 0x0e)
}

impl Run {
    fn give(&mut self, input: Input<'_>) {
        let mut out = Vec::new();
        match &mut self.machine {
            Machine::In(machine) => machine.step(input, &self.world, &mut out),
            Machine::Out(machine) => machine.step(input, &self.world, &mut out),
        }
        if self.closed {
            out.retain(|output| !matches!(output, Output::PairFailed { .. }));
            assert!(out.is_empty(), "done after the end: {out:?}");
        }
        self.judge(out);
    }

    fn event(&mut self, event: u8) {
        let oldest = self.questions.keys().min().copied();
        match event {
            1 if self.handshaking => {
                self.handshaking = false;
                self.tls = true;
                self.give(Input::TlsEstablished);
            }
            2..=4 => {
                let request = oldest.unwrap_or(7);
                let verdict = match event {
                    2 => KeyVerification::Valid,
                    3 => KeyVerification::Invalid,
                    _ => KeyVerification::Unavailable(Unavailable::TimedOut),
                };
                if let Some(pair) = self.questions.remove(&request)
                    && verdict == KeyVerification::Valid
                {
                    self.valid.push(pair);
                }
                self.give(Input::Verdict { request, verdict });
            }
            5 => {
                self.world.strangers.set(!self.world.strangers.get());
                self.give(Input::ConfigChanged);
            }
            6 => self.give(Input::AddPair(Pair {
                from: domain(LOCAL),
                to: domain(PEERS[1]),
            })),
            7 => self.give(Input::Probe { number: 9 }),
            8 => self.give(Input::TimedOut),
            // Taken away, or given back, without a word of it yet.
            0x0b => self.world.proven.set(!self.world.proven.get()),
            0x0c => {
                let turned = [
                    Method::SaslOverTls,
                    Method::TlsDialback,
                    Method::TcpDialback,
                ]
                .into_iter()
                .filter(|method| !self.world.methods.get().contains(*method))
                .collect::<Vec<_>>();
                if let Ok(methods) = MethodSet::try_from(turned) {
                    self.world.methods.set(methods);
                    self.world.turned.set(true);
                }
            }
            0x0e => self.give(Input::ConfigChanged),
            _ => {}
        }
    }

    fn hear(&mut self, bytes: &[u8]) {
        if self.handshaking {
            return;
        }
        self.unread.extend_from_slice(bytes);
        while !self.closed && !self.unread.is_empty() {
            let unread = self.unread.clone();
            let len = match self.scanner.next(&unread) {
                Ok(None) => return,
                Err(_) => {
                    self.give(Input::End(Fault::Xml {
                        condition: "not-well-formed",
                        label: "Xml",
                        text: "bad".to_owned(),
                    }));
                    return;
                }
                Ok(Some(item)) => {
                    let len = item.len();
                    match item {
                        Item::Whitespace { .. }
                        | Item::Skipped { .. }
                        | Item::Faulty { .. }
                        | Item::Dropped { .. } => {}
                        Item::Header { header, .. } => self.give(Input::Header(&header)),
                        Item::Close { .. } => self.give(Input::Closed),
                        Item::Stanza(stanza) => {
                            let (from, to) =
                                (stanza.from.map(String::from), stanza.to.map(String::from));
                            self.give(Input::UnauthorizedStanza {
                                from: from.as_deref(),
                                to: to.as_deref(),
                            });
                            assert!(self.closed, "a stray stanza ends the stream");
                        }
                        Item::Other(other) => {
                            let bytes = other.bytes.to_vec();
                            let header = self
                                .scanner
                                .header()
                                .expect("elements follow the header")
                                .clone();
                            let element = Element::parse(&bytes, &header)
                                .expect("the scanner has checked the element");
                            self.give(Input::Element(&element));
                        }
                    }
                    len
                }
            };
            // A handshake or a restart may have dropped the rest already.
            let len = len.min(self.unread.len());
            self.unread.drain(..len);
        }
    }

    fn judge(&mut self, out: Vec<Output>) {
        let last = out.len().wrapping_sub(1);
        for (number, output) in out.into_iter().enumerate() {
            match output {
                Output::Send(bytes) => {
                    assert!(
                        !self.closed && !self.handshaking,
                        "written when nothing may be"
                    );
                    self.success |= bytes.starts_with(b"<success");
                    self.written.extend_from_slice(&bytes);
                    self.read_back();
                }
                Output::StartTls { .. } => {
                    assert!(!self.tls && !self.handshaking);
                    // Who has not said who he is has no terms yet; each pair is judged later.
                    let unnamed = matches!(self.machine, Machine::In(_))
                        && self
                            .scanner
                            .header()
                            .is_some_and(|header| header.from.is_none());
                    let asked_before_the_change = self.world.turned.get();
                    assert!(
                        unnamed || asked_before_the_change || self.world.methods.get().uses_tls()
                    );
                    self.handshaking = true;
                    self.unread.clear();
                    self.restart();
                }
                Output::Restart => self.restart(),
                Output::PairAuthenticated { pair, method } => match &self.machine {
                    Machine::In(_) => {
                        self.check_method(&pair.from, method);
                        match method {
                            Method::SaslOverTls => assert!(self.success && self.world.proven.get()),
                            _ => assert!(
                                self.valid.contains(&pair),
                                "authenticated without a verdict: {pair}"
                            ),
                        }
                    }
                    Machine::Out(_) => {
                        assert!(
                            self.bidi && self.tls && self.world.proven.get(),
                            "taken back unproven: {pair}"
                        );
                        assert_eq!(pair.from.as_str(), PEERS[0]);
                    }
                },
                Output::PairReady { pair, method } => {
                    self.check_method(&pair.to, method);
                    if matches!(self.machine, Machine::In(_)) {
                        assert!(self.bidi, "sent back without bidi: {pair}");
                    }
                }
                Output::Verify { request, question } => {
                    assert!(
                        PEERS.contains(&question.pair.from.as_str())
                            && question.pair.to.as_str() == LOCAL
                    );
                    assert!(
                        self.questions.len() < 4096
                            && self.questions.insert(request, question.pair).is_none()
                    );
                }
                Output::Bidi => self.bidi = true,
                Output::Close(_) => {
                    assert!(!self.closed && number == last, "Close is last");
                    self.closed = true;
                }
                _ => {}
            }
        }
    }

    fn check_method(&self, peer: &DomainName, method: Method) {
        assert!(PEERS.contains(&peer.as_str()), "not admitted: {peer}");
        assert!(
            self.world.methods.get().contains(method),
            "{method} is not allowed"
        );
        assert_eq!(
            self.tls,
            method != Method::TcpDialback,
            "{method} on the wrong link"
        );
    }

    fn restart(&mut self) {
        assert!(self.written.is_empty(), "a half element before a restart");
        self.scanner.restart();
        self.theirs.restart();
    }

    fn read_back(&mut self) {
        while !self.written.is_empty() {
            let written = self.written.clone();
            let item = self
                .theirs
                .next(&written)
                .expect("what we write is well-formed");
            let Some(item) = item else { return };
            assert!(
                !matches!(item, Item::Stanza(_)),
                "the machine writes no stanzas"
            );
            let len = item.len();
            self.written.drain(..len);
        }
    }
}
