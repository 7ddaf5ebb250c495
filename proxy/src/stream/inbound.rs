//! A stream that the peer opened: header, STARTTLS, features, SASL EXTERNAL, dialback in both of its
//! receiving roles, bidi, acks.
//!
//! The peer is told everything in full: our header first, then the error. Old features are forgotten
//! with each header; the two domains that a stream began with stay (RFC 6120 section 4.7).

use xmpp_edge_crds::{domain::DomainName, negotiation::Method};

use super::{
    Fault, Input, Link, Output, Pair, PeerRole, Realm, Refusal, Side, Step, StreamLimits, Terms,
    Verdict, VerifyRequest,
    acks::Namespace,
    dialback::{
        self, Answer, Body, DialbackError, Kind, Known, Message, Receiving, Request, Unreadable,
    },
    features::{OwnFeatures, StartTlsFeature, read_limits},
    pairs, sasl,
    wire::{self, OwnHeader, Version, Writer, ns},
};
use crate::{
    stream::MAX_SASL_FAILURES,
    tls::TlsFacts,
    xml::{Element, StreamHeader},
};

/// Answers a peer's stream.
#[derive(Debug)]
pub struct Inbound {
    side: Side,
    /// The handshake's facts, once the connection is encrypted.
    tls: Option<TlsFacts>,
    state: State,
    receiving: Receiving,
    bidi: bool,
    acks: bool,
    sasl_failures: u8,
}

#[derive(Debug)]
enum State {
    Opening(Opening),
    Negotiating(Negotiating),
    Handshaking(Handshaking),
    Closed,
}

/// Waits for the peer's header.
#[derive(Debug)]
struct Opening {
    /// The domains of the stream that this one restarts.
    before: Option<Domains>,
    /// SASL has succeeded for `before.peer`.
    authenticated: bool,
}

/// Our features are out; the peer chooses. Stays in this state once authenticated.
#[derive(Debug)]
struct Negotiating {
    domains: Domains,
    stream_id: String,
    offered: OwnFeatures,
    /// TLS must come first: nothing but STARTTLS is listened to.
    tls_first: bool,
}

/// `<proceed/>` is out.
#[derive(Debug)]
struct Handshaking {
    domains: Domains,
}

#[derive(Clone, Debug)]
struct Domains {
    peer: Option<DomainName>,
    local: DomainName,
}

impl Inbound {
    /// Waits for the peer's header; there is nothing to send before it.
    #[must_use]
    pub fn new(side: Side, link: Link) -> Self {
        let tls = match link {
            Link::Plain => None,
            Link::DirectTls(facts) => Some(facts),
        };
        Self {
            side,
            tls,
            state: State::Opening(Opening {
                before: None,
                authenticated: false,
            }),
            receiving: Receiving::default(),
            bidi: false,
            acks: false,
            sasl_failures: 0,
        }
    }

    /// Takes one input; appends what is to be done.
    pub fn step(&mut self, input: Input<'_>, realm: &dyn Realm, out: &mut Vec<Output>) {
        if self.is_closed() {
            return;
        }
        match input {
            Input::End(fault) => self.close(fault, realm, out),
            Input::Closed => self.close(Fault::PeerClosed, realm, out),
            Input::TimedOut => self.close(Fault::EstablishmentTimeout, realm, out),
            Input::RealmChanged => self.realm_changed(realm, out),
            Input::Header(header) => self.header(header, realm, out),
            Input::TlsEstablished(facts) => self.tls_established(facts, realm, out),
            Input::Element(element) => self.element(element, realm, out),
            Input::StrayStanza { from, to } => {
                let fault = self.stray(from, to);
                self.close(fault, realm, out);
            }
            Input::Verdict { request, verdict } => self.verdict(request, verdict, realm, out),
            Input::AddPair(pair) => {
                if !(self.bidi && self.pairs().any(|(known, _)| known.reversed() == pair)) {
                    out.push(Output::PairFailed {
                        pair,
                        fault: Fault::NotMultiplexable,
                    });
                }
            }
            // What the peer's features would have told is not known on its own stream.
            Input::Probe { .. } => {}
        }
    }

