//! Whether a presented chain is good for a domain: PKIX, the partner's authority, pins, DANE.
//!
//! Names follow RFC 9525: `dNSName` alone, exact or with one whole left-most label `*`; those of SIP servers RFC 5922.
//! Revocation is not checked.

mod cause;
mod policies;
mod unusable;

use std::sync::Arc;

use jiff::Timestamp;
use rustls_pki_types::{CertificateDer, SignatureVerificationAlgorithm, TrustAnchor, UnixTime};
use webpki::{EndEntityCert, KeyUsage};
use x509_parser::prelude::X509Certificate;
use xmpp_edge_crds::{
    domain::DomainName,
    edge_config::{OnKeyChange, PartnerTrust},
};

use super::{
    certificate::{
        CertificateError, NameRule, Names, SipUris, SpkiSha256, parse, sha256, timestamp,
        unproven_rsa,
    },
    dane::{Tlsa, TlsaSet, Usage},
    fault::CertificateFault,
    provider,
    roots::Roots,
    stamp::TrustStamp,
};
use cause::{dates_of, not_for_use, unreadable};
use policies::WithoutPolicies;
pub use unusable::TrustError;

/// Longer chains are refused: of one whose key is not pinned nothing beyond the first certificate is read.
pub const MAX_CHAIN: usize = 10;

/// What the peer is in TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// We dialled it: its certificate must be for `serverAuth`, where it says what it is for.
    Server,
    /// It dialled us: `clientAuth` or `serverAuth`; public authorities no longer issue the former.
    Client,
}

/// What makes a chain good for one partner, or for one gateway.
#[derive(Clone, Debug)]
pub struct Trust {
    roots: Roots,
    /// Whether the roots are a partner's own authority, in place of the public ones.
    own_authority: bool,
    pins: Vec<SpkiSha256>,
    known: Vec<SpkiSha256>,
    on_key_change: OnKeyChange,
    /// Why nobody is verified by it, pinned keys apart.
    unusable: Option<Arc<str>>,
    stamp: TrustStamp,
}

/// A chain that is good for the domain asked about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    pub by: VerifiedBy,
    pub spki_sha256: SpkiSha256,
    pub not_after: Timestamp,
    /// The key is neither pinned nor known, although keys are: said whatever `onKeyChange` is.
    pub key_changed: bool,
}

/// A key beside the pinned and the known ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyStanding {
    /// Pinned or known.
    OnRecord,
    /// Nothing is pinned or known yet.
    First,
    /// Others are.
    Changed,
}

/// What made it good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VerifiedBy {
    /// The public authorities, or the pool's extra ones.
    Pkix,
    /// The partner's own authority.
    PartnerCa,
    Pin,
    Dane,
}

impl Trust {
    /// Trusts `roots`; no pins.
    #[must_use]
    pub fn new(roots: Roots) -> Self {
        Self {
            roots,
            own_authority: false,
            pins: Vec::new(),
            known: Vec::new(),
            on_key_change: OnKeyChange::Ignore,
            unusable: None,
            stamp: TrustStamp::default(),
        }
        .stamped()
    }

    /// Of everything that [`Self::judge`] looks at.
    fn stamped(mut self) -> Self {
        let Self {
            roots,
            own_authority,
            pins,
            known,
            on_key_change,
            unusable,
            stamp: _,
        } = &self;
        let keys = |keys: &[SpkiSha256]| TrustStamp::of(keys.iter().map(|key| &key.0[..]));
        let rule = match on_key_change {
            OnKeyChange::Ignore => 0,
            OnKeyChange::Warn => 1,
            OnKeyChange::Refuse => 2,
        };
        self.stamp = TrustStamp::of([
            roots.stamp().as_bytes(),
            keys(pins).as_bytes(),
            keys(known).as_bytes(),
            &[u8::from(*own_authority), rule],
            unusable.as_deref().unwrap_or_default().as_bytes(),
        ]);
        self
    }

    /// Two trusts with the same stamp judge a chain alike, at the same time and with the same TLSA records.
    #[must_use]
    pub fn stamp(&self) -> TrustStamp {
        self.stamp
    }

