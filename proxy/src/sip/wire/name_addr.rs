//! An address with parameters, as From, To, Contact and Route have it.

use super::value::{HeaderParameters, ValueFault, split_list};

const TAG: &str = "tag";

/// `"Display" <uri>;parameters` (RFC 3261 section 20.10). Display names are read over: none is carried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameAddr {
    /// As it stands; without angle brackets.
    pub uri: String,
    pub parameters: HeaderParameters,
}

impl NameAddr {
    /// # Errors
    /// [`ValueFault`].
    pub fn read(text: &str) -> Result<Self, ValueFault> {
        let parts = split_list(text, ';')?;
        let (address, parameters) = parts.split_first().ok_or(ValueFault::Empty)?;
        let parameters = HeaderParameters::read(parameters)?;
        // What is in quotes could say more where it stands without them (RFC 3261 section 25.1).
        parameters.token(TAG)?;
        Ok(Self {
            uri: uri(address)?.to_owned(),
            parameters,
        })
    }

    /// Which side of a dialog it is (RFC 3261 section 19.3); `None`: of none yet.
    #[must_use]
    pub fn tag(&self) -> Option<&str> {
        self.parameters.get(TAG).filter(|tag| !tag.is_empty())
    }
}

/// What `address` leads to. [`split_list`] has matched quotes and brackets.
fn uri(address: &str) -> Result<&str, ValueFault> {
    let uri = match opening_bracket(address) {
        Some(at) => {
            // Who reads these as an address of their own would find another one.
            if has_separator(&address[..at]) {
                return Err(ValueFault::Character);
            }
            let inner = &address[at + 1..];
            inner.strip_suffix('>').ok_or(ValueFault::Bracket)?
        }
        // A comma, a question mark or a semicolon would want brackets (RFC 3261 section 20).
        None if address.contains([',', '?', '"']) => return Err(ValueFault::Character),
        None => address,
    };
    let odd = |c: char| c.is_whitespace() || c.is_control() || matches!(c, '<' | '>' | '"');
    match uri.trim_matches(' ') {
        "" => Err(ValueFault::Empty),
        trimmed if trimmed != uri || uri.contains(odd) => Err(ValueFault::Character),
        _ => Ok(uri),
    }
}

/// Where the bracket is that no quotes are around.
fn opening_bracket(address: &str) -> Option<usize> {
    outside_quotes(address).find_map(|(at, c)| (c == '<').then_some(at))
}

/// Whether a display name has what it may have in quotes alone.
fn has_separator(display: &str) -> bool {
    outside_quotes(display).any(|(_, c)| matches!(c, ',' | ':' | '@' | ';'))
}

fn outside_quotes(text: &str) -> impl Iterator<Item = (usize, char)> {
    let mut quoted = false;
    let mut escaped = false;
    text.char_indices().filter(move |(_, c)| {
        let was_quoted = quoted;
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            _ => {}
        }
        !was_quoted
    })
}
