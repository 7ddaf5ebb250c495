//! Messages that tests begin with, and how they read them.

mod framing;
mod torture;
mod values;
mod writing;

use super::*;
use crate::sip::{code::StatusCode, method::SipMethod};

/// Lines end with CRLF; `tail` follows the empty line.
fn lines(head: &str, tail: &str) -> Vec<u8> {
    format!("{}\r\n\r\n{tail}", head.trim_end().replace('\n', "\r\n")).into_bytes()
}

/// All of a stream that is shown at once.
fn framed(bytes: &[u8]) -> (Vec<Framed>, Option<FrameError>) {
    let mut framer = Framer::default();
    let mut found = Vec::new();
    let mut rest = bytes;
    loop {
        match framer.next(rest) {
            Ok(Some(next)) => {
                rest = &rest[next.len()..];
                found.push(next);
            }
            Ok(None) => return (found, None),
            Err(error) => return (found, Some(error)),
        }
    }
}

fn fault(bytes: &[u8]) -> Option<FrameFault> {
    framed(bytes).1.map(|error| error.fault)
}

/// The one message of which the bytes are.
fn message(bytes: &[u8]) -> (StartLine, SipHeaders) {
    match framed(bytes) {
        (found, None) if found.len() == 1 => match found.into_iter().next() {
            Some(Framed::Message { start, headers, .. }) => (start, headers),
            other => panic!("{other:?}"),
        },
        other => panic!("{}: {other:?}", String::from_utf8_lossy(bytes)),
    }
}

fn request(bytes: &[u8]) -> Result<SipRequest, RequestFault> {
    match message(bytes) {
        (StartLine::Request { method, uri }, headers) => SipRequest::read(method, uri, headers),
        other => panic!("{other:?}"),
    }
}

fn response(bytes: &[u8]) -> Result<SipResponse, ResponseFault> {
    match message(bytes) {
        (StartLine::Response(code), headers) => SipResponse::read(code, headers),
        other => panic!("{other:?}"),
    }
}

const OPTIONS: &str = "OPTIONS sip:user@example.com SIP/2.0
Via: SIP/2.0/TLS host.example.com;branch=z9hG4bKkdjuw
Max-Forwards: 70
From: <sip:caller@example.net>;tag=34525
To: <sip:user@example.com>
Call-ID: dj0234sxdfl3
CSeq: 8 OPTIONS
Content-Length: 0";

/// [`OPTIONS`] with one line in another's place.
fn options_with(line: &str, instead: &str) -> Vec<u8> {
    assert!(OPTIONS.contains(line), "{line}");
    lines(&OPTIONS.replace(line, instead), "")
}

/// RFC 4475 section 3.1.1.1, its body left out.
const TORTUOUS: &str = r#"INVITE sip:vivekg@chair-dnrc.example.com;unknownparam SIP/2.0
TO :
 sip:vivekg@chair-dnrc.example.com ;   tag    = 1918181833n
from   : "J Rosenberg \\\""       <sip:jdrosen@example.com>
  ;
  tag = 98asjd8
MaX-fOrWaRdS: 0068
Call-ID: wsinv.ndaksdj@192.0.2.1
Content-Length   : 4
cseq: 0009
  INVITE
Via  : SIP  /   2.0
 /UDP
    192.0.2.2;branch=390skdjuw
s :
NewFangledHeader:   newfangled value
 continued newfangled value
UnknownHeaderWithUnusualValue: ;;,,;;,;
Content-Type: application/sdp
Route:
 <sip:services.example.com;lr;unknownwith=value;unknown-no-value>
v:  SIP  / 2.0  / TCP     spindle.example.com   ;
  branch  =   z9hG4bK9ikj8  ,
 SIP  /    2.0   / UDP  192.168.255.111   ; branch=
 z9hG4bK30239
m:"Quoted string \"\"" <sip:jdrosen@example.com> ; newparam =
      newvalue ;
  secondparam ; q = 0.33"#;
