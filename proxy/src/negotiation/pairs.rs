//! Which stanzas a stream may carry: the pairs agreed on it, and what is wrong with a stray stanza.

use xmpp_edge_crds::{domain::DomainName, jid::JidParts, negotiation::Method};

use super::{Environment, Fault, Pair, PeerRole, Side, Terms, dialback::Known};
use crate::tls::TlsFacts;

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
    tls: &TlsFacts,
) -> Result<(), Fault> {
    environment
        .verify_certificate(side, role, peer, &tls.peer_chain)
        .map_err(Fault::Certificate)
}

/// Asks anew whether a pair may stay: its domains are admitted, its method is allowed, and a
/// certificate that it stands on is still trusted.
pub(super) fn still_holds(
    environment: &dyn Environment,
    side: Side,
    role: PeerRole,
    known: &Known,
    tls: Option<&TlsFacts>,
) -> Result<Terms, Fault> {
    let (peer, local) = match role {
        PeerRole::Client => (&known.pair.from, &known.pair.to),
        PeerRole::Server => (&known.pair.to, &known.pair.from),
    };
    let terms = environment.admit(side, peer, local)?;
    if !terms.methods.contains(known.method) {
        return Err(match known.method {
            Method::SaslOverTls => Fault::NoUsableMethod,
            Method::TlsDialback => Fault::DialbackNotAllowed,
            Method::TcpDialback => Fault::TlsRequired,
        });
    }
    if known.method == Method::SaslOverTls {
        let tls = tls.ok_or(Fault::TlsRequired)?;
        prove(environment, side, role, peer, tls)?;
    }
    Ok(terms)
}
