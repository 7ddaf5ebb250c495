//! `csr`: the offline way. The operator makes the key and the request, somebody has it signed, and
//! the chain is accepted only when chain, key and names agree.
//!
//! Kept in `<pool>-tls` beside the pair in use: `next.key`, `next.csr` (the pending request) and
//! `next.for` (what it was made for); `for` says the same of the pair in use.

use rcgen::{DistinguishedName, DnType, KeyPair, RsaKeySize};
use xmpp_edge_crds::domain::DomainName;
use zeroize::Zeroizing;

use super::{
    CertificateError, issue,
    issue::IssueError,
    pair::{PairFault, PemPair},
    pool::{Backend, BackendFault, Offer, Secrets, Wanted, pair_of},
    store::{Material, Store, set, text},
};

/// Kinds of keys a request can be made with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyAlgorithm {
    EcdsaP256,
    EcdsaP384,
    Rsa2048,
    Rsa3072,
    Rsa4096,
}

impl KeyAlgorithm {
    fn generate(self) -> Result<KeyPair, IssueError> {
        let made = match self {
            Self::EcdsaP256 => KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256),
            Self::EcdsaP384 => KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384),
            Self::Rsa2048 => rsa(RsaKeySize::_2048),
            Self::Rsa3072 => rsa(RsaKeySize::_3072),
            Self::Rsa4096 => rsa(RsaKeySize::_4096),
        };
        made.map_err(|source| IssueError {
            what: format!("a {self:?} key"),
            source,
        })
    }
}

fn rsa(size: RsaKeySize) -> Result<KeyPair, rcgen::Error> {
    KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, size)
}

/// The offline backend of one pool.
pub struct Csr<'a> {
    pub algorithm: KeyAlgorithm,
    /// `C=DE,O=Example,CN=…` (RFC 4514, most general last or first alike); absent: the first name.
    pub subject: Option<&'a str>,
    /// The Secret that brings the signed chain.
    pub chain_secret: &'a str,
    pub secrets: &'a dyn Secrets,
}

impl Csr<'_> {
    /// What a request is made for; a change of it starts a new one.
    fn purpose(&self, names: &[DomainName]) -> String {
        let names: Vec<_> = names.iter().map(DomainName::as_str).collect();
        format!(
            "{:?} {:?} {}",
            self.algorithm,
            self.subject.unwrap_or(""),
            names.join(" ")
        )
    }

    fn new_request(
        &self,
        names: &[DomainName],
        subject: Option<DistinguishedName>,
        material: &mut Material,
    ) -> Result<(), CertificateError> {
        let key = self.algorithm.generate()?;
        set(material, "next.csr", &issue::request(&key, names, subject)?);
        set(material, "next.key", &Zeroizing::new(key.serialize_pem()));
        set(material, "next.for", &self.purpose(names));
        Ok(())
    }

    /// The chain that the CA sent back.
    fn chain(&self) -> Result<Option<String>, BackendFault> {
        let Some(material) = self.secrets.secret(self.chain_secret) else {
            return Ok(None);
        };
        match text(&material, "tls.crt") {
            Some(chain) => Ok(Some(chain.to_owned())),
            None => Err(BackendFault::ChainMissing {
                name: self.chain_secret.to_owned(),
            }),
        }
    }
}

impl Backend for Csr<'_> {
    fn offer(
        &self,
        wanted: &Wanted<'_>,
        held: &Material,
        _store: &mut dyn Store,
    ) -> Result<Offer, CertificateError> {
        let subject = match self.subject.map(parse_subject).transpose() {
            Ok(subject) => subject,
            Err(reason) => {
                let fault = Some(BackendFault::Subject(reason));
                return Ok(Offer {
                    fault,
                    ..Offer::default()
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
            return Ok(Offer {
                beside: Some(material),
                ..Offer::default()
            });
        }
        if text(held, "next.for") != Some(&purpose) || !held.contains_key("next.key") {
            self.new_request(wanted.names, subject, &mut material)?;
        }
        let request = text(&material, "next.csr").map(str::to_owned);
        let pending = |material, fault| Offer {
            pair: None,
            beside: Some(material),
            fault: Some(fault),
            request: request.clone(),
        };
        let secret = || self.chain_secret.to_owned();
        let chain = match self.chain() {
            Ok(Some(chain)) => chain,
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
        match candidate.check(wanted.names, wanted.now) {
            Ok(_) => {
                for key in ["next.key", "next.csr", "next.for"] {
                    material.remove(key);
                }
                set(&mut material, "for", &purpose);
                Ok(Offer {
                    pair: Some(candidate),
                    beside: Some(material),
                    ..Offer::default()
                })
            }
            Err(PairFault::KeyMismatch) => {
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

/// `CN=edge.example,O=Example Org,C=DE`: attributes C, ST, L, O, OU and CN, each at most once; a
/// comma inside a value is written `\,`.
///
/// # Errors
/// A text that says which attribute is wrong and how it is written.
pub fn parse_subject(text: &str) -> Result<DistinguishedName, String> {
    let mut attributes = Vec::new();
    for part in split_unescaped(text) {
        let (name, value) = part.split_once('=').ok_or_else(|| {
            format!("{part:?} is no attribute: write NAME=value, as in O=Example,C=DE")
        })?;
        let kind = match name.trim().to_ascii_uppercase().as_str() {
            "C" => DnType::CountryName,
            "ST" => DnType::StateOrProvinceName,
            "L" => DnType::LocalityName,
            "O" => DnType::OrganizationName,
            "OU" => DnType::OrganizationalUnitName,
            "CN" => DnType::CommonName,
            _ => return Err(format!("{name:?} is none of C, ST, L, O, OU, CN")),
        };
        let value = value.trim().to_owned();
        if value.is_empty() || value.chars().count() > 64 {
            return Err(format!("{name} needs 1 to 64 characters"));
        }
        if kind == DnType::CountryName && value.len() != 2 {
            return Err(format!("C is a country code of two letters, not {value:?}"));
        }
        if attributes.iter().any(|(seen, _)| *seen == kind) {
            return Err(format!("{name} stands twice"));
        }
        attributes.push((kind, value));
    }
    let mut subject = DistinguishedName::new();
    for (kind, value) in attributes {
        if kind == DnType::CountryName {
            let country = value
                .as_str()
                .try_into()
                .map_err(|_| format!("C is a country code of two letters, not {value:?}"))?;
            subject.push(kind, rcgen::DnValue::PrintableString(country));
        } else {
            subject.push(kind, value);
        }
    }
    Ok(subject)
}

fn split_unescaped(text: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        let part = parts.last_mut().expect("there is always a part");
        match character {
            '\\' => part.extend(characters.next()),
            ',' => parts.push(String::new()),
            other => part.push(other),
        }
    }
    parts
}
