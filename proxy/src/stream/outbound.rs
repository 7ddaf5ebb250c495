//! A stream that the edge opened: STARTTLS, SASL EXTERNAL or dialback, further pairs, bidi, acks; and
//! streams that only verify a dialback key.
//!
//! The best usable method wins. Plaintext is never reached by failure: once TLS was offered, or is
//! needed, there is no way back. A certificate that does not verify leaves dialback inside TLS, where
//! that is allowed, and nothing else.

use xmpp_edge_crds::{domain::DomainName, negotiation::Method};

use super::{
    Fault, Input, Link, Output, Pair, PeerRole, Realm, Side, Step, Terms, Unavailable, Verdict,
    VerifyRequest,
    acks::Namespace,
    dialback::{self, Body, Kind, Known, Message},
    features::{PeerFeatures, read_limits},
    pairs, sasl,
    wire::{self, OwnHeader, Version, Writer, ns},
};
use crate::{
    stream::MAX_PAIRS,
    tls::TlsFacts,
    xml::{Element, StreamHeader},
};

/// Id of a `db:verify` that only asks for a sign of life, before its number.
const PROBE_ID: &str = "xmpp-edge-probe-";
/// What no server makes as a key, so that a probe never verifies anything.
const PROBE_KEY: &str = "0";

/// What an outbound stream is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// To carry stanzas of this pair, and later of others ([`Input::AddPair`]).
    Stanzas(Pair),
    /// To ask the authoritative server of `pair.from` about a key, then close. Nothing else is done
    /// on it; the answer is [`Output::Verified`].
    Verify(VerifyRequest),
}

impl Purpose {
    fn local(&self) -> &DomainName {
        match self {
            Self::Stanzas(pair) => &pair.from,
            Self::Verify(question) => &question.pair.to,
        }
    }

    fn peer(&self) -> &DomainName {
        match self {
            Self::Stanzas(pair) => &pair.to,
            Self::Verify(question) => &question.pair.from,
        }
    }
}

/// How an outbound stream begins.
#[derive(Clone, Debug)]
pub struct Start {
    pub side: Side,
    pub purpose: Purpose,
    pub link: Link,
    /// Set when the last stream to this peer ended with [`Fault::SaslRejected`]: dialback at once,
    /// where it is allowed.
    pub skip_sasl: bool,
}

/// Leads a stream to a peer.
#[derive(Debug)]
pub struct Outbound {
    side: Side,
    purpose: Purpose,
    tls: Option<TlsFacts>,
    state: State,
    /// Whether EXTERNAL may still be tried.
    sasl_left: bool,
    /// What the peer said to EXTERNAL, while dialback is tried on the same stream.
    sasl_rejected: Option<Fault>,
    bidi: bool,
    acks: bool,
    /// Announced by the peer after its last header.
    features: PeerFeatures,
    /// The pairs that the edge may send.
    ready: Vec<Known>,
    /// Asked for by `db:result`, unanswered.
    asked: Vec<Known>,
    /// Wanted by the session before the stream was ready.
    wanted: Vec<Pair>,
    /// The last probe.
    probe: Option<u64>,
}

#[derive(Debug)]
enum State {
    /// Our header is out.
    Opening(Opening),
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
        first: Known,
        id: Option<String>,
    },
    /// Stanzas flow.
    Established {
        id: Option<String>,
    },
    /// `db:verify` is out.
    Verifying,
    Closed,
}

#[derive(Debug)]
struct Opening {
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
    pub fn start(start: Start, realm: &dyn Realm, out: &mut Vec<Output>) -> Self {
        let tls = match start.link {
            Link::Plain => None,
            Link::DirectTls(facts) => Some(facts),
        };
        let mut outbound = Self {
            side: start.side,
            purpose: start.purpose,
            tls,
            state: State::Opening(Opening {
                authenticated: false,
            }),
            sasl_left: !start.skip_sasl,
            sasl_rejected: None,
            bidi: false,
            acks: false,
            features: PeerFeatures::default(),
            ready: Vec::new(),
            asked: Vec::new(),
            wanted: Vec::new(),
            probe: None,
        };
        match outbound.terms(realm) {
            Ok(terms) if outbound.tls.is_some() && !terms.methods.uses_tls() => {
                outbound.end_silently(Fault::TlsNotSupported, out);
            }
            Ok(_) => outbound.send_header(out),
            Err(fault) => outbound.end_silently(fault, out),
        }
        outbound
    }

