//! What must hold for any body of a MESSAGE: text of whatever charset, typing, and wrappers around them.

use xmpp_edge_crds::jid::BareJid;
use xmpp_edge_proxy::{
    sip::body::{BodyFault, MessageBody, RequestParties, Typing},
    xml::{Item, Limits, Scanner, text},
};

const HEADER: &[u8] =
    b"<stream:stream xmlns='jabber:server' xmlns:stream='http://etherx.jabber.org/streams' \
    version='1.0'>";

/// The first line is the Content-Type; what follows it is the body.
///
/// What is taken is something that a stanza can carry; what is not has a code; who a wrapper says that it
/// is from is who sent it.
pub fn check(data: &[u8]) {
    let end = data
        .iter()
        .position(|byte| *byte == b'\n')
        .unwrap_or(data.len());
    let (content_type, body) = data.split_at(end);
    let Ok(content_type) = std::str::from_utf8(content_type) else {
        return;
    };
    let body = body.get(1..).unwrap_or_default();
    let of = |from: &str| {
        let jid = |text| BareJid::parse(text).expect("a JID");
        let (from, to) = (jid(from), jid("bob@partner.example"));
        MessageBody::read(
            Some(content_type.trim()),
            body,
            RequestParties {
                from: &from,
                to: &to,
            },
        )
    };
    match of("alice@org.example") {
        Ok(MessageBody::Text(text)) => {
            assert!(!text.is_empty() && text.len() <= 3 * body.len());
            carried(&text);
        }
        Ok(MessageBody::Typing(typing)) => {
            assert!(matches!(
                typing,
                Typing::Idle | Typing::Active { refresh: 1..=3_600 }
            ));
            let again = format!("application/im-iscomposing+xml\n{}", typing.to_document());
            let (content_type, body) = again.split_once('\n').expect("two");
            let jid = BareJid::parse("a@b.example").expect("a JID");
            let parties = RequestParties {
                from: &jid,
                to: &jid,
            };
            let read = MessageBody::read(Some(content_type), body.as_bytes(), parties);
            assert_eq!(read, Ok(MessageBody::Typing(typing)));
        }
        Ok(MessageBody::Nothing) => {}
        Err(fault) => {
            assert!(matches!(fault.code(), 400 | 403 | 415) && !fault.to_string().is_empty())
        }
    }
    // A wrapper that names who it is from is right for one sender at most.
    let named = body.starts_with(b"From: <im:alice@org.example>\r\n");
    if content_type.trim() == "message/cpim" && named {
        assert!(matches!(
            of("mallory@org.example"),
            Err(BodyFault::OtherParties | BodyFault::Wrapper | BodyFault::Unsupported)
        ));
    }
}

/// In a stanza it is one right stanza.
fn carried(body: &str) {
    let mut bytes = b"<message from='a@b.example' to='c@d.example'><body>".to_vec();
    text::escape_text(body, &mut bytes);
    bytes.extend_from_slice(b"</body></message>");
    let mut scanner = Scanner::new(Limits::with_stanza_bytes(1 << 20));
    assert!(matches!(
        scanner.next(HEADER),
        Ok(Some(Item::Header { .. }))
    ));
    match scanner.next(&bytes) {
        Ok(Some(Item::Stanza(stanza))) => assert_eq!(stanza.bytes().len(), bytes.len()),
        other => panic!("{other:?}"),
    }
}
