//! The contacts' database as a Secret says it: `url` (or `uri`, as operators of PostgreSQL have it) and
//! perhaps `ca.crt`.

use std::fmt;

use xmpp_edge_crds::{
    pem::{self, AuthoritiesError},
    postgres::{ConnectionString, ConnectionStringError},
};
use zeroize::Zeroizing;

use super::store::{SecretData, text};

/// What the proxy is given.
#[derive(Clone, PartialEq, Eq)]
pub struct DatabaseSecret {
    /// As it stands in the Secret; it was read once.
    pub url: Zeroizing<String>,
    pub connection: ConnectionString,
    /// PEM; absent: the public authorities, where `sslmode` asks for any.
    pub ca: Option<String>,
}

/// The password is in it: where it leads is not shown.
impl fmt::Debug for DatabaseSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DatabaseSecret").finish_non_exhaustive()
    }
}

/// Why there is no database to be found. Never quotes the string.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DatabaseSecretError {
    #[error(
        "spec.contacts.postgres: there is no Secret {name:?} with key \"url\": create it, as postgres://user:password@host/database{}",
        if keys.is_empty() { String::new() } else { format!("; it has {}", keys.join(", ")) }
    )]
    Missing { name: String, keys: Vec<String> },
    #[error("spec.contacts.postgres: key {key:?} of Secret {name:?} {fault}")]
    Connection {
        name: String,
        key: &'static str,
        fault: ConnectionStringError,
    },
    #[error("spec.contacts.postgres: key \"ca.crt\" of Secret {name:?} {fault}")]
    Ca {
        name: String,
        fault: AuthoritiesError,
    },
}

impl DatabaseSecret {
    /// Reads the Secret of this name; `None`: there is none.
    ///
    /// # Errors
    /// [`DatabaseSecretError`].
    pub fn read(name: &str, secret: Option<&SecretData>) -> Result<Self, DatabaseSecretError> {
        let found = secret.and_then(|secret| {
            let key = ["url", "uri"].into_iter().find(|key| {
                let value = secret.get(*key);
                value.is_some_and(|value| !value.is_empty())
            })?;
            Some((secret, key))
        });
        let Some((secret, key)) = found else {
            let keys = secret.map_or_else(Vec::new, |secret| secret.keys().cloned().collect());
            return Err(DatabaseSecretError::Missing {
                name: name.to_owned(),
                keys,
            });
        };
        let invalid = |fault| DatabaseSecretError::Connection {
            name: name.to_owned(),
            key,
            fault,
        };
        let url = text(secret, key).ok_or_else(|| invalid(ConnectionStringError::Form))?;
        let connection = ConnectionString::parse(url).map_err(invalid)?;
        // What the client library does not take the proxy cannot use either.
        if connection.text.parse::<tokio_postgres::Config>().is_err() {
            return Err(invalid(ConnectionStringError::Form));
        }
        let ca = secret.get("ca.crt").filter(|ca| !ca.is_empty());
        if let Some(ca) = ca {
            pem::authorities(ca.as_slice()).map_err(|fault| DatabaseSecretError::Ca {
                name: name.to_owned(),
                fault,
            })?;
        }
        Ok(Self {
            url: Zeroizing::new(url.trim().to_owned()),
            connection,
            ca: ca.map(|ca| String::from_utf8_lossy(ca).into_owned()),
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::secrets::store::set;

    #[test]
    fn k20_a_secret_of_another_operator_is_read_or_said_what_it_lacks() {
        let read = |entries: &[(&str, &str)]| {
            let mut secret = SecretData::new();
            for (key, value) in entries {
                set(&mut secret, key, value);
            }
            DatabaseSecret::read("db", Some(&secret))
        };
        let url = "postgres://u:hunter2@h:6432/d";
        assert_eq!(*read(&[("uri", url)]).unwrap().url, url);
        assert_eq!(*read(&[("url", url), ("uri", "x")]).unwrap().url, url);
        for (entries, says) in [
            (
                &[("fqdn-uri", url), ("jdbc-uri", "")][..],
                "it has fqdn-uri, jdbc-uri",
            ),
            (&[], "there is no Secret \"db\" with key \"url\""),
            (
                &[("url", "jdbc:postgresql://h/d")],
                "key \"url\" of Secret \"db\" is a URL for JDBC",
            ),
            (
                &[("uri", "postgres://h/d?sslkey=/x")],
                "key \"uri\" of Secret \"db\" has the option \"sslkey\"",
            ),
            (
                &[(
                    "url",
                    "postgres://u:hunter2@h:6432/d?target_session_attrs=primary",
                )],
                "has for the option \"target_session_attrs\" another value than any, read-write, read-only",
            ),
            (
                &[(
                    "url",
                    "host=h password=hunter2 target_session_attrs='standby'",
                )],
                "another value than any, read-write, read-only",
            ),
            (
                &[("url", "postgres://u:hunter2@h/d?connect_timeout=10s")],
                "has for the option \"connect_timeout\" another value than a whole number",
            ),
            (
                &[("url", "postgres://u:hunter2@h:99999/d")],
                "is no PostgreSQL connection string",
            ),
            (
                &[("url", url), ("ca.crt", "hello")],
                "key \"ca.crt\" of Secret \"db\" ",
            ),
        ] {
            let error = read(entries).err().unwrap().to_string();
            assert!(
                error.contains(says) && !error.contains("hunter2"),
                "{error}"
            );
        }
        assert!(DatabaseSecret::read("db", None).is_err());
    }
}
