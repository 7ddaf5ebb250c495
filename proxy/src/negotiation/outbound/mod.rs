//! A stream that the edge opened: STARTTLS, SASL EXTERNAL or dialback, further pairs, bidi, acks; and
//! streams that only verify a dialback key.
//!
//! The best usable method wins. Plaintext is never reached by failure: once TLS was offered, or is
//! needed, there is no way back. A certificate that does not verify leaves dialback inside TLS, where
//! that is allowed, and nothing else.

mod authentication;
mod blame;
mod carried;

use xmpp_edge_crds::{domain::DomainName, negotiation::Method};

use super::{
    Environment, Fault, Input, KeyVerification, Link, Output, Pair, PeerRole, Side, Terms,
    Unavailable, VerifyRequest, WireNames,
    acks::Namespace,
    features::{PeerFeatures, read_limits},
    pairs::{self, AuthenticatedPair, Ground, PairClaim},
    wire::{self, OwnHeader, Version, Writer, ns},
};
use crate::xml::{Element, StreamHeader};

/// What an outbound stream is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// To carry stanzas of this pair, and later of others ([`Input::AddPair`]).
    Stanzas(Pair),
    /// To be a trunk from `from`, whose sidecar opens it, to an edge pod.
    Trunk(Pair),
    /// To ask the authoritative server of `pair.from` about a key, then close. Nothing else is done
    /// on it; the answer is [`Output::Verified`].
    Verify(VerifyRequest),
}

impl Purpose {
    fn local(&self) -> &DomainName {
        match self {
            Self::Stanzas(pair) | Self::Trunk(pair) => &pair.from,
            Self::Verify(question) => &question.pair.to,
        }
    }

    fn peer(&self) -> &DomainName {
        match self {
            Self::Stanzas(pair) | Self::Trunk(pair) => &pair.to,
            Self::Verify(question) => &question.pair.from,
        }
    }
}

/// How an outbound stream begins.
#[derive(Clone, Debug)]
pub struct OutboundStart {
    pub side: Side,
    pub purpose: Purpose,
    pub link: Link,
    /// Set when the last stream to this peer ended with [`Fault::SaslRejected`]: dialback at once,
    /// where it is allowed.
    pub skip_sasl: bool,
    /// Set when a stream to this peer ended with [`Fault::BidiRejected`]: XEP-0288 is not asked for.
    pub skip_bidi: bool,
    /// Set when a stream to this peer ended with [`Fault::AcksRejected`]: XEP-0198 is not asked for.
    pub skip_acks: bool,
    /// How the peer writes names, for stanzas' streams; a question's are its own.
    pub names: WireNames,
}

/// Leads a stream to a peer.
#[derive(Debug)]
pub struct Outbound {
    side: Side,
    purpose: Purpose,
    names: WireNames,
    link: Link,
    state: OutboundState,
    /// Whether EXTERNAL may still be tried.
    sasl_left: bool,
    /// Whether XEP-0288 may be asked for.
    bidi_left: bool,
    /// Whether XEP-0198 may be asked for.
    acks_left: bool,
    /// What the peer said to EXTERNAL, while dialback is tried on the same stream.
    sasl_rejected: Option<Fault>,
    bidi: bool,
    /// The peer has taken or sent stanzas on this stream.
    is_proved: bool,
    acks: bool,
    /// Announced by the peer after its last header.
    features: PeerFeatures,
    /// The pairs that the edge may send.
    ready: Vec<AuthenticatedPair>,
    /// The pairs that the peer may send (XEP-0288).
    taken: Vec<AuthenticatedPair>,
    /// Asked for by `db:result`, unanswered.
    asked: Vec<PairClaim>,
    /// The last probe.
    probe: Option<u64>,
}

#[derive(Debug)]
enum OutboundState {
    /// Our header is out.
    Opening(OutboundOpening),
    /// The peer's header came, with this id; its features come next.
    Announced(Announced),
    /// `<starttls/>` is out.
    AskingTls,
    /// TLS is at work.
    Handshaking,
    /// `<auth/>` is out; dialback on the same stream needs its id.
    Authenticating(Announced),
    /// The first `db:result` is out.
    DialingBack(Announced),
    /// `<enable/>` is out.
    EnablingAcks {
        first: AuthenticatedPair,
        id: Option<String>,
    },
    /// Stanzas flow.
    Established {
        id: Option<String>,
    },
    /// `db:verify` is out.
    Verifying,
    /// We have ended the stream over this; the peer may be about to tell a better reason.
    Refused(Fault),
    Closed,
}

#[derive(Debug)]
struct OutboundOpening {
    /// SASL has succeeded.
    authenticated: bool,
}

