//! What a SUBSCRIBE asks for.

use super::*;
use crate::sip::wire::{HeaderName, SipHeaders};

fn headers_of(more: &str) -> SipHeaders {
    let text = format!("SUBSCRIBE sip:a SIP/2.0\r\n{more}Content-Length: 0\r\n\r\n");
    match Framer::default().next(text.as_bytes()) {
        Ok(Some(Framed::Message { headers, .. })) => headers,
        other => panic!("{more}: {other:?}"),
    }
}

#[test]
fn sip_38_what_a_subscribe_may_ask_for() {
    let of = |more: &str| {
        SubscribeWish::of_headers(&headers_of(more))
            .map(|wish| wish.seconds)
            .map_err(WishFault::code)
    };
    for (more, expected) in [
        ("Event: presence\r\n", Ok(900)),
        ("o: Presence;id=a1\r\nExpires: 600\r\n", Ok(600)),
        ("Event: presence;id=\"a;b\"\r\n", Err(400)),
        ("Event: presence;id=\"a b\"\r\n", Err(400)),
        ("Event: presence\r\nExpires: 3600\r\n", Ok(900)),
        ("Event: presence\r\nExpires: 60\r\n", Ok(60)),
        ("Event: presence\r\nExpires: 0\r\n", Ok(0)),
        ("Event: presence\r\nExpires: 30\r\n", Err(423)),
        ("Event: presence\r\nExpires: x\r\n", Err(400)),
        ("", Err(489)),
        ("Event: frob\r\n", Err(489)),
        ("Event: presence.winfo\r\n", Err(489)),
        ("Event: presence\r\nAccept: text/html\r\n", Err(406)),
        ("Event: presence\r\nAccept:\r\n", Ok(900)),
        (
            "Event: presence\r\nAccept: text/html, */*;q=0.1\r\n",
            Ok(900),
        ),
        (
            "Event: presence\r\nAccept: application/cpim-pidf+xml\r\nAccept: application/PIDF+xml\r\n",
            Ok(900),
        ),
    ] {
        assert_eq!(of(more), expected, "{more}");
    }
    let fault = SubscribeWish::of_headers(&headers_of("Event: presence\r\nExpires: 59\r\n"));
    let field = fault.expect_err("too brief").field();
    assert_eq!(field, Some((HeaderName::MinExpires, "60".to_owned())));
}
