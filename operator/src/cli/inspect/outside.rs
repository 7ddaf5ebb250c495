//! What a pool needs beside the manifests that were read: Secrets, and what only a cluster has.
//!
//! All of it may exist where the manifests will be used, so that nothing here is an error. What
//! compiling itself needs (CAs, lists of users) is compiling's to miss.

use jiff::Timestamp;
use xmpp_edge_crds::{
    edge_config::EdgeConfig,
    kinds::{
        EdgePool,
        conditions::{ConditionType, Reason},
    },
};

use crate::{
    compile::{Diagnostic, Kind, NamespaceInputs, ObjectRef, Severity},
    secrets::{source::sip, store::MemoryStore},
    standalone::materials,
};

/// What is around the objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Surroundings {
    /// Files, which may be used anywhere.
    Files,
    /// The cluster that was read.
    Cluster,
}

/// Warnings about one pool: Secrets that are not in the manifests, a certificate that is and is of
/// no use, a certificate mode that standalone does not serve.
pub(super) fn of_pool(
    world: &NamespaceInputs,
    config: &EdgeConfig,
    surroundings: Surroundings,
    now: Timestamp,
) -> Vec<Diagnostic> {
    let pool = world
        .pools
        .iter()
        .find(|pool| pool.metadata.name.as_ref() == Some(&config.pool));
    let Some(pool) = pool else {
        return Vec::new();
    };
    let mut found: Vec<Diagnostic> = secrets(pool)
        .into_iter()
        .filter(|(_, _, name)| {
            !world.secrets.contains_key(*name) && !world.unread.secrets.contains_key(*name)
        })
        .map(|(condition, field, name)| {
            let message = match surroundings {
                Surroundings::Files => format!(
                    "{field}: Secret {name:?} is not in these manifests: standalone needs it among them, a cluster in the pool's namespace"
                ),
                Surroundings::Cluster => format!(
                    "{field}: there is no Secret {name:?}: create it in this namespace"
                ),
            };
            warning(config, condition, Reason::ReferenceMissing, message)
        })
        .collect();
    let certificate = &pool.spec.certificate;
    if certificate.cert_manager.is_some() && surroundings == Surroundings::Files {
        let message = "spec.certificate.certManager: this needs a cluster with cert-manager; standalone serves selfSigned, secretRef and csr";
        found.push(warning(
            config,
            ConditionType::CertificateReady,
            Reason::KindMissing,
            message.to_owned(),
        ));
    }
    found.extend(given_certificate(world, pool, config, now));
    found.extend(given_for_sip(world, pool, config, now));
    found
}

/// Secrets that must exist before the pool can serve, with the condition that they hold up. The
/// chain of mode csr is none: it comes later.
fn secrets(pool: &EdgePool) -> Vec<(ConditionType, &'static str, &str)> {
    let spec = &pool.spec;
    let certificate = spec.certificate.secret_ref.as_ref();
    let dialback = spec.settings.dialback_secret_ref.as_ref();
    let contacts = spec.contacts.as_ref().and_then(|it| it.postgres.as_ref());
    let egress = spec.settings.egress_proxy.as_ref();
    let egress = egress.and_then(|it| it.secret_ref.as_ref());
    let sip = spec.gateways.iter().filter_map(|it| it.sip.as_ref());
    let sip = sip.filter_map(|sip| sip.certificate_secret_ref.as_ref());
    let sip = sip.map(|secret| {
        let field = "spec.gateways[].sip.certificateSecretRef";
        (ConditionType::CertificateReady, field, &*secret.name)
    });
    let tsig = spec.dns.as_ref().and_then(|dns| dns.rfc2136.as_ref());
    [
        certificate.map(|secret| {
            let field = "spec.certificate.secretRef";
            (ConditionType::CertificateReady, field, &*secret.name)
        }),
        dialback.map(|secret| {
            let field = "spec.settings.dialbackSecretRef";
            (ConditionType::Ready, field, &*secret.name)
        }),
        contacts.map(|postgres| {
            let field = "spec.contacts.postgres.secretRef";
            (ConditionType::Ready, field, &*postgres.secret_ref.name)
        }),
        egress.map(|secret| {
            let field = "spec.settings.egressProxy.secretRef";
            (ConditionType::Ready, field, &*secret.name)
        }),
        tsig.map(|update| {
            let field = "spec.dns.rfc2136.tsigSecretRef";
            let name = &*update.tsig_secret_ref.name;
            (ConditionType::DnsPublished, field, name)
        }),
    ]
    .into_iter()
    .flatten()
    .chain(sip)
    .collect()
}

/// What is wrong with the certificates for SIP servers, where their Secrets stand in the manifests.
fn given_for_sip(
    world: &NamespaceInputs,
    pool: &EdgePool,
    config: &EdgeConfig,
    now: Timestamp,
) -> Vec<Diagnostic> {
    let secrets = |name: &str| world.secrets.get(name).cloned();
    let mut nowhere = MemoryStore::default();
    let found = sip::provide(Some(pool), config, &secrets, &mut nowhere, now);
    let faults = found.map(|found| found.faults).unwrap_or_default();
    let faults = faults.into_iter().filter(|fault| !fault.is_missing());
    faults
        .map(|fault| {
            let condition = ConditionType::CertificateReady;
            warning(config, condition, fault.reason(), fault.to_string())
        })
        .collect()
}

/// What there is to say of a certificate whose Secret stands in the manifests.
fn given_certificate(
    world: &NamespaceInputs,
    pool: &EdgePool,
    config: &EdgeConfig,
    now: Timestamp,
) -> Option<Diagnostic> {
    let secret = pool.spec.certificate.secret_ref.as_ref()?;
    world.secrets.get(&secret.name)?;
    let mut nowhere = MemoryStore::default();
    let provision = materials::certificate(world, Some(pool), config, &mut nowhere, now).ok()?;
    Some(materials::certificate_ready(&config.pool, &provision, now))
}

fn warning(
    config: &EdgeConfig,
    condition: ConditionType,
    reason: Reason,
    message: String,
) -> Diagnostic {
    Diagnostic {
        object: ObjectRef::new(Kind::EdgePool, &config.pool),
        condition,
        status: false,
        reason,
        message,
        severity: Severity::Warning,
    }
}