    /// Whether any pair is authenticated: the limits before authentication end here.
    #[must_use]
    pub fn is_authenticated(&self) -> bool {
        !self.receiving.authenticated().is_empty()
    }

    /// The pairs that the peer may send on this stream.
    pub fn pairs(&self) -> impl Iterator<Item = (&Pair, Method)> + Clone {
        self.receiving
            .authenticated()
            .iter()
            .map(|known| (&known.pair, known.method))
    }

    /// Whether the edge may send the pairs reversed (XEP-0288).
    #[must_use]
    pub fn is_bidi(&self) -> bool {
        self.bidi
    }

    #[must_use]
    pub fn is_closed(&self) -> bool {
        matches!(self.state, State::Closed)
    }

    // ---- headers ----

    fn header(&mut self, header: &StreamHeader, realm: &dyn Realm, out: &mut Vec<Output>) {
        let State::Opening(opening) = &self.state else {
            // A header inside a stream is an element like any other.
            return self.close(Fault::UnexpectedElement("stream".to_owned()), realm, out);
        };
        let before = opening.before.clone();
        let authenticated = opening.authenticated;
        let version = Version::of(header.version.as_deref());
        let peer = header.from.as_deref().map(DomainName::parse);
        let local = header.to.as_deref().map(DomainName::parse);

        // Our header goes out first, whatever follows (RFC 6120 section 4.9.1.2).
        let stream_id = realm.new_stream_id();
        let known_local = local.as_ref().and_then(|local| local.as_ref().ok());
        let known_peer = peer.as_ref().and_then(|peer| peer.as_ref().ok());
        OwnHeader {
            from: known_local
                .or(before.as_ref().map(|domains| &domains.local))
                .map(DomainName::as_str),
            to: known_peer.map(DomainName::as_str),
            id: Some(&stream_id),
            version: version != Version::Old,
        }
        .send(out);
        // From here on a stream error needs no other header.
        let failed =
            |inbound: &mut Self, fault: Fault, out: &mut Vec<Output>| inbound.finish(fault, out);

        if header.content_namespace.as_deref() != Some(ns::SERVER) {
            return failed(self, Fault::ContentNamespace, out);
        }
        let local = match (local, &before) {
            (Some(Ok(local)), None) => local,
            (Some(Ok(local)), Some(before)) if before.local == local => local,
            (Some(Ok(_)), Some(_)) => return failed(self, Fault::ToChanged, out),
            (None, Some(before)) => before.local.clone(),
            (Some(Err(_)), _) | (None, None) => return failed(self, Fault::ToUnusable, out),
        };
        let peer = match (peer, before.and_then(|before| before.peer)) {
            (Some(Err(_)), _) => return failed(self, Fault::FromUnusable, out),
            (Some(Ok(peer)), Some(before)) if peer != before => {
                return failed(self, Fault::FromChanged, out);
            }
            (Some(Ok(peer)), _) => Some(peer),
            (None, before) => before,
        };
        let terms = match &peer {
            Some(peer) => match realm.admit(self.side, peer, &local) {
                Ok(terms) => Some(terms),
                Err(refusal) => return failed(self, refusal.into(), out),
            },
            None if realm.serves(self.side, &local) => None,
            None => return failed(self, Fault::HostUnknown, out),
        };
        let domains = Domains { peer, local };
        let offer = if version == Version::Unusable {
            Err(Fault::UnsupportedVersion)
        } else if authenticated {
            self.offer_authenticated(&domains, terms, realm, out)
        } else if version == Version::Old {
            self.offer_old(terms)
        } else {
            self.offer(&domains, terms, realm, out)
        };
        let offered = match offer {
            Ok(offered) => offered,
            Err(fault) => return failed(self, fault, out),
        };
        if version != Version::Old {
            offered.send(out);
        }
        let tls_first =
            self.tls.is_none() && terms.is_some_and(|terms| !terms.methods.allows_plaintext());
        let known = Known {
            pair: Pair {
                from: domains
                    .peer
                    .clone()
                    .unwrap_or_else(|| domains.local.clone()),
                to: domains.local.clone(),
            },
            method: Method::SaslOverTls,
        };
        self.state = State::Negotiating(Negotiating {
            domains,
            stream_id,
            offered,
            tls_first,
        });
        if authenticated {
            self.authenticated(known, out);
        }
    }

