//! DNSSEC (RFC 4035), as far as DANE needs it (RFC 7673): is an answer secure, insecure, or bogus?
//!
//! Only what came with signatures is validated, so that a domain without any costs one more
//! question and nothing else. A resolver that takes the signatures off therefore takes DANE away,
//! as one that is not on loopback could anyway; it can not make anything secure.

mod anchors;
mod delegation;
mod questions;
mod standing;
mod wildcard;

use std::{sync::Arc, time::Duration};

use hickory_net::{
    DnsError as WireError, NetError,
    dnssec::DnssecDnsHandle,
    xfer::{DnsHandle, FirstAnswer},
};
use hickory_proto::{
    dnssec::Proof,
    op::{DnsRequestOptions, Message, Query},
    rr::{Name, Record, RecordType},
};
use tokio::time::timeout;

use super::{
    DnsError,
    cache::{DnsCache, Holds, Weigh, counted},
    resolv_conf::Upstreams,
};
use questions::{Questions, is_redirected, is_signed};
use standing::{Followed, follow};

pub use anchors::{AnchorsError, TrustAnchors};
pub use standing::Dnssec;

/// How long an answer with signatures is waited for: a resolver that does not know them must not
/// hold up what it answers without.
const GATE: Duration = Duration::from_secs(4);
/// How long the whole chain up to the anchor may take.
const CHAIN: Duration = Duration::from_secs(15);
/// Aliases beyond this many are not followed (RFC 1034 section 3.6.2 wants few).
const MAX_ALIASES: usize = 8;

/// Asks and validates. Cheap to clone.
#[derive(Clone)]
pub(super) struct Validator {
    questions: Questions,
    anchors: TrustAnchors,
    verdicts: Arc<DnsCache<Validated>>,
}

/// What DNSSEC says of one answer.
#[derive(Clone, Debug)]
pub(super) struct Validated {
    pub dnssec: Dnssec,
    /// Where it is secure: the records of the type asked for at the end of the chain of aliases;
    /// none: that there are none is proven. Where it is not secure always empty.
    pub records: Vec<Record>,
}

impl Weigh for Validated {
    fn bytes(&self) -> usize {
        self.records.bytes()
    }
}

impl Validated {
    fn not_secure(dnssec: Dnssec) -> Self {
        Self {
            dnssec,
            records: Vec::new(),
        }
    }
}

impl Validator {
    /// `upstreams`: the resolvers to ask, at least one. Their own word (AD) counts where all are on
    /// loopback. What is known is asked anew from `least_age` on.
    pub(super) fn new(upstreams: Upstreams, anchors: TrustAnchors, least_age: Duration) -> Self {
        Self {
            questions: Questions::new(upstreams, least_age),
            anchors,
            verdicts: Arc::new(DnsCache::forgetting_after(least_age)),
        }
    }

    /// Judges an answer that came with signatures. Without them, or where the question gets no
    /// answer at all, it is [`Dnssec::Unsigned`]: whether there is one is for others to find out.
    ///
    /// # Errors
    /// [`DnsError::Bogus`]; or why the chain of trust could not be had.
    pub(super) async fn if_signed(
        &self,
        name: &Name,
        kind: RecordType,
    ) -> Result<Validated, DnsError> {
        if let Some(known) = self.verdicts.get(name, kind) {
            return Ok(known);
        }
        let Ok(Ok(message)) = timeout(GATE, self.questions.ask(name, kind)).await else {
            return Ok(Validated::not_secure(Dnssec::Unsigned));
        };
        // Aliases that lead to nothing are no answer: DANE needs one.
        if !matches!(follow(&message.answers, name, kind), Followed::Records(_)) {
            return Ok(Validated::not_secure(Dnssec::Unsigned));
        }
        if let Some(assessed) = self.by_resolver(&message, name, kind) {
            return Ok(assessed);
        }
        if !message.answers.iter().any(is_signed) || message.answers.iter().any(is_redirected) {
            return Ok(Validated::not_secure(Dnssec::Unsigned));
        }
        self.validated(name, kind).await
    }

    /// Judges an answer that has to be secure, or proven absent, where the zone is signed.
    ///
    /// # Errors
    /// [`DnsError`]: also where the answer cannot be had.
    pub(super) async fn always(
        &self,
        name: &Name,
        kind: RecordType,
    ) -> Result<Validated, DnsError> {
        if let Some(known) = self.verdicts.get(name, kind) {
            return Ok(known);
        }
        let message = timeout(CHAIN, self.questions.ask(name, kind))
            .await
            .map_err(|_| DnsError::Timeout { name: shown(name) })??;
        if let Some(assessed) = self.by_resolver(&message, name, kind) {
            return Ok(assessed);
        }
        self.validated(name, kind).await
    }

