//! The proof that a wildcard was rightly used (RFC 4035 section 5.3.4), for zones with NSEC.
//!
//! hickory 0.26 takes an answer from a wildcard one label above the name for bogus where the zone has
//! NSEC; with NSEC3 it is right. This looks again at what it refused, and at nothing else. Pure.

use hickory_proto::{
    dnssec::{
        Proof,
        rdata::{DNSSECRData, NSEC, RRSIG},
    },
    op::{Message, ResponseCode},
    rr::{Name, RData, Record, RecordType},
};

use super::standing::{self, Followed};

/// Whether every record of a positive answer is secure, and each that a wildcard made comes with
/// the proof that no closer name exists.
pub(super) fn is_proven(message: &Message, name: &Name, kind: RecordType) -> bool {
    let secure = matches!(
        standing::of(message, name, kind),
        Ok((standing, Followed::Records(_))) if standing.is_secure()
    );
    let mut made = message.answers.iter().filter_map(expanded).peekable();
    message.metadata.response_code == ResponseCode::NoError
        && secure
        && made.peek().is_some()
        && made.all(|(owner, signature)| {
            message
                .authorities
                .iter()
                .any(|record| denies(record, owner, signature))
        })
}

/// The name that a wildcard stood in for, and the signature that says so: it counts fewer labels.
fn expanded(record: &Record) -> Option<(&Name, &RRSIG)> {
    match &record.data {
        RData::DNSSEC(DNSSECRData::RRSIG(signature))
            if record.proof == Proof::Secure
                && signature.input().num_labels < record.name.num_labels() =>
        {
            Some((&record.name, signature))
        }
        _ => None,
    }
}

/// Whether `record` is a secure NSEC by which neither `owner` exists nor any name between it and
/// the wildcard.
fn denies(record: &Record, owner: &Name, signature: &RRSIG) -> bool {
    let RData::DNSSEC(DNSSECRData::NSEC(nsec)) = &record.data else {
        return false;
    };
    let from = &record.name;
    let next = nsec.next_domain_name();
    let next_closer = owner.trim_to(usize::from(signature.input().num_labels) + 1);
    record.proof == Proof::Secure
        && signature.input().signer_name.zone_of(from)
        && covers(from, nsec, owner)
        && !next_closer.zone_of(from)
        && !next_closer.zone_of(next)
}

/// Whether `owner` lies between an NSEC's two names, in canonical order; the last of a zone leads
/// back to the apex. One at a delegation says nothing of what lies below (RFC 6840 section 4.1).
fn covers(from: &Name, nsec: &NSEC, owner: &Name) -> bool {
    let next = nsec.next_domain_name();
    let below_a_cut = nsec.is_ancestor_delegation() && from.zone_of(owner);
    !below_a_cut && from < owner && (owner < next || (next <= from && next.zone_of(owner)))
}
