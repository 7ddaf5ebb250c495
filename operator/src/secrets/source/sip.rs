//! What an edge shows to SIP servers of another PKI (`gateways[].sip.certificateSecretRef`): each pair is taken from its
//! Secret while that is good, and the last good one is kept.

use std::fmt;

use jiff::Timestamp;
use xmpp_edge_crds::{
    domain::DomainName,
    edge_config::{EdgeConfig, Gateway},
    kinds::{EdgePool, conditions::Reason},
    sip_pairs::{SipPair, SipPairs},
};

use super::{Backend, BackendFault, CertificateSpec, SecretRef, Secrets};
use crate::secrets::{
    CertificateError,
    chain::{CertificateFacts, PemPair},
    store::{ManagedSecret, SecretData, Store},
};

/// Key of the kept Secret.
pub const KEY: &str = "pairs.json";

/// What is to be shown, and what is wrong with the Secrets.
#[derive(Debug, Default)]
pub struct SipCertificates {
    pub pairs: SipPairs,
    pub faults: Vec<SipCertificateFault>,
}

/// Why a gateway's Secret is not in use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SipCertificateFault {
    /// Its effective name.
    gateway: String,
    fault: BackendFault,
    /// Until when the last good one lasts, which stays meanwhile.
    kept_until: Option<Timestamp>,
}

impl SipCertificateFault {
    /// Reason of `CertificateReady`.
    #[must_use]
    pub fn reason(&self) -> Reason {
        self.fault.reason()
    }

    /// Whether the Secret is not there at all.
    #[must_use]
    pub fn is_missing(&self) -> bool {
        matches!(self.fault, BackendFault::SecretMissing { .. })
    }
}

impl fmt::Display for SipCertificateFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            gateway,
            fault,
            kept_until,
        } = self;
        write!(
            f,
            "sip.certificateSecretRef of gateway {gateway}: {fault}; "
        )?;
        match kept_until {
            Some(until) => write!(f, "the last good certificate stays in use until {until}"),
            None => f.write_str("the SIP server is shown no certificate until there is one"),
        }
    }
}

/// Name of the Secret that the spec has for this gateway of the document.
fn secret_of<'a>(pool: &'a EdgePool, gateway: &Gateway) -> Option<&'a str> {
    let first = gateway.domains.first()?;
    let is_it = |domain: &String| DomainName::parse(domain).is_ok_and(|own| own == *first);
    let mut gateways = pool.spec.gateways.iter();
    let given = gateways.find(|own| own.domains.iter().any(is_it))?;
    let secret = given.sip.as_ref()?.certificate_secret_ref.as_ref()?;
    Some(&secret.name)
}

/// Looks at the Secrets of all gateways of the document, keeps what is good, and says what is in force. `pool`: where it
/// can be read; else what is in use stays.
///
/// # Errors
/// [`CertificateError`] of the store.
pub fn provide(
    pool: Option<&EdgePool>,
    config: &EdgeConfig,
    secrets: &dyn Secrets,
    store: &mut dyn Store,
    now: Timestamp,
) -> Result<SipCertificates, CertificateError> {
    let entry = ManagedSecret::SipPairs(config.pool.clone());
    let held = store.read(&entry)?;
    // What nobody can read is made again from the Secrets.
    let before = held.as_ref().and_then(|held| held.get(KEY));
    let mut before = before
        .and_then(|file| SipPairs::parse(file).ok())
        .unwrap_or_default();
    let mut found = SipCertificates::default();
    for gateway in &config.gateways {
        let sip = gateway.sip.as_ref();
        let Some(sip) = sip.filter(|sip| sip.own_certificate) else {
            continue;
        };
        let name = gateway.effective_name();
        let kept = before.0.remove(name);
        let reference = pool.and_then(|pool| secret_of(pool, gateway));
        let Some(reference) = reference else {
            found
                .pairs
                .0
                .extend(kept.map(|pair| (name.to_owned(), pair)));
            continue;
        };
        let backend = SecretRef {
            name: reference,
            secrets,
        };
        let wanted = CertificateSpec {
            pool: &config.pool,
            names: std::slice::from_ref(&sip.edge_name),
            now,
        };
        let evaluation = backend.evaluate(&wanted, &SecretData::new(), store)?;
        let pair = evaluation.pair.map(given).or(kept);
        if let Some(fault) = evaluation.fault {
            let facts = pair.as_ref();
            let facts = facts.and_then(|pair| CertificateFacts::of_chain(&pair.chain).ok());
            found.faults.push(SipCertificateFault {
                gateway: name.to_owned(),
                fault,
                kept_until: facts.map(|facts| facts.not_after),
            });
        }
        found
            .pairs
            .0
            .extend(pair.map(|pair| (name.to_owned(), pair)));
    }
    let file = found.pairs.to_json();
    let is_news = match held.as_ref().and_then(|held| held.get(KEY)) {
        Some(held) => *held != file,
        None => !found.pairs.0.is_empty(),
    };
    if is_news {
        store.write(&entry, &SecretData::from([(KEY.to_owned(), file)]))?;
    }
    Ok(found)
}