    /// What is offered before authentication. `terms` are unknown while the peer has not said who it
    /// is: then EXTERNAL is not offered (XEP-0178), and each dialback pair is judged by its own.
    fn offer(
        &self,
        domains: &Domains,
        terms: Option<Terms>,
        realm: &dyn Realm,
        out: &mut Vec<Output>,
    ) -> Result<OwnFeatures, Fault> {
        let Some(tls) = &self.tls else {
            let uses_tls = terms.is_none_or(|terms| terms.methods.uses_tls());
            let plaintext = terms.is_none_or(|terms| terms.methods.allows_plaintext());
            return Ok(OwnFeatures {
                starttls: uses_tls.then_some(StartTlsFeature {
                    required: !plaintext,
                }),
                dialback: plaintext,
                limits: if plaintext {
                    realm.limits(false)
                } else {
                    StreamLimits::default()
                },
                ..OwnFeatures::default()
            });
        };
        let (Some(terms), Some(peer)) = (terms, &domains.peer) else {
            return Ok(OwnFeatures {
                dialback: true,
                limits: realm.limits(false),
                ..OwnFeatures::default()
            });
        };
        if !terms.methods.uses_tls() {
            return Err(Fault::TlsNotSupported);
        }
        let mut external = false;
        let dialback = terms.methods.contains(Method::TlsDialback);
        if terms.methods.contains(Method::SaslOverTls) {
            match pairs::prove(realm, self.side, PeerRole::Client, peer, tls) {
                Ok(()) => {
                    external = true;
                    out.push(Output::ok(Step::Certificate, Some(peer)));
                }
                Err(fault) if dialback => out.push(Output::failed(&fault, Some(peer))),
                Err(fault) => return Err(fault),
            }
        }
        Ok(OwnFeatures {
            starttls: None,
            external,
            dialback,
            bidi: terms.bidi,
            acks: false,
            limits: realm.limits(false),
        })
    }

    /// A peer older than 1.0 gets no features; it can do dialback, where no TLS is missing.
    fn offer_old(&self, terms: Option<Terms>) -> Result<OwnFeatures, Fault> {
        let dialback = terms.is_none_or(|terms| self.dialback_method(terms).is_ok());
        if !dialback {
            return Err(Fault::UnsupportedVersion);
        }
        Ok(OwnFeatures {
            dialback: true,
            ..OwnFeatures::default()
        })
    }

    /// What is offered after SASL. The certificate and the terms are asked once more: they may have
    /// changed since `<success/>`.
    fn offer_authenticated(
        &self,
        domains: &Domains,
        terms: Option<Terms>,
        realm: &dyn Realm,
        out: &mut Vec<Output>,
    ) -> Result<OwnFeatures, Fault> {
        let (Some(terms), Some(peer)) = (terms, &domains.peer) else {
            return Err(Fault::FromUnusable);
        };
        if !terms.methods.contains(Method::SaslOverTls) {
            return Err(Fault::NoUsableMethod);
        }
        out.push(Output::ok(Step::Sasl, Some(peer)));
        Ok(OwnFeatures {
            starttls: None,
            external: false,
            dialback: terms.methods.contains(Method::TlsDialback),
            bidi: false,
            acks: true,
            limits: realm.limits(true),
        })
    }

    // ---- elements ----

