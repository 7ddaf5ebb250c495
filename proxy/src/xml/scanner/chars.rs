//! What single bytes and characters may be. Every function here looks at the bytes it is given and
//! says whether they are right, wrong, or not enough to tell.

use wide::i8x16;

use super::XmlError;

pub(super) const LT: u8 = 1;
pub(super) const AMP: u8 = 2;
pub(super) const BRACKET: u8 = 4;
pub(super) const APOSTROPHE: u8 = 8;
pub(super) const QUOTE: u8 = 16;
pub(super) const SPACE: u8 = 32;
pub(super) const CONTROL: u8 = 64;
pub(super) const HIGH: u8 = 128;

/// What stops a run of plain characters, by context: nothing else needs a second look.
#[derive(Clone, Copy)]
pub(super) struct Stops {
    classes: u8,
    /// The same beside controls and what is beyond ASCII, to compare many bytes at once.
    needles: [u8; 3],
}

pub(super) const STOPS_TEXT: Stops = Stops {
    classes: LT | AMP | BRACKET | CONTROL | HIGH,
    needles: *b"<&]",
};
pub(super) const STOPS_SECTION: Stops = Stops {
    classes: BRACKET | CONTROL | HIGH,
    needles: *b"]]]",
};

/// What stops a run inside an attribute value in quotes of this kind. Blanks do not: only the white
/// space that normalisation changes does.
pub(super) fn stops_value(quote: u8) -> Stops {
    Stops {
        classes: LT
            | AMP
            | SPACE
            | CONTROL
            | HIGH
            | if quote == b'\'' { APOSTROPHE } else { QUOTE },
        needles: [b'<', b'&', quote],
    }
}

const CLASSES: [u8; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = match byte as u8 {
            b'<' => LT,
            b'&' => AMP,
            b']' => BRACKET,
            b'\'' => APOSTROPHE,
            b'"' => QUOTE,
            b'\t' | b'\n' | b'\r' => SPACE,
            0..b' ' => CONTROL,
            0x80.. => HIGH,
            _ => 0,
        };
        byte += 1;
    }
    table
};

const NAME_START: u8 = 1;
const NAME: u8 = 2;

/// Names are ASCII here. XML's fourth and fifth editions, and with them the parsers in use, disagree
/// on which other letters a name may have: such names are no common ground.
const NAMES: [u8; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = match byte as u8 {
            b'a'..=b'z' | b'A'..=b'Z' | b'_' => NAME_START | NAME,
            b'0'..=b'9' | b'-' | b'.' => NAME,
            _ => 0,
        };
        byte += 1;
    }
    table
};

pub(super) fn starts_name(byte: u8) -> bool {
    NAMES[byte as usize] & NAME_START != 0
}

pub(super) fn continues_name(byte: u8) -> bool {
    NAMES[byte as usize] & NAME != 0
}

pub(super) fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}

/// Bytes that are looked at together.
const STRIDE: usize = 16;

/// Bit n: the nth byte is a control, beyond ASCII or one of the needles.
#[inline]
fn special(bytes: [u8; STRIDE], needles: [u8; 3]) -> u32 {
    let bytes = i8x16::new(bytes.map(u8::cast_signed));
    let is = |needle: u8| bytes.simd_eq(i8x16::splat(needle.cast_signed()));
    // With a sign, what is beyond ASCII comes before the controls.
    let stops = bytes.simd_lt(i8x16::splat(b' '.cast_signed()))
        | is(needles[0])
        | is(needles[1])
        | is(needles[2]);
    stops.to_bitmask()
}

/// Position of the first byte from `at` on that stops the run; the end if none does.
#[inline]
pub(super) fn skip_plain(bytes: &[u8], mut at: usize, stops: Stops) -> usize {
    while let Some(chunk) = bytes.get(at..).and_then(|rest| rest.first_chunk()) {
        let special = special(*chunk, stops.needles);
        if special == 0 {
            at += STRIDE;
            continue;
        }
        at += special.trailing_zeros() as usize;
        if CLASSES[bytes[at] as usize] & stops.classes != 0 {
            return at;
        }
        // White space that is plain here.
        at += 1;
    }
    let stop = bytes[at..]
        .iter()
        .position(|&byte| CLASSES[byte as usize] & stops.classes != 0);
    stop.map_or(bytes.len(), |run| at + run)
}

