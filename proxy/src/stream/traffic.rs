//! Bytes of a stream: what is read goes to the scanner, what is sent to the socket, and the
//! handshake between. Decides nothing: items go to the relay or to the machine.

use std::{
    future::poll_fn,
    io::{self, IoSlice},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use xmpp_edge_crds::domain::DomainName;

use super::{
    CLOSING, Machine, Stream, cancelled,
    carried::Carried,
    context::StreamContext,
    egress::FRONTS,
    environment::ConfigEnvironment,
    receiver::{Receiver, Taken, domain_part},
    relay::answers_the_edge,
    scratch::SCRATCH,
    state::{Establishing, StreamState},
};
use crate::{
    config::ActiveConfig,
    negotiation::{
        Fault, Input, Pair, PeerRole, Side,
        acks::{AcksWord, Namespace},
    },
    tls::{self, Mode, Transport},
    xml::{Element, Item, StreamHeader, XmlError, rewrite::StanzaStart},
};

/// What is left over of a read stands before the next one, up to this many bytes of it: more of a stanza is
/// collected apart.
const LEFT_OVER: usize = 16 * 1024;
/// How long a TLS handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(30);

impl Stream {
    /// Writes what there is, reads what there is. Ready when the loop has something to decide.
    pub(super) fn poll_io(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(transport) = &mut self.transport else {
            return Poll::Ready(Err(io::ErrorKind::NotConnected.into()));
        };
        let mut progress = false;
        // A peer that closed its connection may have said why before.
        let mut failed = None;
        while !self.sender.buffer.is_empty() {
            let mut fronts = [IoSlice::new(&[]); FRONTS];
            let count = self.sender.buffer.fronts(&mut fronts);
            match Pin::new(&mut *transport).poll_write_vectored(cx, &fronts[..count]) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Err(error)) => {
                    failed = Some(error);
                    break;
                }
                Poll::Ready(Ok(count)) => {
                    self.sender.buffer.wrote_all(count);
                    self.keepalive.said(Instant::now());
                    progress = true;
                }
                Poll::Pending => break,
            }
        }
        match Pin::new(transport).poll_flush(cx) {
            _ if failed.is_some() => {}
            Poll::Ready(Ok(())) => {
                // A socket that takes no more is no progress: plain TCP has nothing to flush.
                progress |= self.sender.buffer.flushed();
            }
            Poll::Ready(Err(error)) => failed = Some(error),
            Poll::Pending => self.sender.buffer.must_flush(),
        }
        let mut read_some = false;
        self.entry
            .unread
            .note(self.full.is_some() || !self.throttle.may_read());
        // One such read is a turn: others have theirs in between.
        if self.reads() {
            let read = SCRATCH.with_borrow_mut(|scratch| {
                let left_over = match self.partial.len() {
                    all @ ..=LEFT_OVER => all,
                    _ => 0,
                };
                let mut buf = ReadBuf::new(&mut scratch[left_over..]);
                let Some(transport) = &mut self.transport else {
                    return Poll::Pending;
                };
                match Pin::new(transport).poll_read(cx, &mut buf) {
                    Poll::Ready(Ok(())) => {
                        let read = buf.filled().len();
                        if read > 0 {
                            scratch[..left_over].copy_from_slice(&self.partial[..left_over]);
                            self.partial.drain(..left_over);
                            self.received(&scratch[..left_over + read]);
                        }
                        Poll::Ready(Ok(read))
                    }
                    Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
                    Poll::Pending => Poll::Pending,
                }
            });
            match read {
                Poll::Ready(Ok(0)) => {
                    return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
                }
                Poll::Ready(Ok(_)) => {
                    progress = true;
                    read_some = true;
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {}
            }
        }
        match failed {
            Some(error) if !read_some => Poll::Ready(Err(error)),
            _ if progress => Poll::Ready(Ok(())),
            _ => Poll::Pending,
        }
    }

    /// Whether the connection is to be read: not while a queue is full, a rate is used up, a
    /// handshake is due, an answer of the machine is still to be carried out, or the peer does not
    /// take our answers.
    pub(super) fn reads(&self) -> bool {
        self.full.is_none()
            && self.start_tls.is_none()
            && self.outputs.is_empty()
            && self.sender.buffer.answers_flow()
            && self.throttle.may_read()
    }

    /// Bytes came in, the last of these; before them stands what was left over, where that was little.
    fn received(&mut self, bytes: &[u8]) {
        let now = Instant::now();
        self.keepalive.heard(now);
        self.judge_by_what_is_in_force();
        if self.partial.is_empty() {
            let taken = self.take(bytes, now);
            if taken < bytes.len() {
                self.partial.extend_from_slice(&bytes[taken..]);
            }
        } else {
            self.partial.extend_from_slice(bytes);
            self.take_partial();
        }
        let (stanzas, bytes) = (self.receiver.stanzas, self.receiver.bytes);
        let (new, pause) = self.throttle.took(stanzas, bytes, now);
        if new {
            self.keepalive.stanza_crossed(now);
        }
        if let Some(pause) = pause {
            let partner = self.partner_name();
            let direction = self.receiver.direction;
            self.context
                .metrics
                .throttled(partner.as_deref(), direction, pause.as_secs_f64());
        }
        self.entry.took(stanzas, bytes);
    }

    /// What is read from now on is judged by the configuration in force, whenever the stream is told of it: it
    /// is told last, so that what takes presence back goes out before a stream ends by it.
    fn judge_by_what_is_in_force(&mut self) {
        if self.state.is_established() && !self.context.is_in_force(&self.config) {
            self.config = self.context.config();
        }
    }

    pub(super) fn take_partial(&mut self) {
        self.judge_by_what_is_in_force();
        let mut partial = std::mem::take(&mut self.partial);
        let taken = self.take(&partial, Instant::now());
        if taken == partial.len() {
            return;
        }
        partial.drain(..taken);
        partial.shrink_to(2 * partial.len());
        partial.append(&mut self.partial);
        self.partial = partial;
    }

    /// Takes complete items from the front; says how many bytes they were.
    pub(super) fn take(&mut self, bytes: &[u8], now: Instant) -> usize {
        let mut taken = 0;
        while taken < bytes.len() {
            if !self.outputs.is_empty() {
                self.carry_out();
                if self.state.trunk().is_some() {
                    // What follows is not this stream's to read.
                    break;
                }
            }
            if self.start_tls.is_some() {
                // Injected plaintext must not survive the handshake (RFC 6120 section 5.4.3.3).
                return bytes.len();
            }
            let lingers = self.state.lingers();
            let is_over = self.state.end().is_some() && !lingers;
            if is_over && !self.state.confirms() {
                taken = bytes.len();
                break;
            }
            let rest = &bytes[taken..];
            match self.scanner.next(rest) {
                Ok(None) => break,
                Ok(Some(Item::Whitespace { len })) => taken += len,
                // Nothing of it counts but what the peer has got.
                Ok(Some(item))
                    if is_over && !matches!(item, Item::Other(_) | Item::Close { .. }) =>
                {
                    taken += item.len();
                }
                Ok(Some(Item::Skipped { len })) => {
                    self.receiver.bytes += len as u64;
                    taken += len;
                }
                Ok(Some(Item::Faulty { len, stanza })) => {
                    taken += len;
                    self.receiver.bytes += len as u64;
                    let gives_none = self.intake.is_draining() || lingers;
                    let handed_back = gives_none && self.receiver.acknowledges();
                    let (from, to) = (stanza.from.as_deref(), stanza.to.as_deref());
                    let sides = (self.side, &*self.context, &*self.config);
                    let said = (stanza.type_.as_deref(), from, to);
                    if let Some(answer) = answer_of(&self.machine, sides, said) {
                        self.receiver.add_if_new(answer);
                    }
                    if !handed_back {
                        let (context, config) = (&self.context, &self.config);
                        let is_taken = self.receiver.faulty(context, config, &stanza, now) || {
                            let start = (StanzaStart::of_faulty(&stanza), Some(stanza.error));
                            takes_out_of_place(
                                (&mut self.receiver, &self.machine),
                                (context, config),
                                start,
                                now,
                            )
                        };
                        if !is_taken && !lingers {
                            self.input(Input::UnauthorizedStanza {
                                from: stanza.from.as_deref(),
                                to: stanza.to.as_deref(),
                            });
                        }
                    }
                }
                Ok(Some(Item::Dropped { len, error })) => {
                    taken += len;
                    self.receiver.bytes += len as u64;
                    let gives_none = self.intake.is_draining() || lingers;
                    if !gives_none || !self.receiver.acknowledges() {
                        self.receiver
                            .dropped(&self.context, &self.config, error.label());
                    }
                }
                // The stream is over but for stanzas that were on their way.
                Ok(Some(Item::Close { .. } | Item::Header { .. })) | Err(_)
                    if lingers || is_over =>
                {
                    self.state.peer_is_done();
                    taken = bytes.len();
                }
                Ok(Some(Item::Other(other))) if lingers || is_over => {
                    taken += other.bytes.len();
                    let implied = StreamHeader::implied();
                    let header = self.header.as_deref().unwrap_or(&implied);
                    let is_ack = other.name == "a" && Namespace::of(other.namespace).is_some();
                    let said = is_ack.then(|| Element::parse(other.bytes, header).ok());
                    let handled = said.flatten();
                    let handled = handled.and_then(|ack| ack.attribute("h")?.parse().ok());
                    if let Some(handled) = handled.filter(|_| self.state.confirms()) {
                        self.last_word(handled);
                    }
                }
                Ok(Some(Item::Header { len, header })) => {
                    taken += len;
                    self.entry.set_answered();
                    self.input(Input::Header(&header));
                    self.header = Some(header);
                }
                Ok(Some(Item::Close { len })) => {
                    taken += len;
                    self.input(Input::Closed);
                }
                Ok(Some(Item::Other(other))) => {
                    taken += other.bytes.len();
                    // Of a busy stream these need no tree, and the machine has nothing to say to them.
                    let is_plain = matches!(self.state, StreamState::Established)
                        && self.sender.buffer.has_acks();
                    match AcksWord::of(other.bytes).filter(|_| is_plain) {
                        Some(AcksWord::Request) => {
                            self.receiver.ack_requested();
                            continue;
                        }
                        Some(AcksWord::Answer(handled)) => {
                            if handled > 0 {
                                self.machine.note_proved();
                            }
                            self.acked(handled);
                            continue;
                        }
                        None => {}
                    }
                    let implied = StreamHeader::implied();
                    let header = self.header.as_deref().unwrap_or(&implied);
                    match Element::parse(other.bytes, header) {
                        Ok(element) => self.input(Input::Element(&element)),
                        // Checked by the scanner already; a tree can still be too much.
                        Err(error) => self.input(Input::End(Fault::Xml {
                            condition: "not-well-formed",
                            label: "NotWellFormed",
                            text: error.to_string(),
                        })),
                    }
                }
                Ok(Some(Item::Stanza(stanza))) => {
                    let len = stanza.bytes().len();
                    let gives_none = self.intake.is_draining() || lingers;
                    if gives_none && self.receiver.acknowledges() {
                        // Its sender has it still, unacknowledged, for another replica. What
                        // follows is read all the same: it may acknowledge what we sent.
                        taken += len;
                        continue;
                    }
                    let outcome = match &self.header {
                        Some(header) => self.receiver.stanza(
                            &self.context,
                            &self.config,
                            header,
                            &stanza,
                            rest.len(),
                            now,
                        ),
                        None => Taken::Stray,
                    };
                    match outcome {
                        Taken::Yes => taken += len,
                        Taken::Full(route) => {
                            self.full = Some(route);
                            break;
                        }
                        // On the stream that asked, too, and by whom it asked alone.
                        Taken::Stray
                            if self.state.is_established()
                                && matches!(self.machine, Machine::Outbound(_))
                                && answers_the_edge(
                                    &self.context,
                                    &self.config,
                                    self.side,
                                    &stanza,
                                ) =>
                        {
                            self.receiver.handled();
                            taken += len;
                        }
                        Taken::Stray if lingers => taken += len,
                        Taken::Stray => {
                            let (from, to) = (stanza.from.as_deref(), stanza.to.as_deref());
                            let type_ = stanza.type_.as_deref();
                            let sides = (self.side, &*self.context, &*self.config);
                            if let Some(answer) = answer_of(&self.machine, sides, (type_, from, to))
                                && self.receiver.add_if_new(answer)
                            {
                                continue;
                            }
                            let start = (StanzaStart::of(&stanza), None);
                            if takes_out_of_place(
                                (&mut self.receiver, &self.machine),
                                (&self.context, &self.config),
                                start,
                                now,
                            ) {
                                taken += len;
                                continue;
                            }
                            let environment = ConfigEnvironment {
                                config: &self.config,
                                tlsa: &self.tlsa,
                                chain: self.transport.as_ref().map_or(&[], Transport::peer_chain),
                                proofs: &self.proofs,
                                given_up: &self.context.given_up,
                            };
                            let input = Input::UnauthorizedStanza { from, to };
                            self.machine.step(input, &environment, &mut self.outputs);
                            taken += len;
                        }
                    }
                }
                Err(error) => {
                    self.input(Input::End(Fault::Xml {
                        condition: error.condition(),
                        label: error.label(),
                        text: error.to_string(),
                    }));
                    self.receiver.flush(&self.context, now);
                    self.carry_out();
                    return bytes.len();
                }
            }
        }
        self.receiver.flush(&self.context, now);
        taken
    }

    pub(super) async fn flush_all(&mut self) -> io::Result<()> {
        let deadline = tokio::time::Instant::now() + CLOSING;
        let egress = &mut self.sender.buffer;
        let Some(transport) = &mut self.transport else {
            return Err(io::ErrorKind::NotConnected.into());
        };
        tokio::time::timeout_at(
            deadline,
            poll_fn(|cx| {
                while !egress.is_empty() {
                    match Pin::new(&mut *transport).poll_write(cx, egress.front()) {
                        Poll::Ready(Ok(0)) => {
                            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
                        }
                        Poll::Ready(Ok(count)) => egress.wrote(count),
                        Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                        Poll::Pending => return Poll::Pending,
                    }
                }
                Pin::new(&mut *transport).poll_flush(cx)
            }),
        )
        .await
        .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        egress.flushed();
        Ok(())
    }

    pub(super) async fn handshake(&mut self, domain: DomainName) {
        self.partial = Vec::new();
        // What was announced before TLS must be out before the handshake begins.
        if let Err(error) = self.flush_all().await {
            self.lost(&error);
            return;
        }
        let limit = match self.state {
            StreamState::Establishing(Establishing { deadline }) => {
                deadline.min(Instant::now() + HANDSHAKE)
            }
            _ => Instant::now() + CLOSING,
        };
        let Some(Transport::Plain(socket)) = self.transport.take() else {
            self.lost(&io::ErrorKind::NotConnected.into());
            return;
        };
        let side = self.side;
        let config = Arc::clone(&self.config);
        let outcome = match self.peer {
            PeerRole::Client => {
                // The stream's `to` decides: SNI may be absent (Prosody 0.12), or name another.
                let choose = |_: Option<&str>| config.identity_of(side, &domain);
                let evicted = self.place.as_ref().map(|place| place.evicted.clone());
                let stopping = self.context.stopping.clone();
                tokio::select! {
                    result = tls::accept(socket, Mode::StartTls, limit.into(), choose) => result,
                    // Nothing is taken from it that has not been offered yet.
                    () = stopping.cancelled() => {
                        self.lost(&io::ErrorKind::ConnectionAborted.into());
                        return;
                    }
                    () = cancelled(evicted.as_ref()) => {
                        self.lost(&io::ErrorKind::ConnectionAborted.into());
                        return;
                    }
                }
            }
            PeerRole::Server => {
                let identity = self
                    .local
                    .as_ref()
                    .and_then(|local| config.identity_of(side, local));
                let identity = identity.as_deref();
                tls::connect(socket, identity, &domain, Mode::StartTls, limit.into()).await
            }
        };
        match outcome {
            Ok(transport) => {
                self.transport = Some(transport);
                self.scanner.restart();
                self.header = None;
                self.input(Input::TlsEstablished);
            }
            Err(error) => self.break_off(Fault::TlsFailed {
                label: error.label(),
                text: error.to_string(),
            }),
        }
    }

    /// The connection broke or ended without a word.
    pub(super) fn lost(&mut self, error: &io::Error) {
        tracing::debug!(stream = self.entry.id, %error, "connection lost");
        // In TLS 1.3 a peer's alert over our certificate comes after the handshake is done here
        // (RFC 8446 section 4.4.2.4).
        let fault = tls::alert(error).map_or(Fault::PeerClosed, |alert| Fault::TlsFailed {
            label: alert.label(),
            text: alert.to_string(),
        });
        self.break_off(fault);
    }

    /// The stream ends over `fault`, unless it ends already, and nothing more can be said.
    fn break_off(&mut self, fault: Fault) {
        self.input(Input::End(fault.clone()));
        self.carry_out();
        self.close(fault);
        self.state.cut();
    }
}

