//! Text of a charset as XMPP can carry it.

use super::BodyFault;
use crate::xml::text::is_xml_char;

/// The text of these bytes; without a charset they are UTF-8 (RFC 3261 section 7.4.1).
pub(super) fn decode(charset: Option<&str>, bytes: &[u8]) -> Result<String, BodyFault> {
    let charset = charset.unwrap_or("utf-8").to_ascii_lowercase();
    let text = match charset.as_str() {
        "utf-8" | "utf8" => std::str::from_utf8(bytes)
            .map_err(|_| BodyFault::Charset)?
            .to_owned(),
        "us-ascii" | "ascii" if bytes.is_ascii() => bytes.iter().copied().map(char::from).collect(),
        "us-ascii" | "ascii" => return Err(BodyFault::Charset),
        // The first 256 characters of Unicode.
        "iso-8859-1" | "latin1" => bytes.iter().copied().map(char::from).collect(),
        _ => return Err(BodyFault::Unsupported),
    };
    Ok(as_xml_carries(&text))
}

/// CRLF is LF; what XML forbids, and a carriage return alone, is U+FFFD.
fn as_xml_carries(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        match c {
            '\r' if rest.peek() == Some(&'\n') => {}
            '\r' => out.push('\u{fffd}'),
            c if is_xml_char(c) => out.push(c),
            _ => out.push('\u{fffd}'),
        }
    }
    out
}
