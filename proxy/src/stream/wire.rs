//! What the machine reads and writes on the wire: names, and the elements of negotiation.

use super::{Output, StreamError, StreamLimits};

pub(super) mod ns {
    pub const SERVER: &str = "jabber:server";
    pub const STREAM: &str = "http://etherx.jabber.org/streams";
    pub const STREAM_ERRORS: &str = "urn:ietf:params:xml:ns:xmpp-streams";
    pub const STANZA_ERRORS: &str = "urn:ietf:params:xml:ns:xmpp-stanzas";
    pub const TLS: &str = "urn:ietf:params:xml:ns:xmpp-tls";
    pub const SASL: &str = "urn:ietf:params:xml:ns:xmpp-sasl";
    pub const DIALBACK: &str = "jabber:server:dialback";
    pub const DIALBACK_FEATURE: &str = "urn:xmpp:features:dialback";
    pub const BIDI: &str = "urn:xmpp:bidi";
    pub const BIDI_FEATURE: &str = "urn:xmpp:features:bidi";
    pub const LIMITS: &str = "urn:xmpp:stream-limits:0";
    pub const COMPRESS: &str = "http://jabber.org/protocol/compress";
}

/// A stream header as the peer sent it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StreamHeader {
    pub from: Option<String>,
    pub to: Option<String>,
    pub id: Option<String>,
    pub version: Option<String>,
    /// The default namespace.
    pub content_namespace: Option<String>,
    /// Whether `jabber:server:dialback` is declared.
    pub declares_dialback: bool,
}

/// A complete element: namespaces resolved, references too.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Element {
    pub namespace: String,
    pub name: String,
    pub attributes: Vec<(String, String)>,
    pub children: Vec<Element>,
    pub text: String,
}

impl Element {
    pub fn is(&self, name: &str, namespace: &str) -> bool {
        self.name == name && self.namespace == namespace
    }
    pub fn attribute(&self, name: &str) -> Option<&str> {
        self.attributes
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }
    pub fn child(&self, name: &str, namespace: &str) -> Option<&Element> {
        self.children.iter().find(|child| child.is(name, namespace))
    }
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
    pub fn new() -> Self {
        Self::default()
    }

    /// Markup of our own, as it is.
    pub fn raw(mut self, markup: &str) -> Self {
        self.0.push_str(markup);
        self
    }

    pub fn text(mut self, text: &str) -> Self {
        escape(text, &mut self.0);
        self
    }

    /// ` name='value'`, or nothing.
    pub fn attribute(mut self, name: &str, value: Option<&str>) -> Self {
        if let Some(value) = value {
            self.0.push(' ');
            self.0.push_str(name);
            self.0.push_str("='");
            escape(value, &mut self.0);
            self.0.push('\'');
        }
        self
    }

    pub fn send(self, out: &mut Vec<Output>) {
        out.push(Output::Send(self.0.into_bytes()));
    }
}

/// Our stream header.
pub(super) struct OwnHeader<'a> {
    pub from: Option<&'a str>,
    pub to: Option<&'a str>,
    pub id: Option<&'a str>,
    /// Left out towards a peer older than 1.0 (RFC 6120 section 4.7.5).
    pub version: bool,
}

impl OwnHeader<'_> {
    pub fn send(&self, out: &mut Vec<Output>) {
        Writer::new()
            .raw("<?xml version='1.0'?><stream:stream xmlns='jabber:server' xmlns:stream='")
            .raw(ns::STREAM)
            .raw("' xmlns:db='")
            .raw(ns::DIALBACK)
            .raw("' xml:lang='en'")
            .attribute("id", self.id)
            .attribute("from", self.from)
            .attribute("to", self.to)
            .attribute("version", self.version.then_some("1.0"))
            .raw(">")
            .send(out);
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
