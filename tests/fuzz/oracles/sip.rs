//! What must hold for any bytes that a SIP server, or someone who poses as one, may send.
//!
//! - How the bytes were cut changes neither what comes out nor the error; nothing is kept beyond its bounds.
//! - Whatever is asked is answered so that the answer is read as that request's, or there is nobody to
//!   answer.
//! - An address that is taken goes to XMPP and comes back as the same one.
//! - Of what both take, ezk-sip-types reads the same. Where it differs, and why the check allows for it:
//!   - Quoted strings: it ends them at the first quote, escaped or not, so that it is given none.
//!   - Tokens and users: it takes letters of any alphabet, so that it is given ASCII.
//!   - Names of parameters: it compares them with case. Their values: it takes a percent sign for an escape, which
//!     in header fields it is not (RFC 4475 section 3.1.1.3), so that it is given none there.

use std::str::FromStr;

use ezk_sip_types::{
    Method,
    header::{HeaderParse, typed},
    host::Host,
    uri::SipUri as TheirUri,
};
use xmpp_edge_proxy::sip::{
    address::{SipUri, device_uri, sip_uri},
    code::StatusCode,
    method::SipMethod,
    wire::{
        FrameError, Framed, Framer, HeaderName, MAX_BODY_BYTES, MAX_HEAD_BYTES, MAX_HOPS, NameAddr,
        Parameterised, SipHeaders, SipRequest, SipResponse, SipWriter, StartLine, Via, split_list,
    },
};

/// The first byte says how the others were cut.
pub fn check(data: &[u8]) {
    let (step, stream) = data
        .split_first()
        .map_or((1, data), |(step, rest)| (usize::from(*step).max(1), rest));
    let (messages, error) = framed(stream, stream.len().max(1));
    let (cut, error_of_cut) = framed(stream, step);
    assert_eq!(messages, cut);
    assert_eq!(error, error_of_cut);
    for message in messages {
        if let Framed::Message { start, headers, .. } = message {
            values(&headers);
            match start {
                StartLine::Request { method, uri } => request(method, &uri, headers),
                StartLine::Response(code) => {
                    if let Ok(response) = SipResponse::read(code, headers) {
                        assert!(!response.branch.is_empty());
                    }
                }
            }
        }
    }
    if let Some(headers) = error.and_then(|error| error.headers) {
        answered(&headers);
    }
}

fn framed(stream: &[u8], step: usize) -> (Vec<Framed>, Option<FrameError>) {
    let mut framer = Framer::default();
    let mut found = Vec::new();
    let (mut taken, mut shown) = (0, 0);
    loop {
        match framer.next(&stream[taken..shown]) {
            Ok(Some(next)) => {
                assert!(next.len() <= shown - taken && next.len() > 0);
                taken += next.len();
                found.push(next);
            }
            Ok(None) if shown == stream.len() => return (found, None),
            Ok(None) => {
                assert!(shown - taken < MAX_HEAD_BYTES + MAX_BODY_BYTES);
                shown = (shown + step).min(stream.len());
            }
            Err(error) => {
                assert!(!error.to_string().is_empty() && error.fault.code() >= 400);
                return (found, Some(error));
            }
        }
    }
}

fn request(method: SipMethod, uri: &str, headers: SipHeaders) {
    address(uri);
    answered(&headers);
    match SipRequest::read(method, uri.to_owned(), headers) {
        Ok(request) => {
            assert!((1..=MAX_HOPS).contains(&request.vias.len()));
            assert!(request.from.tag().is_some() && request.cseq <= i32::MAX.unsigned_abs());
            address(&request.from.uri);
            address(&request.to.uri);
        }
        Err(fault) => assert!((400..500).contains(&fault.code())),
    }
}

/// The answer is one message of which the hops and the two sides are those of the request.
fn answered(headers: &SipHeaders) {
    let Ok(writer) = SipWriter::answer(StatusCode::OK, headers, "tag") else {
        let cseq = headers.first(HeaderName::CSeq);
        assert!(
            headers.first(HeaderName::Via).is_none() || cseq.is_some_and(|it| it.ends_with("ACK"))
        );
        return;
    };
    let bytes = writer.finish();
    // A compact name is written in full, which may be what makes a head too large.
    if bytes.len() > MAX_HEAD_BYTES {
        return;
    }
    match &framed(&bytes, bytes.len()).0[..] {
        [
            Framed::Message {
                start,
                headers: again,
                ..
            },
        ] => {
            assert_eq!(*start, StartLine::Response(StatusCode::OK));
            for name in [
                HeaderName::Via,
                HeaderName::From,
                HeaderName::CallId,
                HeaderName::CSeq,
            ] {
                assert_eq!(again.first(name), headers.first(name));
            }
            let vias = |of: &SipHeaders| of.all(HeaderName::Via).count();
            assert_eq!(vias(again), vias(headers));
        }
        other => assert!(
            headers.all(HeaderName::Via).any(|via| via.len() > 4_000)
                || [
                    HeaderName::From,
                    HeaderName::To,
                    HeaderName::CallId,
                    HeaderName::CSeq
                ]
                .into_iter()
                .filter_map(|name| headers.first(name))
                .any(|value| value.len() > 4_000),
            "{other:?}"
        ),
    }
}