    /// Takes one input; appends what is to be done.
    pub fn step(&mut self, input: Input<'_>, realm: &dyn Realm, out: &mut Vec<Output>) {
        if self.is_closed() {
            if let Input::AddPair(pair) = input {
                out.push(Output::PairFailed {
                    pair,
                    fault: Fault::PeerClosed,
                });
            }
            return;
        }
        let result = match input {
            Input::End(fault) => Err(fault),
            Input::Closed => Err(Fault::PeerClosed),
            Input::TimedOut => Err(Fault::EstablishmentTimeout),
            Input::RealmChanged => self.realm_changed(realm),
            Input::Header(header) => self.header(header, realm, out),
            Input::TlsEstablished(facts) => self.tls_established(facts, out),
            Input::Element(element) => self.element(element, realm, out),
            Input::StrayStanza { from, to } => Err(self.stray(from, to, realm)),
            Input::AddPair(pair) => {
                self.add_pair(pair, realm, out);
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
            self.close(fault, realm, out);
        }
    }

    /// The pairs that the edge may send on this stream.
    pub fn pairs(&self) -> impl Iterator<Item = (&Pair, Method)> + Clone {
        self.ready.iter().map(|known| (&known.pair, known.method))
    }

    /// Whether the peer may send on this stream (XEP-0288), once a pair is ready.
    #[must_use]
    pub fn is_bidi(&self) -> bool {
        self.bidi
    }

    /// Whether [`Input::Probe`] would be answered: the peer announced dialback with `<errors/>`.
    #[must_use]
    pub fn can_probe(&self) -> bool {
        matches!(self.state, State::Established { .. }) && self.features.dialback_errors
    }

    #[must_use]
    pub fn is_closed(&self) -> bool {
        matches!(self.state, State::Closed)
    }

    // ---- header and features ----

    fn terms(&self, realm: &dyn Realm) -> Result<Terms, Fault> {
        Ok(realm.admit(self.side, self.purpose.peer(), self.purpose.local())?)
    }

    fn send_header(&self, out: &mut Vec<Output>) {
        OwnHeader {
            from: Some(self.purpose.local().as_str()),
            to: Some(self.purpose.peer().as_str()),
            id: None,
            version: true,
        }
        .send(out);
    }

    fn header(
        &mut self,
        header: &StreamHeader,
        realm: &dyn Realm,
        out: &mut Vec<Output>,
    ) -> Result<(), Fault> {
        let State::Opening(opening) = &self.state else {
            return Err(Fault::UnexpectedElement("stream".to_owned()));
        };
        let authenticated = opening.authenticated;
        if header.content_namespace.as_deref() != Some(ns::SERVER) {
            return Err(Fault::ContentNamespace);
        }
        let id = header.id.clone().filter(|id| !id.is_empty());
        if id.as_deref().is_some_and(|id| realm.is_own_stream_id(id)) {
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
                self.state = State::Announced(announced);
                Ok(())
            }
            // No features will come, so there is nothing but dialback.
            Version::Old if authenticated => self.established_by_sasl(announced.id, realm, out),
            Version::Old => self.without_features(announced, realm, out),
        }
    }

    fn without_features(
        &mut self,
        announced: Announced,
        realm: &dyn Realm,
        out: &mut Vec<Output>,
    ) -> Result<(), Fault> {
        let terms = self.terms(realm)?;
        if self.tls.is_none() && !terms.methods.allows_plaintext() {
            return Err(Fault::TlsNotOffered);
        }
        self.authenticate_by_dialback(announced, terms, realm, out)
    }

