//! What the machine reads and writes on the wire: names, and the elements of negotiation.

use crate::xml::Element;

use super::{Fault, Output, StreamError, StreamLimits};

/// Namespaces of negotiation, beside those that the grammar itself knows.
pub(crate) mod ns {
    pub(crate) use crate::xml::ns::{DIALBACK, SERVER, STANZA_ERRORS, STREAM};

    pub(crate) const STREAM_ERRORS: &str = "urn:ietf:params:xml:ns:xmpp-streams";
    pub(crate) const TLS: &str = "urn:ietf:params:xml:ns:xmpp-tls";
    pub(crate) const SASL: &str = "urn:ietf:params:xml:ns:xmpp-sasl";
    pub(crate) const DIALBACK_FEATURE: &str = "urn:xmpp:features:dialback";
    pub(crate) const BIDI: &str = "urn:xmpp:bidi";
    pub(crate) const BIDI_FEATURE: &str = "urn:xmpp:features:bidi";
    pub(crate) const LIMITS: &str = "urn:xmpp:stream-limits:0";
    /// Feature and elements of a trunk.
    pub(crate) const TRUNK: &str = "urn:xmpp-edge:trunk:0";
    pub(crate) const COMPRESS: &str = "http://jabber.org/protocol/compress";
}

/// What a header's `version` allows (RFC 6120 section 4.7.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    /// 1.0 or later: answered with 1.0.
    Current,
    /// None, or below 1.0: no features.
    Old,
    /// No version number.
    Unusable,
}

impl Version {
    pub(super) fn of(version: Option<&str>) -> Self {
        let Some(version) = version else {
            return Self::Old;
        };
        let digits = |text: &str| {
            !text.is_empty() && text.len() <= 9 && text.bytes().all(|b| b.is_ascii_digit())
        };
        match version.split_once('.') {
            Some((major, minor)) if digits(major) && digits(minor) => {
                if major.bytes().all(|byte| byte == b'0') {
                    Self::Old
                } else {
                    Self::Current
                }
            }
            _ => Self::Unusable,
        }
    }
}

/// Most characters kept of a text of the peer's: it goes into logs, status and errors of our users.
const PEER_TEXT: usize = 300;

/// The peer's `<stream:error/>`.
pub(super) fn peer_error(error: &Element) -> Fault {
    let (condition, text) = condition_and_text(error, ns::STREAM_ERRORS);
    Fault::PeerError { condition, text }
}

/// The defined condition of an error, and what the peer says to it, cut to [`PEER_TEXT`].
pub(super) fn condition_and_text(error: &Element, namespace: &str) -> (String, String) {
    let condition = error
        .children()
        .find(|child| child.namespace == namespace && child.name != "text")
        .map_or_else(
            || "undefined-condition".to_owned(),
            |child| child.name.clone(),
        );
    let text = error
        .child(namespace, "text")
        .map(|text| text.text().chars().take(PEER_TEXT).collect())
        .unwrap_or_default();
    (condition, text)
}

/// `<r/>` and `<a/>` of XEP-0198.
pub(super) fn ack(
    enabled: bool,
    name: &str,
    element: &Element,
    out: &mut Vec<Output>,
) -> Result<(), Fault> {
    let unexpected = || Fault::UnexpectedElement(name.to_owned());
    if !enabled {
        return Err(unexpected());
    }
    match name {
        "r" => out.push(Output::AckRequested),
        "a" => {
            let h = element
                .attribute("h")
                .and_then(|h| h.parse().ok())
                .ok_or_else(unexpected)?;
            out.push(Output::Acked { h });
        }
        _ => return Err(unexpected()),
    }
    Ok(())
}

