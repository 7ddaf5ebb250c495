//! Whose a record is: a TXT record beside it, at the same name.
//!
//! ```text
//! "xmpp-edge=1" "owner=<id>" "pool=<namespace>/<name>" "SRV 10 100 5269 edge.example.org."
//! ```
//!
//! One marker for each record and each pool that wants it. A record without a marker is foreign and
//! is never touched; neither is a TXT record that has not exactly this form.

use std::{collections::BTreeSet, fmt, str::FromStr};

use super::rrset::RecordData;

/// First string of a marker; a later form gets another number, and is foreign to this one.
const FORM: &str = "xmpp-edge=1";

/// Who an operator is among those that publish into the same zone: 1 to 63 of `A-Za-z0-9._-`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OwnerId(String);

/// An owner id that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an owner id has 1 to 63 of the characters A-Z a-z 0-9 . _ -, not {0:?}")]
pub struct InvalidOwnerId(String);

impl FromStr for OwnerId {
    type Err = InvalidOwnerId;

    fn from_str(text: &str) -> Result<Self, InvalidOwnerId> {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        if (1..=63).contains(&text.len()) && text.chars().all(plain) {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidOwnerId(text.to_owned()))
        }
    }
}

impl fmt::Display for OwnerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One pool of one operator: in whose name records are published.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecordOwner {
    pub owner: OwnerId,
    pub namespace: String,
    pub pool: String,
}

impl RecordOwner {
    /// Whether it is of a pool of the same namespace and name, of another operator: of another cluster,
    /// or of an installation that is gone.
    #[must_use]
    pub fn is_namesake_of(&self, other: &Self) -> bool {
        self.owner != other.owner && self.namespace == other.namespace && self.pool == other.pool
    }
}

impl fmt::Display for RecordOwner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}/{}", self.owner, self.namespace, self.pool)
    }
}

/// A TXT record that says whose another record at the same name is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Marker {
    pub claim: RecordOwner,
    /// Text of the record, in lower case.
    record: String,
}

impl Marker {
    #[must_use]
    pub fn new(claim: &RecordOwner, record: &RecordData) -> Self {
        Self {
            claim: claim.clone(),
            record: record.to_string().to_ascii_lowercase(),
        }
    }

    /// Reads a marker; `None` where the record is something else.
    #[must_use]
    pub fn read(data: &RecordData) -> Option<Self> {
        let RecordData::Txt(strings) = data else {
            return None;
        };
        let [form, owner, pool, record @ ..] = strings.as_slice() else {
            return None;
        };
        if form != FORM.as_bytes() || record.is_empty() {
            return None;
        }
        let text = |bytes| std::str::from_utf8(bytes).ok();
        let owner = text(owner)?.strip_prefix("owner=")?.parse().ok()?;
        let (namespace, pool) = text(pool)?.strip_prefix("pool=")?.split_once('/')?;
        Some(Self {
            claim: RecordOwner {
                owner,
                namespace: namespace.to_owned(),
                pool: pool.to_owned(),
            },
            record: text(&record.concat())?.to_ascii_lowercase(),
        })
    }

    /// Whether it speaks of `data`.
    #[must_use]
    pub fn marks(&self, data: &RecordData) -> bool {
        self.record == data.to_string().to_ascii_lowercase()
    }

    /// As a record.
    #[must_use]
    pub fn data(&self) -> RecordData {
        let RecordOwner {
            owner,
            namespace,
            pool,
        } = &self.claim;
        // A character-string has at most 255 bytes: owner and pool always fit, a record's text is
        // split where it does not.
        let mut strings: Vec<Vec<u8>> = vec![
            FORM.into(),
            format!("owner={owner}").into(),
            format!("pool={namespace}/{pool}").into(),
        ];
        strings.extend(self.record.as_bytes().chunks(255).map(<[u8]>::to_vec));
        RecordData::Txt(strings)
    }
}

/// The markers among TXT records, each with the record that holds it.
pub fn among<'a>(txt: impl IntoIterator<Item = &'a RecordData>) -> Vec<(&'a RecordData, Marker)> {
    txt.into_iter()
        .filter_map(|data| Marker::read(data).map(|marker| (data, marker)))
        .collect()
}

/// Who marks `data`.
pub fn claimants<'a>(
    markers: &'a [(&RecordData, Marker)],
    data: &RecordData,
) -> BTreeSet<&'a RecordOwner> {
    markers
        .iter()
        .filter(|(_, marker)| marker.marks(data))
        .map(|(_, marker)| &marker.claim)
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::dns::rrset::name;

    fn claim() -> RecordOwner {
        RecordOwner {
            owner: "site-1".parse().unwrap(),
            namespace: "org".to_owned(),
            pool: "hq".to_owned(),
        }
    }

    fn srv(target: &str) -> RecordData {
        RecordData::Srv {
            priority: 65535,
            weight: 65535,
            port: 65535,
            target: name(target).unwrap(),
        }
    }

    #[test]
    fn a_marker_is_read_as_it_was_written_however_long_the_name() {
        let label = "a".repeat(63);
        let longest = format!("{label}.{label}.{label}.{}", "b".repeat(61));
        for target in ["edge.example", &longest] {
            let marker = Marker::new(&claim(), &srv(target));
            let RecordData::Txt(strings) = marker.data() else {
                panic!("a marker is TXT")
            };
            assert!(strings.iter().all(|string| string.len() <= 255));
            let read = Marker::read(&RecordData::Txt(strings)).unwrap();
            assert_eq!(read, marker);
            assert!(read.marks(&srv(&target.to_uppercase())));
            assert!(!read.marks(&srv("other.example")));
        }
    }

    #[test]
    fn what_is_no_marker_is_foreign() {
        for strings in [
            vec!["v=spf1 -all"],
            vec!["xmpp-edge=1"],
            vec!["xmpp-edge=1", "owner=a", "pool=b/c"],
            vec!["xmpp-edge=2", "owner=a", "pool=b/c", "A 192.0.2.1"],
            vec!["xmpp-edge=1", "owner=", "pool=b/c", "A 192.0.2.1"],
            vec!["xmpp-edge=1", "owner=a", "pool=b", "A 192.0.2.1"],
            vec!["xmpp-edge=1", "pool=b/c", "owner=a", "A 192.0.2.1"],
        ] {
            let data = RecordData::Txt(strings.iter().map(|s| s.as_bytes().to_vec()).collect());
            assert_eq!(Marker::read(&data), None, "{strings:?}");
        }
    }

    #[test]
    fn an_owner_id_is_short_and_plain() {
        for good in ["a", "9b1f7c52-5f0e-4c38-9a70-0f2f6a1f3a11", "site_1.hq"] {
            assert_eq!(good.parse::<OwnerId>().unwrap().to_string(), good);
        }
        for bad in ["", "a b", "a/b", "\"", &"a".repeat(64)] {
            assert!(bad.parse::<OwnerId>().is_err(), "{bad:?}");
        }
    }
}
