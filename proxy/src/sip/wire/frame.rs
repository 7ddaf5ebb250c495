//! Where a message ends on a stream (RFC 3261 sections 7.5 and 18.3; RFC 5626 section 4.4.1).

use std::ops::Range;

use memchr::memmem;
use thiserror::Error;

use super::{FrameFault, HeaderName, MAX_BODY_BYTES, MAX_HEAD_BYTES, SipHeaders, value::is_token};
use crate::sip::{code::StatusCode, method::SipMethod};

/// Cuts a stream into messages. How the bytes were cut on their way changes nothing.
///
/// The caller keeps what came and shows it from the first byte that was not taken on; it takes as many as
/// [`Framed::len`] says. At most [`MAX_HEAD_BYTES`] and [`MAX_BODY_BYTES`] have to be kept. After an error
/// nothing more can be read.
#[derive(Debug, Default)]
pub struct Framer {
    /// What came last between messages.
    gap: FrameGap,
    /// Bytes of the head that have been searched for its end.
    searched: usize,
    /// A head whose body is awaited.
    head: Option<WholeHead>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum FrameGap {
    #[default]
    None,
    /// One CRLF: a second makes it a ping.
    LineEnd,
}

#[derive(Debug)]
struct WholeHead {
    start: StartLine,
    headers: SipHeaders,
    body: Range<usize>,
}

/// What stands at the head of the bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Framed {
    /// CRLF: the answer to a ping, or the first half of one.
    Pong,
    /// The CRLF that follows one: answered by CRLF.
    Ping,
    Message {
        start: StartLine,
        headers: SipHeaders,
        /// Where its body is among the bytes; it ends the message.
        body: Range<usize>,
    },
}

/// The first line of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StartLine {
    /// The Request-URI as it came.
    Request { method: SipMethod, uri: String },
    /// Its words are not kept: they are the server's.
    Response(StatusCode),
}

impl Framed {
    /// Bytes that it took.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "it is never empty")]
    pub fn len(&self) -> usize {
        match self {
            Self::Pong | Self::Ping => 2,
            Self::Message { body, .. } => body.end,
        }
    }
}

impl Framer {
    /// The next of `bytes`; `None`: more are needed.
    ///
    /// # Errors
    /// [`FrameError`]: the stream cannot be read any further.
    pub fn next(&mut self, bytes: &[u8]) -> Result<Option<Framed>, FrameError> {
        if self.head.is_none() {
            match bytes {
                [] | [b'\r'] => return Ok(None),
                [b'\r', b'\n', ..] => return Ok(Some(self.line_end())),
                [first, ..] if !is_token(&[*first]) => return Err(FrameFault::NotSip.into()),
                _ => {}
            }
            self.gap = FrameGap::None;
            let Some(len) = self.head_len(bytes)? else {
                return Ok(None);
            };
            self.head = Some(read_head(&bytes[..len])?);
        }
        match self.head.take_if(|it| it.body.end <= bytes.len()) {
            Some(WholeHead {
                start,
                headers,
                body,
            }) => {
                self.searched = 0;
                Ok(Some(Framed::Message {
                    start,
                    headers,
                    body,
                }))
            }
            None => Ok(None),
        }
    }

    fn line_end(&mut self) -> Framed {
        match self.gap {
            FrameGap::None => {
                self.gap = FrameGap::LineEnd;
                Framed::Pong
            }
            FrameGap::LineEnd => {
                self.gap = FrameGap::None;
                Framed::Ping
            }
        }
    }

    /// Bytes of the head with the empty line that ends it.
    fn head_len(&mut self, bytes: &[u8]) -> Result<Option<usize>, FrameError> {
        let shown = &bytes[..bytes.len().min(MAX_HEAD_BYTES)];
        let from = self.searched.saturating_sub(3).min(shown.len());
        if let Some(at) = memmem::find(&shown[from..], b"\r\n\r\n") {
            return Ok(Some(from + at + 4));
        }
        self.searched = shown.len();
        if bytes.len() >= MAX_HEAD_BYTES {
            return Err(FrameFault::HeadTooLarge.into());
        }
        Ok(None)
    }
}

