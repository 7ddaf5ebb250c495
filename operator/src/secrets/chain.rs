//! A certificate chain with its key: read from PEM, and checked before anything relies on it.

use std::{collections::BTreeSet, time::Duration};

use data_encoding::HEXLOWER;
use jiff::{SignedDuration, Timestamp};
use rustls_pki_types::{CertificateDer, UnixTime};
use x509_parser::{
    extensions::{GeneralName, ParsedExtension},
    prelude::{FromDer, X509Certificate},
};
use xmpp_edge_crds::{
    domain::DomainName,
    pem::{self, PemError},
};
use zeroize::Zeroizing;

use super::store::SecretData;

/// A certificate chain, leaf first, and the leaf's key; both PEM.
#[derive(Clone, PartialEq, Eq)]
pub struct PemPair {
    pub chain: String,
    pub key: Zeroizing<String>,
}

impl std::fmt::Debug for PemPair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PemPair")
            .field("chain", &self.chain)
            .field("key", &"[elided]")
            .finish()
    }
}

/// What a certificate says, as `status.certificate` shows it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CertificateFacts {
    pub not_before: Timestamp,
    pub not_after: Timestamp,
    /// dNSName alternative names in lower case, sorted.
    pub dns_names: Vec<String>,
    /// Lower-case hex.
    pub serial: String,
    /// Whether a peer that insists may take it from a client: no extended key usage, or clientAuth.
    pub client_auth: bool,
    /// The same for a server.
    pub server_auth: bool,
    /// Who issued it, where the chain is the certificate alone and says that its issuer is to be
    /// fetched elsewhere: most likely intermediates were forgotten.
    #[serde(skip)]
    pub alone_below: Option<String>,
    #[serde(skip)]
    public_key: Vec<u8>,
}

/// id-ad-caIssuers (RFC 5280 section 4.2.2.1).
const CA_ISSUERS: &[u64] = &[1, 3, 6, 1, 5, 5, 7, 48, 2];

/// Why a chain and a key are not what is wanted. Every text says what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChainError {
    #[error("tls.crt {0}")]
    ChainNotPem(PemError),
    #[error(
        "certificate {position} of the chain cannot be read ({reason}); export it again as PEM"
    )]
    ChainUnreadable { position: usize, reason: String },
    #[error(
        "certificate {below} of the chain was issued by {issuer:?}, but the next one is {found:?}: put the leaf first and each issuer after what it issued"
    )]
    ChainOrder {
        below: usize,
        issuer: String,
        found: String,
    },
    #[error(
        "certificate {position} of the chain was issued by {issuer:?}, which is not in the chain: append that CA's certificate, the leaf first and each issuer after what it issued"
    )]
    ChainIncomplete { position: usize, issuer: String },
    #[error(
        "the certificates of the chain have the right names, but did not sign one another (a CA that was renewed with another key): take the chain that came with this certificate"
    )]
    ChainOfAnotherKey,
    #[error(
        "certificate {position} of the chain was issued by {issuer:?}, but not with the key of the CA of that name in ca.crt (it was renewed with another key): put the CA there that issued it, or take the chain that came with this certificate"
    )]
    RootOfAnotherKey { position: usize, issuer: String },
    #[error(
        "certificate {position} of the chain, an issuer's, expired at {at}: take the CA's current one"
    )]
    IssuerExpired { position: usize, at: Timestamp },
    #[error("tls.key {0}")]
    KeyUnreadable(PemError),
    #[error("ca.crt {0}")]
    RootsNotPem(PemError),
    #[error(
        "the key is of a kind that TLS here does not use: take RSA (2048 bits or more), ECDSA P-256/P-384/P-521 or Ed25519"
    )]
    KeyKind,
    #[error(
        "the key does not belong to the certificate: use the key that the certificate was requested with"
    )]
    KeyMismatch,
    #[error("the certificate does not name {}: have it issued again with every one of these as a dNSName", list(.0))]
    NamesMissing(Vec<String>),
    #[error("the certificate expired at {0}: replace it")]
    Expired(Timestamp),
    #[error("the certificate is not valid before {0}: check the clock, or wait")]
    NotYetValid(Timestamp),
    #[error(
        "the certificate may not serve as a server's (its extended key usage lacks serverAuth): have it issued with serverAuth"
    )]
    NotForServers,
    #[error(
        "the first certificate is a CA's: put the pool's own certificate, the leaf first, and its CA's after it"
    )]
    LeafIsCa,
    #[error(
        "the certificate signed itself and is a CA's, as `openssl req -x509` makes them: choose certificate.selfSigned, or make it with `-addext basicConstraints=critical,CA:FALSE -addext subjectAltName={}`", alternative_names(.0)
    )]
    SelfSignedCa(Vec<String>),
}

