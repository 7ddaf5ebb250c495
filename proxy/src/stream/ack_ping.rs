//! Pings (XEP-0199) that ask a next hop without XEP-0198 whether it got what was sent before them. The id
//! says which stream of which replica asked, under a MAC: only the peer that was asked can answer.

use aws_lc_rs::hmac;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use xmpp_edge_crds::domain::DomainName;

use super::Command;
use crate::{
    negotiation::{Pair, WireNames},
    stream::context::StreamContext,
    xml::{
        Element,
        rewrite::StanzaStart,
        stanza::{Stanza, StanzaKind},
    },
};

/// Every id of ours begins so.
const PREFIX: &str = "xmpp-edge-ack-";
/// Bytes of the MAC in an id.
const MAC: usize = 16;

/// Who asked: a stream of a process, and for the how manyeth time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Asker {
    pub process: [u8; 8],
    pub stream: u64,
    pub number: u64,
}

/// The ping of `asker` from one domain of `pair` to the other, to a peer that writes names so.
#[must_use]
pub(super) fn ping(key: &hmac::Key, asker: Asker, pair: &Pair, names: WireNames) -> Vec<u8> {
    let mut bytes = asker.bytes().to_vec();
    let made = mac(key, asker, pair.from.as_str(), pair.to.as_str());
    bytes.extend_from_slice(&made[..MAC]);
    let id = format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes));
    let mut out = Vec::with_capacity(256);
    StanzaStart {
        kind: StanzaKind::Iq,
        from: Some(&names.local.write(&pair.from)),
        to: Some(&names.peer.write(&pair.to)),
        id: Some(&id),
        type_: Some("get"),
    }
    .around(&Element::new("urn:xmpp:ping", "ping"), &mut out);
    out
}

/// Whether the stanza is the answer to such a ping, of this replica or another. The stream that asked
/// is told; the stanza is not passed on. An error is an answer too: the peer has read so far.
pub(super) fn take_answer(context: &StreamContext, stanza: &Stanza<'_>) -> bool {
    if stanza.kind != StanzaKind::Iq || !matches!(stanza.type_.as_deref(), Some("result" | "error"))
    {
        return false;
    }
    let (Some(id), Some(from), Some(to)) = (
        stanza.id.as_deref(),
        stanza.from.as_deref(),
        stanza.to.as_deref(),
    ) else {
        return false;
    };
    let Some(rest) = id.strip_prefix(PREFIX) else {
        return false;
    };
    let Some(asker) = read(&context.config().dialback.mac_key(), rest, to, from) else {
        return false;
    };
    if asker.process == context.peers.process
        && let Some(handle) = context.streams.handle(asker.stream)
    {
        let number = asker.number;
        handle.tell(Command::PingAnswered { number });
    }
    true
}

/// Who asked, where the id is one of ours for this pair.
fn read(key: &hmac::Key, text: &str, from: &str, to: &str) -> Option<Asker> {
    let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
    let (process, rest) = bytes.split_first_chunk::<8>()?;
    let (stream, rest) = rest.split_first_chunk::<8>()?;
    let (number, given) = rest.split_first_chunk::<8>()?;
    let asker = Asker {
        process: *process,
        stream: u64::from_be_bytes(*stream),
        number: u64::from_be_bytes(*number),
    };
    // In whichever form the answer has its names.
    let (from, to) = (DomainName::parse(from).ok()?, DomainName::parse(to).ok()?);
    let own = mac(key, asker, from.as_str(), to.as_str());
    aws_lc_rs::constant_time::verify_slices_are_equal(given, &own[..MAC]).ok()?;
    Some(asker)
}

fn mac(key: &hmac::Key, asker: Asker, from: &str, to: &str) -> Vec<u8> {
    let mut context = hmac::Context::with_key(key);
    context.update(b"xmpp-edge ack\0");
    context.update(&asker.bytes());
    context.update(from.as_bytes());
    context.update(b"\0");
    context.update(to.as_bytes());
    context.sign().as_ref().to_vec()
}

impl Asker {
    fn bytes(self) -> [u8; 24] {
        let mut bytes = [0; 24];
        bytes[..8].copy_from_slice(&self.process);
        bytes[8..16].copy_from_slice(&self.stream.to_be_bytes());
        bytes[16..].copy_from_slice(&self.number.to_be_bytes());
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_was_asked_can_answer_and_only_that_question() {
        let key = hmac::Key::new(hmac::HMAC_SHA256, b"secret");
        let other = hmac::Key::new(hmac::HMAC_SHA256, b"another");
        let domain = |name| DomainName::parse(name).expect("valid");
        let pair = Pair {
            from: domain("org.example"),
            to: domain("partner.example"),
        };
        let asker = Asker {
            process: *b"process1",
            stream: 7,
            number: 3,
        };
        let text =
            String::from_utf8(ping(&key, asker, &pair, WireNames::default())).expect("ASCII");
        let start = text.find(PREFIX).expect("the id") + PREFIX.len();
        let end = start + text[start..].find('\'').expect("its end");
        let id = &text[start..end];
        let is = |key, id: &str, to| read(key, id, "org.example", to);
        assert_eq!(is(&key, id, "partner.example"), Some(asker));
        assert_eq!(is(&key, id, "evil.example"), None);
        assert_eq!(is(&other, id, "partner.example"), None);
        assert_eq!(is(&key, &id[1..], "partner.example"), None);
        assert_eq!(is(&key, "", "partner.example"), None);
    }
}
