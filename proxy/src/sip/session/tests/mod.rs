mod description;
mod sessions;

use super::*;
use crate::sip::{
    body::Typing,
    compose::{RequestStart, SentBy},
    connection::ReceivedResponse,
    method::SipMethod,
    wire::{Framed, Framer, SipHeaders, SipRequest, SipResponse, StartLine},
};

const BY: SentBy<'_> = SentBy {
    sent_by: "SIP/2.0/TLS hq.example:5061",
    branch: "z9hG4bKx",
};

const START: RequestStart<'_> = RequestStart {
    method: SipMethod::Invite,
    uri: "sip:alice@org.example",
    from: "sip:rob@partner.example",
    by: BY,
    tag: "ours",
    call_id: "c",
};

fn framed(text: &str) -> (StartLine, SipHeaders) {
    match Framer::default().next(text.as_bytes()) {
        Ok(Some(Framed::Message { start, headers, .. })) => (start, headers),
        other => panic!("{text}: {other:?}"),
    }
}

fn request(method: &str, call: &str, tags: (&str, &str), cseq: u32) -> SipRequest {
    let to = match tags.1 {
        "" => String::new(),
        tag => format!(";tag={tag}"),
    };
    let (start, headers) = framed(&format!(
        "{method} sip:rob@partner.example SIP/2.0\r\nVia: SIP/2.0/TLS a;branch=z9hG4bKa\r\n\
         From: <sip:alice@org.example>;tag={}\r\nTo: <sip:rob@partner.example>{to}\r\n\
         Call-ID: {call}\r\nCSeq: {cseq} {method}\r\nContact: <sip:alice@10.0.0.1>\r\nContent-Length: 0\r\n\r\n",
        tags.0
    ));
    let StartLine::Request { method, uri } = start else {
        panic!("a request");
    };
    SipRequest::read(method, uri, headers).expect("a request")
}

fn response(code: u16, tag: &str, more: &str, body: &str) -> ReceivedResponse {
    let (start, headers) = framed(&format!(
        "SIP/2.0 {code} X\r\nVia: SIP/2.0/TLS hq.example:5061;branch=z9hG4bKx\r\n\
         From: <sip:rob@partner.example>;tag=ours\r\nTo: <sip:alice@org.example>;tag={tag}\r\n\
         Call-ID: c\r\nCSeq: 1 INVITE\r\n{more}Content-Length: 0\r\n\r\n"
    ));
    let StartLine::Response(code) = start else {
        panic!("an answer");
    };
    ReceivedResponse {
        response: SipResponse::read(code, headers).expect("an answer"),
        body: body.as_bytes().to_vec(),
    }
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).expect("UTF-8")
}

#[test]
fn sip_47_an_invitation_offers_messages_in_a_conversation_of_its_own() {
    let contact = "<sip:hq.example:5061;transport=tls>";
    let written = Invitation::write(&START, "hq.example", contact, "fresh").expect("written");
    assert_eq!(
        text(written),
        "INVITE sip:alice@org.example SIP/2.0\r\n\
         Via: SIP/2.0/TLS hq.example:5061;branch=z9hG4bKx;alias\r\n\
         Max-Forwards: 70\r\n\
         From: <sip:rob@partner.example>;tag=ours\r\n\
         To: <sip:alice@org.example>\r\n\
         Call-ID: c\r\nCSeq: 1 INVITE\r\n\
         Contact: <sip:hq.example:5061;transport=tls>\r\n\
         Ms-Conversation-ID: fresh\r\n\
         Content-Type: application/sdp\r\nContent-Length: 176\r\n\r\n\
         v=0\r\no=- 0 0 IN IP4 hq.example\r\ns=session\r\nc=IN IP4 hq.example\r\nt=0 0\r\n\
         m=message 5060 sip null\r\n\
         a=accept-types:text/plain multipart/alternative application/im-iscomposing+xml\r\n"
    );
}

