//! Bytes of an export to text. PowerShell writes UTF-16 with a byte order mark unless asked
//! otherwise; Export-Clixml of version 5 does too.

use std::borrow::Cow;

use super::LyncFault;

/// UTF-8, or UTF-16 of either byte order with its mark.
///
/// # Errors
/// [`LyncFault::Encoding`].
pub(super) fn decode(bytes: &[u8]) -> Result<Cow<'_, str>, LyncFault> {
    match bytes {
        [0xff, 0xfe, rest @ ..] => utf16(rest, u16::from_le_bytes).map(Cow::Owned),
        [0xfe, 0xff, rest @ ..] => utf16(rest, u16::from_be_bytes).map(Cow::Owned),
        _ => {
            let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
            let text = std::str::from_utf8(bytes).map_err(|_| LyncFault::Encoding)?;
            // UTF-16 without its mark is valid UTF-8 full of NUL.
            if text.contains('\0') {
                Err(LyncFault::Encoding)
            } else {
                Ok(Cow::Borrowed(text))
            }
        }
    }
}

fn utf16(bytes: &[u8], unit: fn([u8; 2]) -> u16) -> Result<String, LyncFault> {
    let (pairs, rest) = bytes.as_chunks::<2>();
    if !rest.is_empty() {
        return Err(LyncFault::Encoding);
    }
    char::decode_utf16(pairs.iter().copied().map(unit))
        .collect::<Result<String, _>>()
        .map_err(|_| LyncFault::Encoding)
}
