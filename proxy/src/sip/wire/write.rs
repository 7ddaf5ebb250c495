//! The one place that writes SIP. Whatever it is given, a field stays one line, so that nobody's text
//! becomes a header field of ours.

use thiserror::Error;

use super::{HeaderName, MAX_BODY_BYTES, MAX_LINE_BYTES, NameAddr, SipHeaders};
use crate::sip::{code::StatusCode, method::SipMethod};

/// Why something is not written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Error)]
pub enum WriteFault {
    #[error("a control character in a header field")]
    ControlCharacter,
    #[error("a header field of more than {MAX_LINE_BYTES} bytes")]
    LineTooLong,
    #[error("a body of more than {MAX_BODY_BYTES} bytes")]
    BodyTooLarge,
    #[error("a method that has no name")]
    Method,
    #[error("a Request-URI that is empty or has white space")]
    RequestUri,
    #[error("a request without Via, which nobody can be answered")]
    NoVia,
    #[error("an ACK, which is never answered")]
    Ack,
}

/// A message on its way out: start line, fields, and the body last.
#[derive(Clone, Debug)]
pub struct SipWriter(Vec<u8>);

impl SipWriter {
    /// A request; `uri` is the Request-URI.
    ///
    /// # Errors
    /// [`WriteFault`].
    pub fn request(method: SipMethod, uri: &str) -> Result<Self, WriteFault> {
        let method = method.as_str().ok_or(WriteFault::Method)?;
        if uri.is_empty() || uri.contains(char::is_whitespace) {
            return Err(WriteFault::RequestUri);
        }
        let line = format!("{method} {uri} SIP/2.0");
        check(&line)?;
        Ok(Self(format!("{line}\r\n").into_bytes()))
    }

    /// An answer to the request with these header fields (RFC 3261 section 8.2.6.2): its hops, its two
    /// sides, its dialog and its number as they came, To with `tag` where it has none yet.
    ///
    /// # Errors
    /// [`WriteFault::NoVia`], [`WriteFault::Ack`].
    pub fn answer(code: StatusCode, asked: &SipHeaders, tag: &str) -> Result<Self, WriteFault> {
        let mut vias = asked.all(HeaderName::Via).peekable();
        if vias.peek().is_none() {
            return Err(WriteFault::NoVia);
        }
        let cseq = asked.first(HeaderName::CSeq).unwrap_or_default();
        let method = cseq.rsplit([' ', '\t']).next().unwrap_or_default();
        if SipMethod::of_name(method) == SipMethod::Ack {
            return Err(WriteFault::Ack);
        }
        let mut writer = Self(format!("SIP/2.0 {} {}\r\n", code.get(), code.phrase()).into_bytes());
        for via in vias {
            writer.push(HeaderName::Via, via);
        }
        for name in [
            HeaderName::From,
            HeaderName::To,
            HeaderName::CallId,
            HeaderName::CSeq,
        ] {
            let Some(value) = asked.first(name) else {
                continue;
            };
            let untagged = name == HeaderName::To
                && NameAddr::read(value).is_ok_and(|to| to.parameters.get("tag").is_none());
            if untagged {
                writer.push(name, &format!("{value};tag={tag}"));
            } else {
                writer.push(name, value);
            }
        }
        Ok(writer)
    }

    /// With one more header field.
    ///
    /// # Errors
    /// [`WriteFault::ControlCharacter`], [`WriteFault::LineTooLong`].
    pub fn field(mut self, name: HeaderName, value: &str) -> Result<Self, WriteFault> {
        check(value)?;
        if name.as_str().len() + 2 + value.len() > MAX_LINE_BYTES {
            return Err(WriteFault::LineTooLong);
        }
        self.push(name, value);
        Ok(self)
    }

    /// The whole message, without a body.
    #[must_use]
    pub fn finish(mut self) -> Vec<u8> {
        self.push(HeaderName::ContentLength, "0");
        self.0.extend_from_slice(b"\r\n");
        self.0
    }

    /// The whole message, with a body of that media type.
    ///
    /// # Errors
    /// [`WriteFault`].
    pub fn finish_with(self, media_type: &str, body: &[u8]) -> Result<Vec<u8>, WriteFault> {
        if body.len() > MAX_BODY_BYTES {
            return Err(WriteFault::BodyTooLarge);
        }
        let mut whole = self.field(HeaderName::ContentType, media_type)?;
        whole.push(HeaderName::ContentLength, &body.len().to_string());
        whole.0.extend_from_slice(b"\r\n");
        whole.0.extend_from_slice(body);
        Ok(whole.0)
    }

    /// `value` has been checked, by us or when it was read.
    fn push(&mut self, name: HeaderName, value: &str) {
        for part in [name.as_str(), ": ", value, "\r\n"] {
            self.0.extend_from_slice(part.as_bytes());
        }
    }
}

fn check(text: &str) -> Result<(), WriteFault> {
    if text.chars().any(char::is_control) {
        return Err(WriteFault::ControlCharacter);
    }
    if text.len() > MAX_LINE_BYTES {
        return Err(WriteFault::LineTooLong);
    }
    Ok(())
}
