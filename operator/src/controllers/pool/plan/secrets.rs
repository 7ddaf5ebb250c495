//! Secrets of a pool and of its namespace: which there should be, with what in them.
//!
//! The makers are those of standalone, run on what the cluster holds; nothing is written here. What
//! is in order comes out as it went in, so that the difference is what has to be written.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ConfigMap;
use xmpp_edge_crds::{
    domain::DomainName,
    edge_config::EdgeConfig,
    kinds::{
        EdgePool,
        conditions::{ConditionType, Reason},
        pool::Certificate,
    },
    sidecar_config::SidecarDocument,
};

use super::{
    super::{
        sidecar_secrets::{HeldElsewhere, IdentityState, SidecarIdentity},
        sidecars::SidecarInputs,
    },
    Child, metadata, names,
};
use crate::{
    compile::{Diagnostic, Kind, ObjectRef, Severity},
    runtime::caches::SecretPlace,
    secrets::{
        CertificateError,
        chain::CertificateFacts,
        database::DatabaseSecret,
        egress,
        internal_ca::{self, InternalCa},
        source::{self, CertificateSpec, CertificateState, Environment, PoolBackend, Secrets, sip},
        store::{ManagedSecret, SecretData, Store, StoreError},
    },
};

/// What there should be.
#[derive(Debug)]
pub struct SecretsPlan {
    /// In the order of writing: what others are issued from comes first.
    pub entries: Vec<(ManagedSecret, SecretData)>,
    /// Secrets that somebody else keeps now: they do not go with the pool.
    pub released: Vec<ManagedSecret>,
    /// The internal CA's certificate, for servers inside.
    pub internal_ca: Child,
    pub certificate: CertificateState,
    /// What each gateway's server can mount: its domains, and the certificate.
    pub gateways: Vec<(Vec<DomainName>, CertificateFacts)>,
    /// What is wrong with Secrets that only somebody else can mend.
    pub diagnostics: Vec<Diagnostic>,
    /// What the sidecars of each gateway prove themselves by, those of `elsewhere` aside.
    pub sidecars: Vec<SidecarIdentity>,
    /// Secrets of sidecars in other namespaces.
    pub elsewhere: Vec<PlannedElsewhere>,
    /// `sidecar.json` and `ca.crt` for hosts outside of the cluster.
    pub outside: Vec<Child>,
    /// Data of every Secret that the pods mount, and the CA's certificate: what they are to have.
    pub mounted: Vec<SecretData>,
}

/// A Secret in another namespace, as it should be.
#[derive(Debug)]
pub struct PlannedElsewhere {
    pub identity: SidecarIdentity,
    /// Where it may be written.
    pub material: Option<SecretData>,
}

