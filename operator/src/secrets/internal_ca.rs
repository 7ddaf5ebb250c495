//! The namespace's internal PKI: one CA, an intermediate for each pool's pods, a certificate for
//! each gateway, and the secret of the dialback keys.
//!
//! Each `ensure_*` reads what is kept, makes what is missing, outdated or soon over, and keeps it.
//! What is in order is left as it is: calling again changes nothing.

use std::fmt;

use data_encoding::HEXLOWER;
use jiff::{SignedDuration, Timestamp};
use xmpp_edge_crds::domain::DomainName;
use zeroize::Zeroizing;

use super::{
    CertificateError,
    chain::{CertificateFacts, PemPair},
    issue,
    store::{ManagedSecret, SecretData, Store, set, text},
};

/// The next CA is made and published this long before the old one ends...
const NEXT_CA: SignedDuration = SignedDuration::from_hours(24 * 180);
/// ...and issues from then on, so that every server inside had time to read both.
const SWITCH_CA: SignedDuration = SignedDuration::from_hours(24 * 90);
/// Fewest bytes of a dialback secret that somebody else made.
const DIALBACK_BYTES: usize = 16;

/// The internal CA as it stands.
#[derive(Clone, Debug)]
pub struct InternalCa {
    /// Issues now.
    pub signer: PemPair,
    /// PEM of every certificate to trust: one, two while it is renewed.
    pub trusted: String,
}

/// The dialback secret and, while it is changed, the one before.
#[derive(Clone)]
pub struct DialbackSecret {
    pub secret: Zeroizing<Vec<u8>>,
    pub previous: Option<Zeroizing<Vec<u8>>>,
}

/// Neither is shown.
impl fmt::Debug for DialbackSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DialbackSecret").finish_non_exhaustive()
    }
}

fn pair(material: &SecretData, certificate: &str, key: &str) -> Option<PemPair> {
    Some(PemPair {
        chain: text(material, certificate)?.to_owned(),
        key: Zeroizing::new(text(material, key)?.to_owned()),
    })
}

fn put(material: &mut SecretData, certificate: &str, key: &str, pair: &PemPair) {
    set(material, certificate, &pair.chain);
    set(material, key, &pair.key);
}

fn left(
    chain: &str,
    entry: &ManagedSecret,
    now: Timestamp,
) -> Result<SignedDuration, CertificateError> {
    let facts = CertificateFacts::of_chain(chain).map_err(|fault| CertificateError::Kept {
        entry: entry.clone(),
        fault,
    })?;
    Ok(facts.not_after.duration_since(now))
}

/// The internal CA: made once, kept, and renewed in three steps (published, issuing, alone) so
/// that no server inside meets a certificate of a CA that it could not have read.
///
/// # Errors
/// [`CertificateError`]; a CA that is kept but unreadable is never silently replaced.
pub fn ensure_ca(
    store: &mut dyn Store,
    namespace: &str,
    now: Timestamp,
) -> Result<InternalCa, CertificateError> {
    let entry = ManagedSecret::InternalCa;
    let mut held = store.read(&entry)?.unwrap_or_default();
    let before = held.clone();
    if let Some(chain) = text(&held, "previous.crt")
        && left(chain, &entry, now)?.is_negative()
    {
        held.remove("previous.crt");
    }
    let current = match pair(&held, "tls.crt", "tls.key") {
        None if held.contains_key("tls.crt") || held.contains_key("tls.key") => {
            return Err(CertificateError::Incomplete {
                entry,
                missing: "tls.crt or tls.key",
            });
        }
        None => {
            let made = issue::root(&common_name(namespace), now)?;
            put(&mut held, "tls.crt", "tls.key", &made);
            made
        }
        Some(current) => current,
    };
    let remaining = left(&current.chain, &entry, now)?;
    let next = match pair(&held, "next.crt", "next.key") {
        None if remaining < NEXT_CA => {
            let made = issue::root(&common_name(namespace), now)?;
            put(&mut held, "next.crt", "next.key", &made);
            Some(made)
        }
        next => next,
    };
    let signer = match next {
        Some(next) if remaining < SWITCH_CA => {
            put(&mut held, "tls.crt", "tls.key", &next);
            held.remove("next.crt");
            held.remove("next.key");
            if !remaining.is_negative() {
                set(&mut held, "previous.crt", &current.chain);
            }
            next
        }
        _ => current,
    };
    if held != before {
        store.write(&entry, &held)?;
    }
    Ok(InternalCa {
        signer,
        trusted: trusted(&held),
    })
}

