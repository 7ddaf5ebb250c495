//! Writing all that a pool is made of, in order: what is issued from what could not be kept is void,
//! and what the API server refuses is told in the status.

use std::time::Duration;

use jiff::Timestamp;
use tokio::task::block_in_place;
use xmpp_edge_crds::{
    edge_config::EdgeConfig,
    kinds::{EdgePool, conditions::Reason},
};

use super::{
    apply::{Applier, ApplyError, print_of_mounted},
    gateway_copies,
    plan::{
        self, Child, ChildKind, Facts, names,
        rollout::{self, Rollout},
        secrets::{self, SecretsPlan},
    },
    read, validate,
};
use crate::{
    compile::{Diagnostic, Fault},
    controllers::namespace::{inputs, snapshot::NamespaceSnapshot},
    secrets::{CertificateError, source::CertificateState},
};

/// What writing came to.
#[derive(Default)]
pub(super) struct ApplyOutcome {
    pub(super) refused: Vec<String>,
    /// The first failure of infrastructure: it is tried again.
    pub(super) failed: Option<ApplyError>,
    pub(super) certificate: Option<Result<CertificateState, CertificateError>>,
    pub(super) certificate_refused: Option<Fault>,
    pub(super) diagnostics: Vec<Diagnostic>,
    pub(super) unwritten: Option<Fault>,
    pub(super) held_by: Option<String>,
}

impl ApplyOutcome {
    /// Writing was broken off, with what is here done and the rest not.
    pub(super) fn late(&mut self, longest: Duration) {
        // What failed before says more.
        self.failed
            .get_or_insert_with(|| ApplyError::too_long(longest));
    }

    /// Keeps what went wrong; says whether all went well.
    fn note(&mut self, done: Result<(), ApplyError>) -> bool {
        match done {
            Ok(()) => true,
            Err(error) => {
                if error.is_refusal() {
                    self.refused.push(error.to_string());
                } else if self.failed.as_ref().is_none_or(ApplyError::is_repeated) {
                    // What is new is worth more than what was told before.
                    self.failed = Some(error);
                }
                false
            }
        }
    }
}

/// Writes the Secrets, then all other objects, then lets the kubelets know.
pub(super) async fn write(
    applier: &Applier<'_>,
    scene: &NamespaceSnapshot,
    pool: Option<&EdgePool>,
    config: &EdgeConfig,
    written: &mut ApplyOutcome,
) {
    let context = applier.context;
    let held = |name: &str| {
        let secret = context.caches.secrets.get(applier.namespace, name);
        secret.map(|secret| inputs::material(&secret))
    };
    let one_at_a_time = context.pools.secrets_of(applier.namespace);
    let guard = one_at_a_time.lock().await;
    // Keys may have to be made.
    let planned = block_in_place(|| secrets::plan(pool, config, &held, scene.now));
    let mounted = match planned {
        Ok(planned) => {
            let whole = write_secrets(applier, &planned, written).await;
            written.diagnostics = planned.diagnostics;
            let seen = scene.facts.get(&config.pool);
            let seen = seen.map_or(&[][..], |facts| &facts.gateways);
            let stale = gateway_copies::stale(config, &planned.gateways, seen, scene.now);
            written.diagnostics.extend(stale);
            written.certificate = Some(Ok(planned.certificate));
            whole.then_some(planned.mounted)
        }
        Err(error) => {
            written.certificate = Some(Err(error));
            None
        }
    };
    drop(guard);
    let whole = write_children(applier, scene, pool, config, written).await;
    if let (Some(mounted), true) = (mounted, whole) {
        let generation = read::written(&context.caches, applier.namespace, &config.pool);
        let print = print_of_mounted(generation.unwrap_or(0), &mounted);
        let hurried = applier.trigger_volume_sync(&print).await;
        written.note(hurried);
    }
}

/// In order, until one fails: what is issued from what was not kept is void.
async fn write_secrets(
    applier: &Applier<'_>,
    planned: &SecretsPlan,
    written: &mut ApplyOutcome,
) -> bool {
    for (entry, material) in &planned.entries {
        let done = applier.secret(entry, material).await;
        if !written.note(done.map(|_| ())) {
            return false;
        }
    }
    let done = applier.child(&planned.internal_ca).await;
    written.note(done.map(|_| ()))
}