    /// What one partner's settings say; `shared` are the public roots and the pool's extra ones,
    /// which the partner's own authority replaces. `origin` names the partner in errors.
    ///
    /// # Errors
    /// [`TrustError`] when the authority is not PEM or a pin is not a hash.
    pub fn of_partner(
        settings: &PartnerTrust,
        shared: &Roots,
        origin: &str,
    ) -> Result<Self, TrustError> {
        let roots = match &settings.ca {
            Some(pem) => Roots::from_pem(pem, &format!("{origin}, trust.caConfigMapRef"))?,
            None => shared.clone(),
        };
        let hashes = |texts: &[String], field: &str| {
            texts
                .iter()
                .map(|text| SpkiSha256::parse(text))
                .collect::<Result<Vec<_>, _>>()
                .map_err(|cause| TrustError::Pin {
                    origin: format!("{origin}, {field}"),
                    cause,
                })
        };
        Ok(Self {
            roots,
            own_authority: settings.ca.is_some(),
            pins: hashes(&settings.pinned_spki_sha256, "trust.pinnedSpkiSha256")?,
            known: hashes(&settings.known_spki_sha256, "known keys")?,
            on_key_change: settings.on_key_change,
            unusable: None,
            stamp: TrustStamp::default(),
        }
        .stamped())
    }

    /// Whether `chain`, end entity first and as presented, is good for `domain` now.
    ///
    /// A pinned key is good without PKIX. Where pins exist and none matches, PKIX still decides
    /// unless `onKeyChange` is `Refuse`. With `tlsa`, a match of usage 2 or 3 counts as PKIX; no
    /// match is a fault whatever PKIX says, except for a pinned key. Where the partner has an authority of
    /// its own, TLSA records never make good what that one does not vouch for.
    ///
    /// # Errors
    /// [`CertificateFault`]: the first rule that fails.
    pub fn judge(
        &self,
        domain: &DomainName,
        chain: &[CertificateDer<'_>],
        role: Role,
        tlsa: Option<&TlsaSet>,
    ) -> Result<Verified, CertificateFault> {
        self.judge_at(
            (domain, NameRule::Wildcards),
            chain,
            role,
            tlsa,
            Timestamp::now(),
        )
    }

    /// As [`Self::judge`], for the SIP server of `domain`, whichever part it had in the handshake.
    ///
    /// # Errors
    /// As [`Self::judge`].
    pub fn judge_sip(
        &self,
        domain: &DomainName,
        chain: &[CertificateDer<'_>],
        uris: SipUris,
    ) -> Result<Verified, CertificateFault> {
        let named = (domain, NameRule::Sip(uris));
        self.judge_at(named, chain, Role::Client, None, Timestamp::now())
    }

    fn judge_at(
        &self,
        (domain, names): (&DomainName, NameRule),
        chain: &[CertificateDer<'_>],
        role: Role,
        tlsa: Option<&TlsaSet>,
        now: Timestamp,
    ) -> Result<Verified, CertificateFault> {
        let end_entity = chain.first().ok_or(CertificateFault::NotPresented)?;
        let parsed = parse(end_entity).map_err(malformed)?;
        let found = SpkiSha256(sha256(parsed.public_key().raw));
        let not_after = timestamp(&parsed.validity().not_after);
        let verified = |by, key_changed| Verified {
            by,
            spki_sha256: found,
            not_after,
            key_changed,
        };
        match unproven_rsa(&parsed) {
            Some(bits) if bits < 2048 => return Err(CertificateFault::WeakKey { bits }),
            Some(bits) => return Err(CertificateFault::KeyTooLong { bits }),
            None => {}
        }
        if self.pins.contains(&found) {
            return Ok(verified(VerifiedBy::Pin, false));
        }
        if let Some(why) = &self.unusable {
            return Err(CertificateFault::TrustUnusable(why.to_string()));
        }
        if chain.len() > MAX_CHAIN {
            return Err(CertificateFault::ChainTooLong {
                found: chain.len(),
                limit: MAX_CHAIN,
            });
        }
        let question = Question {
            trust: self,
            domain,
            names,
            chain,
            parsed: &parsed,
            found,
            role,
            now,
        };
        let by = match tlsa {
            // Who has an authority of his own relies on it alone: DNS may only demand more.
            Some(tlsa) if self.own_authority => question
                .pkix()
                .and_then(|by| question.dane(tlsa).map(|_| by)),
            Some(tlsa) => question.dane(tlsa),
            None => question.pkix(),
        };
        let by = by.map_err(|fault| self.beside_pins(found, fault))?;
        let key_changed = self.standing(&found) == KeyStanding::Changed;
        if key_changed && self.on_key_change == OnKeyChange::Refuse {
            return Err(if self.known.is_empty() {
                CertificateFault::PinMismatch {
                    found,
                    pins: self.pins.len(),
                    otherwise: "otherwise valid".to_owned(),
                }
            } else {
                CertificateFault::KeyChanged { found }
            });
        }
        Ok(verified(by, key_changed))
    }

    /// What is on record of a key, whatever its certificate is.
    #[must_use]
    pub fn standing(&self, key: &SpkiSha256) -> KeyStanding {
        if self.pins.contains(key) || self.known.contains(key) {
            KeyStanding::OnRecord
        } else if self.pins.is_empty() && self.known.is_empty() {
            KeyStanding::First
        } else {
            KeyStanding::Changed
        }
    }

    /// Where pins were given, a certificate that is bad anyway is told as what the pins are for.
    fn beside_pins(&self, found: SpkiSha256, fault: CertificateFault) -> CertificateFault {
        let authority = matches!(
            fault,
            CertificateFault::SelfSigned { .. }
                | CertificateFault::UnknownIssuer { .. }
                | CertificateFault::IncompleteChain { .. }
        );
        if self.pins.is_empty() || !authority {
            return fault;
        }
        CertificateFault::PinMismatch {
            found,
            pins: self.pins.len(),
            otherwise: fault.to_string(),
        }
    }
}

/// 2.5.29.37.0, as it stands in DER.
const ANY_EXTENDED_KEY_USAGE: &[u8] = &[0x55, 0x1d, 0x25, 0x00];

/// One judgement.
struct Question<'a> {
    trust: &'a Trust,
    domain: &'a DomainName,
    names: NameRule,
    chain: &'a [CertificateDer<'a>],
    parsed: &'a X509Certificate<'a>,
    found: SpkiSha256,
    role: Role,
    now: Timestamp,
}

impl Question<'_> {
    fn pkix(&self) -> Result<VerifiedBy, CertificateFault> {
        self.name(None)?;
        self.dates()?;
        let by = self.by_authorities();
        if self.trust.roots.were_given(&self.chain[0]) {
            // Given as it stands: there is no path to build, only a purpose to look at.
            self.purpose()?;
            return Ok(by);
        }
        let mut worst = None;
        for anchors in self.trust.roots.anchors() {
            match self.path(anchors) {
                Ok(()) => return Ok(by),
                // A set that knows the issuer has the better cause.
                Err(fault) => match (&worst, &fault) {
                    (Some(_), webpki::Error::UnknownIssuer) => {}
                    _ => worst = Some(fault),
                },
            }
        }
        Err(self.fault(&worst.unwrap_or(webpki::Error::UnknownIssuer)))
    }

