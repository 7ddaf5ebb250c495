//! SDP as far as sessions of messages need it (RFC 4566, RFC 3264): which media there are, and what of text is read.

use thiserror::Error;

/// Its media type.
pub const DESCRIPTION_TYPE: &str = "application/sdp";

/// Most bytes of one.
const MAX_BYTES: usize = 16 * 1024;
/// Most media of one.
const MAX_MEDIA: usize = 16;
/// What is said for a port: no media goes there.
const PORT: u16 = 5_060;
/// What a user of XMPP reads: value of `accept-types`.
const READS: &str = "text/plain multipart/alternative application/im-iscomposing+xml";
/// Media of messages; the second as clients of 2005 name it.
const MESSAGES: [&str; 2] = ["message", "x-ms-message"];

/// How the other side hears that somebody is writing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TypingForm {
    /// `application/im-iscomposing+xml`, as any text.
    Composing,
    /// INFO with `<KeyboardActivity/>`.
    Activity,
}

/// What one side says of its media.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionDescription {
    media: Vec<MediaLine>,
}

/// A line `m=`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct MediaLine {
    name: Box<str>,
    protocol: Box<str>,
    formats: Box<str>,
    carries: MediaUse,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum MediaUse {
    Messages(TypingForm),
    /// Of another kind, or refused (port 0).
    None,
}

/// Why a description is not read. Texts name nothing that stands in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Error)]
pub enum DescriptionFault {
    #[error("a session description of more than {MAX_BYTES} bytes")]
    TooLarge,
    #[error("a session description that is not UTF-8")]
    NotUtf8,
    #[error("a session description of another version")]
    Version,
    #[error("a line of a session description that is none")]
    Line,
    #[error("a malformed media line")]
    Media,
    #[error("more than {MAX_MEDIA} media")]
    TooManyMedia,
}

impl SessionDescription {
    /// # Errors
    /// [`DescriptionFault`].
    pub fn read(bytes: &[u8]) -> Result<Self, DescriptionFault> {
        if bytes.len() > MAX_BYTES {
            return Err(DescriptionFault::TooLarge);
        }
        let text = std::str::from_utf8(bytes).map_err(|_| DescriptionFault::NotUtf8)?;
        let lines = text
            .split('\n')
            .map(|line| line.strip_suffix('\r').unwrap_or(line));
        let mut lines = lines.filter(|line| !line.is_empty());
        if lines.next() != Some("v=0") {
            return Err(DescriptionFault::Version);
        }
        let mut read = Self { media: Vec::new() };
        // What is said before the first media line is said of all.
        let mut of_all = TypingForm::Activity;
        for line in lines {
            let (kind, value) = kind_and_value(line)?;
            match kind {
                'm' if read.media.len() == MAX_MEDIA => return Err(DescriptionFault::TooManyMedia),
                'm' => read.media.push(MediaLine::read(value, of_all)?),
                'a' => {
                    let Some(types) = value.strip_prefix("accept-types:") else {
                        continue;
                    };
                    let form = typing_form(types);
                    match read.media.last_mut().map(|media| &mut media.carries) {
                        None => of_all = form,
                        Some(MediaUse::Messages(own)) => *own = form,
                        Some(MediaUse::None) => {}
                    }
                }
                _ => {}
            }
        }
        Ok(read)
    }

    /// How typing is told where messages are carried; `None`: they are not.
    #[must_use]
    pub fn messages(&self) -> Option<TypingForm> {
        self.media.iter().find_map(|media| match media.carries {
            MediaUse::Messages(form) => Some(form),
            MediaUse::None => None,
        })
    }

    /// What is answered to this offer by the user at `uri`, on behalf of `host`: the first media of messages is taken,
    /// all others are refused (RFC 3264 section 6). `None` where there are no messages in it.
    #[must_use]
    pub fn answer(&self, host: &str, uri: &str) -> Option<String> {
        let taken = self
            .media
            .iter()
            .position(|media| media.carries != MediaUse::None)?;
        let mut text = head(host);
        for (at, media) in self.media.iter().enumerate() {
            let MediaLine {
                name,
                protocol,
                formats,
                ..
            } = media;
            if at == taken {
                text += &format!("m={name} {PORT} sip {uri}\r\na=accept-types:{READS}\r\n");
            } else {
                text += &format!("m={name} 0 {protocol} {formats}\r\n");
            }
        }
        Some(text)
    }
}

impl MediaLine {
    /// `message 5060 sip null`.
    fn read(value: &str, typing: TypingForm) -> Result<Self, DescriptionFault> {
        let mut parts = value.splitn(4, ' ');
        let mut next = || {
            let part = parts.next().filter(|part| !part.is_empty());
            part.ok_or(DescriptionFault::Media)
        };
        let (name, port, protocol, formats) = (next()?, next()?, next()?, next()?);
        // `port/count` for several in a row.
        let port = port.split('/').next().unwrap_or_default();
        let digits = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
        let port = port.parse::<u16>().ok().filter(|_| digits);
        let port = port.ok_or(DescriptionFault::Media)?;
        let is_messages = MESSAGES
            .iter()
            .any(|known| name.eq_ignore_ascii_case(known))
            && protocol.eq_ignore_ascii_case("sip");
        Ok(Self {
            name: name.into(),
            protocol: protocol.into(),
            formats: formats.into(),
            carries: if is_messages && port != 0 {
                MediaUse::Messages(typing)
            } else {
                MediaUse::None
            },
        })
    }
}

/// The offer of a user of XMPP, on behalf of `host`.
#[must_use]
pub fn offer(host: &str) -> String {
    let head = head(host);
    format!("{head}m=message {PORT} sip null\r\na=accept-types:{READS}\r\n")
}

fn head(host: &str) -> String {
    format!("v=0\r\no=- 0 0 IN IP4 {host}\r\ns=session\r\nc=IN IP4 {host}\r\nt=0 0\r\n")
}

fn kind_and_value(line: &str) -> Result<(char, &str), DescriptionFault> {
    if line.chars().any(|c| c.is_control() && c != '\t') {
        return Err(DescriptionFault::Line);
    }
    let (kind, value) = line.split_once('=').ok_or(DescriptionFault::Line)?;
    let mut kinds = kind.chars();
    match (kinds.next(), kinds.next()) {
        (Some(kind), None) if kind.is_ascii_alphabetic() => Ok((kind, value)),
        _ => Err(DescriptionFault::Line),
    }
}

fn typing_form(types: &str) -> TypingForm {
    let mut types = types.split_ascii_whitespace();
    let takes = |it: &str| it == "*" || it.eq_ignore_ascii_case("application/im-iscomposing+xml");
    if types.any(takes) {
        TypingForm::Composing
    } else {
        TypingForm::Activity
    }
}
