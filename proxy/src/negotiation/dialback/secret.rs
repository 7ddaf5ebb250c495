//! The secret that all replicas of all pools of a domain share: dialback keys (XEP-0185) and stream
//! ids that any of them knows again as our own.

use std::fmt;

use aws_lc_rs::{constant_time, digest, hmac, rand};

use crate::negotiation::VerifyRequest;

/// Random octets of a stream id (RFC 6120 section 4.7.3 wants it unpredictable).
const ID_RANDOM: usize = 16;
/// Octets of the MAC that makes an id our own.
const ID_MAC: usize = 8;

/// Computes and verifies dialback keys; holds the current secret and, while it is rotated, the
/// previous one. Never shown by `Debug`.
#[derive(Clone)]
pub struct Secret {
    current: Keys,
    previous: Option<Keys>,
}

#[derive(Clone)]
struct Keys {
    dialback: hmac::Key,
    stream_id: hmac::Key,
}

impl Keys {
    fn new(secret: &[u8]) -> Self {
        // XEP-0185 section 3: the HMAC's key is the secret's SHA-256 in lower-case hexadecimal.
        let hashed = hex(digest::digest(&digest::SHA256, secret).as_ref());
        let dialback = hmac::Key::new(hmac::HMAC_SHA256, hashed.as_bytes());
        // A key of its own, so that no dialback key can ever be read off a stream id.
        let derived = hmac::sign(&dialback, b"xmpp-edge stream id");
        let stream_id = hmac::Key::new(hmac::HMAC_SHA256, derived.as_ref());
        Self {
            dialback,
            stream_id,
        }
    }

    fn key(&self, receiving: &str, sending: &str, stream_id: &str) -> String {
        let text = format!("{receiving} {sending} {stream_id}");
        hex(hmac::sign(&self.dialback, text.as_bytes()).as_ref())
    }

    fn id_mac(&self, random: &str) -> String {
        hex(&hmac::sign(&self.stream_id, random.as_bytes()).as_ref()[..ID_MAC])
    }
}

impl Secret {
    #[must_use]
    pub fn new(current: &[u8], previous: Option<&[u8]>) -> Self {
        Self {
            current: Keys::new(current),
            previous: previous.map(Keys::new),
        }
    }

    /// The key for a stream with this id, from the sending (originating) domain to the receiving
    /// one: XEP-0185 section 3, 64 lower-case hexadecimal digits.
    #[must_use]
    pub fn key(&self, receiving: &str, sending: &str, stream_id: &str) -> String {
        self.current.key(receiving, sending, stream_id)
    }

    /// Whether we, or another replica, made the key for this question; in constant time.
    #[must_use]
    pub fn made(&self, question: &VerifyRequest) -> bool {
        let pair = &question.pair;
        [Some(&self.current), self.previous.as_ref()]
            .into_iter()
            .flatten()
            .any(|keys| {
                let expected = keys.key(pair.to.as_str(), pair.from.as_str(), &question.stream_id);
                constant_time::verify_slices_are_equal(expected.as_bytes(), question.key.as_bytes())
                    .is_ok()
            })
    }

    /// A key for marks of our own that any replica must know again, apart from dialback's.
    #[must_use]
    pub fn mac_key(&self) -> hmac::Key {
        let derived = hmac::sign(&self.current.dialback, b"xmpp-edge marks");
        hmac::Key::new(hmac::HMAC_SHA256, derived.as_ref())
    }

    /// A fresh stream id: 128 random bits and a MAC, 48 lower-case hexadecimal digits.
    #[must_use]
    pub fn new_stream_id(&self) -> String {
        let mut random = [0_u8; ID_RANDOM];
        rand::fill(&mut random).expect("the system's random source works, or TLS would not either");
        let mut id = hex(&random);
        let mac = self.current.id_mac(&id);
        id.push_str(&mac);
        id
    }

