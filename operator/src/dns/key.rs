//! A TSIG key from a Secret: keys `name` and `secret` (base64). It is wiped where we hold it, and
//! never printed.

use std::fmt;

use base64::{Engine, engine::general_purpose::STANDARD};
use hickory_proto::rr::{TSigner, rdata::tsig::TsigAlgorithm as Wire};
use xmpp_edge_crds::kinds::pool::TsigAlgorithm;
use zeroize::Zeroizing;

use super::{
    error::DnsError,
    rrset::{Name, name},
};
use crate::secrets::store::{SecretData, text};

/// Seconds that clocks may differ (RFC 8945 section 10).
pub const FUDGE: u16 = 300;

/// Name, algorithm and secret.
#[derive(Clone, PartialEq, Eq)]
pub struct TsigKey {
    pub name: Name,
    algorithm: Wire,
    secret: Zeroizing<Vec<u8>>,
}

impl fmt::Debug for TsigKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TsigKey({}, {})", self.name, self.algorithm.to_name())
    }
}

impl TsigKey {
    /// Reads the Secret of this name; `None`: there is none.
    ///
    /// # Errors
    /// [`DnsError::KeyMissing`], [`DnsError::KeyInvalid`].
    pub fn read(
        secret: &str,
        material: Option<&SecretData>,
        algorithm: TsigAlgorithm,
    ) -> Result<Self, DnsError> {
        let material = material.ok_or_else(|| DnsError::KeyMissing {
            secret: secret.to_owned(),
        })?;
        let invalid = |fault: &str| DnsError::KeyInvalid {
            secret: secret.to_owned(),
            fault: fault.to_owned(),
        };
        let value = |key: &str| {
            text(material, key)
                .map(str::trim)
                .filter(|value| !value.is_empty())
        };
        let key = value("name")
            .ok_or_else(|| invalid("key \"name\" is missing: the key's name, as on the server"))?;
        let key = name(key).map_err(|_| {
            invalid("key \"name\" is no DNS name: write the key's name as on the server")
        })?;
        let encoded = value("secret").ok_or_else(|| {
            invalid("key \"secret\" is missing: the shared secret in base64, as on the server")
        })?;
        let secret = STANDARD.decode(encoded).map_err(|_| {
            invalid("key \"secret\" is not base64: copy it as the server's configuration has it")
        })?;
        let secret = Zeroizing::new(secret);
        if secret.is_empty() {
            return Err(invalid(
                "key \"secret\" is empty: copy the shared secret from the server",
            ));
        }
        let algorithm = match algorithm {
            TsigAlgorithm::HmacSha256 => Wire::HmacSha256,
            TsigAlgorithm::HmacSha384 => Wire::HmacSha384,
            TsigAlgorithm::HmacSha512 => Wire::HmacSha512,
        };
        Ok(Self {
            name: key,
            algorithm,
            secret,
        })
    }

    /// What signs and verifies.
    ///
    /// # Panics
    /// Never: the three algorithms are supported.
    pub(super) fn signer(&self) -> TSigner {
        TSigner::new(
            self.secret.to_vec(),
            self.algorithm.clone(),
            self.name.clone(),
            FUDGE,
        )
        .expect("HMAC-SHA2 is supported")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn material(pairs: &[(&str, &str)]) -> SecretData {
        pairs
            .iter()
            .map(|(key, value)| ((*key).to_owned(), Zeroizing::new(value.as_bytes().to_vec())))
            .collect()
    }

    #[test]
    fn a_key_is_read_however_it_was_pasted_and_never_printed() {
        let read = |name: &str, secret: &str| {
            let material = material(&[("name", name), ("secret", secret)]);
            TsigKey::read("tsig", Some(&material), TsigAlgorithm::HmacSha512).unwrap()
        };
        let key = read("edge-key", "c2VjcmV0IG9mIHRoZSBrZXk=");
        assert_eq!(read("Edge-Key.\n", "c2VjcmV0IG9mIHRoZSBrZXk=\n"), key);
        assert_eq!(format!("{key:?}"), "TsigKey(edge-key., hmac-sha512)");
        assert_eq!(key.signer().key(), b"secret of the key");
    }

    #[test]
    fn each_mistake_in_the_secret_says_what_to_do() {
        for (pairs, says) in [
            (vec![], "key \"name\" is missing"),
            (vec![("name", "k")], "key \"secret\" is missing"),
            (
                vec![("name", "k"), ("secret", " ")],
                "key \"secret\" is missing",
            ),
            (
                vec![("name", "k"), ("secret", "not base64")],
                "is not base64",
            ),
            (vec![("name", "a..b"), ("secret", "YQ==")], "is no DNS name"),
        ] {
            let material = material(&pairs);
            let error =
                TsigKey::read("tsig", Some(&material), TsigAlgorithm::HmacSha256).unwrap_err();
            let text = error.to_string();
            assert!(text.contains(says) && text.contains("\"tsig\""), "{text}");
        }
        let error = TsigKey::read("tsig", None, TsigAlgorithm::HmacSha256).unwrap_err();
        assert!(matches!(error, DnsError::KeyMissing { .. }));
    }
}
