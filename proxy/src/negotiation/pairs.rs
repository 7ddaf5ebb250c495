//! Which stanzas a stream may carry: the pairs agreed on it, and what is wrong with a stray stanza.

use xmpp_edge_crds::{domain::DomainName, jid::JidParts, negotiation::Method};

use super::{Environment, Fault, Link, Output, Pair, PeerRole, Side};

/// Says what is wrong with a stanza of a pair that is not among `agreed` (directed from the peer).
pub(super) fn stray<'a>(
    agreed: impl Iterator<Item = &'a Pair> + Clone,
    from: Option<&str>,
    to: Option<&str>,
) -> Fault {
    if agreed.clone().next().is_none() {
        return Fault::NotAuthorized;
    }
    let (Some(from), Some(to)) = (from.and_then(domain_of), to.and_then(domain_of)) else {
        return Fault::StanzaAddressing;
    };
    let mut sender_known = false;
    for pair in agreed {
        if pair.from == from {
            sender_known = true;
            if pair.to == to {
                // The domains are agreed on, so it is the rest of the address that cannot be read.
                return Fault::StanzaAddressing;
            }
        }
    }
    if sender_known {
        Fault::StanzaTo
    } else {
        Fault::StanzaFrom
    }
}

fn domain_of(jid: &str) -> Option<DomainName> {
    let parts = JidParts::split(jid).ok()?;
    DomainName::parse(parts.domain).ok()
}

/// Whether the peer's certificate proves `peer`, and what is wrong otherwise.
pub(super) fn prove(
    environment: &dyn Environment,
    side: Side,
    role: PeerRole,
    peer: &DomainName,
) -> Result<(), Fault> {
    environment
        .verify_certificate(side, role, peer)
        .map_err(Fault::Certificate)
}

/// A pair that the peer, or we, asked for, and the method by which it would be authenticated. It
/// carries nothing: only [`authenticate`] makes more of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PairClaim {
    pub pair: Pair,
    pub method: Method,
}

/// Which way the stanzas of a pair go on this stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    FromPeer,
    ToPeer,
}

/// A pair that this stream carries. [`authenticate`] alone makes one, and [`Self::announce`] alone
/// tells the stream of it: no state of a machine can use terms, a method or a certificate that were
/// taken back while it waited.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct AuthenticatedPair {
    claim: PairClaim,
    way: Way,
}

impl AuthenticatedPair {
    pub(super) fn pair(&self) -> &Pair {
        &self.claim.pair
    }

    pub(super) fn method(&self) -> Method {
        self.claim.method
    }

    /// What the stream is told.
    pub(super) fn announce(&self) -> Output {
        let PairClaim { pair, method } = self.claim.clone();
        match self.way {
            Way::FromPeer => Output::PairAuthenticated { pair, method },
            Way::ToPeer => Output::PairReady { pair, method },
        }
    }

    /// The same peer and method the other way round (XEP-0288), on the peer's stream: whoever may
    /// send there may be sent to.
    pub(super) fn announce_reverse(&self) -> Output {
        Self {
            claim: PairClaim {
                pair: self.claim.pair.reversed(),
                method: self.claim.method,
            },
            way: match self.way {
                Way::FromPeer => Way::ToPeer,
                Way::ToPeer => Way::FromPeer,
            },
        }
        .announce()
    }
}

/// What the pairs of one stream stand on.
#[derive(Clone, Copy)]
pub(super) struct Ground<'a> {
    pub environment: &'a dyn Environment,
    pub side: Side,
    pub role: PeerRole,
    pub link: Link,
}

/// Takes a pair into a stream, by the configuration of this moment. The one way by which a pair
/// becomes authenticated or ready, whatever was found out before.
///
/// # Errors
/// As [`still_holds`].
pub(super) fn authenticate(
    ground: Ground<'_>,
    claim: PairClaim,
    way: Way,
) -> Result<AuthenticatedPair, Fault> {
    let pair = AuthenticatedPair { claim, way };
    still_holds(ground, &pair)?;
    Ok(pair)
}

/// Asks anew whether a pair may stay: its domains are admitted, its method is allowed and is what
/// this link is, and a certificate that it stands on is still trusted. The reverse way of a stream of
/// ours stands on the certificate whatever the method.
///
/// # Errors
/// The fault that closes the stream, or refuses the pair.
pub(super) fn still_holds(ground: Ground<'_>, known: &AuthenticatedPair) -> Result<(), Fault> {
    let Ground {
        environment,
        side,
        role,
        link,
    } = ground;
    let PairClaim { pair, method } = &known.claim;
    let (peer, local) = match known.way {
        Way::FromPeer => (&pair.from, &pair.to),
        Way::ToPeer => (&pair.to, &pair.from),
    };
    let terms = environment.admit(side, peer, local)?;
    if !terms.methods.contains(*method) {
        return Err(match method {
            Method::SaslOverTls => Fault::NoUsableMethod,
            Method::TlsDialback => Fault::DialbackNotAllowed,
            Method::TcpDialback => Fault::TlsRequired,
        });
    }
    let by_certificate =
        *method == Method::SaslOverTls || (role == PeerRole::Server && known.way == Way::FromPeer);
    if by_certificate {
        match link {
            Link::Plain => return Err(Fault::TlsRequired),
            Link::Tls => prove(environment, side, role, peer)?,
        }
    }
    Ok(())
}

/// A pair for tests of what keeps pairs.
#[cfg(test)]
pub(super) fn taken(claim: PairClaim) -> AuthenticatedPair {
    AuthenticatedPair {
        claim,
        way: Way::FromPeer,
    }
}
