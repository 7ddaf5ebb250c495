//! From bytes to what they mean, and back: references, white space of attributes, escaping.
//!
//! Reading presumes that the scanner checked the bytes; what is broken stays as it is.

use std::borrow::Cow;

/// What an attribute's bytes mean: references resolved, white space normalised (XML 1.0 section
/// 3.3.3). Borrowed where nothing changes.
pub fn attribute_value(raw: &str) -> Cow<'_, str> {
    if !raw
        .bytes()
        .any(|b| matches!(b, b'&' | b'\t' | b'\n' | b'\r'))
    {
        return Cow::Borrowed(raw);
    }
    Cow::Owned(resolve(raw, true))
}

/// What the bytes of character data mean: references resolved, line ends as `\n`.
pub fn character_data(raw: &str) -> Cow<'_, str> {
    if !raw.bytes().any(|b| matches!(b, b'&' | b'\r')) {
        return Cow::Borrowed(raw);
    }
    Cow::Owned(resolve(raw, false))
}

fn resolve(raw: &str, attribute: bool) -> String {
    let mut out = String::with_capacity(raw.len());
    let mut rest = raw;
    while let Some(at) = rest.find(['&', '\t', '\n', '\r']) {
        out.push_str(&rest[..at]);
        let found = &rest[at..];
        let line_end = if attribute { ' ' } else { '\n' };
        let taken = match found.as_bytes()[0] {
            b'&' => match reference(found) {
                Some((character, len)) => {
                    out.push(character);
                    len
                }
                None => {
                    out.push('&');
                    1
                }
            },
            b'\r' => {
                out.push(line_end);
                if found.as_bytes().get(1) == Some(&b'\n') {
                    2
                } else {
                    1
                }
            }
            b'\n' => {
                out.push(line_end);
                1
            }
            _ => {
                out.push(if attribute { ' ' } else { '\t' });
                1
            }
        };
        rest = &found[taken..];
    }
    out.push_str(rest);
    out
}

/// The character and the length of the reference that `raw` begins with.
fn reference(raw: &str) -> Option<(char, usize)> {
    let end = raw.find(';')?;
    let name = raw.get(1..end)?;
    let character = match name {
        "amp" => '&',
        "lt" => '<',
        "gt" => '>',
        "quot" => '"',
        "apos" => '\'',
        _ => {
            let number = name.strip_prefix('#')?;
            let code = match number.strip_prefix('x') {
                Some(hex) => u32::from_str_radix(hex, 16).ok()?,
                None => number.parse().ok()?,
            };
            char::from_u32(code)?
        }
    };
    Some((character, end + 1))
}

/// XML 1.0 section 2.2, production `Char`.
pub fn is_xml_char(character: char) -> bool {
    match character {
        '\t' | '\n' | '\r' => true,
        '\u{fffe}' | '\u{ffff}' => false,
        other => other >= ' ',
    }
}

/// Appends `text` as character data. What XML cannot carry becomes U+FFFD.
pub fn escape_text(text: &str, out: &mut Vec<u8>) {
    escape(text, false, out);
}

/// Appends `value` so that it can stand in an attribute between quotes of either kind. White space
/// survives; what XML cannot carry becomes U+FFFD.
pub fn escape_attribute(value: &str, out: &mut Vec<u8>) {
    escape(value, true, out);
}

fn escape(text: &str, attribute: bool, out: &mut Vec<u8>) {
    let mut plain = 0;
    for (at, character) in text.char_indices() {
        let replacement: &[u8] = match character {
            '&' => b"&amp;",
            '<' => b"&lt;",
            '>' => b"&gt;",
            '\r' => b"&#13;",
            '\'' if attribute => b"&apos;",
            '"' if attribute => b"&quot;",
            '\n' if attribute => b"&#10;",
            '\t' if attribute => b"&#9;",
            other if is_xml_char(other) => continue,
            _ => "\u{fffd}".as_bytes(),
        };
        out.extend_from_slice(&text.as_bytes()[plain..at]);
        out.extend_from_slice(replacement);
        plain = at + character.len_utf8();
    }
    out.extend_from_slice(&text.as_bytes()[plain..]);
}
