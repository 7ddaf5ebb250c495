//! Entities within a body: header fields, an empty line, content (RFC 2045, 2046).

use memchr::memmem;

use super::BodyFault;
use crate::sip::wire::Parameterised;

/// Most header fields of one entity.
const MAX_FIELDS: usize = 32;
/// Most bytes of all of them.
const MAX_FIELD_BYTES: usize = 8 * 1024;
/// Most parts of a multipart.
const MAX_PARTS: usize = 16;
/// Most bytes of a boundary (RFC 2046 section 5.1.1).
const MAX_BOUNDARY_BYTES: usize = 70;

/// Content, and what it says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct MimeEntity<'a> {
    /// `None`: it does not say, and is `text/plain` (RFC 2045 section 5.2).
    pub(super) media: Option<Parameterised>,
    /// Content-Transfer-Encoding, in lower case.
    pub(super) encoding: Option<String>,
    pub(super) content: &'a [u8],
}

impl<'a> MimeEntity<'a> {
    pub(super) fn read(bytes: &'a [u8]) -> Result<Self, BodyFault> {
        let (fields, content) = split_fields(bytes)?;
        let mut entity = Self {
            media: None,
            encoding: None,
            content,
        };
        for (name, value) in fields {
            if name.eq_ignore_ascii_case("Content-Type") {
                if entity.media.is_some() {
                    return Err(BodyFault::Wrapper);
                }
                entity.media = Some(Parameterised::read(&value).map_err(BodyFault::Type)?);
            } else if name.eq_ignore_ascii_case("Content-Transfer-Encoding") {
                entity.encoding = Some(value.to_ascii_lowercase());
            }
        }
        Ok(entity)
    }

    pub(super) fn media_type(&self) -> &str {
        self.media
            .as_ref()
            .map_or("text/plain", |media| media.value.as_str())
    }

    /// Whether the content stands there as it is meant: SIP is binary and needs no other encoding.
    pub(super) fn is_as_it_is(&self) -> bool {
        matches!(
            self.encoding.as_deref(),
            None | Some("7bit" | "8bit" | "binary")
        )
    }
}

/// Names and values of header fields, in their order.
type MimeFields = Vec<(String, String)>;

/// The fields up to the empty line, unfolded, and what is behind it.
pub(super) fn split_fields(bytes: &[u8]) -> Result<(MimeFields, &[u8]), BodyFault> {
    // None at all: the empty line comes first.
    if let Some(content) = bytes.strip_prefix(b"\r\n") {
        return Ok((Vec::new(), content));
    }
    let head = &bytes[..bytes.len().min(MAX_FIELD_BYTES)];
    let end = memmem::find(head, b"\r\n\r\n").ok_or(BodyFault::Wrapper)?;
    let text = std::str::from_utf8(&bytes[..end]).map_err(|_| BodyFault::Wrapper)?;
    let mut fields = MimeFields::new();
    for line in text.split("\r\n") {
        if line.chars().any(|c| c.is_control() && c != '\t') {
            return Err(BodyFault::Wrapper);
        }
        if line.starts_with([' ', '\t']) {
            let (_, value) = fields.last_mut().ok_or(BodyFault::Wrapper)?;
            value.push(' ');
            value.push_str(line.trim());
            continue;
        }
        let (name, value) = line.split_once(':').ok_or(BodyFault::Wrapper)?;
        if fields.len() == MAX_FIELDS || name.is_empty() || name.contains([' ', '\t']) {
            return Err(BodyFault::Wrapper);
        }
        fields.push((name.to_owned(), value.trim().to_owned()));
    }
    Ok((fields, &bytes[end + 4..]))
}

/// The parts of a multipart (RFC 2046 section 5.1.1). What stands before the first and behind the last
/// means nothing.
pub(super) fn parts<'a>(body: &'a [u8], boundary: &str) -> Result<Vec<MimeEntity<'a>>, BodyFault> {
    if boundary.is_empty() || boundary.len() > MAX_BOUNDARY_BYTES {
        return Err(BodyFault::Wrapper);
    }
    let delimiter = format!("--{boundary}");
    let mut parts = Vec::new();
    // Where the part begins that is open.
    let mut open = None;
    let mut at = 0;
    while let Some(found) = memmem::find(&body[at..], delimiter.as_bytes()) {
        let start = at + found;
        at = start + delimiter.len();
        let begins_line = start == 0 || body[..start].ends_with(b"\r\n");
        let rest = &body[at..];
        let (is_last, rest) = match rest.strip_prefix(b"--") {
            Some(rest) => (true, rest),
            None => (false, rest),
        };
        let blanks = rest
            .iter()
            .take_while(|byte| matches!(byte, b' ' | b'\t'))
            .count();
        let line_ends = rest[blanks..].starts_with(b"\r\n");
        if !begins_line || !(line_ends || is_last && rest.len() == blanks) {
            continue;
        }
        if let Some(from) = open {
            if parts.len() == MAX_PARTS {
                return Err(BodyFault::Wrapper);
            }
            // The CRLF before a delimiter is the delimiter's; a part of nothing has none.
            let end = start.saturating_sub(2).max(from);
            parts.push(MimeEntity::read(&body[from..end])?);
        }
        if is_last {
            return Ok(parts);
        }
        at = at + blanks + 2;
        open = Some(at);
    }
    Err(BodyFault::Wrapper)
}