    fn element(&mut self, element: &Element, realm: &dyn Realm, out: &mut Vec<Output>) {
        let State::Negotiating(_) = &self.state else {
            return self.close(Fault::UnexpectedElement(element.name.clone()), realm, out);
        };
        let namespace = element.namespace.as_str();
        let fault = match (element.name.as_str(), namespace) {
            ("error", ns::STREAM) => Err(wire::peer_error(element)),
            ("starttls", ns::TLS) => self.starttls(out),
            (_, ns::SASL) => self.sasl(element, out),
            ("bidi", ns::BIDI) => {
                self.ask_bidi(out);
                Ok(())
            }
            (_, ns::DIALBACK) => self.dialback(element, realm, out),
            ("limits", ns::LIMITS) => {
                out.push(Output::PeerLimits(read_limits(element)));
                Ok(())
            }
            ("compress", ns::COMPRESS) => {
                Writer::new()
                    .raw("<failure xmlns='")
                    .raw(ns::COMPRESS)
                    .raw("'><unsupported-method/></failure>")
                    .send(out);
                Ok(())
            }
            _ => match Namespace::of(namespace) {
                Some(version) => self.stream_management(element, version, out),
                None => Err(self.unexpected(element)),
            },
        };
        if let Err(fault) = fault {
            self.close(fault, realm, out);
        }
    }

    fn unexpected(&self, element: &Element) -> Fault {
        match &self.state {
            State::Negotiating(now) if now.tls_first => Fault::TlsRequired,
            _ => Fault::UnexpectedElement(element.name.clone()),
        }
    }

    fn stray(&self, from: Option<&str>, to: Option<&str>) -> Fault {
        match &self.state {
            State::Negotiating(now) if now.tls_first => Fault::TlsRequired,
            _ => pairs::stray(self.pairs().map(|(pair, _)| pair), from, to),
        }
    }

    fn starttls(&mut self, out: &mut Vec<Output>) -> Result<(), Fault> {
        let State::Negotiating(now) = &self.state else {
            return Ok(());
        };
        if self.tls.is_some() || !self.receiving.is_empty() {
            return Err(Fault::UnexpectedElement("starttls".to_owned()));
        }
        if now.offered.starttls.is_none() {
            // RFC 6120 section 5.4.2.2: failure, then the end without a stream error.
            Writer::new()
                .raw("<failure xmlns='")
                .raw(ns::TLS)
                .raw("'/>")
                .send(out);
            wire::send_end(None, out);
            out.push(Output::failed(
                &Fault::TlsNotSupported,
                now.domains.peer.as_ref(),
            ));
            out.push(Output::Close(Fault::TlsNotSupported));
            self.state = State::Closed;
            return Ok(());
        }
        Writer::new()
            .raw("<proceed xmlns='")
            .raw(ns::TLS)
            .raw("'/>")
            .send(out);
        out.push(Output::StartTls {
            domain: now.domains.local.clone(),
        });
        self.state = State::Handshaking(Handshaking {
            domains: now.domains.clone(),
        });
        Ok(())
    }

    fn tls_established(&mut self, facts: TlsFacts, realm: &dyn Realm, out: &mut Vec<Output>) {
        let State::Handshaking(handshaking) = &self.state else {
            return self.close(Fault::UnexpectedElement("starttls".to_owned()), realm, out);
        };
        let before = Some(handshaking.domains.clone());
        self.tls = Some(facts);
        self.bidi = false;
        self.state = State::Opening(Opening {
            before,
            authenticated: false,
        });
    }

    fn sasl(&mut self, element: &Element, out: &mut Vec<Output>) -> Result<(), Fault> {
        let State::Negotiating(now) = &self.state else {
            return Ok(());
        };
        if now.tls_first {
            return Err(Fault::TlsRequired);
        }
        if !self.receiving.is_empty() {
            return Err(Fault::UnexpectedElement(element.name.clone()));
        }
        let failure = match element.name.as_str() {
            "auth" => match sasl::judge(element, now.offered.external, now.domains.peer.as_ref()) {
                Ok(()) => {
                    Writer::new()
                        .raw("<success xmlns='")
                        .raw(ns::SASL)
                        .raw("'/>")
                        .send(out);
                    out.push(Output::Restart);
                    let before = Some(now.domains.clone());
                    self.state = State::Opening(Opening {
                        before,
                        authenticated: true,
                    });
                    return Ok(());
                }
                Err(failure) => failure,
            },
            "abort" => sasl::Failure::Aborted,
            "response" => sasl::Failure::MalformedRequest,
            _ => return Err(self.unexpected(element)),
        };
        failure.send(out);
        out.push(Output::Step {
            step: Step::Sasl,
            peer: now.domains.peer.clone(),
            outcome: "Refused",
            text: failure.condition().to_owned(),
        });
        self.sasl_failures += 1;
        if self.sasl_failures >= MAX_SASL_FAILURES {
            Err(Fault::TooManySaslFailures)
        } else {
            Ok(())
        }
    }

