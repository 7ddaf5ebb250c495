//! What the machine reads and writes on the wire: names, and the elements of negotiation.

use crate::xml::Element;

use super::{Fault, Output, StreamError, StreamLimits};

/// Namespaces of negotiation, beside those that the grammar itself knows.
pub(crate) mod ns {
    pub(crate) use crate::xml::ns::{DIALBACK, SERVER, STANZA_ERRORS, STREAM, STREAM_ERRORS};

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

/// Conditions of RFC 6120 sections 4.9.3 and 6.5: known by their names where the namespace is missing.
const CONDITIONS: [&str; 35] = [
    "bad-format",
    "bad-namespace-prefix",
    "conflict",
    "connection-timeout",
    "host-gone",
    "host-unknown",
    "improper-addressing",
    "internal-server-error",
    "invalid-from",
    "invalid-namespace",
    "invalid-xml",
    "not-authorized",
    "not-well-formed",
    "policy-violation",
    "remote-connection-failed",
    "reset",
    "resource-constraint",
    "restricted-xml",
    "see-other-host",
    "system-shutdown",
    "undefined-condition",
    "unsupported-encoding",
    "unsupported-feature",
    "unsupported-stanza-type",
    "unsupported-version",
    "aborted",
    "account-disabled",
    "credentials-expired",
    "encryption-required",
    "incorrect-encoding",
    "invalid-authzid",
    "invalid-mechanism",
    "malformed-request",
    "mechanism-too-weak",
    "temporary-auth-failure",
];

/// The end that the peer's stream error is; `None` where the element is none.
pub(super) fn peer_error(element: &Element) -> Option<Fault> {
    let (condition, text) = stream_error(element)?;
    Some(Fault::PeerError { condition, text })
}

/// Condition and text of a stream error, which some peers write in the namespace of its conditions; `None`
/// where the element is none.
pub(crate) fn stream_error(element: &Element) -> Option<(String, String)> {
    let is_error = element.name == "error"
        && matches!(element.namespace.as_str(), ns::STREAM | ns::STREAM_ERRORS);
    is_error.then(|| condition_and_text(element, ns::STREAM_ERRORS))
}

/// The defined condition of an error, and what the peer says to it, cut to [`PEER_TEXT`]. Not every peer
/// writes the namespaces, and not every one puts its words into `<text/>`.
pub(super) fn condition_and_text(error: &Element, namespace: &str) -> (String, String) {
    let condition = error
        .children()
        .find(|child| child.namespace == namespace && child.name != "text")
        .or_else(|| {
            let mut children = error.children();
            children.find(|child| CONDITIONS.contains(&child.name.as_str()))
        });
    let text = error
        .child(namespace, "text")
        .or_else(|| error.children().find(|child| child.name == "text"));
    // The address of `<see-other-host/>` stands in the condition itself.
    let words = [text, condition, Some(error)]
        .into_iter()
        .flatten()
        .map(Element::text)
        .find(|words| !words.trim().is_empty())
        .unwrap_or_default();
    (
        condition
            .map_or("undefined-condition", |child| child.name.as_str())
            .to_owned(),
        words.trim().chars().take(PEER_TEXT).collect(),
    )
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::negotiation::tests::element;

    #[test]
    fn a_stream_error_is_read_however_a_peer_writes_its_condition_and_text() {
        const STREAMS: &str = "xmlns='urn:ietf:params:xml:ns:xmpp-streams'";
        for (markup, condition, text) in [
            (
                format!("<reset {STREAMS}/><text {STREAMS}>by hand</text>"),
                "reset",
                "by hand",
            ),
            // Without any namespace.
            ("<host-unknown/>".to_owned(), "host-unknown", ""),
            (
                "<text>who are you</text><host-unknown/>".to_owned(),
                "host-unknown",
                "who are you",
            ),
            // The namespace counts where there is one, and a name that is no condition is none.
            (format!("<reset/><conflict {STREAMS}/>"), "conflict", ""),
            (
                "<detail xmlns='urn:x'>7</detail><why/>".to_owned(),
                "undefined-condition",
                "",
            ),
            (
                format!("<reset {STREAMS}/><text>of another namespace</text>"),
                "reset",
                "of another namespace",
            ),
            (
                format!("<see-other-host {STREAMS}>[2001:db8::1]:5299</see-other-host>"),
                "see-other-host",
                "[2001:db8::1]:5299",
            ),
            (
                format!("<see-other-host {STREAMS}>b.example</see-other-host><text {STREAMS}/>"),
                "see-other-host",
                "b.example",
            ),
            (
                "Disconnected".to_owned(),
                "undefined-condition",
                "Disconnected",
            ),
            (format!("\n  <reset {STREAMS}/>\n"), "reset", ""),
        ] {
            let error = element(&format!("<stream:error>{markup}</stream:error>"));
            let expected = Some((condition.to_owned(), text.to_owned()));
            assert_eq!(stream_error(&error), expected, "{markup}");
        }
        let long = element(&format!(
            "<stream:error>{}</stream:error>",
            "\u{e9}".repeat(2_000)
        ));
        let kept = stream_error(&long).map(|(_, text)| text.chars().count());
        assert_eq!(kept, Some(300));
        // The namespace of the conditions, for the error itself.
        let odd = element(&format!("<error {STREAMS}><invalid-namespace/></error>"));
        let expected = Some(("invalid-namespace".to_owned(), String::new()));
        assert_eq!(stream_error(&odd), expected);
        for other in ["<stream:features/>", "<error/>", "<error xmlns='urn:x'/>"] {
            assert_eq!(stream_error(&element(other)), None, "{other}");
        }
    }
}
