//! What is left of a trust that cannot be used as it was given: pins. One bundle that is broken costs those who are
//! verified by it, and nobody else.

use super::{CertificateError, PartnerTrust, Roots, SpkiSha256, Trust, TrustStamp};
use crate::tls::RootsError;

/// Why a partner's trust settings cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TrustError {
    #[error(transparent)]
    Roots(#[from] RootsError),
    #[error("{origin}: {cause}")]
    Pin {
        origin: String,
        cause: CertificateError,
    },
}

impl Trust {
    /// As [`Trust::of_partner`]; where that fails a trust by which nobody is verified but by the pins that can be
    /// read, and why.
    #[must_use]
    pub fn of_partner_as_far_as_usable(
        settings: &PartnerTrust,
        shared: &Roots,
        origin: &str,
    ) -> (Self, Option<String>) {
        match Self::of_partner(settings, shared, origin) {
            Ok(trust) => (trust, None),
            Err(error) => {
                let why = error.to_string();
                (Self::unusable(settings, &why), Some(why))
            }
        }
    }

    /// By which nobody is verified for the cause `why`.
    #[must_use]
    pub fn of_nobody(why: &str) -> Self {
        Self::unusable(&PartnerTrust::default(), why)
    }

    fn unusable(settings: &PartnerTrust, why: &str) -> Self {
        let readable = |texts: &[String]| -> Vec<SpkiSha256> {
            let hashes = texts.iter().map(|text| SpkiSha256::parse(text));
            hashes.filter_map(Result::ok).collect()
        };
        Self {
            roots: Roots::default(),
            own_authority: true,
            pins: readable(&settings.pinned_spki_sha256),
            known: readable(&settings.known_spki_sha256),
            on_key_change: settings.on_key_change,
            unusable: Some(why.into()),
            stamp: TrustStamp::default(),
        }
        .stamped()
    }
}