    /// XEP-0288 section 2: before authentication, or not at all.
    fn ask_bidi(&mut self, out: &mut Vec<Output>) {
        let State::Negotiating(now) = &self.state else {
            return;
        };
        if now.offered.bidi && self.receiving.is_empty() && !self.bidi {
            self.bidi = true;
            out.push(Output::Bidi);
        }
    }

    fn stream_management(
        &mut self,
        element: &Element,
        version: Namespace,
        out: &mut Vec<Output>,
    ) -> Result<(), Fault> {
        let refuse = |condition: &str, out: &mut Vec<Output>| {
            Writer::new()
                .raw("<failed xmlns='")
                .raw(version.as_str())
                .raw("'><")
                .raw(condition)
                .raw(" xmlns='")
                .raw(ns::STANZA_ERRORS)
                .raw("'/></failed>")
                .send(out);
            Ok(())
        };
        match element.name.as_str() {
            "enable" if !self.is_authenticated() || self.acks => refuse("unexpected-request", out),
            "enable" => {
                self.acks = true;
                Writer::new()
                    .raw("<enabled xmlns='")
                    .raw(version.as_str())
                    .raw("'/>")
                    .send(out);
                out.push(Output::AcksEnabled { namespace: version });
                Ok(())
            }
            // There is no resumption, so there is nothing to resume.
            "resume" => refuse("item-not-found", out),
            name => wire::ack(self.acks, name, element, out),
        }
    }

    // ---- dialback ----

    fn dialback(
        &mut self,
        element: &Element,
        realm: &dyn Realm,
        out: &mut Vec<Output>,
    ) -> Result<(), Fault> {
        let message = match Message::read(element) {
            Ok(message) => message,
            Err(Unreadable::Addresses) => return Err(Fault::StanzaAddressing),
            Err(Unreadable::Name | Unreadable::Form) => {
                return Err(Fault::UnexpectedElement(element.name.clone()));
            }
        };
        let Body::Key(key) = &message.body else {
            // We never ask on a peer's stream: an answer is unsolicited (XEP-0220 section 3.1).
            return Ok(());
        };
        match message.kind {
            Kind::Result => self.result(&message, key, realm, out),
            Kind::Verify => self.verify(&message, key, realm, out),
        }
    }

    /// The peer wants a pair authenticated.
    fn result(
        &mut self,
        message: &Message,
        key: &str,
        realm: &dyn Realm,
        out: &mut Vec<Output>,
    ) -> Result<(), Fault> {
        let State::Negotiating(now) = &self.state else {
            return Ok(());
        };
        let pair = Pair {
            from: message.from.clone(),
            to: message.to.clone(),
        };
        let method = match self.judge_dialback(message, realm) {
            Ok(method) => method,
            Err((error, fault)) => return self.refuse(message, error, fault, out),
        };
        if key.is_empty() {
            dialback::send_answer(message, Answer::Error(DialbackError::BadRequest), out);
            return Ok(());
        }
        match self.receiving.request(&pair, method) {
            Request::Ask(request) => {
                let question = VerifyRequest {
                    pair,
                    stream_id: now.stream_id.clone(),
                    key: key.to_owned(),
                };
                out.push(Output::Verify { request, question });
            }
            Request::Known => {}
            Request::Full => {
                let error = Answer::Error(DialbackError::ResourceConstraint);
                dialback::send_answer(message, error, out);
            }
        }
        Ok(())
    }