#[test]
fn the_ack_of_a_refusal_is_of_the_invite_s_hop_and_that_of_a_2xx_goes_to_who_answered() {
    let invitation = Invitation::new(&START);
    let refusal = response(488, "theirs", "", "");
    let ack = invitation.acknowledge_refusal(&refusal.response, BY.sent_by);
    assert_eq!(
        text(ack.expect("written")),
        "ACK sip:alice@org.example SIP/2.0\r\n\
         Via: SIP/2.0/TLS hq.example:5061;branch=z9hG4bKx;alias\r\n\
         Max-Forwards: 70\r\n\
         From: <sip:rob@partner.example>;tag=ours\r\n\
         To: <sip:alice@org.example>;tag=theirs\r\n\
         Call-ID: c\r\nCSeq: 1 ACK\r\nContent-Length: 0\r\n\r\n"
    );
    assert_eq!(
        text(invitation.cancel(BY.sent_by).expect("written")),
        "CANCEL sip:alice@org.example SIP/2.0\r\n\
         Via: SIP/2.0/TLS hq.example:5061;branch=z9hG4bKx;alias\r\n\
         Max-Forwards: 70\r\n\
         From: <sip:rob@partner.example>;tag=ours\r\n\
         To: <sip:alice@org.example>\r\n\
         Call-ID: c\r\nCSeq: 1 CANCEL\r\nContent-Length: 0\r\n\r\n"
    );
    let hops = "Contact: <sip:alice@10.0.0.1:5070>\r\n\
        Record-Route: <sip:p2.example;lr>, <sip:p1.example;lr>\r\n";
    let sdp = "v=0\r\nm=message 5060 sip sip:alice@org.example\r\n";
    let (mut dialog, typing) = accepted(&response(200, "theirs", hops, sdp)).expect("a dialog");
    assert_eq!(typing, Some(TypingForm::Activity));
    let ack = text(dialog.acknowledge(1, BY).expect("written"));
    assert!(
        ack.starts_with("ACK sip:alice@10.0.0.1:5070 SIP/2.0\r\n"),
        "{ack}"
    );
    let nearest_first = "Route: <sip:p1.example;lr>\r\nRoute: <sip:p2.example;lr>\r\n";
    assert!(ack.contains(nearest_first), "{ack}");
    assert!(ack.contains("CSeq: 1 ACK"), "{ack}");
    let next = dialog.begin(SipMethod::Message, BY).expect("written");
    assert!(text(next.finish()).contains("CSeq: 2 MESSAGE"));
}

#[test]
fn what_is_accepted_without_messages_is_no_session() {
    let contact = "Contact: <sip:alice@10.0.0.1>\r\n";
    for sdp in [
        "",
        "nothing",
        "v=0\r\nm=audio 5 RTP/AVP 0\r\n",
        "v=0\r\nm=message 0 sip null\r\n",
    ] {
        let (_, typing) = accepted(&response(200, "theirs", contact, sdp)).expect("a dialog");
        assert_eq!(typing, None, "{sdp}");
    }
    assert!(accepted(&response(200, "theirs", "", "")).is_err());
}

#[test]
fn sip_46_an_info_says_that_somebody_writes_or_nothing() {
    let read = |content_type: &str, body: &str| read_activity(Some(content_type), body.as_bytes());
    for typing in [Typing::Active { refresh: 30 }, Typing::Idle] {
        let document = write_activity(typing);
        assert_eq!(
            read("application/xml; charset=UTF-8", document),
            Some(typing)
        );
    }
    for (content_type, body) in [
        ("text/plain", write_activity(Typing::Idle)),
        ("application/xml", "<KeyboardActivity/>"),
        (
            "application/xml",
            "<action><status status='type'/></action>",
        ),
        (
            "application/xml",
            "<KeyboardActivity><status status='type'/>",
        ),
        (
            "application/xml",
            "<!DOCTYPE a><KeyboardActivity><status status='type'/></KeyboardActivity>",
        ),
    ] {
        assert_eq!(read(content_type, body), None, "{body}");
    }
    assert_eq!(read_activity(None, b""), None);
}
