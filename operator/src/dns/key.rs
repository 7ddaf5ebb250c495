//! A TSIG key from a Secret: keys `name` and `secret` (base64). It is wiped where we hold it, and
//! never printed.

use std::fmt;

use base64::{
    Engine,
    engine::general_purpose::{STANDARD, STANDARD_NO_PAD},
};
use hickory_proto::rr::{TSigner, rdata::tsig::TsigAlgorithm as Wire};
use xmpp_edge_crds::kinds::pool::TsigAlgorithm;
use zeroize::Zeroizing;

use super::{
    error::DnsError,
    rrset::{Name, name},
};
use crate::secrets::store::SecretData;

/// Seconds that clocks may differ (RFC 8945 section 10).
pub const FUDGE: u16 = 300;

/// U+FEFF, which editors of Windows put before a text.
const BYTE_ORDER_MARK: char = '\u{feff}';
/// Bytes of the secrets that `tsig-keygen`, `keymgr` and `dnssec-keygen` make.
const USUAL_LENGTHS: [usize; 6] = [16, 20, 24, 32, 48, 64];

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
        // Only what is there and no text is a fault of its own: an empty value is as good as none.
        let value = |key: &str, missing: &str| {
            match material.get(key) {
            Some(bytes) if !bytes.is_empty() => std::str::from_utf8(bytes)
                .map(|text| text.trim_start_matches(BYTE_ORDER_MARK).trim())
                .map_err(|_| invalid(&format!("key \"{key}\" is not UTF-8 text: save the file as UTF-8 without a byte order mark, and make the Secret of it again"))),
            _ => Ok(""),
        }
        .and_then(|text| if text.is_empty() { Err(invalid(missing)) } else { Ok(text) })
        };
        let key = value(
            "name",
            "key \"name\" is missing: the key's name, as on the server",
        )?;
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        let key = name(key)
            .ok()
            .filter(|_| key.chars().all(plain))
            .ok_or_else(|| {
                invalid("key \"name\" is no DNS name: write the key's name as on the server")
            })?;
        let encoded = value(
            "secret",
            "key \"secret\" is missing: the shared secret in base64, as on the server",
        )?;
        let secret = shared_secret(encoded).map_err(invalid)?;
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

    /// Whether what is under `secret` looks like base64 of base64: as it is under `data`, which is
    /// encoded, filled with a value that was encoded by hand as well.
    #[must_use]
    pub fn looks_encoded_twice(&self) -> bool {
        std::str::from_utf8(&self.secret)
            .ok()
            .and_then(|text| STANDARD.decode(text.trim()).ok())
            .is_some_and(|inner| USUAL_LENGTHS.contains(&inner.len()))
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

/// The bytes of a shared secret in base64, with or without padding and with white space anywhere:
/// `dnssec-keygen` writes a long one in two parts.
///
/// # Errors
/// What is wrong with it, and what to put there.
fn shared_secret(encoded: &str) -> Result<Zeroizing<Vec<u8>>, &'static str> {
    const STATEMENT: &str = "key \"secret\" holds more than the shared secret: put the base64 text alone there (of BIND's `secret \"…\";` what is between the quotation marks, of a .key file what follows the three numbers, of a key for `nsupdate -y` what follows the last colon)";
    let words: Vec<&str> = encoded.split_whitespace().collect();
    let keyword = words
        .first()
        .is_some_and(|word| matches!(word.to_ascii_lowercase().as_str(), "secret" | "key"));
    let foreign = |c: char| matches!(c, '{' | '}' | '"' | '\'' | ';' | ':' | '.' | ',');
    if encoded.contains(foreign) || words.len() > 1 && (keyword || !is_parted(&words)) {
        return Err(STATEMENT);
    }
    let joined: Zeroizing<String> = Zeroizing::new(encoded.split_whitespace().collect());
    let bare = joined.trim_end_matches('=');
    match STANDARD_NO_PAD.decode(bare) {
        Ok(secret) if secret.is_empty() => {
            Err("key \"secret\" is empty: copy the shared secret from the server")
        }
        Ok(secret) => Ok(Zeroizing::new(secret)),
        Err(_) if words.len() > 1 => Err(STATEMENT),
        Err(_) => Err("key \"secret\" is not base64: copy it as the server's configuration has it"),
    }
}

/// Whether words are base64 as programs break it: into parts of one length, of whole groups of four characters
/// (RFC 4648 section 4), the last one perhaps shorter. A name before the secret, which is longer, is no such part.
fn is_parted(words: &[&str]) -> bool {
    let Some((last, parts)) = words.split_last() else {
        return true;
    };
    let length = parts.first().map_or(0, |part| part.len());
    length % 4 == 0 && parts.iter().all(|part| part.len() == length) && last.len() <= length
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
    fn k19_shared_secrets_are_read_as_people_have_them_or_named() {
        let read = |secret: &str| {
            let material = material(&[("name", "edge-key"), ("secret", secret)]);
            TsigKey::read("tsig", Some(&material), TsigAlgorithm::HmacSha256)
        };
        let plain = read("c2VjcmV0IG9mIHRoZSBrZXk=").unwrap();
        for same in [
            "c2VjcmV0IG9mIHRo ZSBrZXk=",
            "c2VjcmV0\nIG9mIHRo\nZSBrZXk=",
            "c2VjcmV0IG9mIHRo\r\nZSBrZXk=\r\n",
            "c2VjcmV0IG9mIHRoZSBrZXk",
            "\u{feff}c2VjcmV0IG9mIHRoZSBrZXk=\n",
        ] {
            assert_eq!(read(same).unwrap(), plain, "{same:?}");
        }
        for pasted in [
            "secret \"Zm9vYmFy\";",
            "secret Zm9vYmFy",
            "edgekey Zm9vYmFy",
            "edgekey1 Zm9vYmFyZm9vYmFyZm9vYmFyZm9vYmFyZm9vYmFyZm8=",
            "Zm9vYmFyZm9vYmFyZm9vYmFyZm9vYmFyZm9vYmFyZm8= hmac-sha256",
            "\"Zm9vYmFy\"",
            "key \"edge-key\" { algorithm hmac-sha256; secret \"Zm9vYmFy\"; };",
            "hmac-sha256:edge-key:Zm9vYmFy",
            "edge-key. IN KEY 512 3 165 Zm9v YmFy",
            "Private-key-format: v1.3\nKey: Zm9vYmFy",
        ] {
            let text = read(pasted).unwrap_err().to_string();
            assert!(text.contains("holds more than the shared secret"), "{text}");
            assert!(!text.contains("Zm9v"), "the secret is never quoted: {text}");
        }
        let twice = STANDARD.encode(STANDARD.encode([7; 32]));
        assert!(read(&twice).unwrap().looks_encoded_twice());
        let once = STANDARD.encode([7; 32]);
        assert!(!read(&once).unwrap().looks_encoded_twice());
        assert!(!plain.looks_encoded_twice());
        let mut utf16 = material(&[("name", "edge-key"), ("secret", "")]);
        let bytes = "Zm9v".encode_utf16().flat_map(u16::to_le_bytes);
        let bytes = [0xff, 0xfe].into_iter().chain(bytes).collect();
        utf16.insert("secret".to_owned(), Zeroizing::new(bytes));
        let error = TsigKey::read("tsig", Some(&utf16), TsigAlgorithm::HmacSha256).unwrap_err();
        assert!(error.to_string().contains("is not UTF-8"), "{error}");
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
                vec![("name", "k"), ("secret", "not-base64")],
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