fn given(pair: PemPair) -> SipPair {
    SipPair {
        chain: pair.chain,
        key: pair.key,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use jiff::SignedDuration;

    use super::*;
    use crate::secrets::{
        issue,
        store::{MemoryStore, set, text},
    };

    fn now() -> Timestamp {
        Timestamp::from_second(1_800_000_000).unwrap()
    }

    fn pool(sip: &str) -> EdgePool {
        let manifest = format!(
            "apiVersion: xmpp-edge.dev/v1alpha1\nkind: EdgePool\nmetadata: {{name: hq, namespace: org}}\nspec: {{site: hq, domains: [org.example], accessEdge: {{fqdn: e.org.example}}, certificate: {{selfSigned: {{}}}}, gateways: [{{name: sip, domains: [Org.Example], mode: Sip, address: 'i.example:5061', sip: {sip}}}]}}"
        );
        serde_saphyr::from_str(&manifest).unwrap()
    }

    fn config(pool: &EdgePool) -> EdgeConfig {
        let world = crate::compile::NamespaceInputs {
            namespace: "org".into(),
            pools: vec![pool.clone()],
            ..crate::compile::NamespaceInputs::default()
        };
        let mut compiled = crate::compile::compile(&world, &std::collections::BTreeMap::new());
        compiled.configs.remove("hq").unwrap()
    }

    fn leaf(names: &[&str], valid: SignedDuration) -> SecretData {
        let ca = issue::root("their CA", now()).unwrap();
        let names: Vec<_> = names
            .iter()
            .map(|name| DomainName::parse(name).unwrap())
            .collect();
        let pair = issue::leaf_for(&ca, &names, now(), valid).unwrap();
        let mut secret = SecretData::new();
        set(&mut secret, "tls.crt", &pair.chain);
        set(&mut secret, "tls.key", &pair.key);
        secret
    }

    #[test]
    fn a_secret_that_is_not_good_is_told_and_the_last_good_pair_stays() {
        let pool = pool("{edgeName: edge.corp.example, certificateSecretRef: {name: theirs}}");
        let config = config(&pool);
        let month = SignedDuration::from_hours(24 * 30);
        let good = leaf(&["edge.corp.example", "partner.example"], month);
        let other = leaf(&["other.example"], month);
        let mut mixed = good.clone();
        set(&mut mixed, "tls.key", text(&other, "tls.key").unwrap());
        let mut broken = good.clone();
        set(&mut broken, "tls.crt", "nothing of that kind");
        let mut half = good.clone();
        half.remove("tls.key");
        let mut store = MemoryStore::default();
        let mut look = |secret: Option<&SecretData>, at: Timestamp| {
            let secrets = |name: &str| secret.filter(|_| name == "theirs").cloned();
            provide(Some(&pool), &config, &secrets, &mut store, at).unwrap()
        };
        let before = look(None, now());
        assert!(before.pairs.0.is_empty());
        assert_eq!(before.faults[0].reason(), Reason::ReferenceMissing);
        assert!(
            before.faults[0]
                .to_string()
                .contains("is shown no certificate")
        );
        let taken = look(Some(&good), now());
        assert!(taken.faults.is_empty(), "{:?}", taken.faults);
        assert_eq!(
            taken.pairs.0["org.example"].chain,
            text(&good, "tls.crt").unwrap()
        );
        for (secret, reason) in [
            (None, Reason::ReferenceMissing),
            (Some(&half), Reason::ReferenceMissing),
            (Some(&broken), Reason::InvalidCertificate),
            (Some(&mixed), Reason::KeyMismatch),
            (Some(&other), Reason::NamesNotCovered),
        ] {
            let found = look(secret, now());
            assert_eq!(found.faults[0].reason(), reason, "{:?}", found.faults);
            let words = found.faults[0].to_string();
            assert!(words.contains("gateway org.example"), "{words}");
            assert!(words.contains("stays in use until"), "{words}");
            assert_eq!(found.pairs, taken.pairs);
        }
        let late = look(Some(&good), now() + month * 2);
        assert_eq!(late.faults[0].reason(), Reason::Expired);
        let renewed = leaf(&["edge.corp.example"], month);
        assert_ne!(look(Some(&renewed), now()).pairs, taken.pairs);
        // A spec that cannot be read changes nothing.
        let nothing = |_: &str| None;
        let kept = provide(None, &config, &nothing, &mut store, now()).unwrap();
        assert!(kept.faults.is_empty() && kept.pairs.0.len() == 1);
    }

    #[test]
    fn without_a_reference_nothing_is_kept_any_more() {
        let with = pool("{edgeName: edge.corp.example, certificateSecretRef: {name: theirs}}");
        let without = pool("{edgeName: edge.corp.example}");
        let good = leaf(&["edge.corp.example"], SignedDuration::from_hours(24));
        let secrets = |_: &str| Some(good.clone());
        let entry = ManagedSecret::SipPairs("hq".into());
        let mut store = MemoryStore::default();
        let look = |pool: &EdgePool, store: &mut MemoryStore| {
            provide(Some(pool), &config(pool), &secrets, store, now()).unwrap()
        };
        look(&without, &mut store);
        assert!(store.read(&entry).unwrap().is_none(), "nothing to keep");
        look(&with, &mut store);
        assert!(store.read(&entry).unwrap().is_some());
        look(&without, &mut store);
        let left = store.read(&entry).unwrap().unwrap();
        assert_eq!(text(&left, KEY), Some("{}"));
    }
}