/// Escapes for text and for attributes in either quotes.
pub(super) fn escape(text: &str, out: &mut String) {
    for character in text.chars() {
        match character {
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            '\'' => out.push_str("&apos;"),
            '"' => out.push_str("&quot;"),
            // XML 1.0 section 2.11 and 3.3.3 would turn them into spaces or newlines.
            '\t' | '\n' | '\r' => out.push(' '),
            // Never valid in XML 1.0.
            control if (control as u32) < 0x20 || matches!(control, '\u{fffe}' | '\u{ffff}') => {
                out.push('?')
            }
            other => out.push(other),
        }
    }
}

/// Bytes to be sent, element by element.
#[derive(Default)]
pub(super) struct Writer(String);

impl Writer {
    pub(super) fn new() -> Self {
        Self::default()
    }

    /// Markup of our own, as it is.
    pub(super) fn raw(mut self, markup: &str) -> Self {
        self.0.push_str(markup);
        self
    }

    pub(super) fn text(mut self, text: &str) -> Self {
        escape(text, &mut self.0);
        self
    }

    /// ` name='value'`, or nothing.
    pub(super) fn attribute(mut self, name: &str, value: Option<&str>) -> Self {
        if let Some(value) = value {
            self.0.push(' ');
            self.0.push_str(name);
            self.0.push_str("='");
            escape(value, &mut self.0);
            self.0.push('\'');
        }
        self
    }

    pub(super) fn send(self, out: &mut Vec<Output>) {
        out.push(Output::Send(self.0.into_bytes()));
    }
}

/// Our stream header, in the one form that it has.
pub(crate) struct OwnHeader<'a> {
    pub from: Option<&'a str>,
    pub to: Option<&'a str>,
    pub id: Option<&'a str>,
    /// Left out towards a peer older than 1.0 (RFC 6120 section 4.7.5).
    pub version: bool,
}

impl OwnHeader<'_> {
    pub(super) fn send(&self, out: &mut Vec<Output>) {
        self.write().send(out);
    }

    /// As it goes on the wire.
    #[must_use]
    pub(crate) fn text(&self) -> String {
        self.write().0
    }

    fn write(&self) -> Writer {
        Writer::new()
            .raw("<?xml version='1.0'?><stream:stream xmlns='")
            .raw(ns::SERVER)
            .raw("' xmlns:stream='")
            .raw(ns::STREAM)
            .raw("' xmlns:db='")
            .raw(ns::DIALBACK)
            .raw("' xml:lang='en'")
            .attribute("id", self.id)
            .attribute("from", self.from)
            .attribute("to", self.to)
            .attribute("version", self.version.then_some("1.0"))
            .raw(">")
    }
}

/// The stream error, if any, and the closing tag, in one write.
pub(super) fn send_end(error: Option<&StreamError>, out: &mut Vec<Output>) {
    let mut writer = Writer::new();
    if let Some(error) = error {
        writer = writer
            .raw("<stream:error><")
            .raw(error.condition)
            .raw(" xmlns='")
            .raw(ns::STREAM_ERRORS)
            .raw("'/>");
        if let Some(text) = &error.text {
            writer = writer
                .raw("<text xmlns='")
                .raw(ns::STREAM_ERRORS)
                .raw("' xml:lang='en'>")
                .text(text)
                .raw("</text>");
        }
        if let Some(application) = &error.application {
            writer = writer.raw(application);
        }
        writer = writer.raw("</stream:error>");
    }
    writer.raw("</stream:stream>").send(out);
}

/// `<limits/>` of XEP-0478, or nothing where nothing is limited.
pub(super) fn limits(limits: StreamLimits) -> String {
    let mut text = String::new();
    if let Some(bytes) = limits.max_bytes {
        text.push_str(&format!("<max-bytes>{bytes}</max-bytes>"));
    }
    if let Some(seconds) = limits.idle_seconds {
        text.push_str(&format!("<idle-seconds>{seconds}</idle-seconds>"));
    }
    if text.is_empty() {
        text
    } else {
        format!("<limits xmlns='{}'>{text}</limits>", ns::LIMITS)
    }
}