/// PEM of every certificate that [`ManagedSecret::InternalCa`] holds: what servers inside are to trust.
#[must_use]
pub fn trusted(held: &SecretData) -> String {
    ["tls.crt", "next.crt", "previous.crt"]
        .into_iter()
        .filter_map(|key| text(held, key))
        .map(|chain| {
            if chain.ends_with('\n') {
                chain.to_owned()
            } else {
                format!("{chain}\n")
            }
        })
        .collect()
}

fn common_name(namespace: &str) -> String {
    format!(
        "xmpp-edge internal CA of {}",
        namespace.chars().take(30).collect::<String>()
    )
}

/// A pool's intermediate. It is made anew with a third of its life left, when `own` changed, and
/// when the CA did.
///
/// # Errors
/// [`CertificateError`].
pub fn ensure_issuer(
    store: &mut dyn Store,
    ca: &InternalCa,
    pool: &str,
    own: &[DomainName],
    now: Timestamp,
) -> Result<PemPair, CertificateError> {
    let entry = ManagedSecret::InternalIssuer(pool.to_owned());
    if let Some(held) = store.read(&entry)?
        && let Some(pair) = pair(&held, "tls.crt", "tls.key")
        && text(&held, "excluded") == Some(&joined(own))
        && text(&held, "ca.crt") == Some(&ca.signer.chain)
        && let Ok(facts) = CertificateFacts::of_chain(&pair.chain)
        && !facts.wants_renewal(now)
    {
        return Ok(pair);
    }
    let made = issue::intermediate(&ca.signer, &format!("xmpp-edge pool {pool}"), own, now)?;
    let mut material = SecretData::new();
    put(&mut material, "tls.crt", "tls.key", &made);
    set(&mut material, "ca.crt", &ca.signer.chain);
    set(&mut material, "excluded", &joined(own));
    store.write(&entry, &material)?;
    Ok(made)
}

fn joined(names: &[DomainName]) -> String {
    names
        .iter()
        .map(DomainName::as_str)
        .collect::<Vec<_>>()
        .join(" ")
}

/// The certificate that the gateway of `domains` may mount for SASL EXTERNAL, renewed with a third
/// of its life left. `ca.crt` always holds all that is to be trusted.
///
/// # Errors
/// [`CertificateError`].
pub fn ensure_gateway(
    store: &mut dyn Store,
    ca: &InternalCa,
    domains: &[DomainName],
    now: Timestamp,
) -> Result<Option<CertificateFacts>, CertificateError> {
    let Some(first) = domains.first() else {
        return Ok(None);
    };
    let entry = ManagedSecret::Gateway(first.to_string());
    let held = store.read(&entry)?.unwrap_or_default();
    let (pair, facts) = leaf_in_order(ca, (&entry, &held), domains, issue::LEAF_VALID, now)?;
    let mut material = SecretData::new();
    put(&mut material, "tls.crt", "tls.key", &pair);
    set(&mut material, "ca.crt", &ca.trusted);
    set(&mut material, "issued-by", &ca.signer.chain);
    if material != held {
        store.write(&entry, &material)?;
    }
    Ok(Some(facts))
}

/// What the sidecars of a gateway mount: a certificate for its domains, renewed with a third of its life left;
/// all that is to be trusted of edges; their document, as it is given (`None`: nobody can say it now, and the one that is
/// kept stays); and `epoch`, when the first certificate
/// begins that was made since there is this entry. Renewals keep it. Who deletes the entry so takes away every
/// certificate of before: edges take none that begins before the epoch.
///
/// # Errors
/// [`CertificateError`].
pub fn ensure_sidecar(
    store: &mut dyn Store,
    ca: &InternalCa,
    name: &str,
    domains: &[DomainName],
    document: Option<&str>,
    now: Timestamp,
) -> Result<CertificateFacts, CertificateError> {
    let entry = ManagedSecret::Sidecar(name.to_owned());
    let held = store.read(&entry)?.unwrap_or_default();
    let (pair, facts) = leaf_in_order(ca, (&entry, &held), domains, issue::SIDECAR_VALID, now)?;
    let epoch = epoch(&held).unwrap_or(facts.not_before);
    let mut material = SecretData::new();
    put(&mut material, "tls.crt", "tls.key", &pair);
    set(&mut material, "ca.crt", &ca.trusted);
    set(&mut material, "issued-by", &ca.signer.chain);
    set(&mut material, "epoch", &epoch.to_string());
    if let Some(document) = document.or(text(&held, "sidecar.json")) {
        set(&mut material, "sidecar.json", document);
    }
    if material != held {
        store.write(&entry, &material)?;
    }
    Ok(facts)
}