    /// The records at the end of a name's aliases, whatever DNSSEC says of them; none where there are
    /// none.
    ///
    /// # Errors
    /// [`DnsError`] when an alias leads on, but what it leads to cannot be asked.
    pub(super) async fn aliased(
        &self,
        name: &Name,
        kind: RecordType,
    ) -> Result<Vec<Record>, DnsError> {
        let mut message = self.signed_or_plain(name, kind).await?;
        let mut name = name.clone();
        for _ in 0..MAX_ALIASES {
            match follow(&message.answers, &name, kind) {
                Followed::Records(records) => return Ok(counted(records, kind)),
                Followed::Nothing => return Ok(Vec::new()),
                Followed::Alias(target) => {
                    message = self.signed_or_plain(&target, kind).await?;
                    name = target;
                }
            }
        }
        Err(DnsError::Unusable {
            name: shown(&name),
            cause: "its aliases lead too far".to_owned(),
        })
    }

    /// The answer as [`Self::if_signed`] asked for it, so that most often it is at hand; where there is none, as
    /// some resolvers do not take such questions, the one without signatures.
    async fn signed_or_plain(&self, name: &Name, kind: RecordType) -> Result<Message, DnsError> {
        if let Ok(Ok(message)) = timeout(GATE / 2, self.questions.ask(name, kind)).await {
            return Ok(message);
        }
        timeout(GATE / 2, self.questions.ask_plainly(name, kind))
            .await
            .unwrap_or_else(|_| Err(DnsError::Timeout { name: shown(name) }))
    }

    /// What is known of a name is asked anew: of what it is an alias of too, and of all zones above them, whose keys
    /// and DS records vouch for the answer.
    pub(super) fn forget(&self, name: &Name, kind: RecordType) {
        let mut next = Some(name.clone());
        for _ in 0..=MAX_ALIASES {
            let Some(name) = next.take() else { return };
            self.verdicts.forget(&name, kind);
            if let Some(known) = self.questions.forget(&name, kind) {
                // Most resolvers answer with all of it at once.
                for target in standing::aliases(&known.answers, &name, MAX_ALIASES) {
                    self.forget_keys_above(target);
                }
                if let Followed::Alias(target) = follow(&known.answers, &name, kind) {
                    next = Some(target);
                }
            }
            self.forget_keys_above(&name);
        }
    }

    fn forget_keys_above(&self, name: &Name) {
        let mut zone = name.clone();
        while !zone.is_root() {
            self.questions.forget(&zone, RecordType::DNSKEY);
            self.questions.forget(&zone, RecordType::DS);
            zone = zone.base_name();
        }
        self.questions.forget(&zone, RecordType::DNSKEY);
    }

    /// Bytes that are kept.
    #[cfg(test)]
    pub(super) fn weight(&self) -> u64 {
        self.verdicts.weight() + self.questions.weight()
    }

    pub(super) fn forget_all(&self) {
        self.verdicts.forget_all();
        self.questions.forget_all();
    }

    /// The word of a validating resolver on loopback.
    fn by_resolver(&self, message: &Message, name: &Name, kind: RecordType) -> Option<Validated> {
        (self.questions.on_loopback() && message.metadata.authentic_data).then(|| Validated {
            dnssec: Dnssec::SecureByResolver,
            records: match follow(&message.answers, name, kind) {
                Followed::Records(records) => counted(records, kind),
                Followed::Alias(_) | Followed::Nothing => Vec::new(),
            },
        })
    }

    async fn validated(&self, name: &Name, kind: RecordType) -> Result<Validated, DnsError> {
        let assessed = timeout(CHAIN, self.chain(name, kind))
            .await
            .map_err(|_| DnsError::Timeout { name: shown(name) })??;
        let (assessed, holds) = assessed;
        self.verdicts.put(name, kind, assessed.clone(), holds);
        Ok(assessed)
    }

