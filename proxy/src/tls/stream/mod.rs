//! TLS over a socket that holds no memory while nothing is under way.
//!
//! rustls keeps keys and state; the bytes are ours. Records are read into, and written from, a buffer
//! that the streams of a thread share: a stream owns only a record that has come in part, plaintext
//! that its reader had no room for, and records that the socket has not taken. Decides nothing:
//! certificates are accepted by the configuration and judged elsewhere.

use std::{
    cell::RefCell,
    future::poll_fn,
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
};

use rustls::{
    CommonState,
    client::UnbufferedClientConnection,
    server::UnbufferedServerConnection,
    unbuffered::{ConnectionState, EncodeError, EncodeTlsData, UnbufferedStatus},
};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};

use super::blanks::Blanks;

/// Most bytes read from the socket at once.
const READ: usize = 64 * 1024;
/// Fewest: less is not worth the call, even where the reader has little room.
const LEAST_READ: usize = 4 * 1024;
/// What a handshake reads at once.
const HANDSHAKE_READ: usize = 4 * 1024;
/// Most plaintext sealed at once: four whole records, or that of many short pieces.
const SEAL: usize = 64 * 1024;
/// What sealing adds to a record, at most: header, nonce, type and tag.
const RECORD: usize = 256;
/// Most plaintext of one record (RFC 8446 section 5.1).
const FRAGMENT: usize = 16 * 1024;
/// Pieces that are sealed one after the other for one write of the socket, at most.
const PIECES: usize = 16;
/// All of that, sealed.
const SEALED: usize = SEAL + (SEAL / FRAGMENT + PIECES) * RECORD;
/// Bytes of an incomplete record or handshake message that are kept. A record has at most 18 KiB, a
/// handshake message that comes in many may be longer; rustls's own bound for one is the same.
const INCOMPLETE: usize = 0xffff;

thread_local! {
    /// Records, coming in or going out. Never borrowed across a wait.
    static RECORDS: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// rustls's connection of either side.
pub trait Connection {
    type Data;

    /// Takes what is complete at the front of `records`.
    fn process<'c, 'i>(&'c mut self, records: &'i mut [u8])
    -> UnbufferedStatus<'c, 'i, Self::Data>;

    /// What both sides know.
    fn common(&self) -> &CommonState;
}

impl Connection for UnbufferedServerConnection {
    type Data = rustls::server::ServerConnectionData;

    fn process<'c, 'i>(
        &'c mut self,
        records: &'i mut [u8],
    ) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(records)
    }

    fn common(&self) -> &CommonState {
        self
    }
}

impl Connection for UnbufferedClientConnection {
    type Data = rustls::client::ClientConnectionData;

    fn process<'c, 'i>(
        &'c mut self,
        records: &'i mut [u8],
    ) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(records)
    }

    fn common(&self) -> &CommonState {
        self
    }
}

/// A socket with TLS on it. Reading ends with `Ok` of no bytes after close_notify, with
/// `UnexpectedEof` where the connection ended without one.
pub struct TlsStream<S, C> {
    io: S,
    connection: C,
    /// The beginning of a record, or of a handshake message, that is not complete.
    incoming: Vec<u8>,
    /// Plaintext that the reader had no room for.
    plain: Vec<u8>,
    /// Records that the socket has not taken yet.
    outgoing: Outgoing,
    /// The peer said close_notify.
    peer_closed: bool,
    /// We said it.
    closed: bool,
    /// A record was not acceptable: nothing more can be read or written.
    failed: bool,
}

/// Without the keys of the connection and the plaintext.
impl<S: std::fmt::Debug, C> std::fmt::Debug for TlsStream<S, C> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TlsStream")
            .field("io", &self.io)
            .field("peer_closed", &self.peer_closed)
            .field("closed", &self.closed)
            .field("failed", &self.failed)
            .finish_non_exhaustive()
    }
}

/// Bytes that wait for the socket; holds no memory once all have gone.
#[derive(Default)]
struct Outgoing {
    bytes: Vec<u8>,
    /// How many of them have gone.
    gone: usize,
}

impl Outgoing {
    fn rest(&self) -> &[u8] {
        &self.bytes[self.gone..]
    }

    fn is_empty(&self) -> bool {
        self.gone == self.bytes.len()
    }

