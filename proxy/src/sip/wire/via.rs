//! A hop that a request has behind it.

use super::value::{HeaderParameters, ValueFault, is_token, split_list};

/// What branches that are unique begin with (RFC 3261 section 8.1.1.7).
pub const MAGIC_COOKIE: &str = "z9hG4bK";

/// A value of Via (RFC 3261 section 20.42). It is given back as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Via {
    pub text: String,
    /// Which transaction of that hop's; older programs have none.
    pub branch: Option<String>,
}

impl Via {
    /// # Errors
    /// [`ValueFault`].
    pub fn read(text: &str) -> Result<Self, ValueFault> {
        let parts = split_list(text, ';')?;
        let (sent, parameters) = parts.split_first().ok_or(ValueFault::Empty)?;
        check_sent(sent)?;
        let parameters = HeaderParameters::read(parameters)?;
        // It says that it is unique, and is none (RFC 4475 section 3.2.1).
        if parameters.get("branch") == Some(MAGIC_COOKIE) {
            return Err(ValueFault::Parameter);
        }
        Ok(Self {
            text: text.to_owned(),
            branch: parameters
                .get("branch")
                .filter(|it| !it.is_empty())
                .map(str::to_owned),
        })
    }
}

/// `SIP / 2.0 / TLS host:port`: white space may stand around the slashes and the colon.
fn check_sent(text: &str) -> Result<(), ValueFault> {
    let mut parts = text.splitn(3, '/').map(str::trim);
    let mut next = || parts.next().ok_or(ValueFault::Character);
    let (name, version, rest) = (next()?, next()?, next()?);
    let (transport, by) = rest.split_once([' ', '\t']).ok_or(ValueFault::Character)?;
    if !name.eq_ignore_ascii_case("SIP") || version != "2.0" || !is_token(transport.as_bytes()) {
        return Err(ValueFault::Character);
    }
    let is_host = |byte: u8| {
        byte.is_ascii_alphanumeric()
            || matches!(byte, b'-' | b'.' | b'_' | b'[' | b']' | b':' | b' ' | b'\t')
    };
    let by = by.trim();
    if by.is_empty() || !by.bytes().all(is_host) {
        return Err(ValueFault::Character);
    }
    Ok(())
}
