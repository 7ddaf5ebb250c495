//! User name and password for the egress proxy (RFC 1929).

use zeroize::Zeroizing;

/// Longest user name, and longest password, in octets (RFC 1929 section 2).
const MAX_OCTETS: usize = 255;

/// What the edge proves itself by to the egress proxy. Never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct EgressCredentials {
    username: Zeroizing<String>,
    password: Zeroizing<String>,
}

/// Why two texts are no credentials. Never quotes them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EgressCredentialsError {
    #[error("there is no {0}")]
    Missing(&'static str),
    #[error("{0} is empty")]
    Empty(&'static str),
    #[error("{part} has {octets} octets, SOCKS5 takes {MAX_OCTETS} at most (RFC 1929)")]
    TooLong { part: &'static str, octets: usize },
    #[error("{0} is no text (UTF-8)")]
    NoText(&'static str),
}

impl EgressCredentials {
    /// Takes what a Secret or a file holds; one line break at the end is not meant.
    ///
    /// # Errors
    /// [`EgressCredentialsError`].
    pub fn parse(
        username: Option<&[u8]>,
        password: Option<&[u8]>,
    ) -> Result<Self, EgressCredentialsError> {
        Ok(Self {
            username: part("username", username)?,
            password: part("password", password)?,
        })
    }

    #[must_use]
    pub fn username(&self) -> &str {
        &self.username
    }

    #[must_use]
    pub fn password(&self) -> &str {
        &self.password
    }
}

/// Nothing of it is shown.
impl std::fmt::Debug for EgressCredentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EgressCredentials").finish_non_exhaustive()
    }
}

fn part(
    name: &'static str,
    octets: Option<&[u8]>,
) -> Result<Zeroizing<String>, EgressCredentialsError> {
    let octets = octets.ok_or(EgressCredentialsError::Missing(name))?;
    let text = std::str::from_utf8(octets).map_err(|_| EgressCredentialsError::NoText(name))?;
    let text = text.strip_suffix('\n').unwrap_or(text);
    let text = text.strip_suffix('\r').unwrap_or(text);
    match text.len() {
        0 => Err(EgressCredentialsError::Empty(name)),
        octets if octets > MAX_OCTETS => {
            Err(EgressCredentialsError::TooLong { part: name, octets })
        }
        _ => Ok(Zeroizing::new(text.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s20_credentials_are_taken_as_people_have_them_or_named() {
        let long = vec![b'x'; 256];
        let read = |username: Option<&[u8]>, password: Option<&[u8]>| {
            EgressCredentials::parse(username, password)
                .map(|it| (it.username().to_owned(), it.password().to_owned()))
                .map_err(|error| error.to_string())
        };
        let given = |username: &str, password: &str| Ok((username.to_owned(), password.to_owned()));
        for (username, password, expected) in [
            (
                Some(&b"edge"[..]),
                Some(&b" p:w "[..]),
                given("edge", " p:w "),
            ),
            (Some(b"edge\n"), Some(b"pw\r\n"), given("edge", "pw")),
            (None, Some(b"pw"), Err("there is no username".to_owned())),
            (Some(b"edge"), None, Err("there is no password".to_owned())),
            (
                Some(b"edge"),
                Some(b"\n"),
                Err("password is empty".to_owned()),
            ),
            (
                Some(b"\xff"),
                Some(b"pw"),
                Err("username is no text (UTF-8)".to_owned()),
            ),
            (
                Some(b"edge"),
                Some(&long),
                Err("password has 256 octets, SOCKS5 takes 255 at most (RFC 1929)".to_owned()),
            ),
        ] {
            assert_eq!(read(username, password), expected);
        }
        let secret = EgressCredentials::parse(Some(b"edge"), Some(b"hunter2")).expect("both");
        assert!(!format!("{secret:?}").contains("hunter2"));
    }
}