/// Plans for one pool in force, whose spec and `spec.certificate` are given as far as they can be read. `held` is
/// what the cluster holds, by the Secret's name.
///
/// # Errors
/// [`CertificateError`] where what is kept cannot be used; nothing is to be written then.
pub fn plan(
    spec: Option<&EdgePool>,
    certificate: Option<&Certificate>,
    config: &EdgeConfig,
    held: &dyn Secrets,
    sidecars: &SidecarInputs<'_>,
    now: Timestamp,
) -> Result<SecretsPlan, CertificateError> {
    let name = &config.pool;
    let mut store = Overlay {
        held,
        written: BTreeMap::new(),
    };
    let mut diagnostics = Vec::new();
    let mut kept = vec![
        ManagedSecret::InternalCa,
        ManagedSecret::InternalIssuer(name.clone()),
    ];
    let ca = internal_ca::ensure_ca(&mut store, &config.namespace, now)?;
    internal_ca::ensure_issuer(&mut store, &ca, name, &config.namespace_domains, now)?;
    let mut gateways = Vec::new();
    let (mut of_sidecars, mut elsewhere) = (Vec::new(), Vec::new());
    for gateway in &config.gateways {
        let first = gateway.domains.first();
        let domains = sidecars.domains_of(gateway, |it| it.domains.first() == first);
        let issued = internal_ca::ensure_gateway(&mut store, &ca, &domains, now)?;
        gateways.extend(issued.map(|facts| (gateway.domains.clone(), facts)));
        kept.extend(first.map(|domain| ManagedSecret::Gateway(domain.to_string())));
        let name = gateway.effective_name();
        let Some(sidecar) = &gateway.sidecar else {
            continue;
        };
        let entry = ManagedSecret::Sidecar(name.to_owned());
        let other = sidecar.namespace.as_ref();
        let other = other.filter(|namespace| **namespace != config.namespace);
        let place = SecretPlace {
            namespace: other.unwrap_or(&config.namespace).clone(),
            name: entry.to_string(),
        };
        let json = sidecars.documents.get(name).map(SidecarDocument::to_json);
        let json = json.as_deref();
        let domains = sidecars.domains_of(gateway, |it| {
            it.sidecar.is_some() && it.effective_name() == name
        });
        if other.is_some() {
            let planned = plan_elsewhere((name, &domains), place, json, sidecars, &ca, now)?;
            elsewhere.push(planned);
            continue;
        }
        let facts = internal_ca::ensure_sidecar(&mut store, &ca, name, &domains, json, now)?;
        kept.push(entry);
        of_sidecars.push(SidecarIdentity {
            gateway: name.to_owned(),
            place,
            state: IdentityState::Issued {
                not_after: facts.not_after,
            },
        });
    }
    let outside = sidecars.outside.iter();
    let outside = outside.map(|(name, document)| for_outside(spec, name, document, &ca.trusted));
    let outside = outside.collect();
    let backend = PoolBackend::of(certificate, held, Environment::Cluster { pool: name });
    let wanted = CertificateSpec {
        pool: name,
        names: &config.certificate_names(),
        now,
    };
    let mut certificate = source::provide(&backend, &wanted, &mut store)?;
    certificate.sip = sip::provide(spec, config, held, &mut store, now)?.faults;
    kept.push(ManagedSecret::SipPairs(name.clone()));
    let is_followed = matches!(backend, PoolBackend::Followed(_));
    let released = is_followed.then(|| ManagedSecret::PoolPair(name.clone()));
    // What cannot be read may be somebody else's.
    if backend.is_own() {
        kept.extend([
            ManagedSecret::PoolCa(name.clone()),
            ManagedSecret::PoolPair(name.clone()),
        ]);
    }
    internal_ca::ensure_admin_token(&mut store, name)?;
    kept.push(ManagedSecret::AdminToken(name.clone()));
    let mut mounted = Vec::new();
    let reference = spec.and_then(|pool| pool.spec.settings.dialback_secret_ref.as_ref());
    match reference {
        None => {
            internal_ca::ensure_dialback(&mut store)?;
            kept.push(ManagedSecret::Dialback);
        }
        Some(reference) => {
            let material = held.secret(&reference.name);
            let checked =
                internal_ca::dialback_of(&material.clone().unwrap_or_default(), &reference.name);
            mounted.extend(material);
            if let Err(error) = checked {
                diagnostics.push(missing(name, error.to_string()));
            }
        }
    }
    let postgres = spec.and_then(|pool| pool.spec.contacts.as_ref()?.postgres.as_ref());
    if let Some(postgres) = postgres {
        let secret = &postgres.secret_ref.name;
        let material = held.secret(secret);
        if let Err(error) = DatabaseSecret::read(secret, material.as_ref()) {
            diagnostics.push(missing(name, error.to_string()));
        }
        mounted.extend(material);
    }
    if let Some(secret) = spec.and_then(egress::secret_of) {
        let material = held.secret(secret);
        if let Err(error) = egress::credentials(secret, material.as_ref()) {
            diagnostics.push(missing(name, error.to_string()));
        }
        mounted.extend(material);
    }
    let pair = ManagedSecret::PoolPair(name.clone());
    mounted.extend(store.read(&pair)?);
    let mut entries = Vec::new();
    for entry in kept {
        let Some(material) = store.read(&entry)?.filter(|material| !material.is_empty()) else {
            continue;
        };
        if matches!(
            entry,
            ManagedSecret::InternalIssuer(_)
                | ManagedSecret::Dialback
                | ManagedSecret::AdminToken(_)
                | ManagedSecret::SipPairs(_)
        ) {
            mounted.push(material.clone());
        }
        entries.push((entry, material));
    }
    let mut trusted = SecretData::new();
    crate::secrets::store::set(&mut trusted, "ca.crt", &ca.trusted);
    mounted.push(trusted);
    Ok(SecretsPlan {
        entries,
        released: released.into_iter().collect(),
        internal_ca: internal_ca(&config.namespace, &ca.trusted),
        certificate,
        gateways,
        diagnostics,
        sidecars: of_sidecars,
        elsewhere,
        outside,
        mounted,
    })
}

