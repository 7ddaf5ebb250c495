//! Why a chain does not verify, in words: which certificate of it, and what its owner can do. What the library says
//! of it goes to the log alone: it is long, and for nobody's eyes elsewhere.

use jiff::Timestamp;
use x509_parser::prelude::{X509Certificate, X509Version};

use super::{Question, Role, policies::critical};
use crate::tls::{
    certificate::{parse, shown, timestamp},
    fault::CertificateFault,
};

/// Signature algorithms that are not verified and may still be met, by their OIDs.
const OUTDATED: [(&str, &str); 5] = [
    ("1.2.840.113549.1.1.5", "RSA and SHA-1"),
    ("1.2.840.10045.4.1", "ECDSA and SHA-1"),
    ("1.2.840.10040.4.3", "DSA and SHA-1"),
    ("1.2.840.113549.1.1.4", "RSA and MD5"),
    ("1.2.840.113549.1.1.2", "RSA and MD2"),
];
/// Most characters of the library's words in the log.
const DETAIL: usize = 300;

impl Question<'_> {
    pub(super) fn fault(&self, cause: &webpki::Error) -> CertificateFault {
        use webpki::Error;
        match cause {
            Error::UnknownIssuer => self.unknown_issuer(),
            // The end entity's dates were looked at before: this is another's of the chain.
            Error::CertExpired { .. } | Error::CertNotValidYet { .. } => self
                .chain
                .iter()
                .skip(1)
                .filter_map(|der| parse(der).ok())
                .find_map(|parsed| dates_of(&parsed, self.now).err())
                .unwrap_or_else(|| invalid(cause)),
            Error::RequiredEkuNotFoundContext(_) => not_for_use(self.role),
            Error::CaUsedAsEndEntity if is_self_issued(self.parsed) => {
                CertificateFault::SelfSigned {
                    subject: shown(self.parsed.subject()),
                }
            }
            Error::BadDer | Error::BadDerTime | Error::TrailingData(_) => unreadable(cause),
            Error::UnsupportedCriticalExtension => {
                self.find(critical).unwrap_or_else(|| invalid(cause))
            }
            Error::UnsupportedCertVersion => self
                .find(|parsed| {
                    (parsed.version() != X509Version::V3).then(|| CertificateFault::Version {
                        subject: shown(parsed.subject()),
                        version: parsed.version().0 + 1,
                    })
                })
                .unwrap_or_else(|| invalid(cause)),
            Error::UnsupportedSignatureAlgorithmContext(context) => {
                self.signature(&context.signature_algorithm_id, cause)
            }
            Error::UnsupportedSignatureAlgorithmForPublicKeyContext(context) => {
                self.signature(&context.signature_algorithm_id, cause)
            }
            other => invalid(other),
        }
    }

    /// The first that `told` says something of, of the certificates that can be read.
    fn find(
        &self,
        told: impl Fn(&X509Certificate<'_>) -> Option<CertificateFault>,
    ) -> Option<CertificateFault> {
        let mut readable = self.chain.iter().filter_map(|der| parse(der).ok());
        readable.find_map(|parsed| told(&parsed))
    }

    /// A certificate is signed by `algorithm` (an AlgorithmIdentifier without its tag and length), which nobody
    /// verifies here.
    fn signature(&self, algorithm: &[u8], cause: &webpki::Error) -> CertificateFault {
        let signed = |parsed: &X509Certificate<'_>| {
            let oid = &parsed.signature_algorithm.algorithm;
            // Its tag and its length stand before the OID.
            let own = algorithm.get(2..2 + oid.as_bytes().len());
            (own == Some(oid.as_bytes())).then(|| {
                let oid = oid.to_id_string();
                let known = OUTDATED.iter().find(|(own, _)| *own == oid);
                CertificateFault::Signature {
                    subject: shown(parsed.subject()),
                    algorithm: known.map_or(oid, |(_, name)| (*name).to_owned()),
                }
            })
        };
        self.find(signed).unwrap_or_else(|| invalid(cause))
    }

    fn unknown_issuer(&self) -> CertificateFault {
        if is_self_issued(self.parsed) {
            return CertificateFault::SelfSigned {
                subject: shown(self.parsed.subject()),
            };
        }
        // Follow the issuers through what was sent, in whatever order.
        let sent: Vec<_> = self.chain[1..]
            .iter()
            .filter_map(|der| parse(der).ok())
            .collect();
        let mut last = self.parsed;
        for _ in 0..sent.len() {
            match sent.iter().find(|next| next.subject() == last.issuer()) {
                Some(next) if !is_self_issued(last) => last = next,
                _ => break,
            }
        }
        if is_self_issued(last) {
            CertificateFault::UnknownIssuer {
                root: shown(last.subject()),
            }
        } else {
            CertificateFault::IncompleteChain {
                issuer: shown(last.issuer()),
            }
        }
    }
}

/// A rule of RFC 5280 that has no cause of its own.
fn invalid(cause: &webpki::Error) -> CertificateFault {
    use webpki::Error;
    tracing::debug!("a chain does not verify: {:.DETAIL$}", format!("{cause:?}"));
    CertificateFault::Invalid(match cause {
        Error::CaUsedAsEndEntity => {
            "the certificate is one of an authority; have a leaf issued, or pin its key"
        }
        Error::EndEntityUsedAsCa => "a certificate of it was issued by one that is no authority's",
        Error::InvalidSignatureForPublicKey => "a signature in it is wrong",
        Error::SignatureAlgorithmMismatch => "a certificate of it names two signature algorithms",
        Error::NameConstraintViolation => {
            "its authority may not vouch for this name (name constraints)"
        }
        Error::PathLenConstraintViolated | Error::MaximumPathDepthExceeded => {
            "it is longer than an authority of it allows"
        }
        Error::CertExpired { .. } | Error::CertNotValidYet { .. } => {
            "a certificate of it is not valid now"
        }
        Error::MaximumSignatureChecksExceeded
        | Error::MaximumPathBuildCallsExceeded
        | Error::MaximumNameConstraintComparisonsExceeded => "it costs too much to verify",
        _ => "a certificate of it breaks a rule of RFC 5280",
    })
}

/// The library cannot read a certificate that others may.
pub(super) fn unreadable(cause: &webpki::Error) -> CertificateFault {
    let what = match cause {
        webpki::Error::BadDerTime => "a date",
        webpki::Error::TrailingData(_) => "bytes behind a field",
        _ => "a field",
    };
    CertificateFault::Malformed(format!("{what} cannot be read"))
}

pub(super) fn dates_of(
    parsed: &X509Certificate<'_>,
    now: Timestamp,
) -> Result<(), CertificateFault> {
    let validity = parsed.validity();
    let subject = || shown(parsed.subject());
    if now.as_second() > validity.not_after.timestamp() {
        return Err(CertificateFault::Expired {
            subject: subject(),
            not_after: timestamp(&validity.not_after),
        });
    }
    if now.as_second() < validity.not_before.timestamp() {
        return Err(CertificateFault::NotYetValid {
            subject: subject(),
            not_before: timestamp(&validity.not_before),
        });
    }
    Ok(())
}

fn is_self_issued(certificate: &X509Certificate<'_>) -> bool {
    certificate.subject() == certificate.issuer()
}

pub(super) fn not_for_use(role: Role) -> CertificateFault {
    match role {
        Role::Server => CertificateFault::NotForUse {
            wanted: "server",
            missing: "serverAuth",
        },
        Role::Client => CertificateFault::NotForUse {
            wanted: "peer",
            missing: "clientAuth and serverAuth",
        },
    }
}
