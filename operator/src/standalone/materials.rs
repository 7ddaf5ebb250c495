//! What the proxy is given beside its document: certificates and secrets, from the manifests'
//! Secrets and from the state directory. What cannot be had stays as it was given last.

use jiff::Timestamp;
use xmpp_edge_crds::{
    edge_config::{Contacts, EdgeConfig},
    egress::EgressCredentials,
    kinds::{
        EdgePool,
        conditions::{ConditionType, Reason},
    },
};
use xmpp_edge_proxy::config::{ConfigSecrets, PemPair};
use zeroize::Zeroizing;

use crate::{
    compile::{Diagnostic, Kind, NamespaceInputs, ObjectRef, Severity},
    secrets::{
        CertificateError, chain,
        database::DatabaseSecret,
        egress,
        internal_ca::{self, DialbackSecret},
        source::{self, CertificateSpec, CertificateState, Environment, PoolBackend, sip},
        store::{SecretData, Store},
    },
};

/// Everything for one pool, and what there is to say of it.
#[derive(Debug)]
pub struct Provided {
    pub materials: ConfigSecrets,
    pub certificate: CertificateState,
    pub diagnostics: Vec<Diagnostic>,
}

/// Provides for the pool of `config`. `last` is what was given before, where there was something.
///
/// # Errors
/// [`CertificateError`] where the store fails, or where a secret cannot be had that was never given.
pub fn provide(
    world: &NamespaceInputs,
    config: &EdgeConfig,
    last: Option<&ConfigSecrets>,
    store: &mut dyn Store,
    now: Timestamp,
) -> Result<Provided, CertificateError> {
    let mut diagnostics = Vec::new();
    let spec = world
        .pools
        .iter()
        .find(|pool| pool.metadata.name.as_ref() == Some(&config.pool));
    let ca = internal_ca::ensure_ca(store, &config.namespace, now)?;
    let issuer =
        internal_ca::ensure_issuer(store, &ca, &config.pool, &config.namespace_domains, now)?;
    for gateway in &config.gateways {
        internal_ca::ensure_gateway(store, &ca, &gateway.domains, now)?;
    }
    let mut certificate = certificate(world, spec, config, store, now)?;
    let secrets = |name: &str| world.secrets.get(name).cloned();
    let sip = sip::provide(spec, config, &secrets, store, now)?;
    certificate.sip = sip.faults;
    diagnostics.push(certificate_ready(&config.pool, &certificate, now));
    let dialback = dialback(world, spec, last, store, config, &mut diagnostics)?;
    let (contacts_url, contacts_ca) = contacts(world, spec, config, last, &mut diagnostics);
    let materials = ConfigSecrets {
        certificate: certificate.pair.as_ref().map(given),
        internal_ca: ca.trusted,
        issuer: Some(given(&issuer)),
        dialback_secret: dialback.secret,
        dialback_previous: dialback.previous,
        admin_token: None,
        contacts_url,
        contacts_ca,
        egress_credentials: egress_credentials(world, spec, last, config, &mut diagnostics),
        sip_pairs: sip.pairs,
    };
    Ok(Provided {
        materials,
        certificate,
        diagnostics,
    })
}

fn given(pair: &chain::PemPair) -> PemPair {
    PemPair {
        chain: pair.chain.clone(),
        key: pair.key.clone(),
    }
}

/// Condition `CertificateReady` of a pool.
#[must_use]
pub fn certificate_ready(pool: &str, certificate: &CertificateState, now: Timestamp) -> Diagnostic {
    let (status, reason, message) = certificate.condition(now);
    Diagnostic {
        object: ObjectRef::new(Kind::EdgePool, pool),
        condition: ConditionType::CertificateReady,
        status,
        reason,
        message,
        severity: if status {
            Severity::Info
        } else {
            Severity::Warning
        },
    }
}