    /// Whether a proxy that has this secret issued the stream id.
    #[must_use]
    pub fn is_own_stream_id(&self, id: &str) -> bool {
        if id.len() != 2 * (ID_RANDOM + ID_MAC) || !id.is_ascii() {
            return false;
        }
        let (random, mac) = id.split_at(2 * ID_RANDOM);
        [Some(&self.current), self.previous.as_ref()]
            .into_iter()
            .flatten()
            .any(|keys| {
                constant_time::verify_slices_are_equal(
                    keys.id_mac(random).as_bytes(),
                    mac.as_bytes(),
                )
                .is_ok()
            })
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        text.push(char::from(DIGITS[usize::from(byte >> 4)]));
        text.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
    text
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::negotiation::Pair;

    fn question(from: &str, to: &str, id: &str, key: &str) -> VerifyRequest {
        let domain = |text: &str| text.parse().expect("valid domain");
        VerifyRequest {
            pair: Pair {
                from: domain(from),
                to: domain(to),
            },
            stream_id: id.to_owned(),
            key: key.to_owned(),
            names: crate::negotiation::WireNames::default(),
        }
    }

    /// D-01: the vectors of XEP-0185 section 3 and XEP-0220.
    #[test]
    fn keys_are_those_of_xep_0185() {
        for (secret, receiving, sending, id, key) in [
            (
                "s3cr3tf0rd14lb4ck",
                "xmpp.example.com",
                "example.org",
                "D60000229F",
                "37c69b1cf07a3f67c04a5ef5902fa5114f2c76fe4a2686482ba5b89323075643",
            ),
            (
                "s3cr3tf0rd14lb4ck",
                "montague.example",
                "capulet.example",
                "D60000229F",
                "b4835385f37fe2895af6c196b59097b16862406db80559900d96bf6fa7d23df3",
            ),
            (
                "d14lb4ck43v3r",
                "capulet.example",
                "montague.example",
                "417GAF25",
                "225cc5aa6a071133249d25fef42ae516fc7a86c523aa1c6980a7f73e784c972d",
            ),
        ] {
            let secret = Secret::new(secret.as_bytes(), None);
            assert_eq!(secret.key(receiving, sending, id), key);
            assert!(secret.made(&question(sending, receiving, id, key)));
            assert!(
                !secret.made(&question(receiving, sending, id, key)),
                "the roles count"
            );
            assert!(
                !secret.made(&question(sending, receiving, "other", key)),
                "the id counts"
            );
            assert!(
                !secret.made(&question(sending, receiving, id, "")),
                "an empty key is none"
            );
        }
    }

    /// D-16 and rotation.
    #[test]
    fn any_replica_verifies_and_the_previous_secret_still_does() {
        let old = Secret::new(b"old", None);
        let rotated = Secret::new(b"new", Some(b"old"));
        let key = old.key("b.example", "a.example", "id");
        assert!(rotated.made(&question("a.example", "b.example", "id", &key)));
        assert!(!Secret::new(b"new", None).made(&question("a.example", "b.example", "id", &key)));
        assert_eq!(
            rotated.key("b.example", "a.example", "id"),
            Secret::new(b"new", None).key("b.example", "a.example", "id")
        );
        assert!(rotated.is_own_stream_id(&old.new_stream_id()));
    }

    /// D-15.
    #[test]
    fn stream_ids_are_unique_and_known_again_as_our_own() {
        let secret = Secret::new(b"secret", None);
        let ids: HashSet<String> = (0..10_000).map(|_| secret.new_stream_id()).collect();
        assert_eq!(ids.len(), 10_000);
        assert!(ids.iter().all(|id| secret.is_own_stream_id(id)));
        let other = Secret::new(b"other", None);
        assert!(!ids.iter().any(|id| other.is_own_stream_id(id)));
        for foreign in ["", "D60000229F", "ä", &"0".repeat(48), &"ä".repeat(24)] {
            assert!(!secret.is_own_stream_id(foreign), "{foreign}");
        }
    }

    #[test]
    fn the_secret_is_never_shown() {
        assert_eq!(format!("{:?}", Secret::new(b"hunter2", None)), "Secret");
    }
}