fn address(text: &str) {
    let Ok(uri) = SipUri::parse(text) else {
        return;
    };
    if let Ok(jid) = uri.bare_jid() {
        let back = sip_uri(&jid).expect("it came from there");
        let again = SipUri::parse(&back).expect("ours").bare_jid();
        assert_eq!(again.as_ref(), Ok(&jid));
        if let Ok(Some(resource)) = uri.resource() {
            let back = device_uri(&jid, &resource).expect("it came from there");
            let again = SipUri::parse(&back).expect("ours").resource();
            assert_eq!(again, Ok(Some(resource)));
        }
    }
    let Ok(theirs) = TheirUri::from_str(text) else {
        return;
    };
    same_uri(&uri, &theirs);
}

fn same_uri(ours: &SipUri, theirs: &TheirUri) {
    let host = match &theirs.host_port.host {
        Host::Name(name) => name.to_string(),
        Host::IP4(ip) => ip.to_string(),
        // Written in another of its forms.
        Host::IP6(_) => ours.host.clone(),
    };
    assert_eq!((&ours.host, ours.port), (&host, theirs.host_port.port));
    // Capitals, written or escaped, are other letters of one name to us; wide letters likewise.
    let is_folded = |user: &String| {
        let escaped = user.split('%').skip(1);
        user.bytes().any(|byte| byte.is_ascii_uppercase())
            || escaped
                .into_iter()
                .any(|it| !it.starts_with(['2', '3', '6', '7']))
    };
    if let Ok(jid) = ours.bare_jid()
        && !ours.user.as_ref().is_some_and(is_folded)
    {
        let back = sip_uri(&jid).expect("it came from there");
        let again = TheirUri::from_str(&back).expect("plain");
        assert!(again.user_part == theirs.user_part, "{back} of {theirs:?}");
    }
}

/// Each value by itself, beside what another program makes of it.
fn values(headers: &SipHeaders) {
    for name in [HeaderName::From, HeaderName::To] {
        for text in headers.all(name) {
            if let (Ok(ours), Some(theirs)) = (NameAddr::read(text), theirs::<typed::FromTo>(text))
            {
                if let Ok(uri) = SipUri::parse(&ours.uri) {
                    same_uri(&uri, &theirs.uri.uri);
                }
                if let Some(tag) = theirs.tag
                    && !text.contains('%')
                {
                    assert_eq!(ours.parameters.get("tag"), Some(&*tag));
                }
            }
        }
    }
    for value in headers.all(HeaderName::Via) {
        for text in split_list(value, ',').unwrap_or_default() {
            if let (Ok(ours), Some(theirs)) = (Via::read(text), theirs::<typed::Via>(text)) {
                let branch = theirs.params.get_val("branch").map(|it| it.to_string());
                if branch.is_some() && !text.contains('%') {
                    assert_eq!(ours.branch, branch);
                }
            }
        }
    }
    for text in headers.all(HeaderName::CSeq) {
        if let Some(theirs) = theirs::<typed::CSeq>(text) {
            let end = text.find(|c: char| !c.is_ascii_digit());
            let (digits, method) = text.split_at(end.unwrap_or(text.len()));
            assert_eq!(digits.parse::<u32>().ok(), Some(theirs.cseq));
            assert_eq!(Method::from_str(method.trim()).ok(), Some(theirs.method));
        }
    }
    for name in [
        HeaderName::Event,
        HeaderName::SubscriptionState,
        HeaderName::ContentType,
    ] {
        for text in headers.all(name) {
            if let Ok(read) = Parameterised::read(text) {
                assert!(!read.value.is_empty() && !read.value.contains([' ', ';', '"']));
            }
        }
    }
}

/// What the other program reads, if it reads all of it.
fn theirs<T: HeaderParse>(text: &str) -> Option<T> {
    if !text.is_ascii() || text.contains(['"', '\\']) {
        return None;
    }
    let bytes = bytes::Bytes::copy_from_slice(text.as_bytes());
    // What it reads it takes out of those bytes.
    match T::parse(&bytes, std::str::from_utf8(&bytes).ok()?) {
        Ok(("", read)) => Some(read),
        _ => None,
    }
}