/// Why a stream cannot be read any further. It ends, with an answer before where there is somebody to give
/// it to.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{fault}")]
pub struct FrameError {
    pub fault: FrameFault,
    /// The header fields of a request, where they could be read: who asked, for the last answer. An answer
    /// has none: it is never answered.
    pub headers: Option<Box<SipHeaders>>,
}

impl From<FrameFault> for FrameError {
    fn from(fault: FrameFault) -> Self {
        Self {
            fault,
            headers: None,
        }
    }
}

/// Of a head with its empty line, or of one line without any field.
fn read_head(bytes: &[u8]) -> Result<WholeHead, FrameError> {
    let text = std::str::from_utf8(bytes).map_err(|_| FrameFault::NotUtf8)?;
    let (line, rest) = text.split_once("\r\n").ok_or(FrameFault::NotSip)?;
    let start = start_line(line);
    if matches!(start, Err(FrameFault::NotSip)) {
        return Err(FrameFault::NotSip.into());
    }
    let headers = SipHeaders::read(rest)?;
    let is_answer = strip_sip(line).is_some();
    let body_bytes = start.and_then(|start| Ok((start, body_bytes(&headers)?)));
    match body_bytes {
        Ok((start, len)) => Ok(WholeHead {
            start,
            headers,
            body: bytes.len()..bytes.len() + len,
        }),
        Err(fault) => Err(FrameError {
            fault,
            headers: (!is_answer).then(|| Box::new(headers)),
        }),
    }
}

fn start_line(line: &str) -> Result<StartLine, FrameFault> {
    if line.len() > super::MAX_LINE_BYTES {
        return Err(FrameFault::LineTooLong);
    }
    if line.contains(['\r', '\n']) {
        return Err(FrameFault::BareLineEnd);
    }
    let (first, rest) = line.split_once(' ').ok_or(FrameFault::NotSip)?;
    if let Some(version) = strip_sip(first) {
        if version != "2.0" {
            return Err(FrameFault::Version);
        }
        let (code, _) = rest.split_once(' ').unwrap_or((rest, ""));
        let code = StatusCode::parse(code).ok_or(FrameFault::StartLine)?;
        return Ok(StartLine::Response(code));
    }
    // What has a version somewhere was meant as SIP, and is answered.
    let (uri, last) = rest.trim_end().rsplit_once(' ').ok_or(FrameFault::NotSip)?;
    let version = strip_sip(last).ok_or(FrameFault::NotSip)?;
    if !is_token(first.as_bytes()) || rest.ends_with(' ') || uri.is_empty() || uri.contains(' ') {
        return Err(FrameFault::StartLine);
    }
    if version != "2.0" {
        return Err(FrameFault::Version);
    }
    Ok(StartLine::Request {
        method: SipMethod::of_name(first),
        uri: uri.to_owned(),
    })
}

/// The version behind `SIP/`, which is compared without case (RFC 3261 section 7.1).
fn strip_sip(text: &str) -> Option<&str> {
    let (name, version) = text.split_at_checked(4)?;
    name.eq_ignore_ascii_case("SIP/").then_some(version)
}

fn body_bytes(headers: &SipHeaders) -> Result<usize, FrameFault> {
    let mut lengths = headers.all(HeaderName::ContentLength);
    let length = lengths.next().ok_or(FrameFault::NoLength)?;
    if lengths.next().is_some() {
        return Err(FrameFault::SeveralLengths);
    }
    if length.is_empty() || !length.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(FrameFault::Length);
    }
    // More digits than a number holds are a number too large.
    match length.parse::<usize>() {
        Ok(length) if length <= MAX_BODY_BYTES => Ok(length),
        _ => Err(FrameFault::BodyTooLarge),
    }
}