async fn write_children(
    applier: &Applier<'_>,
    scene: &NamespaceSnapshot,
    pool: Option<&EdgePool>,
    config: &EdgeConfig,
    written: &mut ApplyOutcome,
) -> bool {
    let Some(pool) = pool else {
        return write_document(applier, config, written).await;
    };
    let context = applier.context;
    let image = read::proxy_image(&context.settings);
    let rollouts = read::rollouts(scene, &context.caches, image);
    let claim = names::contacts_volume(&config.pool);
    let volume = context.caches.volumes.get(applier.namespace, &claim);
    let facts = Facts {
        proxy_image: image,
        operator: Some(read::operator_peer(&context.namespace)),
        resolvers: read::resolvers(),
        database: read::database_of(&scene.world, pool),
        volume: volume.as_deref(),
        written: read::written(&context.caches, applier.namespace, &config.pool),
        after: after(&rollouts, &config.pool),
    };
    let plan = plan::plan(pool, config, &facts);
    written.unwritten = plan.too_large.as_ref().map(too_large);
    written.held_by.clone_from(&plan.held_by);
    let not_allowed = validate::not_allowed(config, context.settings.allowed_domains.as_ref());
    let mut whole = true;
    for (kind, name) in &plan.absent {
        let done = applier.delete(*kind, name).await;
        whole &= written.note(done);
    }
    for child in &plan.children {
        if child.kind() == ChildKind::Certificate {
            write_certificate(applier, child, &not_allowed, scene.now, written).await;
            continue;
        }
        let done = match child {
            Child::Deployment(deployment) if plan.held_by.is_some() => {
                let name = deployment.metadata.name.as_deref().unwrap_or_default();
                applier.replicas(name, pool.spec.desired_replicas()).await
            }
            child => applier.child(child).await.map(|_| ()),
        };
        whole &= written.note(done);
    }
    whole
}

/// The Certificate of cert-manager; what is wrong with it is the certificate's condition.
async fn write_certificate(
    applier: &Applier<'_>,
    child: &Child,
    not_allowed: &[xmpp_edge_crds::domain::DomainName],
    now: Timestamp,
    written: &mut ApplyOutcome,
) {
    if !not_allowed.is_empty() {
        let fault = validate::not_allowed_fault(not_allowed, applier.namespace);
        written.certificate_refused = Some(fault);
        return;
    }
    let context = applier.context;
    let certificates = &context.pools.certificates;
    match applier.child(child).await {
        Ok(_) => {
            certificates.follow(&context.client, &context.caches, applier.namespace);
            let progress = certificates.progress(applier.namespace, child.name());
            if let (Some(Ok(provision)), Some(progress)) = (&mut written.certificate, progress) {
                provision.told(child.name(), progress, now);
            }
        }
        Err(error) if matches!(error.cause(), ApplyError::KindMissing { .. }) => {
            let message = format!(
                "{error}, or choose another mode in spec.certificate; it is looked for again every minute"
            );
            written.refused.push(error.to_string());
            written.certificate_refused = Some(Fault::new(Reason::KindMissing, message));
        }
        Err(error) if error.is_refusal() => {
            written.refused.push(error.to_string());
            written.certificate_refused =
                Some(Fault::new(Reason::ObjectRefused, error.to_string()));
        }
        Err(error) => {
            written.note(Err(error));
        }
    }
}

/// The document alone, of a pool that cannot be read or is being deleted.
pub(super) async fn write_document(
    applier: &Applier<'_>,
    config: &EdgeConfig,
    written: &mut ApplyOutcome,
) -> bool {
    let caches = &applier.context.caches;
    if read::written(caches, applier.namespace, &config.pool) == Some(config.generation) {
        return true;
    }
    let mut whole = true;
    match plan::shards::plan(applier.pool, config) {
        Ok(shards) => {
            for name in plan::shards::surplus(&config.pool, shards.len()) {
                let done = applier.delete(ChildKind::ConfigMap, &name).await;
                whole &= written.note(done);
            }
            for shard in &shards {
                let done = applier.child(shard).await;
                whole &= written.note(done.map(|_| ()));
            }
        }
        Err(error) => written.unwritten = Some(too_large(&error)),
    }
    whole
}

fn too_large(error: &xmpp_edge_crds::edge_config::shards::EncodeError) -> Fault {
    Fault::new(Reason::ConfigTooLarge, error.to_string())
}

fn after(rollouts: &[Rollout<'_>], pool: &str) -> Option<String> {
    let mine = rollouts.iter().find(|rollout| rollout.pool == pool)?;
    rollout::held_by(mine, rollouts).map(str::to_owned)
}