/// The pool's certificate: for every own domain of the pool, and the FQDN.
///
/// # Errors
/// [`CertificateError`].
pub fn certificate(
    world: &NamespaceInputs,
    spec: Option<&EdgePool>,
    config: &EdgeConfig,
    store: &mut dyn Store,
    now: Timestamp,
) -> Result<CertificateState, CertificateError> {
    let names = config.certificate_names();
    let secrets = |name: &str| world.secrets.get(name).cloned();
    let mode = spec.map(|pool| &pool.spec.certificate);
    let backend = PoolBackend::of(mode, &secrets, Environment::Standalone);
    source::provide(
        &backend,
        &CertificateSpec {
            pool: &config.pool,
            names: &names,
            now,
        },
        store,
    )
}

fn not_given(config: &EdgeConfig, message: String) -> Diagnostic {
    Diagnostic {
        object: ObjectRef::new(Kind::EdgePool, &config.pool),
        condition: ConditionType::Ready,
        status: false,
        reason: Reason::ReferenceMissing,
        message,
        severity: Severity::Warning,
    }
}

fn dialback(
    world: &NamespaceInputs,
    spec: Option<&EdgePool>,
    last: Option<&ConfigSecrets>,
    store: &mut dyn Store,
    config: &EdgeConfig,
    diagnostics: &mut Vec<Diagnostic>,
) -> Result<DialbackSecret, CertificateError> {
    let Some(reference) = spec.and_then(|pool| pool.spec.settings.dialback_secret_ref.as_ref())
    else {
        return internal_ca::ensure_dialback(store);
    };
    let missing = SecretData::new();
    let material = world.secrets.get(&reference.name).unwrap_or(&missing);
    match (internal_ca::dialback_of(material, &reference.name), last) {
        (Ok(secret), _) => Ok(secret),
        (Err(error), None) => Err(error),
        (Err(error), Some(last)) => {
            let message = format!("{error}; the secret given last stays in use");
            diagnostics.push(not_given(config, message));
            Ok(DialbackSecret {
                secret: last.dialback_secret.clone(),
                previous: last.dialback_previous.clone(),
            })
        }
    }
}

type Database = (Option<Zeroizing<String>>, Option<String>);

fn contacts(
    world: &NamespaceInputs,
    spec: Option<&EdgePool>,
    config: &EdgeConfig,
    last: Option<&ConfigSecrets>,
    diagnostics: &mut Vec<Diagnostic>,
) -> Database {
    if config.contacts == Contacts::Embedded {
        return (None, None);
    }
    let postgres = spec
        .and_then(|pool| pool.spec.contacts.as_ref())
        .and_then(|contacts| contacts.postgres.as_ref());
    let name = postgres.map_or("", |postgres| &postgres.secret_ref.name);
    match DatabaseSecret::read(name, world.secrets.get(name)) {
        Ok(database) => return (Some(database.url), database.ca),
        Err(error) => diagnostics.push(not_given(config, error.to_string())),
    }
    last.map_or((None, None), |last| {
        (last.contacts_url.clone(), last.contacts_ca.clone())
    })
}

fn egress_credentials(
    world: &NamespaceInputs,
    spec: Option<&EdgePool>,
    last: Option<&ConfigSecrets>,
    config: &EdgeConfig,
    diagnostics: &mut Vec<Diagnostic>,
) -> Option<EgressCredentials> {
    let reference = egress::secret_of(spec?)?;
    match egress::credentials(reference, world.secrets.get(reference)) {
        Ok(credentials) => return Some(credentials),
        Err(error) => diagnostics.push(not_given(config, error.to_string())),
    }
    last.and_then(|last| last.egress_credentials.clone())
}

/// Whether the proxy would be given the same.
#[must_use]
pub fn same(one: &ConfigSecrets, other: &ConfigSecrets) -> bool {
    one.certificate == other.certificate
        && one.internal_ca == other.internal_ca
        && one.issuer == other.issuer
        && one.dialback_secret == other.dialback_secret
        && one.dialback_previous == other.dialback_previous
        && one.admin_token == other.admin_token
        && one.contacts_url == other.contacts_url
        && one.contacts_ca == other.contacts_ca
        && one.egress_credentials == other.egress_credentials
        && one.sip_pairs == other.sip_pairs
}