/// The Secret of a gateway's sidecars at `place`, as far as that may be written.
fn plan_elsewhere(
    (name, domains): (&str, &[DomainName]),
    place: SecretPlace,
    document: Option<&str>,
    sidecars: &SidecarInputs<'_>,
    ca: &InternalCa,
    now: Timestamp,
) -> Result<PlannedElsewhere, CertificateError> {
    let data = match (sidecars.elsewhere)(&place, name) {
        HeldElsewhere::Data(data) => data,
        HeldElsewhere::NotYet => {
            return Ok(PlannedElsewhere::without(
                name,
                place,
                IdentityState::NotYet,
            ));
        }
        HeldElsewhere::Refused(fault) => {
            let state = IdentityState::Refused(fault);
            return Ok(PlannedElsewhere::without(name, place, state));
        }
    };
    let held = |_: &str| data.clone();
    let mut store = Overlay {
        held: &held,
        written: BTreeMap::new(),
    };
    let entry = ManagedSecret::Sidecar(name.to_owned());
    let facts = internal_ca::ensure_sidecar(&mut store, ca, name, domains, document, now)?;
    let not_after = facts.not_after;
    Ok(PlannedElsewhere {
        material: store.read(&entry)?,
        ..PlannedElsewhere::without(name, place, IdentityState::Issued { not_after })
    })
}

impl PlannedElsewhere {
    fn without(gateway: &str, place: SecretPlace, state: IdentityState) -> Self {
        Self {
            identity: SidecarIdentity {
                gateway: gateway.to_owned(),
                place,
                state,
            },
            material: None,
        }
    }
}

/// The ConfigMap that people copy to hosts outside of the cluster: all of it is public.
fn for_outside(
    pool: Option<&EdgePool>,
    gateway: &str,
    document: &SidecarDocument,
    trusted: &str,
) -> Child {
    let name = ManagedSecret::Sidecar(gateway.to_owned()).to_string();
    let mut map = ConfigMap {
        data: Some(BTreeMap::from([
            ("sidecar.json".to_owned(), document.to_json()),
            ("ca.crt".to_owned(), trusted.to_owned()),
        ])),
        ..ConfigMap::default()
    };
    match pool {
        Some(pool) => map.metadata = metadata::owned(pool, name),
        None => map.metadata.name = Some(name),
    }
    Child::ConfigMap(Box::new(map))
}

fn missing(pool: &str, message: String) -> Diagnostic {
    Diagnostic {
        object: ObjectRef::new(Kind::EdgePool, pool),
        condition: ConditionType::Ready,
        status: false,
        reason: Reason::ReferenceMissing,
        message,
        severity: Severity::Warning,
    }
}

/// The ConfigMap that servers inside trust by: it belongs to the namespace, not to a pool.
fn internal_ca(namespace: &str, trusted: &str) -> Child {
    let mut map = ConfigMap {
        data: Some(BTreeMap::from([("ca.crt".to_owned(), trusted.to_owned())])),
        ..ConfigMap::default()
    };
    map.metadata.name = Some(names::INTERNAL_CA.to_owned());
    map.metadata.namespace = Some(namespace.to_owned());
    map.metadata.labels = Some(metadata::shared_labels());
    Child::ConfigMap(Box::new(map))
}