/// As `openssl` takes them.
fn alternative_names(names: &[String]) -> String {
    let names: Vec<String> = names.iter().map(|name| format!("DNS:{name}")).collect();
    names.join(",")
}

fn list(names: &[String]) -> String {
    names.join(", ")
}

/// The certificates of a PEM text, leaf first.
///
/// # Errors
/// [`ChainError::ChainNotPem`] with the line.
fn certificates(chain: &str) -> Result<Vec<CertificateDer<'static>>, ChainError> {
    pem::certificates(chain).map_err(ChainError::ChainNotPem)
}

fn read(der: &CertificateDer<'_>, position: usize) -> Result<Read, ChainError> {
    let unreadable = |reason: String| ChainError::ChainUnreadable { position, reason };
    let (rest, certificate) =
        X509Certificate::from_der(der).map_err(|error| unreadable(error.to_string()))?;
    if !rest.is_empty() {
        return Err(unreadable("bytes follow the certificate".to_owned()));
    }
    let mut names = BTreeSet::new();
    let mut usage = None;
    let mut issuer_elsewhere = false;
    for extension in certificate.extensions() {
        match extension.parsed_extension() {
            ParsedExtension::SubjectAlternativeName(san) => {
                for name in &san.general_names {
                    if let GeneralName::DNSName(name) = name {
                        names.insert(name.to_ascii_lowercase());
                    }
                }
            }
            ParsedExtension::ExtendedKeyUsage(eku) => {
                usage = Some((eku.any || eku.server_auth, eku.any || eku.client_auth));
            }
            ParsedExtension::AuthorityInfoAccess(places) => {
                issuer_elsewhere = places.iter().any(|place| {
                    let method = place.access_method.iter();
                    method.is_some_and(|oid| oid.eq(CA_ISSUERS.iter().copied()))
                });
            }
            _ => {}
        }
    }
    let (server_auth, client_auth) = usage.unwrap_or((true, true));
    Ok(Read {
        facts: CertificateFacts {
            not_before: clamped(certificate.validity().not_before.timestamp()),
            not_after: clamped(certificate.validity().not_after.timestamp()),
            dns_names: names.into_iter().collect(),
            serial: HEXLOWER.encode(certificate.raw_serial()),
            client_auth,
            server_auth,
            alone_below: None,
            public_key: certificate.public_key().raw.to_vec(),
        },
        issuer_elsewhere,
        is_ca: certificate.is_ca(),
        subject: certificate.subject().to_string(),
        issuer: certificate.issuer().to_string(),
    })
}

/// The nearest time that can be told: "no expiry" (RFC 5280 section 4.1.2.5) is a day beyond the last one.
fn clamped(seconds: i64) -> Timestamp {
    let (first, last) = (Timestamp::MIN.as_second(), Timestamp::MAX.as_second());
    Timestamp::from_second(seconds.clamp(first, last)).unwrap_or(Timestamp::MAX)
}

/// Whether the key of `issuer` made the signature of `of`; none where that cannot be told, as with algorithms
/// that are not used any more (roots signed themselves with SHA-1).
fn made_by(issuer: &CertificateDer<'_>, of: &CertificateDer<'_>) -> Option<bool> {
    let issuer = webpki::EndEntityCert::try_from(issuer).ok()?;
    let (_, parsed) = X509Certificate::from_der(of).ok()?;
    let oid = parsed.signature_algorithm.algorithm.as_bytes();
    // An AlgorithmIdentifier begins with tag and length of its object identifier.
    let mut known = webpki::ALL_VERIFICATION_ALGS
        .iter()
        .filter(|algorithm| {
            let id = algorithm.signature_alg_id();
            id.as_ref().get(2..2 + oid.len()) == Some(oid)
        })
        .peekable();
    known.peek()?;
    let signature = &parsed.signature_value.data;
    let signed = parsed.tbs_certificate.as_ref();
    Some(known.any(|algorithm| {
        issuer
            .verify_signature(*algorithm, signed, signature)
            .is_ok()
    }))
}