    fn features(
        &mut self,
        element: &Element,
        realm: &dyn Realm,
        out: &mut Vec<Output>,
    ) -> Result<(), Fault> {
        let State::Announced(announced) = &self.state else {
            // Some servers announce anew after dialback: only the limits may change.
            if let Some(limits) = PeerFeatures::read(element).limits {
                out.push(Output::PeerLimits(limits));
            }
            return Ok(());
        };
        let announced = announced.clone();
        self.features = PeerFeatures::read(element);
        if let Some(limits) = self.features.limits {
            out.push(Output::PeerLimits(limits));
        }
        if announced.authenticated {
            return self.established_by_sasl(announced.id, realm, out);
        }
        let terms = self.terms(realm)?;
        if self.tls.is_none() {
            match self.features.starttls {
                Some(_) if terms.methods.uses_tls() => {
                    Writer::new()
                        .raw("<starttls xmlns='")
                        .raw(ns::TLS)
                        .raw("'/>")
                        .send(out);
                    self.state = State::AskingTls;
                    return Ok(());
                }
                Some(starttls) if starttls.required => return Err(Fault::TlsRequiredByPeer),
                None if !terms.methods.allows_plaintext() => return Err(Fault::TlsNotOffered),
                Some(_) | None => {}
            }
        }
        self.authenticate(announced, terms, realm, out)
    }

    // ---- authentication ----

    fn authenticate(
        &mut self,
        announced: Announced,
        terms: Terms,
        realm: &dyn Realm,
        out: &mut Vec<Output>,
    ) -> Result<(), Fault> {
        if let (Some(tls), Purpose::Stanzas(pair)) = (&self.tls, &self.purpose) {
            let proof = pairs::prove(realm, self.side, PeerRole::Server, &pair.to, tls);
            if proof.is_ok() && terms.bidi && self.features.bidi && !self.bidi {
                // XEP-0288 section 2.2: asked for before authentication.
                Writer::new()
                    .raw("<bidi xmlns='")
                    .raw(ns::BIDI)
                    .raw("'/>")
                    .send(out);
                self.bidi = true;
                out.push(Output::Bidi);
            }
            if terms.methods.contains(Method::SaslOverTls) {
                let without_dialback = !terms.methods.contains(Method::TlsDialback);
                match proof {
                    Err(fault) if without_dialback => return Err(fault),
                    Err(fault) => out.push(Output::failed(&fault, Some(&pair.to))),
                    Ok(()) => {
                        out.push(Output::ok(Step::Certificate, Some(&pair.to)));
                        if self.features.external && self.sasl_left {
                            self.sasl_left = false;
                            sasl::send_auth(&pair.from, out);
                            self.state = State::Authenticating(announced);
                            return Ok(());
                        }
                        if without_dialback {
                            return Err(self
                                .sasl_rejected
                                .take()
                                .unwrap_or(Fault::ExternalNotOffered));
                        }
                    }
                }
            }
        }
        self.authenticate_by_dialback(announced, terms, realm, out)
    }

    fn authenticate_by_dialback(
        &mut self,
        announced: Announced,
        terms: Terms,
        realm: &dyn Realm,
        out: &mut Vec<Output>,
    ) -> Result<(), Fault> {
        let pair = match &self.purpose {
            Purpose::Stanzas(pair) => pair.clone(),
            Purpose::Verify(question) => {
                // No authentication, and no certificate: the key is what counts. Whether TLS is
                // needed was decided before.
                dialback::send_verify(question, out);
                self.state = State::Verifying;
                return Ok(());
            }
        };
        let method = if self.tls.is_some() {
            Method::TlsDialback
        } else {
            Method::TcpDialback
        };
        if !terms.methods.contains(method)
            || !(self.features.dialback || announced.declares_dialback)
        {
            return Err(self.sasl_rejected.take().unwrap_or(Fault::NoUsableMethod));
        }
        let known = Known { pair, method };
        self.ask(known, announced.id.as_deref(), realm, out)?;
        self.state = State::DialingBack(announced);
        Ok(())
    }