/// How the pool and an entry's Secret belong together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ownership {
    /// It goes with the pool.
    Pool,
    /// It goes with the last pool that has the gateway.
    Shared,
    /// It outlives the pool.
    Nobody,
}

/// Who owns an entry's Secret, of a pool with this `spec.certificate`. The key of a request is kept for a pool of
/// the same name.
#[must_use]
pub fn ownership(entry: &ManagedSecret, certificate: Option<&Certificate>) -> Ownership {
    let is_requested = certificate.is_some_and(|it| it.csr.is_some());
    match entry {
        ManagedSecret::InternalCa | ManagedSecret::Dialback => Ownership::Nobody,
        ManagedSecret::PoolPair(_) if is_requested => Ownership::Nobody,
        ManagedSecret::Gateway(_) | ManagedSecret::Sidecar(_) => Ownership::Shared,
        ManagedSecret::PoolPair(_)
        | ManagedSecret::PoolCa(_)
        | ManagedSecret::InternalIssuer(_)
        | ManagedSecret::AdminToken(_)
        | ManagedSecret::SipPairs(_)
        | ManagedSecret::LastGiven(_) => Ownership::Pool,
    }
}

/// What an entry is issued from, where that is another entry: from one that could not be kept nothing may be issued.
#[must_use]
pub fn issued_from(entry: &ManagedSecret) -> Option<ManagedSecret> {
    match entry {
        ManagedSecret::InternalIssuer(_)
        | ManagedSecret::Gateway(_)
        | ManagedSecret::Sidecar(_) => Some(ManagedSecret::InternalCa),
        ManagedSecret::PoolPair(pool) => Some(ManagedSecret::PoolCa(pool.clone())),
        ManagedSecret::InternalCa
        | ManagedSecret::PoolCa(_)
        | ManagedSecret::Dialback
        | ManagedSecret::AdminToken(_)
        | ManagedSecret::SipPairs(_)
        | ManagedSecret::LastGiven(_) => None,
    }
}

/// Whether a Secret without our labels may be written: these are given to several clusters alike.
#[must_use]
pub fn may_be_given(entry: &ManagedSecret) -> bool {
    matches!(entry, ManagedSecret::InternalCa | ManagedSecret::Dialback)
}

/// `type` of a new Secret. It can never change, so that a pair without certificate is `Opaque`.
#[must_use]
pub fn secret_type(material: &SecretData) -> &'static str {
    if material.contains_key("tls.crt") && material.contains_key("tls.key") {
        "kubernetes.io/tls"
    } else {
        "Opaque"
    }
}

/// Labels of an entry's Secret; `pool` is the pool's name.
#[must_use]
pub fn labels(entry: &ManagedSecret, pool: &str) -> BTreeMap<String, String> {
    match entry {
        ManagedSecret::InternalCa
        | ManagedSecret::Dialback
        | ManagedSecret::Gateway(_)
        | ManagedSecret::Sidecar(_) => metadata::shared_labels(),
        _ => metadata::labels(pool),
    }
}

/// What the cluster holds, under what was made meanwhile.
struct Overlay<'a> {
    held: &'a dyn Secrets,
    written: BTreeMap<ManagedSecret, SecretData>,
}

impl Store for Overlay<'_> {
    fn read(&self, entry: &ManagedSecret) -> Result<Option<SecretData>, StoreError> {
        let written = self.written.get(entry).cloned();
        Ok(written.or_else(|| self.held.secret(&entry.to_string())))
    }

    fn write(&mut self, entry: &ManagedSecret, material: &SecretData) -> Result<(), StoreError> {
        self.written.insert(entry.clone(), material.clone());
        Ok(())
    }
}