#[derive(Clone, Debug)]
struct Announced {
    id: Option<String>,
    /// The header declares the dialback namespace: support, as it was told before features.
    declares_dialback: bool,
    authenticated: bool,
}

impl Outbound {
    /// Begins: our header is the first output, unless the pair is refused (then only `PairFailed`,
    /// or `Verified`, and `Close`).
    #[must_use]
    pub fn start(
        start: OutboundStart,
        environment: &dyn Environment,
        out: &mut Vec<Output>,
    ) -> Self {
        let names = match &start.purpose {
            Purpose::Stanzas(_) | Purpose::Trunk(_) => start.names,
            Purpose::Verify(question) => question.names,
        };
        let mut outbound = Self {
            side: start.side,
            purpose: start.purpose,
            names,
            link: start.link,
            state: OutboundState::Opening(OutboundOpening {
                authenticated: false,
            }),
            sasl_left: !start.skip_sasl,
            bidi_left: !start.skip_bidi,
            acks_left: !start.skip_acks,
            sasl_rejected: None,
            bidi: false,
            is_proved: false,
            acks: false,
            features: PeerFeatures::default(),
            ready: Vec::new(),
            taken: Vec::new(),
            asked: Vec::new(),
            probe: None,
        };
        match outbound.terms(environment) {
            Ok(terms) if outbound.link == Link::Tls && !terms.methods.uses_tls() => {
                outbound.end_silently(Fault::TlsNotSupported, out);
            }
            Ok(_) => outbound.send_header(out),
            Err(fault) => outbound.end_silently(fault, out),
        }
        outbound
    }

    /// Takes one input; appends what is to be done.
    pub fn step(&mut self, input: Input<'_>, environment: &dyn Environment, out: &mut Vec<Output>) {
        if self.is_closed() {
            if let Input::AddPair(pair) = input {
                out.push(Output::PairFailed {
                    pair,
                    fault: Fault::PeerClosed,
                });
            }
            return;
        }
        if let OutboundState::Refused(fault) = &self.state {
            let fault = fault.clone();
            return self.last_word(fault, input, out);
        }
        let result = match input {
            Input::End(fault) => Err(fault),
            Input::Closed => Err(Fault::PeerClosed),
            Input::TimedOut => Err(Fault::EstablishmentTimeout),
            Input::ConfigChanged => self.config_changed(environment),
            Input::Header(header) => self.header(header, environment, out),
            Input::TlsEstablished => self.tls_established(out),
            Input::Element(element) => self.element(element, environment, out),
            Input::UnauthorizedStanza { from, to } => Err(self.stray(from, to)),
            Input::AddPair(pair) => {
                self.add_pair(pair, environment, out);
                Ok(())
            }
            Input::Probe { number } => {
                self.send_probe(number, out);
                Ok(())
            }
            // Verdicts answer questions of inbound streams.
            Input::Verdict { .. } => Ok(()),
        };
        if let Err(fault) = result {
            self.close(fault, environment, out);
        }
    }

    /// The pairs that the edge may send on this stream.
    pub fn pairs(&self) -> impl Iterator<Item = (&Pair, Method)> + Clone {
        self.ready
            .iter()
            .map(|known| (known.pair(), known.method()))
    }

    /// Whether the peer may send on this stream (XEP-0288), once a pair is ready.
    #[must_use]
    pub fn is_bidi(&self) -> bool {
        self.bidi
    }

    /// The peer has taken or sent stanzas on this stream: what was agreed on works.
    pub fn note_proved(&mut self) {
        self.is_proved = true;
    }

    /// Whether [`Input::Probe`] would be answered: the peer announced dialback with `<errors/>`.
    #[must_use]
    pub fn can_probe(&self) -> bool {
        matches!(self.state, OutboundState::Established { .. }) && self.features.dialback_errors
    }

    /// Whether [`Input::AddPair`] has a chance here: stanzas flow, and the peer knows dialback.
    #[must_use]
    pub fn takes_further_pairs(&self) -> bool {
        matches!(self.state, OutboundState::Established { .. })
            && (self.features.dialback_errors || self.features.dialback && self.acks)
    }

    #[must_use]
    pub fn is_closed(&self) -> bool {
        matches!(self.state, OutboundState::Closed)
    }

    // ---- header and features ----

    fn terms(&self, environment: &dyn Environment) -> Result<Terms, Fault> {
        Ok(environment.admit(self.side, self.purpose.peer(), self.purpose.local())?)
    }

