//! The proof that a zone is delegated without keys (RFC 4035 section 5.2): what its parent says of it
//! when it is asked for a DS record. Pure.
//!
//! hickory takes signatures that no key belongs to for bogus, without asking whether the zone has to
//! have any. Where it need not, its signatures say nothing, and the zone is insecure: a roll-out of
//! DNSSEC that has just begun, or one that was given up.

use data_encoding::BASE32_DNSSEC;
use hickory_proto::{
    dnssec::{
        Proof,
        rdata::{DNSSECRData, NSEC3},
    },
    op::Message,
    rr::{Name, RData, Record, RecordType},
};

/// Zones whose parents are asked, for one answer.
pub(super) const MAX_ZONES: usize = 4;

/// The zones whose signatures a message shows, each over records of its own; none where it shows no
/// signature, or one that cannot be of the zone that it names.
pub(super) fn signers(message: &Message) -> Vec<Name> {
    let mut signers = Vec::new();
    for record in message.answers.iter().chain(&message.authorities) {
        let RData::DNSSEC(DNSSECRData::RRSIG(signature)) = &record.data else {
            continue;
        };
        let signer = &signature.input().signer_name;
        if !signer.zone_of(&record.name) {
            return Vec::new();
        }
        if !signers.contains(signer) {
            signers.push(signer.clone());
        }
    }
    if signers.len() > MAX_ZONES {
        return Vec::new();
    }
    signers
}

/// Whether what the parent of `zone` says of its DS records leaves it without keys: the parent has none
/// itself, or there is a proven delegation without DS. A name within the parent has no DS either, and
/// stays as secure as the parent.
pub(super) fn is_insecure(answer: &Message, zone: &Name) -> bool {
    let mut proofs = answer
        .answers
        .iter()
        .chain(&answer.authorities)
        .map(|record| record.proof)
        .peekable();
    if proofs.peek().is_some() && proofs.all(|proof| proof == Proof::Insecure) {
        return true;
    }
    let is_denial = answer.answers.is_empty();
    is_denial
        && answer
            .authorities
            .iter()
            .filter(|record| record.proof == Proof::Secure)
            .any(|record| match &record.data {
                RData::DNSSEC(DNSSECRData::NSEC(nsec)) => {
                    &record.name == zone
                        && is_cut(|kind| nsec.type_bit_maps().any(|own| own == kind))
                }
                RData::DNSSEC(DNSSECRData::NSEC3(nsec3)) => {
                    // By opt-out, delegations without keys have no record of their own (RFC 5155
                    // section 6).
                    nsec3.opt_out()
                        || (is_of(record, nsec3, zone)
                            && is_cut(|kind| nsec3.type_bit_maps().any(|own| own == kind)))
                }
                _ => false,
            })
}

/// NS without SOA is the parent's side of a delegation (RFC 6840 section 4.4).
fn is_cut(has: impl Fn(RecordType) -> bool) -> bool {
    has(RecordType::NS) && !has(RecordType::SOA) && !has(RecordType::DS)
}

fn is_of(record: &Record, nsec3: &NSEC3, zone: &Name) -> bool {
    let hash = nsec3
        .hash_algorithm()
        .hash(nsec3.salt(), zone, nsec3.iterations());
    let Ok(hash) = hash else { return false };
    let label = BASE32_DNSSEC.encode(hash.as_ref());
    record
        .name
        .iter()
        .next()
        .is_some_and(|own| own.eq_ignore_ascii_case(label.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use hickory_proto::{dnssec::rdata::NSEC, op::OpCode};

    fn name(text: &str) -> Name {
        Name::from_ascii(text).expect("a name")
    }

    fn denial(owner: &str, types: &[RecordType], proof: Proof) -> Message {
        let data = NSEC::new(name("z.example."), types.iter().copied());
        let data = RData::DNSSEC(DNSSECRData::NSEC(data));
        let mut record = Record::from_rdata(name(owner), 60, data);
        record.proof = proof;
        let mut message = Message::response(1, OpCode::Query);
        message.add_authorities([record]);
        message
    }

    #[test]
    fn s18_a_delegation_without_keys_is_insecure_and_nothing_else_is() {
        use RecordType::{DS, NS, NSEC, SOA};
        let zone = name("partner.example.");
        for (what, owner, types, proof, expected) in [
            (
                "a delegation",
                "partner.example.",
                &[NS, NSEC][..],
                Proof::Secure,
                true,
            ),
            (
                "one with keys",
                "partner.example.",
                &[NS, DS, NSEC],
                Proof::Secure,
                false,
            ),
            (
                "a name within the parent",
                "partner.example.",
                &[NSEC],
                Proof::Secure,
                false,
            ),
            (
                "the zone's own word",
                "partner.example.",
                &[NS, SOA, NSEC],
                Proof::Secure,
                false,
            ),
            (
                "of another zone",
                "other.example.",
                &[NS, NSEC],
                Proof::Secure,
                false,
            ),
            (
                "not proven",
                "partner.example.",
                &[NS, NSEC],
                Proof::Bogus,
                false,
            ),
            (
                "the word of a parent without keys",
                "partner.example.",
                &[NS, NSEC],
                Proof::Insecure,
                true,
            ),
        ] {
            let denial = denial(owner, types, proof);
            assert_eq!(is_insecure(&denial, &zone), expected, "{what}");
        }
    }
}