    /// The peer asks whether we made a key: we are the authoritative server of `message.to`. Any
    /// replica can tell. Asking needs no authentication, but TLS where the two domains need it.
    fn verify(
        &self,
        message: &Message,
        key: &str,
        realm: &dyn Realm,
        out: &mut Vec<Output>,
    ) -> Result<(), Fault> {
        let terms = match realm.admit(self.side, &message.from, &message.to) {
            Ok(terms) => terms,
            Err(refusal) => {
                let (error, fault) = refused(refusal);
                return self.refuse(message, error, fault, out);
            }
        };
        if self.tls.is_none() && !terms.methods.allows_plaintext() {
            return self.refuse(
                message,
                DialbackError::PolicyViolation,
                Fault::TlsRequired,
                out,
            );
        }
        let Some(id) = &message.id else {
            dialback::send_answer(message, Answer::Error(DialbackError::BadRequest), out);
            return Ok(());
        };
        let question = VerifyRequest {
            pair: Pair {
                from: message.to.clone(),
                to: message.from.clone(),
            },
            stream_id: id.clone(),
            key: key.to_owned(),
        };
        let answer = if realm.dialback().made(&question) {
            Answer::Valid
        } else {
            Answer::Invalid
        };
        dialback::send_answer(message, answer, out);
        Ok(())
    }

    fn judge_dialback(
        &self,
        message: &Message,
        realm: &dyn Realm,
    ) -> Result<Method, (DialbackError, Fault)> {
        let terms = realm
            .admit(self.side, &message.from, &message.to)
            .map_err(refused)?;
        self.dialback_method(terms)
            .map_err(|fault| (DialbackError::PolicyViolation, fault))
    }

    /// The kind of dialback that this connection would be.
    fn dialback_method(&self, terms: Terms) -> Result<Method, Fault> {
        let method = match &self.tls {
            Some(_) if !terms.methods.uses_tls() => return Err(Fault::TlsNotSupported),
            Some(_) => Method::TlsDialback,
            None => Method::TcpDialback,
        };
        if terms.methods.contains(method) {
            Ok(method)
        } else if self.tls.is_none() && terms.methods.uses_tls() {
            Err(Fault::TlsRequired)
        } else {
            Err(Fault::DialbackNotAllowed)
        }
    }

    /// Answers with a dialback error; the stream lives on (XEP-0220 section 2.5), unless TLS is what
    /// is missing and nobody is on it yet.
    fn refuse(
        &self,
        message: &Message,
        error: DialbackError,
        fault: Fault,
        out: &mut Vec<Output>,
    ) -> Result<(), Fault> {
        dialback::send_answer(message, Answer::Error(error), out);
        if fault == Fault::TlsRequired && self.receiving.is_empty() {
            return Err(fault);
        }
        out.push(Output::failed(&fault, Some(&message.from)));
        Ok(())
    }

    fn verdict(
        &mut self,
        request: u32,
        verdict: Verdict,
        realm: &dyn Realm,
        out: &mut Vec<Output>,
    ) {
        // Verdicts of an earlier stream on this connection find nothing here.
        let Some(known) = self.receiving.settle(request) else {
            return;
        };
        let pair = known.pair.clone();
        match verdict {
            Verdict::Valid => {
                // The configuration may have changed while the authoritative server was asked.
                if let Err(fault) = pairs::still_holds(
                    realm,
                    self.side,
                    PeerRole::Client,
                    &known,
                    self.tls.as_ref(),
                ) {
                    let error = match fault {
                        Fault::HostUnknown => DialbackError::ItemNotFound,
                        _ => DialbackError::PolicyViolation,
                    };
                    dialback::send_result_answer(&pair, Answer::Error(error), out);
                    out.push(Output::failed(&fault, Some(&pair.from)));
                    return;
                }
                dialback::send_result_answer(&pair, Answer::Valid, out);
                out.push(Output::ok(Step::Dialback, Some(&pair.from)));
                self.authenticated(known, out);
            }
            Verdict::Invalid => {
                dialback::send_result_answer(&pair, Answer::Invalid, out);
                if self.receiving.is_empty() {
                    // XEP-0220 section 2.1.1: nothing else is on this stream.
                    self.close(Fault::DialbackFailed, realm, out);
                } else {
                    out.push(Output::failed(&Fault::DialbackFailed, Some(&pair.from)));
                }
            }
            Verdict::Unavailable(why) => {
                dialback::send_result_answer(&pair, Answer::Error(why.into()), out);
                out.push(Output::Step {
                    step: Step::Dialback,
                    peer: Some(pair.from),
                    outcome: why.label(),
                    text: why.to_string(),
                });
            }
        }
    }

