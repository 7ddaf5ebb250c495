//! Records as this room speaks of them: only the types that it publishes, compared as DNS compares
//! them (names without regard to case).

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::{Ipv4Addr, Ipv6Addr},
};

pub use hickory_proto::rr::Name;

/// The types that are read and written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RecordKind {
    Srv,
    Txt,
    A,
    Aaaa,
}

/// The data of one record.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RecordData {
    /// RFC 2782.
    Srv {
        priority: u16,
        weight: u16,
        port: u16,
        target: Name,
    },
    /// Character-strings of at most 255 bytes each.
    Txt(Vec<Vec<u8>>),
    A(Ipv4Addr),
    Aaaa(Ipv6Addr),
}

impl RecordData {
    #[must_use]
    pub fn kind(&self) -> RecordKind {
        match self {
            Self::Srv { .. } => RecordKind::Srv,
            Self::Txt(_) => RecordKind::Txt,
            Self::A(_) => RecordKind::A,
            Self::Aaaa(_) => RecordKind::Aaaa,
        }
    }

    /// Whether it says that there is no service (RFC 2782: target `.`).
    #[must_use]
    pub fn denies_service(&self) -> bool {
        matches!(self, Self::Srv { target, .. } if target.is_root())
    }
}

impl fmt::Display for RecordData {
    /// Type and data as in a zone file; TXT without escapes, for messages only.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Srv {
                priority,
                weight,
                port,
                target,
            } => write!(f, "SRV {priority} {weight} {port} {target}"),
            Self::Txt(strings) => {
                f.write_str("TXT")?;
                for string in strings {
                    write!(f, " \"{}\"", String::from_utf8_lossy(string))?;
                }
                Ok(())
            }
            Self::A(ip) => write!(f, "A {ip}"),
            Self::Aaaa(ip) => write!(f, "AAAA {ip}"),
        }
    }
}

/// The records of one name and type. Never empty where it stands for what a server answered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RrSet {
    /// Seconds.
    pub ttl: u32,
    pub data: BTreeSet<RecordData>,
}

/// What a server answered, by name and type. A missing entry has no records.
pub type ObservedRrset = BTreeMap<(Name, RecordKind), RrSet>;

/// A domain as an absolute DNS name, in lower case.
///
/// # Errors
/// When a label is longer than 63 bytes, or the whole than 255 on the wire.
pub fn name(text: &str) -> Result<Name, hickory_proto::ProtoError> {
    let mut name = Name::from_ascii(text)?;
    name.set_fqdn(true);
    Ok(name.to_lowercase())
}