    /// Validates `name` and what it is an alias of; with the time for which that holds.
    async fn chain(&self, name: &Name, kind: RecordType) -> Result<(Validated, Holds), DnsError> {
        const NOT_KEPT: Holds = Holds::Nothing(Duration::ZERO);
        let mut name = name.clone();
        let mut holds = Holds::Records(Duration::MAX);
        for _ in 0..MAX_ALIASES {
            if !self.anchored(&name).await {
                let unanchored = Validated::not_secure(Dnssec::Unanchored);
                return Ok((unanchored, NOT_KEPT));
            }
            let message = match self.message(&name, kind).await? {
                Some(message) => message,
                None => return Ok((Validated::not_secure(Dnssec::Unsigned), NOT_KEPT)),
            };
            holds = holds.and(Holds::of(&message));
            let (dnssec, found) = match standing::of(&message, &name, kind) {
                Ok(judged) => judged,
                Err(_) if self.need_not_be_signed(&message).await? => {
                    return Ok((Validated::not_secure(Dnssec::Unsigned), holds));
                }
                Err(_) => return Err(DnsError::Bogus { name: shown(&name) }),
            };
            if !dnssec.is_secure() {
                return Ok((Validated::not_secure(dnssec), holds));
            }
            let records = match found {
                Followed::Records(records) => counted(records, kind),
                Followed::Nothing => Vec::new(),
                // The resolver left the rest out: it is a question of its own.
                Followed::Alias(target) => {
                    name = target;
                    continue;
                }
            };
            return Ok((Validated { dnssec, records }, holds));
        }
        Err(DnsError::Unusable {
            name: shown(&name),
            cause: "its aliases lead too far".to_owned(),
        })
    }

    /// One validated answer; `None` where the denial of it is proven to be insecure.
    async fn message(&self, name: &Name, kind: RecordType) -> Result<Option<Message>, DnsError> {
        let traced = self.questions.traced();
        let handle = DnssecDnsHandle::with_trust_anchor(traced.clone(), self.anchors.keys());
        let query = Query::query(name.clone(), kind);
        let answer = handle
            .lookup(query, DnsRequestOptions::default())
            .first_answer()
            .await;
        let bogus = |message: &Message| {
            message
                .answers
                .iter()
                .any(|record| record.proof == Proof::Bogus)
        };
        // What hickory calls bogus for want of an answer is not bogus: the want is told.
        let missing = |fault| traced.take_trouble().unwrap_or(fault);
        match answer {
            Ok(response) if bogus(&response) => match traced.take_trouble() {
                Some(trouble) => Err(trouble),
                None => Ok(Some(response.into_message())),
            },
            Ok(response) => Ok(Some(response.into_message())),
            Err(NetError::Dns(WireError::Nsec { response, .. }))
                if wildcard::is_proven(&response, name, kind) =>
            {
                Ok(Some(response.into_message()))
            }
            Err(NetError::Dns(WireError::Nsec {
                proof: Proof::Bogus,
                response,
                ..
            })) => match traced.take_trouble() {
                Some(trouble) => Err(trouble),
                None if self.need_not_be_signed(&response).await? => Ok(None),
                None => Err(DnsError::Bogus { name: shown(name) }),
            },
            Err(NetError::Dns(WireError::Nsec { .. })) => Ok(None),
            Err(cause) => Err(missing(DnsError::Unusable {
                name: shown(name),
                cause: cause.to_string(),
            })),
        }
    }

    /// Whether every zone that signed something here is proven to be delegated without keys, so that
    /// its signatures say nothing (RFC 4035 section 5.2).
    ///
    /// # Errors
    /// [`DnsError`] where that cannot be asked: who does not hear the proof does not know what is bogus.
    async fn need_not_be_signed(&self, message: &Message) -> Result<bool, DnsError> {
        let signers = delegation::signers(message);
        for zone in &signers {
            let traced = self.questions.traced();
            let handle = DnssecDnsHandle::with_trust_anchor(traced.clone(), self.anchors.keys());
            let query = Query::query(zone.clone(), RecordType::DS);
            let answer = handle
                .lookup(query, DnsRequestOptions::default())
                .first_answer()
                .await;
            let is_insecure = match answer {
                // So hickory hands on a denial that is proven, and what a parent without keys says.
                Ok(response) => delegation::is_insecure(&response, zone),
                Err(NetError::Dns(WireError::Nsec { proof, .. })) => proof == Proof::Insecure,
                Err(_) => false,
            };
            if !is_insecure {
                return traced.take_trouble().map_or(Ok(false), Err);
            }
        }
        Ok(!signers.is_empty())
    }

    /// Whether a trust anchor stands over `name` and its zone shows one of the keys.
    async fn anchored(&self, name: &Name) -> bool {
        let Some(anchor) = self.anchors.above(name) else {
            return false;
        };
        match self.questions.ask(&anchor, RecordType::DNSKEY).await {
            Ok(message) => self.anchors.hold_one_of(&anchor, &message.answers),
            Err(_) => false,
        }
    }
}

/// A name as texts have it: without the last dot.
fn shown(name: &Name) -> String {
    name.to_ascii().trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests;
