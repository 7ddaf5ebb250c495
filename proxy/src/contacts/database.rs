//! Where the shared contacts are: a PostgreSQL connection string and what it means for TLS.
//!
//! `sslmode` is libpq's. What it verifies against is `ca.crt` where that is given, else the public
//! authorities:
//!
//! | `sslmode` | TLS | certificate |
//! | --- | --- | --- |
//! | `disable` | none | |
//! | `allow`, `prefer` | where the server offers it | as `require` |
//! | `require` | always | its chain where `ca.crt` is given, else nothing |
//! | `verify-ca` | always | its chain |
//! | `verify-full` | always | its chain and the host's name |
//! | absent | as `verify-full` with `ca.crt`, as `prefer` without | |

use std::{fmt, future::Future, io, pin::Pin};

use tokio_postgres::{
    Config, Socket,
    config::{Host, SslMode},
    tls::{ChannelBinding, MakeTlsConnect, TlsConnect, TlsStream},
};
use xmpp_edge_crds::postgres::{ConnectionString, ConnectionStringError};

use crate::tls::{DatabaseTls, Roots, RootsError, ServerVerification, Transport, database};

/// A parsed connection string with its certificates. Never shown: it holds a password.
#[derive(Clone)]
pub struct Database {
    pub(super) config: Config,
    pub(super) tls: DatabaseTls,
    /// The first host, for messages.
    pub(super) host: String,
}

/// Why there is no database to be found there. Never quotes the string.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseError {
    #[error("key url of the Secret {0}")]
    Url(#[from] ConnectionStringError),
    #[error("{0}")]
    Ca(#[from] RootsError),
    #[error("{0}")]
    Tls(#[from] database::DatabaseTlsError),
}

impl Database {
    /// `url` is a connection string of libpq's kind ([`ConnectionString`]). `sslrootcert` is ignored:
    /// `ca`, PEM, takes its place.
    ///
    /// # Errors
    /// [`DatabaseError`]: which part is wrong.
    pub fn parse(url: &str, ca: Option<&str>) -> Result<Self, DatabaseError> {
        let ConnectionString {
            text,
            ssl_mode: mode,
        } = ConnectionString::parse(url)?;
        let mut config: Config = text.parse().map_err(|_| ConnectionStringError::Form)?;
        let Some(host) = config.get_hosts().first() else {
            return Err(ConnectionStringError::Form.into());
        };
        let host = match host {
            Host::Tcp(name) => name.clone(),
            #[cfg(unix)]
            Host::Unix(path) => path.display().to_string(),
        };
        let chain_if_given = if ca.is_some() {
            ServerVerification::Chain
        } else {
            ServerVerification::Nothing
        };
        let (mode, demand) = match (mode.as_deref(), config.get_ssl_mode()) {
            (Some("disable"), _) | (None, SslMode::Disable) => {
                (SslMode::Disable, ServerVerification::Nothing)
            }
            (Some("allow" | "prefer"), _) => (SslMode::Prefer, chain_if_given),
            (Some("require"), _) | (None, SslMode::Require) => (SslMode::Require, chain_if_given),
            (Some("verify-ca"), _) => (SslMode::Require, ServerVerification::Chain),
            (Some("verify-full"), _) => (SslMode::Require, ServerVerification::Name),
            (Some(_), _) => return Err(ConnectionStringError::SslMode.into()),
            (None, _) if ca.is_some() => (SslMode::Require, ServerVerification::Name),
            (None, _) => (SslMode::Prefer, ServerVerification::Nothing),
        };
        config.ssl_mode(mode);
        let roots = match ca {
            Some(pem) => Roots::from_pem(pem, "key ca.crt of the contacts' Secret")?,
            None if demand == ServerVerification::Nothing => Roots::default(),
            None => Roots::public(),
        };
        Ok(Self {
            config,
            tls: DatabaseTls::new(demand, roots)?,
            host,
        })
    }

    /// Whether `other` leads to the same tables, as far as the strings tell.
    pub(super) fn is_same_place(&self, other: &Self) -> bool {
        let of = |config: &Config| {
            let database = config.get_dbname().or(config.get_user());
            let options = config.get_options().map(str::to_owned);
            let hosts = (
                config.get_hosts().to_vec(),
                config.get_hostaddrs().to_vec(),
                config.get_ports().to_vec(),
            );
            (hosts, database.map(str::to_owned), options)
        };
        of(&self.config) == of(&other.config)
    }
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Database")
            .field("host", &self.host)
            .finish_non_exhaustive()
    }
}

/// One handshake to come.
pub struct Handshake {
    tls: DatabaseTls,
    host: String,
}

impl fmt::Debug for Handshake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handshake")
            .field("host", &self.host)
            .finish_non_exhaustive()
    }
}

