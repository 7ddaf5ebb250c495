//! A stream that the edge opened.

use xmpp_edge_crds::negotiation::Method;

use super::{Fault, Input, Link, Output, Pair, Realm, Side, VerifyRequest, wire};

/// What an outbound stream is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// To carry stanzas of this pair, and later of others ([`Input::AddPair`]).
    Stanzas(Pair),
    /// To ask the authoritative server of `pair.from` about a key, then close. Nothing else is done
    /// on it; the answer is [`Output::Verified`].
    Verify(VerifyRequest),
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
    start: Start,
    ready: Vec<(Pair, Method)>,
    closed: bool,
}

impl Outbound {
    /// Begins: our header is the first output, unless the pair is refused (then only `PairFailed`,
    /// or `Verified`, and `Close`).
    #[must_use]
    pub fn start(start: Start, realm: &dyn Realm, out: &mut Vec<Output>) -> Self {
        let _ = (realm, out);
        Self {
            start,
            ready: Vec::new(),
            closed: false,
        }
    }

    /// Takes one input; appends what is to be done.
    pub fn step(&mut self, input: Input<'_>, realm: &dyn Realm, out: &mut Vec<Output>) {
        let _ = (&self.start, realm);
        if self.closed {
            return;
        }
        if let Input::End(fault) = input {
            self.close(fault, out);
        }
    }

    /// The pairs that the edge may send on this stream.
    pub fn pairs(&self) -> impl Iterator<Item = (&Pair, Method)> {
        self.ready.iter().map(|(pair, method)| (pair, *method))
    }

    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    fn close(&mut self, fault: Fault, out: &mut Vec<Output>) {
        wire::send_end(fault.stream_error().as_ref(), out);
        out.push(Output::Close(fault));
        self.closed = true;
    }
}