/// Takes a stanza whose fault is in its addresses, where the stream can do without ([`Receiver::out_of_place`]).
/// An error on a stream of the edge's own that does not say what it answers is dropped there too: it is no
/// claim to any pair.
fn takes_out_of_place(
    (receiver, machine): (&mut Receiver, &Machine),
    (context, config): (&Arc<StreamContext>, &ActiveConfig),
    (start, fault): (StanzaStart<'_>, Option<XmlError>),
    now: Instant,
) -> bool {
    let readable = |address: Option<&str>| {
        address.is_some_and(|address| DomainName::parse(domain_part(address)).is_ok())
    };
    let is_vague = start.type_ == Some("error") && !(readable(start.from) && readable(start.to));
    if is_vague && matches!(machine, Machine::Outbound(own) if own.pairs().next().is_some()) {
        receiver.dropped(context, config, "JidMalformed");
        return true;
    }
    receiver.out_of_place(context, config, (start, fault), now)
}

/// What is added to the pairs of a stream for an error stanza with which its peer answers, on the edge's
/// own stream, what it got there. It is an error and no claim to the pair: nothing else may come back on
/// a stream for one direction.
fn answer_of(
    machine: &Machine,
    (side, context, config): (Side, &StreamContext, &ActiveConfig),
    (type_, from, to): (Option<&str>, Option<&str>, Option<&str>),
) -> Option<Carried> {
    let Machine::Outbound(machine) = machine else {
        return None;
    };
    if type_ != Some("error") {
        return None;
    }
    let from = DomainName::parse(domain_part(from?)).ok()?;
    let to = DomainName::parse(domain_part(to?)).ok()?;
    let pair = Pair { from, to };
    let sent = pair.reversed();
    let (_, method) = machine.pairs().find(|(ready, _)| **ready == sent)?;
    Some(Carried {
        errors_only: true,
        ..Carried::new(
            &context.router,
            &context.metrics,
            config,
            side,
            pair,
            method,
        )
    })
}
