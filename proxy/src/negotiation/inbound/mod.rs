//! A stream that the peer opened: header, STARTTLS, features, SASL EXTERNAL, dialback in both of its
//! receiving roles, bidi, acks.
//!
//! The peer is told everything in full: our header first, then the error. Old features are forgotten
//! with each header; the two domains that a stream began with stay (RFC 6120 section 4.7).

mod dialback;
mod elements;
mod offer;

use xmpp_edge_crds::{
    domain::{DomainName, NameForm},
    negotiation::Method,
};

use super::{
    Environment, Fault, Input, Link, Output, Pair, PeerRole, Side, Step, WireNames,
    dialback::PairTable,
    features::OwnFeatures,
    pairs::{self, AuthenticatedPair, Ground, PairClaim, Way},
    wire::{self, OwnHeader, Version, ns},
};
use crate::xml::StreamHeader;

/// Answers a peer's stream.
#[derive(Debug)]
pub struct Inbound {
    side: Side,
    link: Link,
    state: InboundState,
    receiving: PairTable,
    bidi: bool,
    acks: bool,
    sasl_failures: u8,
    /// Dialback elements refused while nobody was authenticated.
    refused_keys: u8,
}

#[derive(Debug)]
enum InboundState {
    Opening(InboundOpening),
    Negotiating(Negotiating),
    Handshaking(Handshaking),
    Closed,
}

/// Waits for the peer's header.
#[derive(Debug)]
struct InboundOpening {
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
    /// How the peer writes them.
    names: WireNames,
}

impl Domains {
    /// The peer's domain as it is written to it.
    fn peer_as_written(&self) -> Option<std::borrow::Cow<'_, str>> {
        self.peer.as_ref().map(|peer| self.names.peer.write(peer))
    }
}

impl Inbound {
    /// Waits for the peer's header; there is nothing to send before it.
    #[must_use]
    pub fn new(side: Side, link: Link) -> Self {
        Self {
            side,
            link,
            state: InboundState::Opening(InboundOpening {
                before: None,
                authenticated: false,
            }),
            receiving: PairTable::default(),
            bidi: false,
            acks: false,
            sasl_failures: 0,
            refused_keys: 0,
        }
    }

