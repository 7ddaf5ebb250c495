//! Bytes of a trunk: what is read goes to the scanner, what is said and sent to the socket. Decides nothing.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Instant,
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::TrunkStream;
use crate::{
    negotiation::{Fault, Input},
    stream::{relay::Relay, scratch::SCRATCH},
    trunk::{fault::TrunkFault, sending::TrunkEnd},
    xml::{Element, Item, StreamHeader},
};

/// What was read and is no stanza.
enum Said {
    Element(Box<Element>),
    Header(Arc<StreamHeader>),
    Close,
    /// The stream ends over it.
    Fault(Fault),
}

impl TrunkStream {
    /// Writes what there is, reads what there is. Ready when the loop has something to decide.
    pub(super) fn poll_io(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut progress = false;
        // A peer that closed its connection may have said why before.
        let mut failed = None;
        match self.poll_write(cx) {
            Poll::Ready(Ok(())) => progress = true,
            Poll::Ready(Err(error)) => failed = Some(error),
            Poll::Pending => {}
        }
        let read = SCRATCH.with_borrow_mut(|scratch| {
            let mut buf = ReadBuf::new(scratch);
            let Some(transport) = &mut self.stream.transport else {
                return Poll::Pending;
            };
            match Pin::new(transport).poll_read(cx, &mut buf) {
                Poll::Ready(Ok(())) => {
                    self.received(buf.filled());
                    Poll::Ready(Ok(buf.filled().len()))
                }
                Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
                Poll::Pending => Poll::Pending,
            }
        });
        match (read, failed) {
            (Poll::Ready(Ok(0)), _) => Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
            (Poll::Ready(Ok(_)), _) => Poll::Ready(Ok(())),
            (Poll::Ready(Err(error)), _) | (Poll::Pending, Some(error)) => Poll::Ready(Err(error)),
            (Poll::Pending, None) if progress => Poll::Ready(Ok(())),
            (Poll::Pending, None) => Poll::Pending,
        }
    }

    /// Ready where something has left.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let is_ending = self.stream.state.end().is_some();
        let (control, trunk) = (&mut self.stream.sender.buffer, self.trunk.buffer_mut());
        let Some(transport) = &mut self.stream.transport else {
            return Poll::Ready(Err(io::ErrorKind::NotConnected.into()));
        };
        let mut progress = false;
        loop {
            // The end of the stream stands between two elements.
            let is_control = !trunk.is_amid() && (is_ending || !control.is_empty());
            let front = if is_control {
                control.front()
            } else {
                trunk.front()
            };
            if front.is_empty() {
                break;
            }
            match Pin::new(&mut *transport).poll_write(cx, front) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(count)) if is_control => control.wrote(count),
                Poll::Ready(Ok(count)) => trunk.wrote(count),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => break,
            }
            progress = true;
        }
        match Pin::new(transport).poll_flush(cx) {
            Poll::Ready(Ok(())) => progress |= control.flushed(),
            Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
            Poll::Pending => control.must_flush(),
        }
        if progress {
            Poll::Ready(Ok(()))
        } else {
            Poll::Pending
        }
    }

    /// Bytes came in.
    fn received(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let now = Instant::now();
        self.trunk.heard(now);
        if !self.stream.context.is_in_force(&self.stream.config) {
            // What is read from now on is judged by it, whenever the trunk is told.
            self.config_changed(now);
        }
        if self.stream.partial.is_empty() {
            let taken = self.take(bytes);
            self.stream.partial.extend_from_slice(&bytes[taken..]);
        } else {
            self.stream.partial.extend_from_slice(bytes);
            self.take_partial();
        }
        let (stanzas, bytes) = (self.receiver.stanzas, self.receiver.bytes);
        self.stream.entry.took(stanzas, bytes);
    }

    pub(super) fn take_partial(&mut self) {
        let mut partial = std::mem::take(&mut self.stream.partial);
        let taken = self.take(&partial);
        partial.drain(..taken);
        partial.shrink_to(2 * partial.len());
        self.stream.partial = partial;
    }

    /// Takes complete items from the front; says how many bytes they were.
    fn take(&mut self, bytes: &[u8]) -> usize {
        let now = Instant::now();
        let mut taken = 0;
        while taken < bytes.len() {
            if self.stream.state.end().is_some() || !self.trunk.listens() {
                taken = bytes.len();
                break;
            }
            let (len, said) = self.item(&bytes[taken..], now);
            if len == 0 && said.is_none() {
                break;
            }
            taken += len;
            if let Some(said) = said {
                self.said(said, now);
            }
        }
        self.receiver.flush(&self.stream.context.router, now);
        taken
    }

    /// The next item, with how many bytes it is; stanzas are relayed at once. Nothing of both: it is not
    /// complete.
    fn item(&mut self, rest: &[u8], now: Instant) -> (usize, Option<Said>) {
        let stream = &mut *self.stream;
        let Some(header) = stream.header.as_deref() else {
            return (rest.len(), Some(Said::Fault(Fault::NotAuthorized)));
        };
        let item = match stream.scanner.next(rest) {
            Ok(Some(item)) => item,
            Ok(None) => return (0, None),
            Err(error) => {
                let fault = Fault::Xml {
                    condition: error.condition(),
                    label: error.label(),
                    text: error.to_string(),
                };
                return (rest.len(), Some(Said::Fault(fault)));
            }
        };
        let relay = Relay {
            context: &stream.context,
            config: &stream.config,
            side: stream.side,
            now,
        };
        let (trunk, receiver) = (&mut self.trunk, &mut self.receiver);
        let len = item.len();
        let outcome = match &item {
            Item::Whitespace { .. } | Item::Skipped { .. } => Ok(()),
            Item::Stanza(stanza) => receiver.stanza(trunk, &relay, header, stanza, rest.len()),
            Item::Faulty { stanza, .. } => receiver.faulty(trunk, &relay, stanza),
            // Whoever wrote it has counted it, and nobody can say of which pair it is.
            Item::Dropped { .. } => Err(TrunkFault::StanzaWithoutPair),
            Item::Header { header, .. } => return (len, Some(Said::Header(Arc::clone(header)))),
            Item::Close { .. } => return (len, Some(Said::Close)),
            Item::Other(other) => {
                let said = match Element::parse(other.bytes, header) {
                    Ok(element) => Said::Element(Box::new(element)),
                    // Checked by the scanner already; a tree can still be too much.
                    Err(error) => Said::Fault(Fault::Xml {
                        condition: "not-well-formed",
                        label: "NotWellFormed",
                        text: error.to_string(),
                    }),
                };
                return (len, Some(said));
            }
        };
        (len, outcome.err().map(|fault| Said::Fault(fault.into())))
    }

    fn said(&mut self, said: Said, now: Instant) {
        match said {
            Said::Element(element) => self.element(&element, now),
            Said::Header(header) => self.stream.input(Input::Header(&header)),
            Said::Close => match self.trunk.closed() {
                None | Some(TrunkEnd::InOrder) => {}
                Some(TrunkEnd::OutOfOrder | TrunkEnd::Silent) => self.stream.input(Input::Closed),
            },
            Said::Fault(fault) => self.end(fault),
        }
        self.stream.carry_out();
    }
}
