//! A URI taken apart, as far as an address needs it (RFC 3261 section 19.1, RFC 3859, RFC 3860).

use thiserror::Error;

/// Most parameters of one URI: they are told apart by comparing each with each.
pub const MAX_PARAMETERS: usize = 32;

/// What a URI begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scheme {
    Sip,
    /// Promises TLS on each hop, which XMPP cannot (RFC 7247 section 8): 416 for a request to it.
    Sips,
    Im,
    Pres,
}

/// Why a text is no such URI. Texts name nothing that the peer sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Error)]
pub enum UriFault {
    /// 416, wherever it stands.
    #[error("a scheme other than sip, sips, im and pres")]
    Scheme,
    #[error("a character that no URI may have")]
    Character,
    #[error("more than one \"@\"")]
    SecondAt,
    #[error("no host, or one that no name is like")]
    Host,
    #[error("a port that is none")]
    Port,
    #[error("a parameter is given twice")]
    TwoParameters,
    #[error("more than {MAX_PARAMETERS} parameters")]
    TooManyParameters,
    /// They would become header fields of ours.
    #[error("header fields within a URI")]
    HeaderFields,
}

/// `scheme:user@host:port;parameters`, each part as it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SipUri {
    pub scheme: Scheme,
    /// With its password, if it has one; escapes as they are.
    pub user: Option<String>,
    pub host: String,
    pub port: Option<u16>,
    /// Names in lower case; of no value where they have none.
    parameters: Vec<(String, String)>,
}

impl SipUri {
    /// # Errors
    /// [`UriFault`].
    pub fn parse(text: &str) -> Result<Self, UriFault> {
        if !text.bytes().all(|byte| matches!(byte, b'!'..=b'~')) {
            return Err(UriFault::Character);
        }
        if text.contains(['<', '>', '"']) {
            return Err(UriFault::Character);
        }
        let (scheme, rest) = text.split_once(':').ok_or(UriFault::Scheme)?;
        let scheme = match scheme.to_ascii_lowercase().as_str() {
            "sip" => Scheme::Sip,
            "sips" => Scheme::Sips,
            "im" => Scheme::Im,
            "pres" => Scheme::Pres,
            _ => return Err(UriFault::Scheme),
        };
        let (user, rest) = match rest.split_once('@') {
            Some((user, rest)) => (Some(user.to_owned()), rest),
            None => (None, rest),
        };
        if rest.contains('@') {
            return Err(UriFault::SecondAt);
        }
        if rest.contains('?') {
            return Err(UriFault::HeaderFields);
        }
        let mut parts = rest.split(';');
        let (host, port) = host_and_port(parts.next().unwrap_or_default())?;
        let mut parameters: Vec<(String, String)> = Vec::new();
        for part in parts {
            if parameters.len() == MAX_PARAMETERS {
                return Err(UriFault::TooManyParameters);
            }
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            let name = name.to_ascii_lowercase();
            if parameters.iter().any(|(known, _)| *known == name) {
                return Err(UriFault::TwoParameters);
            }
            parameters.push((name, value.to_owned()));
        }
        Ok(Self {
            scheme,
            user,
            host: host.to_owned(),
            port,
            parameters,
        })
    }

    /// The value of a parameter, its escapes as they are; empty where it has none.
    #[must_use]
    pub fn parameter(&self, name: &str) -> Option<&str> {
        let found = self.parameters.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }
}

fn host_and_port(text: &str) -> Result<(&str, Option<u16>), UriFault> {
    let end = match text.strip_prefix('[') {
        Some(inner) => inner.find(']').ok_or(UriFault::Host)? + 2,
        None => text.find(':').unwrap_or(text.len()),
    };
    let (host, port) = text.split_at(end);
    if host.is_empty() || host.contains(['%', '/']) {
        return Err(UriFault::Host);
    }
    let port = match port.strip_prefix(':') {
        None if port.is_empty() => None,
        Some(digits) if !digits.is_empty() && digits.bytes().all(|it| it.is_ascii_digit()) => {
            Some(digits.parse().map_err(|_| UriFault::Port)?)
        }
        _ => return Err(UriFault::Port),
    };
    Ok((host, port))
}
