//! The rules for a bundle of authorities: whoever takes one and whoever uses it later judge it alike.

use rustls_pki_types::{CertificateDer, TrustAnchor};

use super::{PemError, certificates};

/// More certificates than this in one bundle are refused.
const MOST: usize = 1_000;

/// A certificate from which paths may begin.
#[derive(Clone, Debug)]
pub struct Authority {
    pub der: CertificateDer<'static>,
    pub anchor: TrustAnchor<'static>,
}

/// Why a text is no bundle of authorities. Every text says what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AuthoritiesError {
    #[error("{0}")]
    Pem(#[from] PemError),
    #[error(
        "holds {found} certificates, more than the {MOST} that are taken: leave those that are needed"
    )]
    TooMany { found: usize },
    #[error(
        "certificate {number} in its order cannot be an authority ({cause}): export it again as PEM, or take it out"
    )]
    Certificate { number: usize, cause: String },
}

/// The authorities of a PEM text, at least one and at most 1,000, in its order.
///
/// # Errors
/// [`AuthoritiesError`]: also where a certificate is one that no path can be built from (not DER, version 2,
/// bytes behind it).
pub fn authorities(text: impl AsRef<[u8]>) -> Result<Vec<Authority>, AuthoritiesError> {
    let certificates = certificates(text)?;
    if certificates.len() > MOST {
        return Err(AuthoritiesError::TooMany {
            found: certificates.len(),
        });
    }
    certificates
        .into_iter()
        .enumerate()
        .map(
            |(index, der)| match webpki::anchor_from_trusted_cert(&der) {
                Ok(anchor) => Ok(Authority {
                    anchor: anchor.to_owned(),
                    der,
                }),
                Err(cause) => Err(AuthoritiesError::Certificate {
                    number: index + 1,
                    cause: cause.to_string(),
                }),
            },
        )
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use base64::{Engine as _, engine::general_purpose::STANDARD};

    use super::*;

    fn issued() -> (String, Vec<u8>) {
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(["ca.example".to_owned()]).unwrap();
        let certificate = params.self_signed(&key).unwrap();
        (certificate.pem(), certificate.der().to_vec())
    }

    /// k3: each is told before anything relies on the bundle.
    #[test]
    fn k3_a_bundle_that_no_path_can_begin_at_is_refused_with_its_place() {
        let (pem, der) = issued();
        assert_eq!(authorities(pem.repeat(2)).unwrap().len(), 2);
        assert_eq!(authorities(pem.repeat(MOST)).unwrap().len(), MOST);
        // [0] { INTEGER 2 } is version 3; 1 is version 2.
        let version = der.windows(5).position(|part| part == [0xa0, 3, 2, 1, 2]);
        let mut second = der.clone();
        second[version.unwrap() + 4] = 1;
        let of_version_2 = format!(
            "-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n",
            STANDARD.encode(second)
        );
        for (text, says) in [
            (pem.repeat(MOST + 1), "holds 1001 certificates"),
            (
                format!("{pem}{of_version_2}"),
                "certificate 2 in its order cannot be an authority (",
            ),
            (String::new(), "holds no certificate"),
        ] {
            let error = authorities(text).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
    }
}