    fn by_authorities(&self) -> VerifiedBy {
        if self.trust.own_authority {
            VerifiedBy::PartnerCa
        } else {
            VerifiedBy::Pkix
        }
    }

    /// The name first: a certificate for somebody else is the commonest fault, and a date says
    /// nothing about it.
    fn name(&self, also: Option<&DomainName>) -> Result<(), CertificateFault> {
        let names = Names::of(self.parsed);
        let prove = |domain| names.prove(domain, self.names);
        if prove(self.domain) || also.is_some_and(prove) {
            return Ok(());
        }
        Err(CertificateFault::NameMismatch {
            expected: self.domain.clone(),
            other_names: names.other_xmpp_names,
            found: names.shown(self.names),
        })
    }

    fn dates(&self) -> Result<(), CertificateFault> {
        dates_of(self.parsed, self.now)
    }

    fn purpose(&self) -> Result<(), CertificateFault> {
        let Ok(Some(usage)) = self.parsed.extended_key_usage() else {
            return Ok(());
        };
        let usage = usage.value;
        let server = usage.any || usage.server_auth;
        match self.role {
            Role::Server if server => Ok(()),
            Role::Client if server || usage.client_auth => Ok(()),
            role => Err(not_for_use(role)),
        }
    }

    fn path(&self, anchors: &[TrustAnchor<'_>]) -> Result<(), webpki::Error> {
        let algorithms = provider().signature_verification_algorithms.all;
        let verdict = self.path_of(self.chain, anchors, algorithms);
        if !matches!(verdict, Err(webpki::Error::UnsupportedCriticalExtension)) {
            return verdict;
        }
        let Some(without) = WithoutPolicies::of(self.chain) else {
            return verdict;
        };
        let own = without.algorithms(algorithms);
        let own: Vec<&dyn SignatureVerificationAlgorithm> =
            own.iter().map(|own| own as _).collect();
        self.path_of(&without.chain, anchors, &own)
    }

    fn path_of(
        &self,
        chain: &[CertificateDer<'_>],
        anchors: &[TrustAnchor<'_>],
        algorithms: &[&dyn SignatureVerificationAlgorithm],
    ) -> Result<(), webpki::Error> {
        let end_entity = EndEntityCert::try_from(&chain[0])?;
        let seconds = u64::try_from(self.now.as_second()).unwrap_or_default();
        let now = UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds));
        let verify = |usage: KeyUsage| {
            let rest = &chain[1..];
            end_entity
                .verify_for_usage(algorithms, anchors, rest, now, usage, None, None)
                .map(|_| ())
        };
        // RFC 5280 section 4.2.1.12: whoever names any use need name no other.
        let any = KeyUsage::required_if_present(ANY_EXTENDED_KEY_USAGE);
        let others = [any, KeyUsage::client_auth()];
        let may = 1 + usize::from(self.role == Role::Client);
        let mut verdict = verify(KeyUsage::server_auth());
        for usage in others.into_iter().take(may) {
            if matches!(verdict, Err(webpki::Error::RequiredEkuNotFoundContext(_))) {
                verdict = verify(usage);
            }
        }
        verdict
    }

    fn dane(&self, tlsa: &TlsaSet) -> Result<VerifiedBy, CertificateFault> {
        let end_entity = &self.chain[0];
        let mut pkix = None;
        let mut refused = None;
        for record in tlsa.records() {
            let names = |der| record.names(der).unwrap_or(false);
            match record.usage {
                Usage::DaneEe if names(end_entity) => return Ok(VerifiedBy::Dane),
                Usage::PkixEe if names(end_entity) => {
                    match pkix.get_or_insert_with(|| self.pkix()) {
                        Ok(by) => return Ok(*by),
                        Err(fault) => refused = Some(fault.clone()),
                    }
                }
                Usage::PkixTa if self.chain[1..].iter().any(names) => {
                    match pkix.get_or_insert_with(|| self.pkix()) {
                        Ok(by) => return Ok(*by),
                        Err(fault) => refused = Some(fault.clone()),
                    }
                }
                Usage::PkixTa => match self.below_trusted(record) {
                    Ok(true) => return Ok(self.by_authorities()),
                    Ok(false) => {}
                    Err(fault) => refused = Some(fault),
                },
                Usage::DaneTa => {
                    for authority in self.chain[1..].iter().filter(|der| names(der)) {
                        match self.below(authority, &tlsa.target) {
                            Ok(()) => return Ok(VerifiedBy::Dane),
                            Err(fault) => refused = Some(fault),
                        }
                    }
                }
                _ => {}
            }
        }
        Err(refused.unwrap_or(CertificateFault::DaneMismatch {
            records: tlsa.records().len(),
            found: self.found,
        }))
    }

    /// PKIX-TA of a root that the peer did not send, as servers do not (RFC 6698 section 2.1.1): whether it is
    /// trusted here and the path leads to it.
    fn below_trusted(&self, record: &Tlsa) -> Result<bool, CertificateFault> {
        let mut named = self.trust.roots.named_by(record).peekable();
        if named.peek().is_none() {
            return Ok(false);
        }
        self.name(None)?;
        self.dates()?;
        Ok(named.any(|anchor| self.path(std::slice::from_ref(anchor)).is_ok()))
    }

    /// DANE-TA: names and dates count, the authority is the one that a record names.
    fn below(
        &self,
        authority: &CertificateDer<'_>,
        target: &DomainName,
    ) -> Result<(), CertificateFault> {
        self.name(Some(target))?;
        self.dates()?;
        let anchor =
            webpki::anchor_from_trusted_cert(authority).map_err(|cause| unreadable(&cause))?;
        self.path(std::slice::from_ref(&anchor))
            .map_err(|cause| self.fault(&cause))
    }
}

fn malformed(cause: CertificateError) -> CertificateFault {
    CertificateFault::Malformed(cause.to_string())
}

#[cfg(test)]
mod tests;