impl MakeTlsConnect<Socket> for DatabaseTls {
    type Stream = Transport<Socket>;
    type TlsConnect = Handshake;
    type Error = io::Error;

    fn make_tls_connect(&mut self, domain: &str) -> io::Result<Handshake> {
        Ok(Handshake {
            tls: self.clone(),
            host: domain.to_owned(),
        })
    }
}

impl TlsConnect<Socket> for Handshake {
    type Stream = Transport<Socket>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Transport<Socket>>> + Send>>;

    fn connect(self, stream: Socket) -> Self::Future {
        Box::pin(async move { self.tls.connect(stream, &self.host).await })
    }
}

impl TlsStream for Transport<Socket> {
    fn channel_binding(&self) -> ChannelBinding {
        self.facts()
            .and_then(|facts| database::server_end_point(facts.peer_chain.first()?))
            .map_or_else(ChannelBinding::none, ChannelBinding::tls_server_end_point)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ssl_modes_mean_what_libpq_means() {
        let ca = crate::tls::pki::authority("a database's").pem();
        let ca = Some(ca.as_str());
        for (query, ca, expected) in [
            ("?sslmode=disable", ca, Some(SslMode::Disable)),
            ("?sslmode=prefer", None, Some(SslMode::Prefer)),
            ("?sslmode=allow", None, Some(SslMode::Prefer)),
            ("?sslmode=require", None, Some(SslMode::Require)),
            ("?sslmode=verify-ca", ca, Some(SslMode::Require)),
            (
                "?sslmode=verify-full&connect_timeout=3",
                ca,
                Some(SslMode::Require),
            ),
            (
                "?sslrootcert=/x/ca.crt&sslmode=verify-full",
                ca,
                Some(SslMode::Require),
            ),
            ("", ca, Some(SslMode::Require)),
            ("", None, Some(SslMode::Prefer)),
            ("?sslmode=verify", ca, None),
            ("?sslmode=", ca, None),
        ] {
            let url = format!("postgres://edge:hunter2@db.example/contacts{query}");
            let found = Database::parse(&url, ca).map(|database| database.config.get_ssl_mode());
            match (found, expected) {
                (Ok(found), Some(expected)) => assert_eq!(found, expected, "{query}"),
                (Err(error), None) => {
                    assert!(!error.to_string().contains("hunter2"), "{error}");
                    assert!(error.to_string().contains("sslmode"), "{error}");
                }
                (found, _) => panic!("{query}: {found:?}"),
            }
        }
    }

    #[test]
    fn a_new_password_or_certificate_leads_to_the_same_place_another_host_does_not() {
        let at = |url: &str| Database::parse(url, None).expect("a database");
        let one = at("postgres://edge:one@db.example/contacts?sslmode=disable");
        assert!(one.is_same_place(&at("postgres://edge:two@db.example/contacts")));
        assert!(!one.is_same_place(&at("postgres://edge:one@other.example/contacts")));
        assert!(!one.is_same_place(&at("postgres://edge:one@db.example/other")));
    }
}
