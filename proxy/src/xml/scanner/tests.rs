#![allow(clippy::unwrap_used)]

use super::*;

const HEADER: &str = "<?xml version='1.0'?><stream:stream xmlns='jabber:server' xmlns:stream='http://etherx.jabber.org/streams' xmlns:db='jabber:server:dialback' to='a.example' from='b.example' version='1.0' xml:lang='en'>";

#[test]
fn a_simple_stream_is_framed() {
    let text = format!(
        "{HEADER}<message to='x@a.example' id='1' type='chat'><body>hi &amp; ho</body></message> <db:result/></stream:stream>"
    );
    let mut scanner = Scanner::new(Limits::default());
    let mut rest = text.as_bytes();
    let mut seen = Vec::new();
    while let Some(item) = scanner.next(rest).unwrap() {
        seen.push(format!("{item:?}"));
        rest = &rest[item.len()..];
        if rest.is_empty() {
            break;
        }
    }
    assert_eq!(seen.len(), 5, "{seen:#?}");
}
