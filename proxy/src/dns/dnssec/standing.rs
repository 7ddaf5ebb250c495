//! The decision table: from records and their proofs to one verdict. Pure.

use std::fmt;

use hickory_proto::{
    dnssec::Proof,
    op::Message,
    rr::{Name, RData, Record, RecordType},
};

/// What DNSSEC says of an answer that may be used; a bogus one may not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Dnssec {
    /// Validated here, up to a trust anchor.
    Secure,
    /// A resolver on loopback validated it (AD).
    SecureByResolver,
    /// It has no signatures, or its zone is proven to have none.
    Unsigned,
    /// It has signatures, but no trust anchor of ours leads there.
    Unanchored,
}

impl Dnssec {
    #[must_use]
    pub fn is_secure(self) -> bool {
        matches!(self, Self::Secure | Self::SecureByResolver)
    }

    /// What two answers are together: no better than the worse.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        self.max(other)
    }
}

impl fmt::Display for Dnssec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Secure => "secure (DNSSEC, validated here)",
            Self::SecureByResolver => "secure (DNSSEC, validated by the resolver on loopback)",
            Self::Unsigned => "not secure (no DNSSEC signatures)",
            Self::Unanchored => "not secure (signed, but no trust anchor leads there)",
        })
    }
}

/// An answer that fails validation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct IsBogus;

/// Where the aliases of a name lead within one answer. Records of other names are none of it,
/// however well they are signed.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Followed {
    /// At the end there are records of the type asked for.
    Records(Vec<Record>),
    /// The end is not in the answer.
    Alias(Name),
    /// Neither record nor alias.
    Nothing,
}

/// Follows the aliases of `name` through `answers`.
pub(super) fn follow(answers: &[Record], name: &Name, kind: RecordType) -> Followed {
    let mut at = name;
    // Each alias counts once, so that a loop ends.
    for _ in 0..=answers.len() {
        let records: Vec<_> = answers
            .iter()
            .filter(|record| record.record_type() == kind && &record.name == at)
            .cloned()
            .collect();
        if !records.is_empty() {
            return Followed::Records(records);
        }
        match alias(answers, at) {
            Some(target) => at = target,
            None if at == name => return Followed::Nothing,
            None => return Followed::Alias(at.clone()),
        }
    }
    Followed::Nothing
}

fn alias<'a>(answers: &'a [Record], name: &Name) -> Option<&'a Name> {
    answers.iter().find_map(|record| match &record.data {
        RData::CNAME(target) if &record.name == name => Some(&target.0),
        _ => None,
    })
}

/// What `name` is an alias of, one after the other, as far as `answers` say; `most` of them.
pub(super) fn aliases<'a>(
    answers: &'a [Record],
    name: &Name,
    most: usize,
) -> impl Iterator<Item = &'a Name> {
    std::iter::successors(alias(answers, name), |at| alias(answers, at)).take(most)
}

/// Judges a message whose records carry proofs. Every alias on the way and every record at its end
/// must be secure; one insecure link makes the whole insecure; one bogus makes it bogus
/// (RFC 7673 section 3.1). An empty answer is what its proof of absence is.
///
/// # Errors
/// [`IsBogus`].
pub(super) fn of(
    message: &Message,
    name: &Name,
    kind: RecordType,
) -> Result<(Dnssec, Followed), IsBogus> {
    let found = follow(&message.answers, name, kind);
    let worst = match &found {
        Followed::Nothing => worst(&message.authorities, |record| {
            !matches!(record.record_type(), RecordType::RRSIG)
        }),
        Followed::Records(_) | Followed::Alias(_) => worst(&message.answers, |record| {
            record.record_type() == kind || record.record_type() == RecordType::CNAME
        }),
    };
    match worst {
        Some(Proof::Secure) => Ok((Dnssec::Secure, found)),
        Some(Proof::Bogus) => Err(IsBogus),
        Some(Proof::Insecure | Proof::Indeterminate) | None => Ok((Dnssec::Unsigned, found)),
    }
}

/// Bogus before insecure before secure; none without records.
fn worst(records: &[Record], counts: impl Fn(&Record) -> bool) -> Option<Proof> {
    let rank = |proof: &Proof| match proof {
        Proof::Bogus => 0,
        Proof::Indeterminate => 1,
        Proof::Insecure => 2,
        Proof::Secure => 3,
    };
    records
        .iter()
        .filter(|record| counts(record))
        .map(|record| record.proof)
        .min_by_key(rank)
}