/// Length of the name that `bytes` begin with, a name character, and of its prefix (0 for none); it
/// ends at a second colon or after `most` bytes at the latest.
#[inline]
pub(super) fn plain_name(bytes: &[u8], most: usize) -> (usize, u16) {
    let mut prefix = 0;
    for (at, &byte) in bytes.iter().enumerate().take(most) {
        if continues_name(byte) {
            continue;
        }
        let starts_local = bytes.get(at + 1).is_some_and(|&next| starts_name(next));
        if byte == b':' && prefix == 0 && starts_local {
            prefix = at as u16;
            continue;
        }
        return (at, prefix);
    }
    (bytes.len().min(most), prefix)
}

/// Where the characters beyond ASCII that begin at `at` end; `None` while the first is cut off.
#[inline]
pub(super) fn wide_run(bytes: &[u8], at: usize) -> Result<Option<usize>, XmlError> {
    let mut end = at;
    loop {
        match bytes[end..] {
            // Most of the letters of Europe and the Near East.
            [0xc2..=0xdf, 0x80..=0xbf, ..] => end += 2,
            [0x80..=0xff, ..] => match wide_character(bytes, end)? {
                Some(len) => end += len,
                None if end == at => return Ok(None),
                None => return Ok(Some(end)),
            },
            _ => return Ok(Some(end)),
        }
    }
}

/// Length of the character beyond ASCII at `at`, checked as UTF-8 and as XML's `Char`; `None` while
/// it is cut off but right so far.
fn wide_character(bytes: &[u8], at: usize) -> Result<Option<usize>, XmlError> {
    let (len, second) = match bytes[at] {
        0xc2..=0xdf => (2, 0x80..=0xbf),
        0xe0 => (3, 0xa0..=0xbf),
        0xed => (3, 0x80..=0x9f),
        0xe1..=0xef => (3, 0x80..=0xbf),
        0xf0 => (4, 0x90..=0xbf),
        0xf1..=0xf3 => (4, 0x80..=0xbf),
        0xf4 => (4, 0x80..=0x8f),
        _ => return Err(XmlError::NotUtf8),
    };
    let found = &bytes[at..bytes.len().min(at + len)];
    if found.get(1).is_some_and(|byte| !second.contains(byte))
        || found
            .iter()
            .skip(2)
            .any(|byte| !(0x80..=0xbf).contains(byte))
    {
        return Err(XmlError::NotUtf8);
    }
    match found {
        [0xef, 0xbf, 0xbe | 0xbf] => Err(XmlError::ForbiddenCharacter),
        _ if found.len() < len => Ok(None),
        _ => Ok(Some(len)),
    }
}

/// Longest reference taken, in bytes. None that means anything is longer.
const REFERENCE_BYTES: usize = 16;

/// Length of the reference at `at` (where the `&` is); `None` while it is cut off.
pub(super) fn reference(bytes: &[u8], at: usize) -> Result<Option<usize>, XmlError> {
    let found = &bytes[at..bytes.len().min(at + REFERENCE_BYTES)];
    let body = &found[1..];
    let end = body.iter().position(|&byte| byte == b';');
    let known = &body[..end.unwrap_or(body.len())];
    let number = known.first() == Some(&b'#');
    let fits = match known {
        [b'#', b'x', digits @ ..] => digits.iter().all(u8::is_ascii_hexdigit),
        [b'#', digits @ ..] => digits.iter().all(u8::is_ascii_digit),
        [] => true,
        [first, rest @ ..] => starts_name(*first) && rest.iter().all(|&b| continues_name(b)),
    };
    if !fits {
        return Err(XmlError::Reference);
    }
    match end {
        Some(_) if number => character_reference(&known[1..])?,
        Some(0) => return Err(XmlError::Reference),
        Some(_) => {
            if !matches!(known, b"amp" | b"lt" | b"gt" | b"quot" | b"apos") {
                return Err(XmlError::EntityReference);
            }
        }
        None if found.len() < REFERENCE_BYTES => return Ok(None),
        None if number => return Err(XmlError::Reference),
        None => return Err(XmlError::EntityReference),
    }
    Ok(end.map(|end| end + 2))
}

fn character_reference(number: &[u8]) -> Result<(), XmlError> {
    let (digits, radix) = match number {
        [b'x', digits @ ..] => (digits, 16),
        digits => (digits, 10),
    };
    let code = std::str::from_utf8(digits)
        .ok()
        .and_then(|digits| u32::from_str_radix(digits, radix).ok())
        .ok_or(XmlError::Reference)?;
    match char::from_u32(code) {
        Some(character) if crate::xml::text::is_xml_char(character) => Ok(()),
        _ => Err(XmlError::ForbiddenCharacter),
    }
}
