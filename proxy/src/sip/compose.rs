//! Requests of ours (RFC 3261 section 8.1.1, RFC 3428 section 4).

use jiff::{Timestamp, fmt::rfc2822::DateTimePrinter};

use super::{
    body::Typing,
    message::PageMessage,
    method::SipMethod,
    wire::{HeaderName, MAGIC_COOKIE, SipWriter, WriteFault},
};

/// What each request of ours says.
#[derive(Clone, Copy, Debug)]
pub struct RequestStart<'a> {
    pub method: SipMethod,
    /// Request-URI, and To.
    pub uri: &'a str,
    pub from: &'a str,
    pub by: SentBy<'a>,
    pub tag: &'a str,
    pub call_id: &'a str,
}

/// What a request of ours has in Via.
#[derive(Clone, Copy, Debug)]
pub struct SentBy<'a> {
    /// `SIP/2.0/TLS host:port`: where answers would come, were the connection gone.
    pub sent_by: &'a str,
    /// Unique behind its cookie ([`branch`]).
    pub branch: &'a str,
}

impl SentBy<'_> {
    pub(super) fn via(self) -> String {
        format!("{};branch={};alias", self.sent_by, self.branch)
    }
}

/// The branch that a fresh `unique` text makes (RFC 3261 section 8.1.1.7).
#[must_use]
pub fn branch(unique: &str) -> String {
    format!("{MAGIC_COOKIE}{unique}")
}

/// Hops that a request may take from here (RFC 3261 section 8.1.1.6).
pub(super) const MAX_FORWARDS: &str = "70";

impl RequestStart<'_> {
    /// The request as far as every method has it.
    ///
    /// # Errors
    /// [`WriteFault`].
    pub fn begin(&self) -> Result<SipWriter, WriteFault> {
        let name = self.method.as_str().ok_or(WriteFault::Method)?;
        SipWriter::request(self.method, self.uri)?
            .field(HeaderName::Via, &self.by.via())?
            .field(HeaderName::MaxForwards, MAX_FORWARDS)?
            .field(
                HeaderName::From,
                &format!("<{}>;tag={}", self.from, self.tag),
            )?
            .field(HeaderName::To, &format!("<{}>", self.uri))?
            .field(HeaderName::CallId, self.call_id)?
            .field(HeaderName::CSeq, &format!("1 {name}"))
    }

    /// The request without a body.
    ///
    /// # Errors
    /// [`WriteFault`].
    pub fn bare(&self) -> Result<Vec<u8>, WriteFault> {
        Ok(self.begin()?.finish())
    }

    /// A text.
    ///
    /// # Errors
    /// [`WriteFault`].
    pub fn text(&self, page: &PageMessage) -> Result<Vec<u8>, WriteFault> {
        with_text(self.begin()?, page)
    }

    /// That somebody is writing, or not any more.
    ///
    /// # Errors
    /// [`WriteFault`].
    pub fn typing(&self, typing: Typing) -> Result<Vec<u8>, WriteFault> {
        with_typing(self.begin()?, typing)
    }
}

/// The request that was begun, with a text.
///
/// # Errors
/// [`WriteFault`].
pub fn with_text(mut writer: SipWriter, page: &PageMessage) -> Result<Vec<u8>, WriteFault> {
    if let Some(language) = &page.language {
        writer = writer.field(HeaderName::ContentLanguage, language)?;
    }
    if let Some(subject) = &page.subject {
        writer = writer.field(HeaderName::Subject, subject)?;
    }
    if let Some(date) = page.sent.and_then(date) {
        writer = writer.field(HeaderName::Date, &date)?;
    }
    writer.finish_with("text/plain;charset=UTF-8", page.text.as_bytes())
}

/// The request that was begun, with whether somebody is writing.
///
/// # Errors
/// [`WriteFault`].
pub fn with_typing(writer: SipWriter, typing: Typing) -> Result<Vec<u8>, WriteFault> {
    let document = typing.to_document();
    writer.finish_with("application/im-iscomposing+xml", document.as_bytes())
}

/// As RFC 3261 section 20.17 writes it; `None` for a year of five digits.
fn date(time: Timestamp) -> Option<String> {
    DateTimePrinter::new()
        .timestamp_to_rfc9110_string(&time)
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sip::message::Receipt;

    const START: RequestStart<'_> = RequestStart {
        method: SipMethod::Message,
        uri: "sip:alice@org.example",
        from: "sip:bob@partner.example",
        by: SentBy {
            sent_by: "SIP/2.0/TLS hq.example:5061",
            branch: "z9hG4bKx",
        },
        tag: "t",
        call_id: "c",
    };

    #[test]
    fn sip_01_sip_17_a_text_goes_with_what_is_said_of_it() {
        let page = PageMessage {
            text: "Grüße <&>".to_owned(),
            language: Some("de".to_owned()),
            subject: Some("s".to_owned()),
            sent: Some("2026-11-30T05:00:00Z".parse().expect("a time")),
            receipt: Receipt::NotAsked,
        };
        let bytes = START.text(&page).expect("written");
        let expected = "MESSAGE sip:alice@org.example SIP/2.0\r\n\
            Via: SIP/2.0/TLS hq.example:5061;branch=z9hG4bKx;alias\r\n\
            Max-Forwards: 70\r\n\
            From: <sip:bob@partner.example>;tag=t\r\n\
            To: <sip:alice@org.example>\r\n\
            Call-ID: c\r\n\
            CSeq: 1 MESSAGE\r\n\
            Content-Language: de\r\n\
            Subject: s\r\n\
            Date: Mon, 30 Nov 2026 05:00:00 GMT\r\n\
            Content-Type: text/plain;charset=UTF-8\r\n\
            Content-Length: 11\r\n\r\nGrüße <&>";
        assert_eq!(String::from_utf8(bytes).expect("UTF-8"), expected);
    }

    #[test]
    fn sip_08_nobody_s_text_becomes_a_header_field() {
        let start = RequestStart {
            from: "sip:bob@partner.example>\r\nX: y",
            ..START
        };
        assert_eq!(start.bare(), Err(WriteFault::ControlCharacter));
    }
}