    /// Sends our key for a pair.
    fn ask(
        &mut self,
        known: Known,
        id: Option<&str>,
        realm: &dyn Realm,
        out: &mut Vec<Output>,
    ) -> Result<(), Fault> {
        let id = id.ok_or(Fault::StreamIdMissing)?;
        let key = realm
            .dialback()
            .key(known.pair.to.as_str(), known.pair.from.as_str(), id);
        dialback::send_result(&known.pair, &key, out);
        self.asked.push(known);
        Ok(())
    }

    fn tls_established(&mut self, facts: TlsFacts, out: &mut Vec<Output>) -> Result<(), Fault> {
        if !matches!(self.state, State::Handshaking) {
            return Err(Fault::UnexpectedElement("starttls".to_owned()));
        }
        self.tls = Some(facts);
        self.state = State::Opening(Opening {
            authenticated: false,
        });
        self.send_header(out);
        Ok(())
    }

    // ---- elements ----

    fn element(
        &mut self,
        element: &Element,
        realm: &dyn Realm,
        out: &mut Vec<Output>,
    ) -> Result<(), Fault> {
        let unexpected = || Err(Fault::UnexpectedElement(element.name.clone()));
        match (element.name.as_str(), element.namespace.as_str()) {
            ("error", ns::STREAM) => Err(wire::peer_error(element)),
            ("features", ns::STREAM) => self.features(element, realm, out),
            (_, ns::TLS) => self.tls_answer(element, out),
            (_, ns::SASL) => self.sasl_answer(element, realm, out),
            (_, ns::DIALBACK) => self.dialback_answer(element, realm, out),
            ("limits", ns::LIMITS) => {
                out.push(Output::PeerLimits(read_limits(element)));
                Ok(())
            }
            (_, namespace) => match Namespace::of(namespace) {
                Some(version) => self.stream_management(element, version, realm, out),
                None => unexpected(),
            },
        }
    }

    fn tls_answer(&mut self, element: &Element, out: &mut Vec<Output>) -> Result<(), Fault> {
        match (&self.state, element.name.as_str()) {
            (State::AskingTls, "proceed") => {
                self.state = State::Handshaking;
                out.push(Output::StartTls {
                    domain: self.purpose.peer().clone(),
                });
                Ok(())
            }
            (State::AskingTls, "failure") => Err(Fault::TlsRefused),
            (_, name) => Err(Fault::UnexpectedElement(name.to_owned())),
        }
    }

    fn sasl_answer(
        &mut self,
        element: &Element,
        realm: &dyn Realm,
        out: &mut Vec<Output>,
    ) -> Result<(), Fault> {
        let State::Authenticating(announced) = &self.state else {
            return Err(Fault::UnexpectedElement(element.name.clone()));
        };
        let announced = announced.clone();
        match element.name.as_str() {
            "success" => {
                out.push(Output::ok(Step::Sasl, Some(self.purpose.peer())));
                out.push(Output::Restart);
                self.state = State::Opening(Opening {
                    authenticated: true,
                });
                self.send_header(out);
                Ok(())
            }
            "challenge" => {
                // We sent all there is to say; some servers ask all the same (RFC 4422 section 5).
                Writer::new()
                    .raw("<response xmlns='")
                    .raw(ns::SASL)
                    .raw("'/>")
                    .send(out);
                Ok(())
            }
            "failure" => {
                let (condition, text) = sasl::read_failure(element);
                let fault = Fault::SaslRejected { condition, text };
                out.push(Output::failed(&fault, Some(self.purpose.peer())));
                self.sasl_rejected = Some(fault);
                let terms = self.terms(realm)?;
                self.authenticate_by_dialback(announced, terms, realm, out)
            }
            name => Err(Fault::UnexpectedElement(name.to_owned())),
        }
    }