    fn advance(&mut self, count: usize) {
        self.gone += count;
        if self.is_empty() {
            *self = Self::default();
        }
    }
}

/// What the connection waits for once all complete records were taken.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Standing {
    Handshaking,
    Open,
    /// Both sides have said close_notify.
    Closed,
}

/// What became of the records at hand.
struct Digest {
    /// Bytes taken from their front.
    taken: usize,
    standing: Standing,
    /// A close_notify was among them.
    peer_closed: bool,
}

/// Takes all complete records; hands plaintext to `plain` and answers of TLS itself to `answers`.
fn digest<C: Connection>(
    connection: &mut C,
    records: &mut [u8],
    answers: &mut Vec<u8>,
    mut plain: impl FnMut(&[u8]),
) -> Result<Digest, rustls::Error> {
    let mut taken = 0;
    let mut peer_closed = false;
    let standing = loop {
        let UnbufferedStatus { mut discard, state } = connection.process(&mut records[taken..]);
        let standing = match state? {
            ConnectionState::ReadTraffic(mut traffic) => {
                while let Some(record) = traffic.next_record() {
                    let record = record?;
                    discard += record.discard;
                    plain(record.payload);
                }
                None
            }
            ConnectionState::EncodeTlsData(data) => {
                encode(data, answers);
                None
            }
            // Written by the caller, before anything else is.
            ConnectionState::TransmitTlsData(data) => {
                data.done();
                None
            }
            ConnectionState::PeerClosed => {
                peer_closed = true;
                None
            }
            ConnectionState::BlockedHandshake => Some(Standing::Handshaking),
            ConnectionState::WriteTraffic(_) => Some(Standing::Open),
            ConnectionState::Closed => Some(Standing::Closed),
            // Never offered, and states of a future rustls.
            _ => {
                return Err(rustls::Error::General(
                    "a state that no configuration of ours leads to".to_owned(),
                ));
            }
        };
        taken += discard;
        if let Some(standing) = standing {
            break standing;
        }
    };
    // A server may send before it has the client's last flight; we do not.
    let standing = match standing {
        Standing::Open if connection.common().is_handshaking() => Standing::Handshaking,
        standing => standing,
    };
    Ok(Digest {
        taken,
        standing,
        peer_closed,
    })
}

fn encode<D>(mut data: EncodeTlsData<'_, D>, answers: &mut Vec<u8>) {
    if let Err(EncodeError::InsufficientSize(needed)) = data.encode(&mut []) {
        let start = answers.len();
        answers.resize(start + needed.required_size, 0);
        let written = data.encode(&mut answers[start..]);
        debug_assert!(written.is_ok(), "there is as much room as it asked for");
    }
}

