//! A certificate with its key, checked, and the TLS configurations that present it.

use std::{fmt, sync::Arc};

use jiff::Timestamp;
use rustls::{ClientConfig, ServerConfig, sign::CertifiedKey};
use rustls_pki_types::CertificateDer;
use xmpp_edge_crds::{
    domain::DomainName,
    pem::{self, PemError},
};

use super::{
    SpkiSha256,
    certificate::{CertificateError, Names, parse, sha256, shown, timestamp},
    config::Configurations,
    provider,
    verify::MAX_CHAIN,
};

/// What we present. Cheap to clone by `Arc`; replaced as a whole, streams keep the old one.
pub struct Identity {
    certified: Arc<CertifiedKey>,
    pub(super) configurations: Configurations,
    names: Names,
    not_after: Timestamp,
    serial: String,
    spki_sha256: SpkiSha256,
    for_server: bool,
    for_client: bool,
}

/// Why a certificate and a key are no identity: says what, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    #[error("{origin}: the chain: {cause}")]
    ChainPem { origin: String, cause: PemError },
    #[error("{origin}: the chain holds more than 10 certificates")]
    ChainTooLong { origin: String },
    #[error("{origin}: certificate {number} of the chain: {cause}")]
    Certificate {
        origin: String,
        number: usize,
        cause: CertificateError,
    },
    #[error(
        "{origin}: the chain is not in order: certificate {number} ({subject:?}) was not issued by the next one, {next:?}"
    )]
    ChainOrder {
        origin: String,
        number: usize,
        subject: String,
        next: String,
    },
    #[error("{origin}: the key: {cause}")]
    KeyPem { origin: String, cause: PemError },
    #[error("{origin}: the private key cannot be used: {cause}")]
    Key { origin: String, cause: String },
    #[error("{origin}: the private key does not belong to the certificate of {subject:?}")]
    KeyMismatch { origin: String, subject: String },
    #[error("{origin}: TLS cannot be set up with it: {cause}")]
    Tls { origin: String, cause: String },
}

impl Identity {
    /// From a chain, end entity first, and its key, both PEM. Dates are told, not judged: an
    /// expired certificate is still better than none. `origin` names the place in errors.
    ///
    /// # Errors
    /// [`IdentityError`] when either is unreadable or they do not belong together.
    pub fn from_pem(
        chain: impl AsRef<[u8]>,
        key: impl AsRef<[u8]>,
        origin: &str,
    ) -> Result<Self, IdentityError> {
        let chain = chain_from_pem(chain, origin)?;
        let key = pem::private_key(key).map_err(|cause| IdentityError::KeyPem {
            origin: origin.to_owned(),
            cause,
        })?;
        let key = provider()
            .key_provider
            .load_private_key(key)
            .map_err(|cause| IdentityError::Key {
                origin: origin.to_owned(),
                cause: cause.to_string(),
            })?;
        Self::new(Arc::new(CertifiedKey::new(chain, key)), origin)
    }

    pub(super) fn new(certified: Arc<CertifiedKey>, origin: &str) -> Result<Self, IdentityError> {
        let origin = || origin.to_owned();
        let end_entity = certified
            .cert
            .first()
            .ok_or_else(|| IdentityError::ChainPem {
                origin: origin(),
                cause: PemError::NoCertificate,
            })?;
        let broken = |cause| IdentityError::Certificate {
            origin: origin(),
            number: 1,
            cause,
        };
        let parsed = parse(end_entity).map_err(broken)?;
        // By the keys alone: what else is in the certificate is for the peer to judge.
        let is_its_key = match certified.key.public_key() {
            Some(key) => key.as_ref() == parsed.public_key().raw,
            None => certified.keys_match().is_ok(),
        };
        if !is_its_key {
            return Err(IdentityError::KeyMismatch {
                origin: origin(),
                subject: shown(parsed.subject()),
            });
        }
        let usage = parsed
            .extended_key_usage()
            .ok()
            .flatten()
            .map(|extension| extension.value);
        Ok(Self {
            names: Names::of(&parsed),
            not_after: timestamp(&parsed.validity().not_after),
            serial: parsed.raw_serial_as_string(),
            spki_sha256: SpkiSha256(sha256(parsed.public_key().raw)),
            for_server: usage.is_none_or(|usage| usage.any || usage.server_auth),
            for_client: usage.is_none_or(|usage| usage.any || usage.client_auth),
            configurations: Configurations::new(&certified).map_err(|cause| {
                IdentityError::Tls {
                    origin: origin(),
                    cause,
                }
            })?,
            certified,
        })
    }

    /// `dNSName` values, lower case, as they stand (wildcards too).
    #[must_use]
    pub fn dns_names(&self) -> &[String] {
        &self.names.dns
    }

    /// Whether the certificate is one for `domain` (RFC 9525 section 6.3).
    #[must_use]
    pub fn covers(&self, domain: &DomainName) -> bool {
        self.names.cover(domain)
    }

    #[must_use]
    pub fn not_after(&self) -> Timestamp {
        self.not_after
    }

    /// Hexadecimal octets joined by colons.
    #[must_use]
    pub fn serial(&self) -> &str {
        &self.serial
    }

    #[must_use]
    pub fn spki_sha256(&self) -> SpkiSha256 {
        self.spki_sha256
    }

    /// Whether it may be used as server: it has serverAuth, or says nothing.
    #[must_use]
    pub fn for_server(&self) -> bool {
        self.for_server
    }

    /// Whether it may be used as client: it has clientAuth, or says nothing. Where not, some peers
    /// (ejabberd before 25.08) do not take it for SASL EXTERNAL.
    #[must_use]
    pub fn for_client(&self) -> bool {
        self.for_client
    }

    /// End entity first.
    #[must_use]
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.certified.cert
    }

    #[cfg(test)]
    pub(super) fn certified(&self) -> &CertifiedKey {
        &self.certified
    }

    pub(super) fn server(&self, direct: bool) -> Arc<ServerConfig> {
        self.configurations.server(direct)
    }

    pub(super) fn client(&self) -> Arc<ClientConfig> {
        self.configurations.client()
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("dns_names", &self.names.dns)
            .field("not_after", &self.not_after)
            .field("serial", &self.serial)
            .finish_non_exhaustive()
    }
}

/// Reads a chain and checks that each certificate was issued by the next.
pub(super) fn chain_from_pem(
    text: impl AsRef<[u8]>,
    origin: &str,
) -> Result<Vec<CertificateDer<'static>>, IdentityError> {
    let origin = || origin.to_owned();
    let chain = pem::certificates(text).map_err(|cause| IdentityError::ChainPem {
        origin: origin(),
        cause,
    })?;
    if chain.len() > MAX_CHAIN {
        return Err(IdentityError::ChainTooLong { origin: origin() });
    }
    let parsed = chain
        .iter()
        .enumerate()
        .map(|(index, der)| {
            parse(der).map_err(|cause| IdentityError::Certificate {
                origin: origin(),
                number: index + 1,
                cause,
            })
        })
        .collect::<Result<Vec<_>, _>>()?;
    for (index, pair) in parsed.windows(2).enumerate() {
        if pair[0].issuer() != pair[1].subject() {
            return Err(IdentityError::ChainOrder {
                origin: origin(),
                number: index + 1,
                subject: shown(pair[0].subject()),
                next: shown(pair[1].subject()),
            });
        }
    }
    drop(parsed);
    Ok(chain)
}

#[cfg(test)]
mod tests;
