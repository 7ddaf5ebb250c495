//! What a localpart may not hold, as it is escaped there (XEP-0106), and what a URI may not
//! (RFC 3261 section 25.1).

/// Characters that no localpart may have, each with the digits of its escape (XEP-0106 section 3).
const ESCAPES: [(char, &str); 10] = [
    (' ', "20"),
    ('"', "22"),
    ('&', "26"),
    ('\'', "27"),
    ('/', "2f"),
    (':', "3a"),
    ('<', "3c"),
    ('>', "3e"),
    ('@', "40"),
    ('\\', "5c"),
];

/// The character that an escape behind a backslash stands for, in either case: preparing a localpart
/// makes one of both.
fn escaped(digits: &str) -> Option<char> {
    let digits = digits.get(..2)?;
    let found = ESCAPES
        .iter()
        .find(|(_, known)| known.eq_ignore_ascii_case(digits));
    found.map(|(c, _)| *c)
}

/// How many escapes a reader finds.
pub(super) fn escapes(local: &str) -> usize {
    let mut count = 0;
    let mut rest = local;
    while let Some((_, behind)) = rest.split_once('\\') {
        let is_escape = escaped(behind).is_some();
        count += usize::from(is_escape);
        rest = if is_escape { &behind[2..] } else { behind };
    }
    count
}

/// `user` as a localpart can hold it: a backslash is escaped only where it would read as an escape.
pub(super) fn escape(user: &str) -> String {
    let mut out = String::with_capacity(user.len());
    for (at, c) in user.char_indices() {
        let digits = ESCAPES
            .iter()
            .find(|(of, _)| *of == c)
            .map(|(_, digits)| *digits);
        match digits {
            Some(digits) if c != '\\' || escaped(&user[at + 1..]).is_some() => {
                out.push('\\');
                out.push_str(digits);
            }
            _ => out.push(c),
        }
    }
    out
}

/// What a prepared localpart stands for.
pub(super) fn unescape(local: &str) -> String {
    let mut out = String::with_capacity(local.len());
    let mut rest = local;
    while let Some((before, behind)) = rest.split_once('\\') {
        out.push_str(before);
        if let Some(c) = escaped(behind) {
            out.push(c);
            rest = &behind[2..];
        } else {
            out.push('\\');
            rest = behind;
        }
    }
    out.push_str(rest);
    out
}

/// Appends `text` with each byte percent-encoded that `is_plain` does not know.
pub(super) fn percent_encode(text: &str, is_plain: impl Fn(u8) -> bool, out: &mut String) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    for byte in text.bytes() {
        if is_plain(byte) {
            out.push(char::from(byte));
        } else {
            out.push('%');
            out.push(char::from(DIGITS[usize::from(byte >> 4)]));
            out.push(char::from(DIGITS[usize::from(byte & 15)]));
        }
    }
}

/// The bytes that `text` stands for; `None` where a percent sign has no two digits behind it.
pub(super) fn percent_decode(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let mut digit = || char::from(rest.next()?).to_digit(16);
            let (high, low) = (digit()?, digit()?);
            out.push(u8::try_from(high * 16 + low).ok()?);
        } else {
            out.push(byte);
        }
    }
    Some(out)
}

/// Characters that the user part of a `sip:` URI has as they are: `unreserved` and `user-unreserved`.
pub(super) fn is_user_char(byte: u8) -> bool {
    is_unreserved(byte) || matches!(byte, b'&' | b'=' | b'+' | b'$' | b',' | b';' | b'?' | b'/')
}

/// Characters that a parameter of a `sip:` URI has as they are: `unreserved` and `param-unreserved`.
pub(super) fn is_parameter_char(byte: u8) -> bool {
    is_unreserved(byte) || matches!(byte, b'[' | b']' | b'/' | b':' | b'&' | b'+' | b'$')
}

fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(
            byte,
            b'-' | b'_' | b'.' | b'!' | b'~' | b'*' | b'\'' | b'(' | b')'
        )
}
