//! A stream that the peer opened.

use xmpp_edge_crds::negotiation::Method;

use super::{Fault, Input, Link, Output, Pair, Realm, Side, dialback::Receiving, wire};

/// Answers a peer's stream.
#[derive(Debug)]
pub struct Inbound {
    side: Side,
    link: Link,
    receiving: Receiving,
    closed: bool,
}

impl Inbound {
    /// Waits for the peer's header; there is nothing to send before it.
    #[must_use]
    pub fn new(side: Side, link: Link) -> Self {
        Self {
            side,
            link,
            receiving: Receiving::default(),
            closed: false,
        }
    }

    /// Takes one input; appends what is to be done.
    pub fn step(&mut self, input: Input<'_>, realm: &dyn Realm, out: &mut Vec<Output>) {
        let _ = (self.side, &self.link, realm);
        if self.closed {
            return;
        }
        if let Input::End(fault) = input {
            self.close(fault, out);
        }
    }

    /// Whether any pair is authenticated: the limits before authentication end here.
    #[must_use]
    pub fn is_authenticated(&self) -> bool {
        !self.receiving.authenticated().is_empty()
    }

    /// The pairs that the peer may send on this stream.
    pub fn pairs(&self) -> impl Iterator<Item = (&Pair, Method)> {
        self.receiving
            .authenticated()
            .iter()
            .map(|known| (&known.pair, known.method))
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
