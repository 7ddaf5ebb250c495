//! What DANE says of one target (RFC 7673 sections 3.2 and 3.3): the decision, and its words for
//! whoever looks why a certificate counts or not.

use std::fmt;

use super::Dnssec;
use crate::tls::TlsaSet;

/// Whether TLSA records of a target count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Dane {
    /// The target's addresses are not secure: TLSA records are not asked for.
    AddressesNotSecure(Dnssec),
    /// The TLSA records are not secure: they do not count.
    RecordsNotSecure(Dnssec),
    /// There are none, and that is proven.
    NoRecords,
    /// There are some, of kinds that nobody can use (RFC 7671 section 4.1).
    NoneUsable,
    /// These count.
    Counts(TlsaSet),
}

impl Dane {
    /// The records that count; `None`: PKIX alone decides.
    #[must_use]
    pub fn records(self) -> Option<TlsaSet> {
        match self {
            Self::Counts(records) => Some(records),
            _ => None,
        }
    }
}

impl fmt::Display for Dane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AddressesNotSecure(why) => {
                write!(f, "DANE is not used: the addresses are {why}")
            }
            Self::RecordsNotSecure(why) => {
                write!(f, "DANE is not used: the TLSA records are {why}")
            }
            Self::NoRecords => f.write_str("DANE is not used: no TLSA record, which is proven"),
            Self::NoneUsable => f.write_str("DANE is not used: none of the TLSA records is usable"),
            Self::Counts(records) => {
                write!(f, "DANE counts: {} TLSA records", records.records().len())
            }
        }
    }
}
