//! What the scanner costs: nanoseconds a stanza for a few shapes, bytes for an idle scanner.
//!
//! `cargo run --release -p xmpp-edge-proxy --example scan`

use std::time::Instant;

use xmpp_edge_proxy::xml::{Item, Limits, Scanner};

const HEADER: &str = "<?xml version='1.0'?><stream:stream xmlns='jabber:server' \
    xmlns:stream='http://etherx.jabber.org/streams' xmlns:db='jabber:server:dialback' \
    to='org.example' from='partner.example' version='1.0' xml:lang='en'>";

const SHAPES: [(&str, &str); 4] = [
    (
        "message with body and receipt, 220 bytes",
        "<message from='alice@partner.example/laptop' to='bob@org.example' type='chat' \
         id='b4e1a3f0-7a55' xml:lang='en'><body>Shall we meet at ten?</body>\
         <request xmlns='urn:xmpp:receipts'/><active xmlns='http://jabber.org/protocol/chatstates'/></message>",
    ),
    (
        "message with a body of 100 characters, 220 bytes",
        "<message from='alice@partner.example/laptop' to='bob@org.example' type='chat' id='b4e1a3f0'><body>\
         This is what somebody says to somebody else in the middle of a day of work, no more than that. Yes.\
         </body></message>",
    ),
    (
        "presence",
        "<presence from='alice@partner.example/laptop' to='bob@org.example'/>",
    ),
    (
        "message in Cyrillic",
        "<message from='alice@partner.example/laptop' to='bob@org.example' type='chat' id='b4e1a3f0'><body>\
         Сообщение на другом языке, чтобы увидеть, сколько стоит проверка букв.</body></message>",
    ),
];

fn main() {
    println!("idle: {} bytes inline", std::mem::size_of::<Scanner>());
    for (name, stanza) in SHAPES {
        let mut scanner = Scanner::new(Limits::default());
        let opened = scanner
            .next(HEADER.as_bytes())
            .expect("a right header")
            .expect("a whole header");
        assert!(matches!(opened, Item::Header { .. }), "a header");
        // A read of 16 KiB, as the engine makes.
        let count = 16_384 / stanza.len();
        let buffer = stanza.repeat(count);
        let mut best = f64::MAX;
        for _ in 0..20 {
            let start = Instant::now();
            for _ in 0..50 {
                let mut rest = buffer.as_bytes();
                while !rest.is_empty() {
                    let item = scanner.next(rest).expect("right").expect("whole");
                    assert!(matches!(item, Item::Stanza(_)), "a stanza");
                    rest = &rest[item.len()..];
                }
            }
            let each = start.elapsed().as_nanos() as f64 / (50 * count) as f64;
            best = best.min(each);
        }
        println!("{best:6.1} ns  {:4} bytes  {name}", stanza.len());
    }
}
