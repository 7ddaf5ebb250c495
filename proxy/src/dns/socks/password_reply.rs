//! The reply to a password (RFC 1929 section 2) begins with 1, the version of that negotiation; some proxies write 5,
//! the version of SOCKS, and clients take it.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

/// Octets before that reply: version and method.
const METHOD_REPLY: usize = 2;

/// A connection to a proxy that is given a password: reads 1 where the reply to that begins with 5.
pub(super) struct PasswordReplies {
    socket: TcpStream,
    /// Octets read so far, up to the reply.
    read: usize,
    wants_password: bool,
}

impl PasswordReplies {
    pub(super) fn of(socket: TcpStream) -> Self {
        Self {
            socket,
            read: 0,
            wants_password: false,
        }
    }

    pub(super) fn into_inner(self) -> TcpStream {
        self.socket
    }

    fn correct(&mut self, octets: &mut [u8]) {
        for octet in octets {
            match self.read {
                // The method; 2 is user name and password (RFC 1928 section 3).
                1 => self.wants_password = *octet == 2,
                METHOD_REPLY if self.wants_password && *octet == 5 => *octet = 1,
                0 | METHOD_REPLY => {}
                _ => return,
            }
            self.read += 1;
        }
    }
}

impl AsyncRead for PasswordReplies {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.socket).poll_read(cx, buffer);
        if let Poll::Ready(Ok(())) = polled {
            self.correct(&mut buffer.filled_mut()[before..]);
        }
        polled
    }
}

impl AsyncWrite for PasswordReplies {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        octets: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(cx, octets)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}