    fn dialback_answer(
        &mut self,
        element: &Element,
        realm: &dyn Realm,
        out: &mut Vec<Output>,
    ) -> Result<(), Fault> {
        // What cannot be read was not asked for.
        let Ok(message) = Message::read(element) else {
            return Ok(());
        };
        match message.kind {
            Kind::Result => self.result(&message, realm, out),
            Kind::Verify => self.verified(message, out),
        }
    }

    /// An answer counts if this stream asked for that pair, and once (XEP-0220 section 3.1).
    fn result(
        &mut self,
        message: &Message,
        realm: &dyn Realm,
        out: &mut Vec<Output>,
    ) -> Result<(), Fault> {
        let asked = self
            .asked
            .iter()
            .position(|known| known.pair.from == message.to && known.pair.to == message.from);
        let Some(asked) = asked else { return Ok(()) };
        let fault = match &message.body {
            // The peer's own request: it has its own stream for that.
            Body::Key(_) => return Ok(()),
            Body::Valid => None,
            Body::Invalid => Some(Fault::DialbackRejected),
            Body::Error(condition) => Some(Fault::DialbackError {
                condition: condition.clone(),
            }),
        };
        let known = self.asked.swap_remove(asked);
        let first = match &self.state {
            State::DialingBack(announced) => Some(announced.id.clone()),
            _ => None,
        };
        match (fault, first) {
            (None, first) => {
                out.push(Output::ok(Step::Dialback, Some(&known.pair.to)));
                match first {
                    Some(id) => self.authenticated(known, id, realm, out),
                    None => self.pair_ready(known, realm, out),
                }
            }
            (Some(fault), Some(_)) => {
                self.asked.push(known);
                return Err(fault);
            }
            (Some(fault), None) => {
                out.push(Output::failed(&fault, Some(&known.pair.to)));
                out.push(Output::PairFailed {
                    pair: known.pair,
                    fault,
                });
            }
        }
        Ok(())
    }

