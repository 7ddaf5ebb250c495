//! One raw question to one resolver, for what the cached resolver cannot tell (the AD bit) and for
//! the view, which forwards what it does not answer.

use std::{io, net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UdpSocket},
    time::timeout,
};

/// How the question travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Over {
    Udp,
    Tcp,
}

/// Header of a DNS message (RFC 1035 section 4.1.1).
const HEADER_BYTES: usize = 12;

/// Sends `query` and returns the answer with the query's own id. The id on the way is drawn anew
/// and the socket fresh, so that a forged answer has to guess both; the question section must
/// come back as it went.
pub(crate) async fn exchange(
    upstream: SocketAddr,
    query: &[u8],
    over: Over,
    limit: Duration,
) -> io::Result<Vec<u8>> {
    if query.len() < HEADER_BYTES {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "no DNS message",
        ));
    }
    let mut sent = query.to_vec();
    let id = random_id();
    sent[..2].copy_from_slice(&id);
    let exchange = async {
        match over {
            Over::Udp => udp(upstream, &sent).await,
            Over::Tcp => tcp(upstream, &sent).await,
        }
    };
    let mut answer = timeout(limit, exchange)
        .await
        .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    answer[..2].copy_from_slice(&query[..2]);
    Ok(answer)
}

async fn udp(upstream: SocketAddr, sent: &[u8]) -> io::Result<Vec<u8>> {
    let any: SocketAddr = match upstream {
        SocketAddr::V4(_) => ([0, 0, 0, 0], 0).into(),
        SocketAddr::V6(_) => ([0_u16; 8], 0).into(),
    };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(upstream).await?;
    socket.send(sent).await?;
    let mut buffer = vec![0; usize::from(u16::MAX)];
    loop {
        let length = socket.recv(&mut buffer).await?;
        if answers(&buffer[..length], sent) {
            buffer.truncate(length);
            buffer.shrink_to_fit();
            return Ok(buffer);
        }
    }
}

async fn tcp(upstream: SocketAddr, sent: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(upstream).await?;
    let length = u16::try_from(sent.len())
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "DNS message too long"))?;
    let mut framed = Vec::with_capacity(sent.len() + 2);
    framed.extend_from_slice(&length.to_be_bytes());
    framed.extend_from_slice(sent);
    stream.write_all(&framed).await?;
    let length = usize::from(stream.read_u16().await?);
    let mut answer = vec![0; length];
    stream.read_exact(&mut answer).await?;
    if !answers(&answer, sent) {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "the answer is for another question",
        ));
    }
    Ok(answer)
}

/// Same id, a response, and the same question (a server may leave it out on errors).
fn answers(answer: &[u8], sent: &[u8]) -> bool {
    if answer.len() < HEADER_BYTES || answer[..2] != sent[..2] || answer[2] & 0x80 == 0 {
        return false;
    }
    if answer[4..6] == [0, 0] {
        return answer[3] & 0x0f != 0;
    }
    match (question(answer), question(sent)) {
        (Some(there), Some(here)) => there.eq_ignore_ascii_case(here),
        _ => false,
    }
}

/// The first question: labels, type and class. Names in questions are never compressed.
fn question(message: &[u8]) -> Option<&[u8]> {
    let mut end = HEADER_BYTES;
    loop {
        match message.get(end)? {
            0 => break,
            length if *length < 64 => end += 1 + usize::from(*length),
            _ => return None,
        }
    }
    message.get(HEADER_BYTES..end + 5)
}

fn random_id() -> [u8; 2] {
    let mut id = [0; 2];
    // Without randomness the fresh port is what is left to guess.
    let _ = aws_lc_rs::rand::fill(&mut id);
    id
}