    fn send_header(&self, out: &mut Vec<Output>) {
        OwnHeader {
            from: Some(&self.names.local.write(self.purpose.local())),
            to: Some(&self.names.peer.write(self.purpose.peer())),
            id: None,
            version: true,
        }
        .send(out);
    }

    fn header(
        &mut self,
        header: &StreamHeader,
        environment: &dyn Environment,
        out: &mut Vec<Output>,
    ) -> Result<(), Fault> {
        let OutboundState::Opening(opening) = &self.state else {
            return Err(Fault::UnexpectedElement("stream".to_owned()));
        };
        let authenticated = opening.authenticated;
        if header.content_namespace.as_deref() != Some(ns::SERVER) {
            return Err(Fault::ContentNamespace);
        }
        let id = header.id.clone().filter(|id| !id.is_empty());
        if id
            .as_deref()
            .is_some_and(|id| environment.is_own_stream_id(id))
        {
            return Err(Fault::Loop);
        }
        let announced = Announced {
            id,
            declares_dialback: header.declares_dialback(),
            authenticated,
        };
        self.features = PeerFeatures::default();
        match Version::of(header.version.as_deref()) {
            Version::Unusable => Err(Fault::UnsupportedVersion),
            Version::Current => {
                self.state = OutboundState::Announced(announced);
                Ok(())
            }
            // No features will come, so there is nothing but dialback.
            Version::Old if authenticated => {
                self.established_by_sasl(announced.id, environment, out)
            }
            Version::Old => self.without_features(announced, environment, out),
        }
    }

    fn without_features(
        &mut self,
        announced: Announced,
        environment: &dyn Environment,
        out: &mut Vec<Output>,
    ) -> Result<(), Fault> {
        let terms = self.terms(environment)?;
        if self.link == Link::Plain && !terms.methods.allows_plaintext() {
            // So begin some servers that have nothing to say but an error, which follows.
            let fault = Fault::TlsNotOffered;
            wire::send_end(fault.stream_error().as_ref(), out);
            out.push(Output::LastWord);
            self.state = OutboundState::Refused(fault);
            return Ok(());
        }
        self.authenticate_by_dialback(announced, terms, environment, out)
    }

    /// What comes once we have ended the stream over `fault`: an error of the peer's is why, and anything else
    /// ends the waiting for one.
    fn last_word(&mut self, fault: Fault, input: Input<'_>, out: &mut Vec<Output>) {
        let told = match input {
            Input::Element(element) => wire::peer_error(element),
            Input::AddPair(pair) => {
                let fault = Fault::NotMultiplexable;
                return out.push(Output::PairFailed { pair, fault });
            }
            Input::ConfigChanged | Input::Probe { .. } | Input::Verdict { .. } => return,
            Input::Header(_)
            | Input::UnauthorizedStanza { .. }
            | Input::TlsEstablished
            | Input::Closed
            | Input::TimedOut
            | Input::End(_) => None,
        };
        self.end_silently(told.unwrap_or(fault), out);
    }

    fn features(
        &mut self,
        element: &Element,
        environment: &dyn Environment,
        out: &mut Vec<Output>,
    ) -> Result<(), Fault> {
        let OutboundState::Announced(announced) = &self.state else {
            if matches!(self.state, OutboundState::Opening(_)) {
                // Without a header, which some forget after SASL.
                return Err(Fault::UnexpectedElement(element.name.clone()));
            }
            // Some servers announce anew after dialback: only the limits may change.
            if let Some(limits) = PeerFeatures::read(element).limits {
                out.push(Output::PeerLimits(limits));
            }
            return Ok(());
        };
        let announced = announced.clone();
        self.features = PeerFeatures::read(element);
        // Of these alone: what was told before TLS, or before authentication, no longer counts.
        out.push(Output::PeerLimits(self.features.limits.unwrap_or_default()));
        if announced.authenticated {
            return self.established_by_sasl(announced.id, environment, out);
        }
        let terms = self.terms(environment)?;
        if self.link == Link::Plain {
            match self.features.starttls {
                Some(_) if terms.methods.uses_tls() => {
                    Writer::new()
                        .raw("<starttls xmlns='")
                        .raw(ns::TLS)
                        .raw("'/>")
                        .send(out);
                    self.state = OutboundState::AskingTls;
                    return Ok(());
                }
                Some(starttls) if starttls.required => return Err(Fault::TlsRequiredByPeer),
                None if !terms.methods.allows_plaintext() => return Err(Fault::TlsNotOffered),
                Some(_) | None => {}
            }
        }
        self.authenticate(announced, terms, environment, out)
    }

    // ---- elements ----