/// A violation of TLS, as the error of the socket.
fn violation(error: rustls::Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

impl<S, C: Connection> TlsStream<S, C> {
    /// `read` is what was read from the socket before.
    pub(super) fn new(io: S, connection: C, read: Vec<u8>) -> Self {
        Self {
            io,
            connection,
            incoming: read,
            plain: Vec::new(),
            outgoing: Outgoing::default(),
            peer_closed: false,
            closed: false,
            failed: false,
        }
    }

    /// The socket below.
    pub fn socket(&self) -> &S {
        &self.io
    }

    /// What the handshake settled.
    pub fn common(&self) -> &CommonState {
        self.connection.common()
    }

    /// After a violation: the alert that rustls has for it.
    fn fail(&mut self) {
        self.failed = true;
        while self.connection.common().wants_write() {
            match self.connection.process(&mut []).state {
                Ok(ConnectionState::EncodeTlsData(data)) => encode(data, &mut self.outgoing.bytes),
                // Plaintext that came before it.
                Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                    while traffic.next_record().is_some() {}
                }
                _ => break,
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin, C: Connection + Unpin> TlsStream<S, C> {
    /// Makes the handshake. To be called once, before all else; the caller sets the deadline. What the peer
    /// says first may stand behind so many blanks.
    ///
    /// # Errors
    /// What the socket says, `UnexpectedEof` where the peer closed, `InvalidData` with a
    /// [`rustls::Error`] where the handshake failed; the peer was sent the alert then.
    pub(super) async fn handshake(&mut self, mut blanks: Blanks) -> io::Result<()> {
        loop {
            let plain = &mut self.plain;
            let digest = digest(
                &mut self.connection,
                &mut self.incoming,
                &mut self.outgoing.bytes,
                |bytes| plain.extend_from_slice(bytes),
            );
            let digest = match digest {
                Ok(digest) => digest,
                Err(error) => {
                    self.fail();
                    let _ = self.io.write_all(self.outgoing.rest()).await;
                    return Err(violation(error));
                }
            };
            self.incoming.drain(..digest.taken);
            self.peer_closed |= digest.peer_closed;
            if digest.standing != Standing::Handshaking {
                self.incoming.shrink_to_fit();
                return self.flush().await;
            }
            if self.incoming.len() >= INCOMPLETE {
                return Err(too_long());
            }
            let held = self.incoming.len();
            // Both at once: the peer may not read before it has written.
            let count = poll_fn(|cx| {
                if let Poll::Ready(Err(error)) = Pin::new(&mut *self).poll_flush(cx) {
                    return Poll::Ready(Err(error));
                }
                self.poll_more(cx)
            });
            if count.await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if held == 0 {
                blanks.drop_from(&mut self.incoming);
            }
        }
    }

    /// Reads records of the handshake, to be taken with those at hand.
    fn poll_more(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let held = self.incoming.len();
        self.incoming.resize(held + HANDSHAKE_READ, 0);
        let mut buffer = ReadBuf::new(&mut self.incoming[held..]);
        let result = Pin::new(&mut self.io).poll_read(cx, &mut buffer);
        let count = buffer.filled().len();
        self.incoming.truncate(held + count);
        result.map_ok(|()| count)
    }

    /// Writes what waits.
    fn poll_outgoing(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.outgoing.is_empty() {
            let rest = self.outgoing.rest();
            match ready!(Pin::new(&mut self.io).poll_write(cx, rest))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                count => self.outgoing.advance(count),
            }
        }
        Poll::Ready(Ok(()))
    }

    /// One read of the socket; its plaintext goes to `buffer`, what has no room there to
    /// `self.plain`. Says how many bytes of records came.
    fn poll_receive(
        &mut self,
        cx: &mut Context<'_>,
        records: &mut Vec<u8>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<usize>> {
        let held = self.incoming.len();
        // Plaintext is shorter than its records: with as much room it need not be kept.
        let most = buffer.remaining().saturating_sub(held);
        let end = held + most.clamp(LEAST_READ, READ);
        if records.len() < end {
            records.resize(end, 0);
        }
        let mut read = ReadBuf::new(&mut records[held..end]);
        ready!(Pin::new(&mut self.io).poll_read(cx, &mut read))?;
        let count = read.filled().len();
        if count == 0 {
            return Poll::Ready(Ok(0));
        }
        records[..held].copy_from_slice(&self.incoming);
        let records = &mut records[..held + count];
        let plain = &mut self.plain;
        let digest = digest(
            &mut self.connection,
            records,
            &mut self.outgoing.bytes,
            |bytes| {
                let (fits, rest) = bytes.split_at(bytes.len().min(buffer.remaining()));
                buffer.put_slice(fits);
                plain.extend_from_slice(rest);
            },
        );
        let digest = match digest {
            Ok(digest) => digest,
            Err(error) => {
                self.fail();
                let _ = self.poll_outgoing(cx);
                return Poll::Ready(Err(violation(error)));
            }
        };
        self.peer_closed |= digest.peer_closed;
        let rest = &records[digest.taken..];
        if rest.is_empty() || self.peer_closed {
            self.incoming = Vec::new();
        } else if rest.len() >= INCOMPLETE {
            self.failed = true;
            return Poll::Ready(Err(too_long()));
        } else {
            self.incoming.clear();
            self.incoming.extend_from_slice(rest);
        }
        Poll::Ready(Ok(count))
    }

    /// Makes records of the front of `plain`; says how much of it, and how long they are.
    fn seal(&mut self, plain: &[u8], records: &mut [u8]) -> io::Result<(usize, usize)> {
        loop {
            match self.connection.process(&mut self.incoming).state {
                Ok(ConnectionState::WriteTraffic(mut traffic)) => {
                    let sealed = traffic.encrypt(plain, records);
                    return Ok((plain.len(), sealed.map_err(io::Error::other)?));
                }
                Ok(ConnectionState::EncodeTlsData(data)) => encode(data, &mut self.outgoing.bytes),
                Ok(ConnectionState::TransmitTlsData(data)) => data.done(),
                Ok(_) => return Err(io::ErrorKind::BrokenPipe.into()),
                Err(error) => {
                    self.fail();
                    return Err(violation(error));
                }
            }
        }
    }

    fn say_close_notify(&mut self) -> io::Result<()> {
        self.closed = true;
        let mut alert = [0; 512];
        loop {
            match self.connection.process(&mut self.incoming).state {
                Ok(ConnectionState::WriteTraffic(mut traffic)) => {
                    let count = traffic
                        .queue_close_notify(&mut alert)
                        .map_err(io::Error::other)?;
                    self.outgoing.bytes.extend_from_slice(&alert[..count]);
                    return Ok(());
                }
                Ok(ConnectionState::EncodeTlsData(data)) => encode(data, &mut self.outgoing.bytes),
                Ok(ConnectionState::TransmitTlsData(data)) => data.done(),
                // Said before, or amid a handshake: nothing to say it with.
                Ok(_) => return Ok(()),
                Err(error) => {
                    self.fail();
                    return Err(violation(error));
                }
            }
        }
    }
}

fn too_long() -> io::Error {
    violation(rustls::Error::General(
        "a handshake message that is too long".to_owned(),
    ))
}

impl<S: AsyncRead + AsyncWrite + Unpin, C: Connection + Unpin> AsyncRead for TlsStream<S, C> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let stream = self.get_mut();
        if buffer.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        if !stream.plain.is_empty() {
            let count = stream.plain.len().min(buffer.remaining());
            buffer.put_slice(&stream.plain[..count]);
            if count == stream.plain.len() {
                stream.plain = Vec::new();
            } else {
                stream.plain.drain(..count);
            }
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        RECORDS.with_borrow_mut(|records| {
            while buffer.filled().len() == before {
                if stream.peer_closed {
                    return Poll::Ready(Ok(()));
                }
                if stream.failed {
                    return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
                }
                if ready!(stream.poll_receive(cx, records, buffer))? == 0 {
                    return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
                }
            }
            Poll::Ready(Ok(()))
        })
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin, C: Connection + Unpin> AsyncWrite for TlsStream<S, C> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    /// Pieces that follow each other leave in one write, each in records of its own.
    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let stream = self.get_mut();
        if stream.failed || stream.closed {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        ready!(stream.poll_outgoing(cx))?;
        RECORDS.with_borrow_mut(|records| {
            let (mut taken, mut end) = (0, 0);
            for piece in pieces.iter().filter(|piece| !piece.is_empty()).take(PIECES) {
                let most = piece.len().min(SEAL - taken);
                if records.len() < SEALED {
                    records.resize(SEALED, 0);
                }
                let (plain, sealed) = stream.seal(&piece[..most], &mut records[end..])?;
                taken += plain;
                end += sealed;
                if plain < piece.len() || taken == SEAL {
                    break;
                }
            }
            let mut rest = &records[..end];
            if stream.outgoing.is_empty() {
                while !rest.is_empty() {
                    match Pin::new(&mut stream.io).poll_write(cx, rest) {
                        Poll::Ready(Ok(0)) => {
                            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
                        }
                        Poll::Ready(Ok(count)) => rest = &rest[count..],
                        Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                        Poll::Pending => break,
                    }
                }
            }
            stream.outgoing.bytes.extend_from_slice(rest);
            Poll::Ready(Ok(taken))
        })
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let stream = self.get_mut();
        ready!(stream.poll_outgoing(cx))?;
        Pin::new(&mut stream.io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let stream = self.get_mut();
        if !stream.closed && !stream.failed {
            stream.say_close_notify()?;
        }
        ready!(stream.poll_outgoing(cx))?;
        match ready!(Pin::new(&mut stream.io).poll_shutdown(cx)) {
            // The peer was faster.
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Poll::Ready(Ok(())),
            result => Poll::Ready(result),
        }
    }
}

#[cfg(test)]
mod tests;
