//! What binds a certificate beside its chain: the names that its issuers exclude (RFC 5280 section 4.2.1.10),
//! and when it was issued. Never decides whether a chain is trusted.

use jiff::Timestamp;
use rustls_pki_types::CertificateDer;
use x509_parser::{
    extensions::{GeneralName, ParsedExtension},
    oid_registry::OID_X509_EXT_NAME_CONSTRAINTS,
    prelude::X509Certificate,
};
use xmpp_edge_crds::domain::DomainName;

use super::{
    certificate::{parse, shown, timestamp},
    fault::CertificateFault,
};

/// The `dNSName`s for which the issuers of a chain may issue nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExcludedNames {
    /// Roots of excluded subtrees, lower case; the empty one is everything.
    excluded: Vec<String>,
}

impl ExcludedNames {
    /// Those of all issuers that were presented: of a chain that verifies they are all on its path, or
    /// exclude names that nobody asked them to. One that cannot be read excludes everything.
    #[must_use]
    pub fn of_issuers(chain: &[CertificateDer<'_>]) -> Self {
        let mut own = Self::default();
        for issuer in chain.iter().skip(1) {
            match parse(issuer) {
                Ok(parsed) => own.add(&parsed),
                Err(_) => own.excluded.push(String::new()),
            }
        }
        own
    }

    fn add(&mut self, issuer: &X509Certificate<'_>) {
        for extension in issuer.extensions() {
            match extension.parsed_extension() {
                ParsedExtension::NameConstraints(constraints) => {
                    for subtree in constraints.excluded_subtrees.iter().flatten() {
                        if let GeneralName::DNSName(name) = &subtree.base {
                            let root = name.trim_start_matches('.').to_ascii_lowercase();
                            self.excluded.push(root);
                        }
                    }
                }
                _ if extension.oid == OID_X509_EXT_NAME_CONSTRAINTS => {
                    self.excluded.push(String::new());
                }
                _ => {}
            }
        }
    }

    /// Whether it is one of them, or below one.
    #[must_use]
    pub fn contain(&self, domain: &DomainName) -> bool {
        self.excluded.iter().any(|root| {
            let head = domain.as_str().strip_suffix(root.as_str());
            head.is_some_and(|head| head.is_empty() || root.is_empty() || head.ends_with('.'))
        })
    }
}

/// Whether the certificate begins at `after` or later.
///
/// # Errors
/// [`CertificateFault::TakenAway`] where it does not, and where it cannot be read.
pub fn issued_after(
    certificate: &CertificateDer<'_>,
    after: Timestamp,
) -> Result<(), CertificateFault> {
    let malformed = |cause: super::CertificateError| CertificateFault::Malformed(cause.to_string());
    let parsed = parse(certificate).map_err(malformed)?;
    let not_before = timestamp(&parsed.validity().not_before);
    // A certificate knows whole seconds.
    if not_before.as_second() >= after.as_second() {
        return Ok(());
    }
    Err(CertificateFault::TakenAway {
        subject: shown(parsed.subject()),
        not_before,
        issued_after: after,
    })
}

#[cfg(test)]
mod tests {
    use rcgen::{
        BasicConstraints, CertificateParams, GeneralSubtree, IsCa, KeyPair, NameConstraints,
    };

    use super::*;
    use crate::tls::pki::{Subject, authority, issue};

    fn domain(name: &str) -> DomainName {
        DomainName::parse(name).expect("valid")
    }

    /// B-09.
    #[test]
    fn names_that_an_issuer_excludes_are_excluded_with_all_below_them() {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.name_constraints = Some(NameConstraints {
            permitted_subtrees: Vec::new(),
            excluded_subtrees: ["org.example", "Other.example"]
                .map(|name| GeneralSubtree::DnsName(name.to_owned()))
                .to_vec(),
        });
        let key = KeyPair::generate().expect("a key");
        let issuer = params.self_signed(&key).expect("a certificate");
        let leaf = issue(&authority("any"), &Subject::default()).der;
        let chain = [leaf.clone(), issuer.der().clone()];
        let own = ExcludedNames::of_issuers(&chain);
        for (name, expected) in [
            ("org.example", true),
            ("chat.org.example", true),
            ("other.example", true),
            ("myorg.example", false),
            ("partner.example", false),
        ] {
            assert_eq!(own.contain(&domain(name)), expected, "{name}");
        }
        let alone = ExcludedNames::of_issuers(std::slice::from_ref(&leaf));
        assert!(!alone.contain(&domain("org.example")));
        let broken = ExcludedNames::of_issuers(&[leaf, vec![1, 2, 3].into()]);
        assert!(broken.contain(&domain("partner.example")));
    }

    /// B-06, B-07.
    #[test]
    fn a_certificate_that_was_issued_before_the_others_were_taken_away_does_not_count() {
        let begin = crate::tls::pki::BEGIN;
        let der = issue(&authority("any"), &Subject::default()).der;
        let at = |seconds| Timestamp::from_second(seconds).expect("in range");
        let begin = i64::try_from(begin).expect("in range");
        assert_eq!(issued_after(&der, at(begin)), Ok(()));
        let late = issued_after(&der, at(begin + 1)).expect_err("before");
        assert_eq!(late.label(), "CertificateTakenAway");
    }
}