    /// Takes one input; appends what is to be done.
    pub fn step(&mut self, input: Input<'_>, environment: &dyn Environment, out: &mut Vec<Output>) {
        if self.is_closed() {
            return;
        }
        match input {
            Input::End(fault) => self.close(fault, environment, out),
            Input::Closed => self.close(Fault::PeerClosed, environment, out),
            Input::TimedOut => self.close(Fault::EstablishmentTimeout, environment, out),
            Input::ConfigChanged => self.config_changed(environment, out),
            Input::Header(header) => self.header(header, environment, out),
            Input::TlsEstablished => self.tls_established(environment, out),
            Input::Element(element) => self.element(element, environment, out),
            Input::UnauthorizedStanza { from, to } => {
                let fault = self.stray(from, to);
                self.close(fault, environment, out);
            }
            Input::Verdict { request, verdict } => self.verdict(request, verdict, environment, out),
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
            .map(|known| (known.pair(), known.method()))
    }

    /// Whose key is being verified under this number.
    #[must_use]
    pub fn asker(&self, request: u32) -> Option<&DomainName> {
        self.receiving.asker(request)
    }

    /// Whether the edge may send the pairs reversed (XEP-0288).
    #[must_use]
    pub fn is_bidi(&self) -> bool {
        self.bidi
    }

    #[must_use]
    pub fn is_closed(&self) -> bool {
        matches!(self.state, InboundState::Closed)
    }

    // ---- headers ----

    fn header(
        &mut self,
        header: &StreamHeader,
        environment: &dyn Environment,
        out: &mut Vec<Output>,
    ) {
        let InboundState::Opening(opening) = &self.state else {
            // A header inside a stream is an element like any other.
            return self.close(
                Fault::UnexpectedElement("stream".to_owned()),
                environment,
                out,
            );
        };
        let before = opening.before.clone();
        let authenticated = opening.authenticated;
        let version = Version::of(header.version.as_deref());
        let peer = header.from.as_deref().map(DomainName::parse);
        let local = header.to.as_deref().map(DomainName::parse);

        // Our header goes out first, whatever follows (RFC 6120 section 4.9.1.2).
        let stream_id = environment.new_stream_id();
        let known_local = local.as_ref().and_then(|local| local.as_ref().ok());
        let known_peer = peer.as_ref().and_then(|peer| peer.as_ref().ok());
        let form = |text: &Option<String>| text.as_deref().map(NameForm::of);
        let told = before.as_ref().map(|domains| domains.names);
        let told = told.unwrap_or_default();
        let names = WireNames {
            peer: form(&header.from).unwrap_or(told.peer),
            local: form(&header.to).unwrap_or(told.local),
        };
        OwnHeader {
            from: known_local
                .or(before.as_ref().map(|domains| &domains.local))
                .map(|local| names.local.write(local))
                .as_deref(),
            to: known_peer.map(|peer| names.peer.write(peer)).as_deref(),
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
            (Some(Ok(local)), Some(_)) if !environment.serves(self.side, &local) => {
                return failed(self, Fault::HostUnknown, out);
            }
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
            Some(peer) => match environment.admit(self.side, peer, &local) {
                Ok(terms) => Some(terms),
                Err(refusal) => return failed(self, refusal.into(), out),
            },
            None if environment.serves(self.side, &local) => None,
            None => return failed(self, Fault::HostUnknown, out),
        };
        let domains = Domains { peer, local, names };
        // Whatever fails from here on is this peer's attempt.
        self.state = InboundState::Opening(InboundOpening {
            before: Some(domains.clone()),
            authenticated,
        });
        let mut by_sasl = None;
        let offer = if version == Version::Unusable {
            Err(Fault::UnsupportedVersion)
        } else if authenticated {
            self.offer_authenticated(&domains, environment, out)
                .map(|(offered, pair)| {
                    by_sasl = Some(pair);
                    offered
                })
        } else if version == Version::Old {
            self.offer_old(terms)
        } else {
            self.offer(&domains, terms, environment, out)
        };
        let offered = match offer {
            Ok(offered) => offered,
            Err(fault) => return failed(self, fault, out),
        };
        if version != Version::Old {
            offered.send(out);
        }
        let tls_first = self.link == Link::Plain
            && terms.is_some_and(|terms| !terms.methods.allows_plaintext());
        let is_trunk = offered.trunk;
        self.state = InboundState::Negotiating(Negotiating {
            domains,
            stream_id,
            offered,
            tls_first,
        });
        match by_sasl {
            Some(pair) if is_trunk => {
                let peer = pair.pair().from.clone();
                self.receiving.authenticate(pair);
                out.push(Output::TrunkReady { peer });
            }
            Some(pair) => self.authenticated(pair, out),
            None => {}
        }
    }

    // ---- pairs and ends ----

    fn ground<'a>(&'a self, environment: &'a dyn Environment) -> Ground<'a> {
        Ground {
            environment,
            side: self.side,
            role: PeerRole::Client,
            link: self.link,
        }
    }

    /// What `<success/>` stands for: the two domains of the stream, by the peer's certificate.
    fn by_sasl(
        &self,
        domains: &Domains,
        environment: &dyn Environment,
    ) -> Result<AuthenticatedPair, Fault> {
        let claim = PairClaim {
            pair: Pair {
                from: domains.peer.clone().ok_or(Fault::FromUnusable)?,
                to: domains.local.clone(),
            },
            method: Method::SaslOverTls,
        };
        pairs::authenticate(self.ground(environment), claim, Way::FromPeer)
    }

    fn authenticated(&mut self, pair: AuthenticatedPair, out: &mut Vec<Output>) {
        if self.receiving.authenticate(pair.clone()) {
            out.push(pair.announce());
            if self.bidi {
                out.push(pair.announce_reverse());
            }
        }
    }

    fn config_changed(&mut self, environment: &dyn Environment, out: &mut Vec<Output>) {
        let lost = match &self.state {
            // `<success/>` is out, the peer's header is not here yet: it stands on its certificate.
            InboundState::Opening(InboundOpening {
                before: Some(domains),
                authenticated: true,
            }) => self.by_sasl(domains, environment).err(),
            _ => self
                .receiving
                .authenticated()
                .iter()
                .find_map(|known| pairs::still_holds(self.ground(environment), known).err()),
        };
        if let Some(fault) = lost {
            return self.close(fault, environment, out);
        }
        let InboundState::Negotiating(now) = &mut self.state else {
            return;
        };
        let Some(peer) = now.domains.peer.clone() else {
            return;
        };
        match environment.admit(self.side, &peer, &now.domains.local) {
            Err(refusal) => self.close(refusal.into(), environment, out),
            Ok(terms) => {
                now.offered.external &= terms.methods.contains(Method::SaslOverTls)
                    && self.link == Link::Tls
                    && pairs::prove(environment, self.side, PeerRole::Client, &peer).is_ok();
                now.tls_first = self.link == Link::Plain && !terms.methods.allows_plaintext();
            }
        }
    }

    /// Ends the stream, with our header first where none is out.
    fn close(&mut self, fault: Fault, environment: &dyn Environment, out: &mut Vec<Output>) {
        match &self.state {
            InboundState::Opening(opening) => {
                let domains = opening.before.as_ref();
                OwnHeader {
                    from: domains
                        .map(|domains| domains.names.local.write(&domains.local))
                        .as_deref(),
                    to: domains.and_then(Domains::peer_as_written).as_deref(),
                    id: Some(&environment.new_stream_id()),
                    version: true,
                }
                .send(out);
                self.finish(fault, out);
            }
            InboundState::Negotiating(_) => self.finish(fault, out),
            // Between `<proceed/>` and the handshake's end nothing can be said; but the partner's
            // last attempt shall tell where it failed.
            InboundState::Handshaking(handshaking) => {
                if fault.step() == Step::Tls {
                    out.push(Output::failed(&fault, handshaking.domains.peer.as_ref()));
                }
                out.push(Output::Close(fault));
                self.state = InboundState::Closed;
            }
            InboundState::Closed => {}
        }
    }

    fn finish(&mut self, fault: Fault, out: &mut Vec<Output>) {
        let peer = match &self.state {
            InboundState::Negotiating(now) => now.domains.peer.as_ref(),
            InboundState::Opening(opening) => opening
                .before
                .as_ref()
                .and_then(|domains| domains.peer.as_ref()),
            InboundState::Handshaking(_) | InboundState::Closed => None,
        };
        let error = fault.stream_error();
        if error.is_some() || matches!(fault, Fault::PeerError { .. }) {
            out.push(Output::failed(&fault, peer));
        }
        wire::send_end(error.as_ref(), out);
        out.push(Output::Close(fault));
        self.state = InboundState::Closed;
    }
}
