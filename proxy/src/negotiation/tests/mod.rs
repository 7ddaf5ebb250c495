//! Scripts for both machines, over the real scanner: what a peer sends, and what must come of it.

#![allow(clippy::unwrap_used)]

mod flipped;
mod inbound;
mod outbound;
mod together;
mod trunk;

use std::cell::Cell;

use super::*;
use crate::xml::{Item, Limits, Scanner};
use xmpp_edge_crds::negotiation::Method::{SaslOverTls, TcpDialback, TlsDialback};

pub(super) const SECRET: &[u8] = b"s3cr3tf0rd14lb4ck";
/// A certificate of the tests is the list of domains that it proves.
pub(super) const PARTNER: &str = "partner.example";

pub(super) fn domain(text: &str) -> DomainName {
    text.parse().unwrap()
}

pub(super) fn pair(from: &str, to: &str) -> Pair {
    Pair {
        from: domain(from),
        to: domain(to),
    }
}

pub(super) fn header_of_server() -> StreamHeader {
    StreamHeader {
        content_namespace: Some(wire::ns::SERVER.into()),
        prefixes: vec![
            ("stream".into(), wire::ns::STREAM.into()),
            ("db".into(), wire::ns::DIALBACK.into()),
        ],
        ..StreamHeader::default()
    }
}

/// An element as it stands in a stream.
pub(super) fn element(markup: &str) -> Element {
    Element::parse(markup.as_bytes(), &header_of_server()).unwrap()
}

/// How the connection stands, and of which domains the certificate is that the peer shows.
#[derive(Clone, Debug)]
pub(super) enum Shown {
    Plain,
    Tls(String),
}

impl Shown {
    fn to(self, world: &mut World) -> Link {
        match self {
            Self::Plain => Link::Plain,
            Self::Tls(names) => {
                world.shown = names;
                Link::Tls
            }
        }
    }
}

/// TLS, and a certificate of these domains, comma between them; none where there is no domain.
pub(super) fn shows(names: &str) -> Shown {
    Shown::Tls(names.to_owned())
}

/// The configuration of the tests: who is admitted with whom, by which methods.
pub(super) struct World {
    pub local: Vec<DomainName>,
    pub peers: Vec<(DomainName, MethodSet)>,
    pub secret: dialback::Secret,
    pub bidi: bool,
    pub acks: bool,
    /// Each peer is named itself.
    pub lists: bool,
    pub carries: Carries,
    /// No certificate verifies any more.
    pub distrust: bool,
    /// The domains of the peer's certificate; empty where it shows none.
    pub shown: String,
    /// Prefix of the stream ids; the number makes each fresh.
    pub name: &'static str,
    pub ids: Cell<u32>,
}

impl World {
    /// `org.example` and `org2.example` are ours; each domain named is a peer with these methods.
    pub fn new(methods: &[Method], peers: &[&str]) -> Self {
        let set = MethodSet::try_from(methods.to_vec()).unwrap();
        Self {
            local: vec![domain("org.example"), domain("org2.example")],
            peers: peers.iter().map(|peer| (domain(peer), set)).collect(),
            secret: dialback::Secret::new(SECRET, None),
            bidi: true,
            acks: true,
            lists: true,
            carries: Carries::Pairs,
            distrust: false,
            shown: String::new(),
            name: "id",
            ids: Cell::new(0),
        }
    }
}

impl Environment for World {
    fn admit(&self, _: Side, peer: &DomainName, local: &DomainName) -> Result<Terms, Refusal> {
        if !self.local.contains(local) {
            return Err(Refusal::HostUnknown);
        }
        match self.peers.iter().find(|(known, _)| known == peer) {
            Some((_, methods)) => Ok(Terms {
                methods: *methods,
                bidi: self.bidi,
                acks: self.acks,
                carries: self.carries,
            }),
            None => Err(Refusal::Policy(Reason::PartnerNotAllowed)),
        }
    }

    fn lists(&self, _: Side, _: &DomainName) -> bool {
        self.lists
    }

    fn serves(&self, _: Side, local: &DomainName) -> bool {
        self.local.contains(local)
    }

    fn verify_certificate(
        &self,
        _: Side,
        _: PeerRole,
        peer: &DomainName,
    ) -> Result<(), CertificateRejection> {
        let fault = |label, text: String| Err(CertificateRejection { label, text });
        match &*self.shown {
            "" => fault("NoCertificate", "the peer showed no certificate".to_owned()),
            _ if self.distrust => fault("UnknownIssuer", "not trusted".to_owned()),
            names if names.split(',').any(|name| name == peer.as_str()) => Ok(()),
            names => fault("NameMismatch", format!("expected {peer}, found {names}")),
        }
    }

    fn dialback(&self) -> &dialback::Secret {
        &self.secret
    }