    fn verified(&mut self, message: Message, out: &mut Vec<Output>) -> Result<(), Fault> {
        if matches!(message.body, Body::Key(_)) {
            // A question: asked on the wrong stream, so that no chain of questions can form.
            return Ok(());
        }
        match (&self.state, &self.purpose) {
            (State::Verifying, Purpose::Verify(question)) => {
                let ours = message.from == question.pair.from
                    && message.to == question.pair.to
                    && message.id.as_deref() == Some(question.stream_id.as_str());
                if !ours {
                    return Ok(());
                }
                let verdict = match message.body {
                    Body::Valid => Verdict::Valid,
                    Body::Invalid => Verdict::Invalid,
                    Body::Error(_) | Body::Key(_) => Verdict::Unavailable(Unavailable::Refused),
                };
                out.push(Output::Verified(verdict));
                wire::send_end(None, out);
                out.push(Output::Close(Fault::Done));
                self.state = State::Closed;
            }
            (State::Established { .. }, Purpose::Stanzas(_)) => {
                let number = message
                    .id
                    .as_deref()
                    .and_then(|id| id.strip_prefix(PROBE_ID)?.parse().ok());
                let agreed = self
                    .ready
                    .iter()
                    .any(|known| known.pair.from == message.to && known.pair.to == message.from);
                if let (Some(number), Some(last), true) = (number, self.probe, agreed)
                    && number <= last
                {
                    out.push(Output::ProbeAnswered { number });
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn stream_management(
        &mut self,
        element: &Element,
        version: Namespace,
        realm: &dyn Realm,
        out: &mut Vec<Output>,
    ) -> Result<(), Fault> {
        if let State::EnablingAcks { first, id } = &self.state {
            let (first, id) = (first.clone(), id.clone());
            match element.name.as_str() {
                "enabled" => {
                    self.acks = true;
                    out.push(Output::AcksEnabled { namespace: version });
                }
                "failed" => {}
                name => return Err(Fault::UnexpectedElement(name.to_owned())),
            }
            self.establish(first, id, realm, out);
            return Ok(());
        }
        wire::ack(self.acks, &element.name, element, out)
    }

    fn stray(&self, from: Option<&str>, to: Option<&str>, realm: &dyn Realm) -> Fault {
        let reversed: Vec<Pair> = self
            .ready
            .iter()
            .filter(|known| self.reverse_allowed(&known.pair, realm))
            .map(|known| known.pair.reversed())
            .collect();
        pairs::stray(reversed.iter(), from, to)
    }

    // ---- pairs ----

    fn established_by_sasl(
        &mut self,
        id: Option<String>,
        realm: &dyn Realm,
        out: &mut Vec<Output>,
    ) -> Result<(), Fault> {
        let Purpose::Stanzas(pair) = &self.purpose else {
            return Err(Fault::NoUsableMethod);
        };
        let known = Known {
            pair: pair.clone(),
            method: Method::SaslOverTls,
        };
        self.authenticated(known, id, realm, out);
        Ok(())
    }

    /// The first pair is authenticated; stanzas wait for the acks to be agreed on.
    fn authenticated(
        &mut self,
        known: Known,
        id: Option<String>,
        realm: &dyn Realm,
        out: &mut Vec<Output>,
    ) {
        if let Some(version) = self.features.acks {
            Writer::new()
                .raw("<enable xmlns='")
                .raw(version.as_str())
                .raw("'/>")
                .send(out);
            self.state = State::EnablingAcks { first: known, id };
        } else {
            self.establish(known, id, realm, out);
        }
    }

    fn establish(
        &mut self,
        known: Known,
        id: Option<String>,
        realm: &dyn Realm,
        out: &mut Vec<Output>,
    ) {
        self.sasl_rejected = None;
        self.state = State::Established { id };
        self.pair_ready(known, realm, out);
        for pair in std::mem::take(&mut self.wanted) {
            self.add_pair(pair, realm, out);
        }
    }

    fn pair_ready(&mut self, known: Known, realm: &dyn Realm, out: &mut Vec<Output>) {
        let reverse = self.reverse_allowed(&known.pair, realm);
        let Known { pair, method } = known.clone();
        self.ready.push(known);
        out.push(Output::PairReady {
            pair: pair.clone(),
            method,
        });
        if reverse {
            out.push(Output::PairAuthenticated {
                pair: pair.reversed(),
                method,
            });
        }
    }

    /// Bidi takes stanzas of authenticated pairs reversed, and only from a peer whose certificate
    /// proves that domain.
    fn reverse_allowed(&self, pair: &Pair, realm: &dyn Realm) -> bool {
        self.bidi
            && self.tls.as_ref().is_some_and(|tls| {
                pairs::prove(realm, self.side, PeerRole::Server, &pair.to, tls).is_ok()
            })
    }

    fn add_pair(&mut self, pair: Pair, realm: &dyn Realm, out: &mut Vec<Output>) {
        let id = match &self.state {
            State::Established { id } => id.clone(),
            _ => {
                if self.wanted.len() + self.asked.len() < MAX_PAIRS {
                    self.wanted.push(pair);
                } else {
                    out.push(Output::PairFailed {
                        pair,
                        fault: Fault::TooManyPairs,
                    });
                }
                return;
            }
        };
        let known = |known: &&Known| known.pair == pair;
        if let Some(ready) = self.ready.iter().find(known) {
            out.push(Output::PairReady {
                pair: pair.clone(),
                method: ready.method,
            });
            return;
        }
        if self.asked.iter().any(|asked| known(&asked)) {
            return;
        }
        let asked = self.method_of_further(&pair, realm).and_then(|method| {
            self.ask(
                Known {
                    pair: pair.clone(),
                    method,
                },
                id.as_deref(),
                realm,
                out,
            )
        });
        if let Err(fault) = asked {
            out.push(Output::PairFailed { pair, fault });
        }
    }

    /// A further pair is asked for by dialback (XEP-0220 section 2.6), which stands on the method that
    /// its own terms allow: dialback as such, or a certificate that covers the further target too.
    fn method_of_further(&self, pair: &Pair, realm: &dyn Realm) -> Result<Method, Fault> {
        if self.ready.len() + self.asked.len() >= MAX_PAIRS {
            return Err(Fault::TooManyPairs);
        }
        let terms = realm.admit(self.side, &pair.to, &pair.from)?;
        if !self.features.dialback_errors {
            return Err(Fault::NotMultiplexable);
        }
        match &self.tls {
            None if terms.methods.contains(Method::TcpDialback) && !terms.methods.uses_tls() => {
                Ok(Method::TcpDialback)
            }
            // TLS may be had on a stream of its own.
            None => Err(Fault::NotMultiplexable),
            Some(tls) => {
                let proven =
                    pairs::prove(realm, self.side, PeerRole::Server, &pair.to, tls).is_ok();
                if terms.methods.contains(Method::TlsDialback) {
                    Ok(Method::TlsDialback)
                } else if terms.methods.contains(Method::SaslOverTls) && proven {
                    Ok(Method::SaslOverTls)
                } else {
                    Err(Fault::NotMultiplexable)
                }
            }
        }
    }

    fn send_probe(&mut self, number: u64, out: &mut Vec<Output>) {
        if !self.can_probe() {
            return;
        }
        let Some(known) = self.ready.first() else {
            return;
        };
        // The receiving domain asks the sending one's server, so the pair is written reversed.
        let question = VerifyRequest {
            pair: known.pair.reversed(),
            stream_id: format!("{PROBE_ID}{number}"),
            key: PROBE_KEY.to_owned(),
        };
        dialback::send_verify(&question, out);
        self.probe = Some(self.probe.map_or(number, |last| last.max(number)));
    }

    // ---- ends ----

    fn realm_changed(&self, realm: &dyn Realm) -> Result<(), Fault> {
        if self.ready.is_empty() {
            self.terms(realm)?;
        }
        for known in &self.ready {
            pairs::still_holds(realm, self.side, PeerRole::Server, known, self.tls.as_ref())?;
        }
        Ok(())
    }

    fn close(&mut self, fault: Fault, realm: &dyn Realm, out: &mut Vec<Output>) {
        let fault = self.blame_sasl(fault, realm);
        match self.state {
            // Between `<proceed/>` and the handshake's end nothing can be said.
            State::Handshaking => self.end_silently(fault, out),
            _ => {
                let error = fault.stream_error();
                wire::send_end(error.as_ref(), out);
                self.end_silently(fault, out);
            }
        }
    }

    /// Some servers answer EXTERNAL with the end of the stream, at once or after `<failure/>`: where
    /// dialback is allowed, the session shall try that next, on another stream.
    fn blame_sasl(&mut self, fault: Fault, realm: &dyn Realm) -> Fault {
        let by_peer = matches!(fault, Fault::PeerClosed | Fault::PeerError { .. });
        match (&self.state, fault) {
            (State::DialingBack(_), fault) if by_peer => self.sasl_rejected.take().unwrap_or(fault),
            (State::Authenticating(_), Fault::PeerError { condition, text })
                if self
                    .terms(realm)
                    .is_ok_and(|terms| terms.methods.contains(Method::TlsDialback)) =>
            {
                Fault::SaslRejected { condition, text }
            }
            (_, fault) => fault,
        }
    }

    /// Ends without another word to the peer; tells the session what became of everything wanted.
    fn end_silently(&mut self, fault: Fault, out: &mut Vec<Output>) {
        if !matches!(fault, Fault::Done | Fault::PeerClosed | Fault::Shutdown)
            || self.ready.is_empty()
        {
            out.push(Output::failed(&fault, Some(self.purpose.peer())));
        }
        match &self.purpose {
            Purpose::Verify(_) => {
                out.push(Output::Verified(Verdict::Unavailable(unavailable(&fault))))
            }
            Purpose::Stanzas(first) => {
                let unanswered = self
                    .asked
                    .drain(..)
                    .map(|known| known.pair)
                    .chain(self.wanted.drain(..));
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
        self.state = State::Closed;
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