    fn element(
        &mut self,
        element: &Element,
        environment: &dyn Environment,
        out: &mut Vec<Output>,
    ) -> Result<(), Fault> {
        if let Some(fault) = wire::peer_error(element) {
            return Err(fault);
        }
        let unexpected = || Err(Fault::UnexpectedElement(element.name.clone()));
        match (element.name.as_str(), element.namespace.as_str()) {
            ("features", ns::STREAM) => self.features(element, environment, out),
            (_, ns::TLS) => self.tls_answer(element, out),
            (_, ns::SASL) => self.sasl_answer(element, environment, out),
            (_, ns::DIALBACK) => self.dialback_answer(element, environment, out),
            ("limits", ns::LIMITS) => {
                out.push(Output::PeerLimits(read_limits(element)));
                Ok(())
            }
            (_, namespace) => match Namespace::of(namespace) {
                Some(version) => self.stream_management(element, version, environment, out),
                None => unexpected(),
            },
        }
    }

    fn stream_management(
        &mut self,
        element: &Element,
        version: Namespace,
        environment: &dyn Environment,
        out: &mut Vec<Output>,
    ) -> Result<(), Fault> {
        if let OutboundState::EnablingAcks { first, id } = &self.state {
            let (first, id) = (first.clone(), id.clone());
            match element.name.as_str() {
                "enabled" => {
                    self.acks = true;
                    out.push(Output::AcksEnabled { namespace: version });
                }
                "failed" => {}
                name => return Err(Fault::UnexpectedElement(name.to_owned())),
            }
            return self.establish(first, id, environment, out);
        }
        wire::ack(self.acks, &element.name, element, out)?;
        self.is_proved |= matches!(out.last(), Some(Output::Acked { h: 1.. }));
        Ok(())
    }

    fn stray(&self, from: Option<&str>, to: Option<&str>) -> Fault {
        pairs::stray(self.taken.iter().map(AuthenticatedPair::pair), from, to)
    }

    // ---- ends ----

    pub(super) fn ground<'a>(&'a self, environment: &'a dyn Environment) -> Ground<'a> {
        Ground {
            environment,
            side: self.side,
            role: PeerRole::Server,
            link: self.link,
        }
    }

    fn config_changed(&self, environment: &dyn Environment) -> Result<(), Fault> {
        if self.ready.is_empty() {
            self.terms(environment)?;
        }
        let waiting = match &self.state {
            OutboundState::EnablingAcks { first, .. } => Some(first),
            _ => None,
        };
        self.ready
            .iter()
            .chain(waiting)
            .chain(&self.taken)
            .try_for_each(|known| pairs::still_holds(self.ground(environment), known))
    }

    fn close(&mut self, fault: Fault, environment: &dyn Environment, out: &mut Vec<Output>) {
        let fault = self.blame(fault, environment);
        match self.state {
            // Between `<proceed/>` and the handshake's end nothing can be said.
            OutboundState::Handshaking => self.end_silently(fault, out),
            _ => {
                let error = fault.stream_error();
                wire::send_end(error.as_ref(), out);
                self.end_silently(fault, out);
            }
        }
    }

    /// Ends without another word to the peer; tells the driver what became of everything wanted.
    fn end_silently(&mut self, fault: Fault, out: &mut Vec<Output>) {
        if !matches!(fault, Fault::Done | Fault::PeerClosed | Fault::Shutdown)
            || self.ready.is_empty()
        {
            out.push(Output::failed(&fault, Some(self.purpose.peer())));
        }
        match &self.purpose {
            Purpose::Verify(_) => out.push(Output::Verified(KeyVerification::Unavailable(
                unavailable(&fault),
            ))),
            Purpose::Trunk(_) => {}
            Purpose::Stanzas(first) => {
                let unanswered = self.asked.drain(..).map(|claim| claim.pair);
                let mut failed: Vec<Pair> = unanswered.filter(|pair| pair != first).collect();
                if self.ready.is_empty() {
                    failed.insert(0, first.clone());
                }
                for pair in failed {
                    out.push(Output::PairFailed {
                        pair,
                        fault: fault.clone(),
                    });
                }
            }
        }
        out.push(Output::Close(fault));
        self.state = OutboundState::Closed;
    }
}

/// What a verify-only stream's end means to the peer that waits for the verdict.
fn unavailable(fault: &Fault) -> Unavailable {
    match fault {
        Fault::EstablishmentTimeout | Fault::Unresponsive => Unavailable::TimedOut,
        Fault::TlsNotOffered
        | Fault::TlsNotSupported
        | Fault::TlsRequiredByPeer
        | Fault::HostUnknown
        | Fault::Policy(_)
        | Fault::Loop => Unavailable::Policy,
        _ => Unavailable::Refused,
    }
}