    fn limits(&self) -> StreamLimits {
        StreamLimits {
            max_bytes: Some(262_144),
            idle_seconds: Some(600),
        }
    }

    fn new_stream_id(&self) -> String {
        self.ids.set(self.ids.get() + 1);
        format!("{}{}", self.name, self.ids.get())
    }

    fn is_own_stream_id(&self, id: &str) -> bool {
        id.strip_prefix(self.name)
            .is_some_and(|number| number.parse::<u32>().is_ok())
    }
}

/// Either machine.
pub(super) enum Machine {
    In(Inbound),
    Out(Box<Outbound>),
}

impl Machine {
    fn step(&mut self, input: Input<'_>, environment: &dyn Environment, out: &mut Vec<Output>) {
        match self {
            Self::In(machine) => machine.step(input, environment, out),
            Self::Out(machine) => machine.step(input, environment, out),
        }
    }

    pub fn is_closed(&self) -> bool {
        match self {
            Self::In(machine) => machine.is_closed(),
            Self::Out(machine) => machine.is_closed(),
        }
    }
}

/// A machine with a scanner before it, as the driver has them.
pub(super) struct Talk {
    pub machine: Machine,
    pub world: World,
    scanner: Scanner,
    unread: Vec<u8>,
    pub outputs: Vec<Output>,
}

impl Talk {
    pub fn inbound(mut world: World, shown: Shown) -> Self {
        let link = shown.to(&mut world);
        Self::with(
            Machine::In(Inbound::new(Side::Partner, link)),
            world,
            Vec::new(),
        )
    }

    pub fn outbound(mut world: World, purpose: Purpose, shown: Shown, skip_sasl: bool) -> Self {
        let mut out = Vec::new();
        let link = shown.to(&mut world);
        let start = OutboundStart {
            side: Side::Partner,
            purpose,
            link,
            skip_sasl,
            skip_bidi: false,
            skip_acks: false,
            names: WireNames::default(),
        };
        let machine = Machine::Out(Box::new(Outbound::start(start, &world, &mut out)));
        Self::with(machine, world, out)
    }

    fn with(machine: Machine, world: World, outputs: Vec<Output>) -> Self {
        Self {
            machine,
            world,
            scanner: Scanner::new(Limits::default()),
            unread: Vec::new(),
            outputs,
        }
    }

    /// The handshake after STARTTLS is done; the peer showed a certificate of these domains.
    pub fn encrypt(&mut self, names: &str) {
        self.world.shown = names.to_owned();
        self.give(Input::TlsEstablished);
    }

    pub fn give(&mut self, input: Input<'_>) {
        let before = self.outputs.len();
        let was_closed = self.machine.is_closed();
        self.machine.step(input, &self.world, &mut self.outputs);
        let closes = self.outputs[before..]
            .iter()
            .filter(|output| matches!(output, Output::Close(_)))
            .count();
        assert_eq!(
            closes,
            usize::from(self.machine.is_closed() && !was_closed),
            "Close is said once"
        );
        if closes > 0 {
            assert!(
                matches!(self.outputs.last(), Some(Output::Close(_))),
                "nothing follows Close"
            );
        }
        for output in &self.outputs[before..] {
            match output {
                Output::Restart => self.scanner.restart(),
                Output::StartTls { .. } => {
                    self.scanner.restart();
                    self.unread.clear();
                }
                _ => {}
            }
        }
    }

    /// The peer's bytes arrive, item by item, as the driver feeds them.
    pub fn hear(&mut self, bytes: &[u8]) {
        self.unread.extend_from_slice(bytes);
        while !self.machine.is_closed() && !self.unread.is_empty() {
            let unread = self.unread.clone();
            let (len, fed) = match self.scanner.next(&unread) {
                Ok(None) => return,
                Ok(Some(item)) => (item.len(), Fed::of(item)),
                Err(error) => (
                    unread.len(),
                    Fed::Fault(Fault::Xml {
                        condition: error.condition(),
                        label: "Xml",
                        text: error.to_string(),
                    }),
                ),
            };
            self.unread.drain(..len);
            match fed {
                Fed::Nothing => {}
                Fed::Header(header) => self.give(Input::Header(&header)),
                Fed::Closed => self.give(Input::Closed),
                Fed::Stanza(from, to) => {
                    self.give(Input::UnauthorizedStanza {
                        from: from.as_deref(),
                        to: to.as_deref(),
                    });
                }
                Fed::Element(bytes) => {
                    let header = self.scanner.header().unwrap().clone();
                    let element = Element::parse(&bytes, &header).unwrap();
                    self.give(Input::Element(&element));
                }
                Fed::Fault(fault) => self.give(Input::End(fault)),
            }
        }
    }

