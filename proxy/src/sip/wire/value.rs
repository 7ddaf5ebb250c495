//! What header fields' values are made of (RFC 3261 section 25.1).

use thiserror::Error;

use crate::sip::address::MAX_PARAMETERS;

/// Why a value cannot be read. Texts name nothing that the peer sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Error)]
pub enum ValueFault {
    #[error("it is empty")]
    Empty,
    #[error("a quoted string does not end")]
    Unquoted,
    #[error("an address in angle brackets does not end, or does not begin")]
    Bracket,
    #[error("a character that may not stand there")]
    Character,
    #[error("a parameter is malformed")]
    Parameter,
    #[error("a parameter is given twice")]
    TwoParameters,
    #[error("more than {MAX_PARAMETERS} parameters")]
    TooManyParameters,
    #[error("not a number in its bounds")]
    Number,
    #[error("more values than one")]
    Several,
}

/// Characters of `token`.
#[must_use]
pub(super) fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty()
        && bytes.iter().all(|byte| {
            byte.is_ascii_alphanumeric()
                || matches!(
                    byte,
                    b'-' | b'.' | b'!' | b'%' | b'*' | b'_' | b'+' | b'`' | b'\'' | b'~'
                )
        })
}

/// The parts of a value between `separator`s that stand neither in quotes nor in angle brackets, without
/// white space around them. Empty ones are left out: a list may have them (RFC 4475 section 3.1.2.1 may
/// be refused, and is read).
///
/// # Errors
/// [`ValueFault::Unquoted`], [`ValueFault::Bracket`].
pub fn split_list(value: &str, separator: char) -> Result<Vec<&str>, ValueFault> {
    let mut parts = Vec::new();
    let mut from = 0;
    let mut within = Within::Plain;
    for (at, c) in value.char_indices() {
        within = match (within, c) {
            (Within::Plain, '"') => Within::Quotes,
            (Within::Plain, '<') => Within::Brackets,
            (Within::Plain, '>') | (Within::Brackets, '<') => return Err(ValueFault::Bracket),
            (Within::Plain, c) if c == separator => {
                parts.push(&value[from..at]);
                from = at + c.len_utf8();
                Within::Plain
            }
            (Within::Quotes, '\\') => Within::Escape,
            (Within::Quotes, '"') | (Within::Brackets, '>') => Within::Plain,
            (Within::Escape, _) => Within::Quotes,
            (within, _) => within,
        };
    }
    match within {
        Within::Plain => {}
        Within::Quotes | Within::Escape => return Err(ValueFault::Unquoted),
        Within::Brackets => return Err(ValueFault::Bracket),
    }
    parts.push(&value[from..]);
    let parts = parts.into_iter().map(|part| part.trim_matches(BLANK));
    Ok(parts.filter(|part| !part.is_empty()).collect())
}

/// White space as it is once lines are unfolded.
const BLANK: [char; 2] = [' ', '\t'];

#[derive(Clone, Copy)]
enum Within {
    Plain,
    Quotes,
    Escape,
    Brackets,
}

/// Parameters behind a value: `;name=value;flag`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeaderParameters(Vec<(String, Option<String>)>);

impl HeaderParameters {
    /// Of what [`split_list`] found between semicolons.
    pub(super) fn read(parts: &[&str]) -> Result<Self, ValueFault> {
        if parts.len() > MAX_PARAMETERS {
            return Err(ValueFault::TooManyParameters);
        }
        let mut read = Self::default();
        for part in parts {
            let (name, value) = match part.split_once('=') {
                Some((name, value)) => (
                    name.trim_end_matches(BLANK),
                    Some(value.trim_start_matches(BLANK)),
                ),
                None => (*part, None),
            };
            if !is_token(name.as_bytes()) {
                return Err(ValueFault::Parameter);
            }
            if read
                .0
                .iter()
                .any(|(known, _)| known.eq_ignore_ascii_case(name))
            {
                return Err(ValueFault::TwoParameters);
            }
            let value = value.map(parameter_value).transpose()?;
            read.0.push((name.to_owned(), value));
        }
        Ok(read)
    }

    /// As [`Self::get`], of one that has to be a token, and is written as it came.
    ///
    /// # Errors
    /// [`ValueFault::Parameter`].
    pub fn token(&self, name: &str) -> Result<Option<&str>, ValueFault> {
        match self.get(name) {
            Some(value) if !value.is_empty() && !is_token(value.as_bytes()) => {
                Err(ValueFault::Parameter)
            }
            value => Ok(value),
        }
    }

    /// The value of the parameter of that name, its quotes resolved; empty where it has none.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        let found = self
            .0
            .iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_deref().unwrap_or_default())
    }
}

/// A token, a host, or a quoted string.
fn parameter_value(text: &str) -> Result<String, ValueFault> {
    if let Some(inner) = text.strip_prefix('"') {
        return unquoted(inner);
    }
    let is_host = |byte: u8| matches!(byte, b'[' | b']' | b':');
    let plain = text.bytes().all(|byte| is_token(&[byte]) || is_host(byte));
    if text.is_empty() || !plain {
        return Err(ValueFault::Parameter);
    }
    Ok(text.to_owned())
}

/// What stands before the closing quote, which ends the text.
fn unquoted(inner: &str) -> Result<String, ValueFault> {
    let mut out = String::with_capacity(inner.len());
    let mut rest = inner.chars();
    loop {
        match rest.next().ok_or(ValueFault::Unquoted)? {
            '"' if rest.as_str().is_empty() => return Ok(out),
            '"' => return Err(ValueFault::Parameter),
            '\\' => out.push(rest.next().ok_or(ValueFault::Unquoted)?),
            c => out.push(c),
        }
    }
}

/// `text` as a quoted string. Control characters become spaces: a header field has none.
#[must_use]
pub fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        if matches!(c, '"' | '\\') {
            out.push('\\');
        }
        out.push(if c.is_control() { ' ' } else { c });
    }
    out.push('"');
    out
}

/// A value of one word and its parameters: Event, Subscription-State, Content-Type, one of Accept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parameterised {
    /// In lower case: it is compared without (RFC 3261 section 7.3.1).
    pub value: String,
    pub parameters: HeaderParameters,
}

impl Parameterised {
    /// # Errors
    /// [`ValueFault`].
    pub fn read(text: &str) -> Result<Self, ValueFault> {
        let parts = split_list(text, ';')?;
        let (value, parameters) = parts.split_first().ok_or(ValueFault::Empty)?;
        // White space may stand around the slash of a media type.
        let value: String = value
            .split('/')
            .map(|it| it.trim_matches(BLANK))
            .collect::<Vec<_>>()
            .join("/");
        if !value.split('/').all(|it| is_token(it.as_bytes())) {
            return Err(ValueFault::Character);
        }
        Ok(Self {
            value: value.to_ascii_lowercase(),
            parameters: HeaderParameters::read(parameters)?,
        })
    }
}

/// A number of at most `most`, with digits alone.
pub(super) fn number(text: &str, most: u32) -> Result<u32, ValueFault> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(ValueFault::Number);
    }
    let number = text.parse().map_err(|_| ValueFault::Number)?;
    if number > most {
        return Err(ValueFault::Number);
    }
    Ok(number)
}
