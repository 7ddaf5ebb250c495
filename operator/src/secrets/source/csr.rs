//! `csr`: the offline way. The operator makes the key and the request, somebody has it signed, and
//! the chain is accepted only when chain, key and names agree.
//!
//! Kept in `<pool>-tls` beside the pair in use: `next.key`, `next.csr` (the pending request) and
//! `next.for` (what it was made for); `for` says the same of the pair in use.

use std::fmt;

use rcgen::{DistinguishedName, DnType, KeyPair, RsaKeySize};
use xmpp_edge_crds::{
    domain::DomainName,
    kinds::pool::{KeyAlgorithm, Subject},
};
use zeroize::Zeroizing;

use super::{Backend, BackendFault, CertificateSpec, Evaluation, Secrets, check_given, pair_of};
use crate::secrets::{
    CertificateError,
    chain::{ChainError, GivenError, PemPair, given_chain},
    issue::{self, IssueError},
    store::{SecretData, Store, set, text},
};

fn generate(algorithm: KeyAlgorithm) -> Result<KeyPair, IssueError> {
    let made = match algorithm {
        KeyAlgorithm::EcdsaP256 => KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256),
        KeyAlgorithm::EcdsaP384 => KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384),
        KeyAlgorithm::Rsa2048 => rsa(RsaKeySize::_2048),
        KeyAlgorithm::Rsa3072 => rsa(RsaKeySize::_3072),
        KeyAlgorithm::Rsa4096 => rsa(RsaKeySize::_4096),
    };
    made.map_err(|source| IssueError {
        what: format!("a {algorithm:?} key"),
        source,
    })
}

fn rsa(size: RsaKeySize) -> Result<KeyPair, rcgen::Error> {
    KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, size)
}

/// The offline backend of one pool.
pub struct Csr<'a> {
    pub algorithm: KeyAlgorithm,
    /// Absent: the first name is the common name.
    pub subject: Option<&'a Subject>,
    /// The Secret that brings the signed chain.
    pub chain_secret: &'a str,
    pub secrets: &'a dyn Secrets,
}

impl fmt::Debug for Csr<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Csr")
            .field("chain_secret", &self.chain_secret)
            .finish_non_exhaustive()
    }
}

impl Csr<'_> {
    /// What a request is made for; a change of it starts a new one.
    fn purpose(&self, names: &[DomainName]) -> String {
        let names: Vec<_> = names.iter().map(DomainName::as_str).collect();
        format!(
            "{:?} {:?} {}",
            self.algorithm,
            self.subject,
            names.join(" ")
        )
    }

    fn new_request(
        &self,
        names: &[DomainName],
        subject: Option<DistinguishedName>,
        material: &mut SecretData,
    ) -> Result<(), CertificateError> {
        let key = generate(self.algorithm)?;
        set(material, "next.csr", &issue::request(&key, names, subject)?);
        set(material, "next.key", &Zeroizing::new(key.serialize_pem()));
        set(material, "next.for", &self.purpose(names));
        Ok(())
    }

    /// The chain that the CA sent back.
    fn chain(&self) -> Result<Option<(String, SecretData)>, BackendFault> {
        let Some(material) = self.secrets.secret(self.chain_secret) else {
            return Ok(None);
        };
        let name = || self.chain_secret.to_owned();
        match given_chain(&material, "tls.crt") {
            Ok(chain) => Ok(Some((chain, material))),
            Err(GivenError::Missing(_)) => Err(BackendFault::ChainMissing { name: name() }),
            Err(GivenError::Unusable(fault)) => Err(BackendFault::Pair {
                name: name(),
                fault,
            }),
        }
    }
}

impl Backend for Csr<'_> {
    fn evaluate(
        &self,
        wanted: &CertificateSpec<'_>,
        held: &SecretData,
        _store: &mut dyn Store,
    ) -> Result<Evaluation, CertificateError> {
        let subject = match self.subject.map(distinguished_name).transpose() {
            Ok(subject) => subject,
            Err(reason) => {
                let fault = Some(BackendFault::Subject(reason));
                return Ok(Evaluation {
                    fault,
                    ..Evaluation::default()
                });
            }
        };
        let purpose = self.purpose(wanted.names);
        let in_use = pair_of(held).filter(|_| held.contains_key("for"));
        let satisfied = text(held, "for") == Some(&purpose)
            && in_use.as_ref().is_some_and(|pair| {
                pair.check(wanted.names, wanted.now)
                    .is_ok_and(|facts| !facts.wants_renewal(wanted.now))
            });
        let mut material = held.clone();
        if satisfied {
            for key in ["next.key", "next.csr", "next.for"] {
                material.remove(key);
            }
            return Ok(Evaluation {
                extra_data: Some(material),
                ..Evaluation::default()
            });
        }
        if text(held, "next.for") != Some(&purpose) || !held.contains_key("next.key") {
            self.new_request(wanted.names, subject, &mut material)?;
        }
        let request = text(&material, "next.csr").map(str::to_owned);
        let pending = |material, fault| Evaluation {
            pair: None,
            extra_data: Some(material),
            fault: Some(fault),
            request: request.clone(),
        };
        let secret = || self.chain_secret.to_owned();
        let (chain, sent) = match self.chain() {
            Ok(Some(sent)) => sent,
            Ok(None) => {
                return Ok(pending(
                    material,
                    BackendFault::RequestPending { secret: secret() },
                ));
            }
            Err(fault) => return Ok(pending(material, fault)),
        };
        let key = text(&material, "next.key").unwrap_or_default().to_owned();
        let candidate = PemPair {
            chain,
            key: Zeroizing::new(key),
        };
        match check_given(&candidate, &sent, wanted) {
            Ok(()) => {
                for key in ["next.key", "next.csr", "next.for"] {
                    material.remove(key);
                }
                set(&mut material, "for", &purpose);
                Ok(Evaluation {
                    pair: Some(candidate),
                    extra_data: Some(material),
                    ..Evaluation::default()
                })
            }
            Err(ChainError::KeyMismatch) => {
                let same = in_use.is_some_and(|pair| pair.chain.trim() == candidate.chain.trim());
                let fault = if same {
                    BackendFault::ChainInUse { secret: secret() }
                } else {
                    BackendFault::ChainOfAnotherRequest { secret: secret() }
                };
                Ok(pending(material, fault))
            }
            Err(fault) => Ok(pending(
                material,
                BackendFault::Pair {
                    name: secret(),
                    fault,
                },
            )),
        }
    }
}

/// The subject as X.509 holds it.
///
/// # Errors
/// A text that says which attribute cannot stand in a certificate.
fn distinguished_name(subject: &Subject) -> Result<DistinguishedName, String> {
    let mut name = DistinguishedName::new();
    if let Some(country) = &subject.country {
        let letters = country.len() == 2 && country.bytes().all(|byte| byte.is_ascii_uppercase());
        let value = country
            .as_str()
            .try_into()
            .ok()
            .filter(|_| letters)
            .ok_or_else(|| {
                format!(
                    "country: {country:?} is no country code of two capital letters, such as DE"
                )
            })?;
        name.push(DnType::CountryName, rcgen::DnValue::PrintableString(value));
    }
    for (kind, value) in [
        (DnType::StateOrProvinceName, &subject.state),
        (DnType::LocalityName, &subject.locality),
        (DnType::OrganizationName, &subject.organization),
        (DnType::OrganizationalUnitName, &subject.organizational_unit),
        (DnType::CommonName, &subject.common_name),
    ] {
        if let Some(value) = value {
            name.push(kind, value.as_str());
        }
    }
    Ok(name)
}