/// Whether the certificates of a chain signed one another, as far as that can be told: what else
/// may be wrong with them is not looked at here.
fn signed(chain: &[CertificateDer<'_>], now: Timestamp) -> bool {
    let [leaf, issuers @ .., last] = chain else {
        return true;
    };
    let (Ok(leaf), Ok(anchor)) = (
        webpki::EndEntityCert::try_from(leaf),
        webpki::anchor_from_trusted_cert(last),
    ) else {
        return true;
    };
    let anchors = [anchor];
    let seconds = u64::try_from(now.as_second()).unwrap_or(0);
    let verified = leaf.verify_for_usage(
        webpki::ALL_VERIFICATION_ALGS,
        &anchors,
        issuers,
        UnixTime::since_unix_epoch(Duration::from_secs(seconds)),
        webpki::KeyUsage::server_auth(),
        None,
        None,
    );
    !matches!(
        verified,
        Err(webpki::Error::InvalidSignatureForPublicKey | webpki::Error::UnknownIssuer)
    )
}

struct Read {
    facts: CertificateFacts,
    issuer_elsewhere: bool,
    is_ca: bool,
    subject: String,
    issuer: String,
}

impl CertificateFacts {
    /// The leaf of a chain.
    ///
    /// # Errors
    /// [`ChainError::ChainNotPem`], [`ChainError::ChainUnreadable`].
    pub fn of_chain(chain: &str) -> Result<Self, ChainError> {
        let certificates = certificates(chain)?;
        let leaf = read(&certificates[0], 1)?;
        let alone = certificates.len() == 1 && leaf.issuer_elsewhere;
        Ok(Self {
            alone_below: alone.then_some(leaf.issuer),
            ..leaf.facts
        })
    }

    /// Those of `names` that the certificate does not cover. A wildcard covers one leading label
    /// (RFC 9525 section 6.3).
    #[must_use]
    pub fn missing(&self, names: &[DomainName]) -> Vec<String> {
        let covers = |name: &DomainName| {
            self.dns_names
                .iter()
                .any(|own| match own.strip_prefix("*.") {
                    Some(suffix) => name.parent() == Some(suffix),
                    None => own == name.as_str(),
                })
        };
        names
            .iter()
            .filter(|name| !covers(name))
            .map(ToString::to_string)
            .collect()
    }

    /// Whether it should have been renewed by now: 14 days, or a sixth of its life, are left.
    #[must_use]
    pub fn ends_soon(&self, now: Timestamp) -> bool {
        let life = self.not_after.duration_since(self.not_before);
        self.not_after.duration_since(now) < SOON.min(life / 6)
    }

    /// Whether less than a third of its life is left.
    #[must_use]
    pub fn wants_renewal(&self, now: Timestamp) -> bool {
        let life = self.not_before.until(self.not_after);
        let left = now.until(self.not_after);
        match (life, left) {
            (Ok(life), Ok(left)) => left.get_seconds() * 3 < life.get_seconds(),
            _ => true,
        }
    }
}

/// A certificate that ends within this is said to end soon, if a sixth of its life is not shorter:
/// whoever renews has done so before, at a third of it.
const SOON: SignedDuration = SignedDuration::from_hours(14 * 24);

/// The public key of a private one, as DER SubjectPublicKeyInfo.
fn public_key(key: &str) -> Result<Vec<u8>, ChainError> {
    let der = pem::private_key(key).map_err(ChainError::KeyUnreadable)?;
    let key = rustls::crypto::aws_lc_rs::sign::any_supported_type(&der)
        .map_err(|_| ChainError::KeyKind)?;
    let spki = key.public_key().ok_or(ChainError::KeyKind)?;
    Ok(spki.as_ref().to_vec())
}

impl PemPair {
    /// Checks everything that can be known without a peer: the chain reads and is in order, the key
    /// fits the leaf, every one of `names` is covered, and the time is right.
    ///
    /// # Errors
    /// The first [`ChainError`].
    pub fn check(
        &self,
        names: &[DomainName],
        now: Timestamp,
    ) -> Result<CertificateFacts, ChainError> {
        let certificates = certificates(&self.chain)?;
        let chain = certificates
            .iter()
            .enumerate()
            .map(|(index, der)| read(der, index + 1))
            .collect::<Result<Vec<_>, _>>()?;
        let leaf = &chain[0];
        if leaf.is_ca {
            let of_this_key = || public_key(&self.key).is_ok_and(|it| it == leaf.facts.public_key);
            return Err(match certificates.as_slice() {
                [alone] if made_by(alone, alone) != Some(false) && of_this_key() => {
                    ChainError::SelfSignedCa(names.iter().map(ToString::to_string).collect())
                }
                _ => ChainError::LeafIsCa,
            });
        }
        if public_key(&self.key)? != leaf.facts.public_key {
            return Err(ChainError::KeyMismatch);
        }
        for (index, pair) in chain.windows(2).enumerate() {
            let issuer = &pair[0].issuer;
            if *issuer == pair[1].subject {
                continue;
            }
            let position = index + 1;
            let issuer = issuer.clone();
            return Err(if chain.iter().any(|it| it.subject == issuer) {
                let found = pair[1].subject.clone();
                ChainError::ChainOrder {
                    below: position,
                    issuer,
                    found,
                }
            } else {
                ChainError::ChainIncomplete { position, issuer }
            });
        }
        let missing = leaf.facts.missing(names);
        if !missing.is_empty() {
            return Err(ChainError::NamesMissing(missing));
        }
        if !leaf.facts.server_auth {
            return Err(ChainError::NotForServers);
        }
        if leaf.facts.not_after <= now {
            return Err(ChainError::Expired(leaf.facts.not_after));
        }
        if leaf.facts.not_before > now {
            return Err(ChainError::NotYetValid(leaf.facts.not_before));
        }
        for (index, issuer) in chain.iter().enumerate().skip(1) {
            if issuer.facts.not_after <= now {
                return Err(ChainError::IssuerExpired {
                    position: index + 1,
                    at: issuer.facts.not_after,
                });
            }
        }
        if !signed(&certificates, now) {
            return Err(ChainError::ChainOfAnotherKey);
        }
        Ok(leaf.facts.clone())
    }

    /// Checks that the chain leads up to one of `roots` (PEM); an empty text says nothing, and a chain that
    /// holds its root is whole. Only what signed itself is a root: an issuer that `ca.crt` holds beside or in
    /// place of it has to be sent with the leaf all the same, as nobody else has it.
    ///
    /// # Errors
    /// [`ChainError::RootsNotPem`], [`ChainError::ChainIncomplete`], [`ChainError::RootOfAnotherKey`], or that
    /// one of the chain cannot be read.
    pub fn leads_to(&self, roots: &[u8]) -> Result<(), ChainError> {
        if roots.iter().all(u8::is_ascii_whitespace) {
            return Ok(());
        }
        let roots = pem::certificates(roots).map_err(ChainError::RootsNotPem)?;
        let chain = certificates(&self.chain)?;
        let Some(last) = chain.last().filter(|last| !roots.contains(last)) else {
            return Ok(());
        };
        let position = chain.len();
        let Read {
            issuer, subject, ..
        } = read(last, position)?;
        // Where it cannot be told, names decide.
        let may_be_by = |root| made_by(root, last) != Some(false);
        if subject == issuer && may_be_by(last) {
            return Ok(());
        }
        let mut of_that_name = roots
            .iter()
            .filter(|root| {
                read(root, 1).is_ok_and(|root| root.subject == issuer && root.issuer == issuer)
            })
            .peekable();
        if of_that_name.peek().is_none() {
            return Err(ChainError::ChainIncomplete { position, issuer });
        }
        if of_that_name.any(may_be_by) {
            return Ok(());
        }
        Err(ChainError::RootOfAnotherKey { position, issuer })
    }
}

/// Why a Secret that somebody gave has no pair.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GivenError {
    /// It lacks the key.
    Missing(&'static str),
    Unusable(ChainError),
}

impl PemPair {
    /// The pair in a Secret that somebody gave, under `tls.crt` and `tls.key`, as it is: not checked
    /// any further.
    ///
    /// # Errors
    /// [`GivenError`], for what is no text too.
    pub fn given(secret: &SecretData) -> Result<Self, GivenError> {
        Ok(Self {
            chain: given_chain(secret, "tls.crt")?,
            key: Zeroizing::new(given_text(secret, "tls.key", |bytes| {
                let key = pem::private_key(bytes);
                key.map(drop).map_err(ChainError::KeyUnreadable)
            })?),
        })
    }
}

/// A chain that somebody gave, under a key of a Secret.
///
/// # Errors
/// [`GivenError`].
pub fn given_chain(secret: &SecretData, key: &'static str) -> Result<String, GivenError> {
    given_text(secret, key, |bytes| {
        let chain = pem::certificates(bytes);
        chain.map(drop).map_err(ChainError::ChainNotPem)
    })
}

/// PEM that somebody gave, under a key of a Secret. What is no text (UTF-16, DER) is named for what it is by
/// `reads`; a comment in another encoding beside the blocks harms nobody.
fn given_text(
    secret: &SecretData,
    key: &'static str,
    reads: impl FnOnce(&[u8]) -> Result<(), ChainError>,
) -> Result<String, GivenError> {
    let bytes = secret.get(key).ok_or(GivenError::Missing(key))?;
    if let Ok(text) = std::str::from_utf8(bytes) {
        return Ok(text.to_owned());
    }
    reads(bytes).map_err(GivenError::Unusable)?;
    Ok(String::from_utf8_lossy(bytes).into_owned())
}