    fn authenticated(&mut self, known: Known, out: &mut Vec<Output>) {
        if self.receiving.authenticate(known.clone()) {
            let Known { pair, method } = known;
            out.push(Output::PairAuthenticated {
                pair: pair.clone(),
                method,
            });
            if self.bidi {
                out.push(Output::PairReady {
                    pair: pair.reversed(),
                    method,
                });
            }
        }
    }

    // ---- ends ----

    fn realm_changed(&mut self, realm: &dyn Realm, out: &mut Vec<Output>) {
        let lost = self.receiving.authenticated().iter().find_map(|known| {
            pairs::still_holds(realm, self.side, PeerRole::Client, known, self.tls.as_ref()).err()
        });
        if let Some(fault) = lost {
            return self.close(fault, realm, out);
        }
        let State::Negotiating(now) = &mut self.state else {
            return;
        };
        let Some(peer) = now.domains.peer.clone() else {
            return;
        };
        match realm.admit(self.side, &peer, &now.domains.local) {
            Err(refusal) => self.close(refusal.into(), realm, out),
            Ok(terms) => {
                now.offered.external &= terms.methods.contains(Method::SaslOverTls)
                    && self.tls.as_ref().is_some_and(|tls| {
                        pairs::prove(realm, self.side, PeerRole::Client, &peer, tls).is_ok()
                    });
                now.tls_first = self.tls.is_none() && !terms.methods.allows_plaintext();
            }
        }
    }

    /// Ends the stream, with our header first where none is out.
    fn close(&mut self, fault: Fault, realm: &dyn Realm, out: &mut Vec<Output>) {
        match &self.state {
            State::Opening(opening) => {
                let domains = opening.before.as_ref();
                OwnHeader {
                    from: domains.map(|domains| domains.local.as_str()),
                    to: domains
                        .and_then(|domains| domains.peer.as_ref())
                        .map(DomainName::as_str),
                    id: Some(&realm.new_stream_id()),
                    version: true,
                }
                .send(out);
                self.finish(fault, out);
            }
            State::Negotiating(_) => self.finish(fault, out),
            // Between `<proceed/>` and the handshake's end nothing can be said.
            State::Handshaking(_) => {
                out.push(Output::Close(fault));
                self.state = State::Closed;
            }
            State::Closed => {}
        }
    }

    fn finish(&mut self, fault: Fault, out: &mut Vec<Output>) {
        let peer = match &self.state {
            State::Negotiating(now) => now.domains.peer.as_ref(),
            State::Opening(opening) => opening
                .before
                .as_ref()
                .and_then(|domains| domains.peer.as_ref()),
            State::Handshaking(_) | State::Closed => None,
        };
        let error = fault.stream_error();
        if error.is_some() {
            out.push(Output::failed(&fault, peer));
        }
        wire::send_end(error.as_ref(), out);
        out.push(Output::Close(fault));
        self.state = State::Closed;
    }
}

fn refused(refusal: Refusal) -> (DialbackError, Fault) {
    let error = match refusal {
        Refusal::HostUnknown => DialbackError::ItemNotFound,
        Refusal::Policy(_) => DialbackError::PolicyViolation,
    };
    (error, refusal.into())
}