/// The leaf that `held` has where it is for just these names, of this signer and not due for renewal; else a new one of `valid`.
fn leaf_in_order(
    ca: &InternalCa,
    (entry, held): (&ManagedSecret, &SecretData),
    domains: &[DomainName],
    valid: SignedDuration,
    now: Timestamp,
) -> Result<(PemPair, CertificateFacts), CertificateError> {
    let in_order = pair(held, "tls.crt", "tls.key").and_then(|pair| {
        let facts = pair.check(domains, now).ok()?;
        let exact = facts.dns_names.len() == domains.len();
        let signed = text(held, "issued-by") == Some(&ca.signer.chain);
        (exact && signed && !facts.wants_renewal(now)).then_some((pair, facts))
    });
    if let Some(found) = in_order {
        return Ok(found);
    }
    let made = issue::leaf_for(&ca.signer, domains, now, valid)?;
    let facts = made
        .check(domains, now)
        .map_err(|fault| CertificateError::Kept {
            entry: entry.clone(),
            fault,
        })?;
    Ok((made, facts))
}

/// The epoch of what [`ensure_sidecar`] keeps, where it can be read.
#[must_use]
pub fn epoch(held: &SecretData) -> Option<Timestamp> {
    text(held, "epoch")?.trim().parse().ok()
}

/// The namespace's own dialback secret: 32 random bytes in hex, made once for all pools.
///
/// # Errors
/// [`CertificateError`].
pub fn ensure_dialback(store: &mut dyn Store) -> Result<DialbackSecret, CertificateError> {
    let entry = ManagedSecret::Dialback;
    let mut held = store.read(&entry)?.unwrap_or_default();
    if !held.contains_key("secret") {
        set(&mut held, "secret", &random_hex()?);
        store.write(&entry, &held)?;
    }
    dialback_of(&held, &entry.to_string())
}

/// The token of a pool's admin port: 32 random bytes in hex, kept under `token`. One that somebody
/// else put there stays.
///
/// # Errors
/// [`CertificateError`].
pub fn ensure_admin_token(store: &mut dyn Store, pool: &str) -> Result<(), CertificateError> {
    let entry = ManagedSecret::AdminToken(pool.to_owned());
    let mut held = store.read(&entry)?.unwrap_or_default();
    if held.get("token").is_none_or(|token| token.is_empty()) {
        set(&mut held, "token", &random_hex()?);
        store.write(&entry, &held)?;
    }
    Ok(())
}

/// 32 random bytes in hex.
fn random_hex() -> Result<Zeroizing<String>, CertificateError> {
    let random = Zeroizing::new(issue::random::<32>()?);
    Ok(Zeroizing::new(HEXLOWER.encode(&*random)))
}

/// The secret that `dialbackSecretRef` names.
///
/// # Errors
/// [`CertificateError::DialbackSecret`] where `secret` is missing or shorter than 16 bytes.
pub fn dialback_of(material: &SecretData, name: &str) -> Result<DialbackSecret, CertificateError> {
    let fault = |reason| CertificateError::DialbackSecret {
        name: name.to_owned(),
        reason,
    };
    let secret = material
        .get("secret")
        .ok_or_else(|| fault("has no key `secret`"))?;
    if secret.len() < DIALBACK_BYTES {
        return Err(fault("holds fewer than 16 bytes under `secret`"));
    }
    let previous = material
        .get("previous")
        .filter(|value| !value.is_empty())
        .cloned();
    Ok(DialbackSecret {
        secret: secret.clone(),
        previous,
    })
}
