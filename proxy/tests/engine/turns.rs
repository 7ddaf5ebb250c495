//! One stream that always has something to do is not the only one that is done.

use std::{
    io::{Read, Write},
    net::TcpStream,
    sync::{Arc, atomic::Ordering},
};

use tokio::net::TcpSocket;
use xmpp_edge_proxy::{
    negotiation::{Inbound, Link, PeerRole, Side},
    stream::{Machine, Stream, StreamStart, proofs::Proofs},
    tls::Transport,
};

use crate::{
    context,
    peers::{Plan, partner_server},
};

/// Taken in between two turns of others: a few reads of 64 KiB. Without a turn of theirs it is all that
/// the socket holds, or what tokio allows a task at once, 128 reads.
const MOST: u64 = 4 * 64 * 1024;

// One thread, for all streams and whoever else waits.
#[tokio::test]
async fn a_saturated_stream_leaves_the_others_their_turn() {
    let _partner = partner_server(42, &Plan::default());
    let context = context(42);
    let listener = TcpSocket::new_v4().expect("a socket");
    // As large as the system lets it be: it is never found empty, which would end a turn too.
    listener.set_recv_buffer_size(8 << 20).expect("an option");
    listener
        .bind(([127, 90, 42, 1], 0).into())
        .expect("an address");
    let listener = listener.listen(1).expect("an address");
    let address = listener.local_addr().expect("it has one");
    // Sends faster than anybody reads.
    let flood = std::thread::spawn(move || flood(address));
    let (stream, from) = listener.accept().await.expect("it connects");
    let mut stream = Stream::new(
        &context,
        StreamStart {
            side: Side::Partner,
            peer: PeerRole::Client,
            transport: Transport::Plain(stream),
            address: Some(from),
            machine: Machine::Inbound(Box::new(Inbound::new(Side::Partner, Link::Plain))),
            outputs: Vec::new(),
            place: None,
            already: Vec::new(),
            tlsa: Vec::new(),
            proofs: Proofs::default(),
            local: None,
            deadline: None,
        },
    );
    let streams = context.streams.all();
    let entry = Arc::clone(streams.first().expect("the one"));
    stream.establish().await.expect("it authenticates");
    let running = tokio::spawn(stream.run());
    let (mut seen, mut most, mut turns) = (0, 0, 0);
    while seen < 24 << 20 {
        tokio::task::yield_now().await;
        let now = entry.bytes_in.load(Ordering::Relaxed);
        turns += u32::from(now > seen);
        most = most.max(now - seen);
        seen = now;
        assert!(!running.is_finished(), "the stream has ended");
    }
    assert!(
        most <= MOST,
        "{most} bytes in one turn, {turns} turns in all"
    );
    running.abort();
    let _ = running.await;
    flood.join().expect("no panic");
}

/// Authenticates by dialback, then sends what is dropped at once, until the connection ends.
fn flood(address: std::net::SocketAddr) {
    let mut stream = TcpStream::connect(address).expect("it listens");
    let opening = "<?xml version='1.0'?><stream:stream xmlns='jabber:server' \
        xmlns:db='jabber:server:dialback' xmlns:stream='http://etherx.jabber.org/streams' version='1.0' \
        from='partner.example' to='org.example'>\
        <db:result from='partner.example' to='org.example'>thekey</db:result>";
    stream.write_all(opening.as_bytes()).expect("it is read");
    let mut heard = String::new();
    let mut buf = [0; 4096];
    while !heard.contains("type='valid'") {
        let count = stream.read(&mut buf).expect("it answers");
        assert!(count > 0, "{heard}");
        heard.push_str(&String::from_utf8_lossy(&buf[..count]));
    }
    let dropped = "<presence from='rob@partner.example/x' to='alice@org.example' type='x'/>";
    let burst = dropped.repeat(1_000);
    while stream.write_all(burst.as_bytes()).is_ok() {}
}