    /// Everything said and done since the last call, as one text.
    pub fn take(&mut self) -> String {
        std::mem::take(&mut self.outputs)
            .iter()
            .map(render)
            .collect()
    }
}

enum Fed {
    Nothing,
    Header(std::sync::Arc<StreamHeader>),
    Closed,
    Stanza(Option<String>, Option<String>),
    Element(Vec<u8>),
    Fault(Fault),
}

impl Fed {
    fn of(item: Item<'_>) -> Self {
        match item {
            Item::Whitespace { .. }
            | Item::Skipped { .. }
            | Item::Faulty { .. }
            | Item::Dropped { .. } => Self::Nothing,
            Item::Header { header, .. } => Self::Header(header),
            Item::Close { .. } => Self::Closed,
            Item::Stanza(stanza) => Self::Stanza(
                stanza.from.map(|from| from.into_owned()),
                stanza.to.map(|to| to.into_owned()),
            ),
            Item::Other(other) => Self::Element(other.bytes.to_vec()),
        }
    }
}

pub(super) fn render(output: &Output) -> String {
    match output {
        Output::Send(bytes) => String::from_utf8(bytes.clone()).unwrap(),
        Output::StartTls { domain } => format!("[tls {domain}]"),
        Output::Restart => "[restart]".to_owned(),
        Output::PairAuthenticated { pair, method } => format!("[authenticated {pair} {method}]"),
        Output::PairReady { pair, method } => format!("[ready {pair} {method}]"),
        Output::PairFailed { pair, fault } => format!("[failed {pair} {}]", fault.label()),
        Output::Verify { request, question } => {
            format!(
                "[verify {request} {} {} {}]",
                question.pair, question.stream_id, question.key
            )
        }
        Output::Verified(verdict) => format!("[verified {verdict:?}]"),
        Output::Bidi => "[bidi]".to_owned(),
        Output::TrunkReady { peer } => format!("[trunk {peer}]"),
        Output::AcksEnabled { namespace } => format!("[acks {}]", namespace.as_str()),
        Output::AckRequested => "[ack wanted]".to_owned(),
        Output::Acked { h } => format!("[acked {h}]"),
        Output::ProbeAnswered { number } => format!("[probe {number}]"),
        Output::PeerLimits(limits) => {
            format!("[limits {:?} {:?}]", limits.max_bytes, limits.idle_seconds)
        }
        Output::Step { step, outcome, .. } => format!("[step {step:?} {outcome}]"),
        Output::LastWord => "[last word]".to_owned(),
        Output::Close(fault) => format!("[close {}]", fault.label()),
    }
}

/// One line of a script.
pub(super) enum Line {
    /// The peer sends.
    Peer(&'static str),
    /// The handshake is done; the peer proved these domains.
    Tls(&'static str),
    /// The authoritative server has spoken.
    Verdict(u32, KeyVerification),
    /// The driver adds a pair.
    Add(&'static str, &'static str),
    Probe(u64),
    /// The configuration changes.
    Change(fn(&mut World)),
    TimedOut,
    End(Fault),
    /// What came of the lines since the last expectation holds these, in order.
    Sees(&'static [&'static str]),
    /// ... and none of these (of the same output as the last `Sees`).
    Lacks(&'static [&'static str]),
    /// Nothing at all was said or done.
    Quiet,
}

pub(super) fn run(name: &str, mut talk: Talk, lines: &[Line]) {
    let mut last = String::new();
    for (number, line) in lines.iter().enumerate() {
        match line {
            Line::Peer(bytes) => talk.hear(bytes.as_bytes()),
            Line::Tls(names) => talk.encrypt(names),
            Line::Verdict(request, verdict) => {
                talk.give(Input::Verdict {
                    request: *request,
                    verdict: verdict.clone(),
                });
            }
            Line::Add(from, to) => talk.give(Input::AddPair(pair(from, to))),
            Line::Probe(number) => talk.give(Input::Probe { number: *number }),
            Line::Change(change) => {
                change(&mut talk.world);
                talk.give(Input::ConfigChanged);
            }
            Line::TimedOut => talk.give(Input::TimedOut),
            Line::End(fault) => talk.give(Input::End(fault.clone())),
            Line::Sees(parts) => {
                last = talk.take();
                let mut rest = last.as_str();
                for part in *parts {
                    let at = rest.find(part).unwrap_or_else(|| {
                        panic!("{name}, line {number}: no {part:?} in {rest:?}\nof {last:?}")
                    });
                    rest = &rest[at + part.len()..];
                }
            }
            Line::Lacks(parts) => {
                for part in *parts {
                    assert!(
                        !last.contains(part),
                        "{name}, line {number}: {part:?} in {last:?}"
                    );
                }
            }
            Line::Quiet => {
                last = talk.take();
                assert_eq!(last, "", "{name}, line {number}");
            }
        }
    }
}
