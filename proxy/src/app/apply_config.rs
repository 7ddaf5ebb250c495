//! What comes while the proxy lives: the first configuration, each next one, and how the contacts'
//! store is.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use xmpp_edge_crds::edge_config::{Contacts as ContactsKind, OtherStart};

use super::{Pod, ServeError};
use crate::{
    config::{ActiveConfig, ConfigInputs, ConfigSecrets, ConfigUpdate},
    contacts::{ContactStore, Database, DatabaseError, StoreHealth},
    dns_view::{Rules, View},
    negotiation::Side,
    stream::{Command, context::StreamContext, sip},
    telemetry::config_status::Telemetry,
};

/// After every stream was told: when each has the new rules, and what is forbidden by them is looked for
/// once more.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// A pod whose document is from before the pod waits for its own so long: the kubelet brings a volume up to date
/// within 90 s. Afterwards it starts with what it has: better on the ports of before than not at all.
pub(super) const START_WAIT: Duration = Duration::from_secs(150);
/// A database of contacts that is away keeps a starting proxy from being ready for so long.
const CONTACTS_WAIT: Duration = Duration::from_secs(30);

/// The first configuration that can be used; none when the end comes before. The one that a pod was made for is
/// waited for as long as `patience` goes ([`START_WAIT`]).
pub(super) async fn first(
    pod: Option<&Pod>,
    offers: &mut watch::Receiver<ConfigUpdate>,
    observed: &Telemetry,
    shutdown: &CancellationToken,
    patience: Duration,
) -> Result<Option<(ConfigInputs, ActiveConfig)>, ServeError> {
    let patience = tokio::time::sleep(patience);
    tokio::pin!(patience);
    loop {
        let mut offer = offers.borrow_and_update().clone();
        if let Some(other) = from_before(pod, &offer).filter(|_| !patience.is_elapsed()) {
            offer.inputs = None;
            offer.missing.push(other.to_string());
        }
        observed.config_status.note(&offer.missing, &offer.stale);
        let mut fault = offer.unreadable;
        if let Some(inputs) = offer.inputs {
            match build(&inputs, None).await {
                Ok(config) => {
                    observed.reject(fault);
                    observed.config_status.note_unusable(&config.unusable);
                    return Ok(Some((inputs, config)));
                }
                Err(error) if pod.is_none() => return Err(ServeError::Config(error)),
                Err(error) => fault = Some(error),
            }
        }
        observed.reject(fault);
        tokio::select! {
            // The source may end by the same token: that is no failure.
            biased;
            () = shutdown.cancelled() => return Ok(None),
            changed = offers.changed() => if changed.is_err() {
                return Err(ServeError::Config("nobody offers one any more".to_owned()));
            },
            () = &mut patience, if !patience.is_elapsed() => {}
        }
    }
}

/// In what a document is not the one that this pod was made for.
fn from_before(pod: Option<&Pod>, offer: &ConfigUpdate) -> Option<OtherStart> {
    let made_for = pod?.made_for.as_ref()?;
    let document = &offer.inputs.as_ref()?.config;
    made_for.agree_with(document).err()
}

/// Where shared contacts are, as the materials say; none for embedded ones, else the fault of what they say.
pub(super) fn database(inputs: &ConfigInputs) -> Option<Result<Database, DatabaseFault>> {
    match inputs.config.contacts {
        ContactsKind::Embedded => None,
        ContactsKind::Postgres => {
            let ConfigSecrets {
                contacts_url: Some(url),
                contacts_ca,
                ..
            } = &*inputs.materials
            else {
                return Some(Err(DatabaseFault::Missing));
            };
            Some(Database::parse(url, contacts_ca.as_deref()).map_err(DatabaseFault::Unusable))
        }
    }
}

/// Why it is not known where shared contacts are. It costs no stream: contacts look like strangers meanwhile.
#[derive(Debug, thiserror::Error)]
pub(super) enum DatabaseFault {
    #[error("none was given")]
    Missing,
    #[error("{0}")]
    Unusable(#[from] DatabaseError),
}

/// Says of the contacts' store how it is, and waits a while at most for what it holds.
pub(super) async fn watch_contacts(
    mut health: watch::Receiver<StoreHealth>,
    observed: Telemetry,
    stop: CancellationToken,
) {
    let mut given_up = false;
    let patience = tokio::time::sleep(CONTACTS_WAIT);
    tokio::pin!(patience);
    loop {
        note_contacts(&observed, &health.borrow_and_update());
        tokio::select! {
            changed = health.changed() => if changed.is_err() {
                return;
            },
            () = stop.cancelled() => return,
            () = &mut patience, if !given_up => {
                given_up = true;
                observed.config_status.give_up_contacts();
            }
        }
    }
}

/// How the contacts' store is, for `/readyz` and metrics.
pub(super) fn note_contacts(observed: &Telemetry, health: &StoreHealth) {
    let failure = health.failure.clone();
    let (loaded, failing) = (health.loaded, health.failure.is_some());
    observed.metrics.contacts_loaded.set(i64::from(loaded));
    observed
        .metrics
        .contacts_store_failing
        .set(i64::from(failing));
    observed.config_status.note_contacts(loaded, failure);
}

/// Checks everything, beside the streams: 100,000 users take a while.
async fn build(
    inputs: &ConfigInputs,
    last: Option<Arc<ActiveConfig>>,
) -> Result<ActiveConfig, String> {
    let inputs = inputs.clone();
    let built =
        tokio::task::spawn_blocking(move || ActiveConfig::build_after(&inputs, last.as_deref()))
            .await;
    match built {
        Ok(built) => built.map_err(|error| error.to_string()),
        Err(error) => Err(format!("an internal fault: {error}")),
    }
}

/// Takes each new configuration that is good; a bad one keeps the old.
pub(super) struct ConfigApplier {
    context: Arc<StreamContext>,
    observed: Telemetry,
    contacts: Arc<ContactStore>,
    view: Arc<View>,
    /// What was offered last, taken or not.
    taken: ConfigInputs,
    /// Why it was not.
    fault: Option<String>,
}

impl ConfigApplier {
    /// `taken` is in force.
    pub(super) fn new(
        context: &Arc<StreamContext>,
        observed: Telemetry,
        contacts: Arc<ContactStore>,
        view: Arc<View>,
        taken: ConfigInputs,
    ) -> Self {
        Self {
            context: Arc::clone(context),
            observed,
            contacts,
            view,
            taken,
            fault: None,
        }
    }

    pub(super) async fn run(
        mut self,
        mut offers: watch::Receiver<ConfigUpdate>,
        stop: CancellationToken,
    ) {
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                // Nobody will ever tell of a new one: the process must not look as if it followed.
                changed = offers.changed() => if changed.is_err() {
                    return;
                },
            }
            let offer = offers.borrow_and_update().clone();
            self.observed
                .config_status
                .note(&offer.missing, &offer.stale);
            if let Some(inputs) = offer.inputs.filter(|inputs| !inputs.are(&self.taken)) {
                self.apply(inputs).await;
            }
            let fault = offer.unreadable.or_else(|| self.fault.clone());
            self.observed.reject(fault);
        }
    }

    async fn apply(&mut self, inputs: ConfigInputs) {
        let new_materials = !Arc::ptr_eq(&inputs.materials, &self.taken.materials);
        match build(&inputs, Some(self.context.config())).await {
            Ok(config) => {
                self.fault = None;
                self.swap(config).await;
            }
            Err(error) => {
                self.fault = Some(error);
                // A new certificate does not wait for a good configuration.
                let active = self.context.config();
                let beside = ConfigInputs {
                    config: Arc::clone(&active.document),
                    document_sha256: active.document_sha256.clone(),
                    materials: Arc::clone(&inputs.materials),
                    edge_dials: active.edge_dials.clone(),
                };
                if new_materials && let Ok(config) = build(&beside, None).await {
                    self.swap(config).await;
                }
            }
        }
        if new_materials {
            match database(&inputs) {
                Some(Ok(database)) => self.contacts.move_to(database),
                None => {}
                Some(Err(error)) => tracing::warn!(%error, "the contacts stay where they are"),
            }
        }
        self.taken = inputs;
    }

    async fn swap(&self, config: ActiveConfig) {
        let generation = config.document.generation;
        let old = self.context.config();
        if old.document.listeners != config.document.listeners
            || old.document.contacts != config.document.contacts
        {
            tracing::warn!("changed listeners and contacts take effect when the proxy starts next");
        }
        self.observed.config_status.note_unusable(&config.unusable);
        self.view.swap(Rules::of_edge(&config.document));
        put_in_force(&self.context, config).await;
        self.observed.metrics.config_generation.set(generation);
        tracing::info!(generation, "configuration in force");
    }
}

/// A new configuration comes into force: everybody who follows it is told, and streams look again at
/// what they carry. They are told last: one that ends by it has said before what takes presence back.
async fn put_in_force(context: &Arc<StreamContext>, config: ActiveConfig) {
    let old = context.config();
    if old.document.partners != config.document.partners {
        // Whoever edits a partner has often mended its records just now.
        context.resolver.forget_all();
    }
    let names = |config: &ActiveConfig| -> BTreeSet<String> {
        let partners = config.document.partners.iter();
        partners.map(|partner| partner.name.clone()).collect()
    };
    let before = names(&old);
    context.attempts.reassign(|gateway, domain| {
        let side = if gateway {
            Side::Gateway
        } else {
            Side::Partner
        };
        config.attempt_peer(side, domain)
    });
    context.store_config(config);
    context.router.config_changed();
    sip::link::follow_config(context);
    let forget_partners = move |context: &StreamContext| {
        let there = names(&context.config());
        for partner in before.difference(&there) {
            context.metrics.forget_partner(partner);
        }
    };
    forget_partners(context);
    withdraw(context).await;
    let telling = context.streams.announce(|| Command::ConfigChanged);
    // A stream may have been judging by the old rules just now, and have queued, noted or counted what is
    // forbidden after it was looked for.
    let again = Arc::clone(context);
    context.tasks.spawn(async move {
        let all = async {
            telling.finish().await;
            tokio::time::sleep(LOOK_AGAIN).await;
        };
        tokio::select! {
            () = all => {
                forget_partners(&again);
                withdraw(&again).await;
            }
            () = again.stopping.cancelled() => {}
        }
    });
}

/// What waits and is now forbidden is answered; what crossed and is now forbidden is taken back.
async fn withdraw(context: &Arc<StreamContext>) {
    context.router.withdraw_forbidden();
    let beside = Arc::clone(context);
    let looked = tokio::task::spawn_blocking(move || {
        beside.follow_policy_with_presence();
        beside.follow_partners_with_contacts();
    });
    if let Err(error) = looked.await {
        tracing::error!(%error, "presence and contacts do not follow the policy: an internal fault");
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use serde_json::json;
    use xmpp_edge_crds::edge_config::StartSettings;

    use super::*;
    use crate::{admin::server::AdminSubject, config::fixture};

    fn pod(made_for: &ConfigInputs) -> Pod {
        Pod {
            admin_port: 0,
            admin_address: None,
            subject: AdminSubject::EdgePod,
            made_for: Some(StartSettings::of(&made_for.config)),
        }
    }

    /// One of before, and one with other contacts.
    fn documents() -> [ConfigInputs; 2] {
        ["Embedded", "Postgres"].map(|kind| {
            let mut document = fixture::document();
            document["contacts"] = json!(kind);
            fixture::inputs(document, |_| ())
        })
    }

    #[tokio::test]
    async fn a_pod_waits_for_the_document_that_it_was_made_for() {
        let [before, own] = documents();
        let (offer, mut offers) = watch::channel(before.into());
        let (observed, stop) = (Telemetry::default(), CancellationToken::new());
        let pod = pod(&own);
        let starts = first(Some(&pod), &mut offers, &observed, &stop, START_WAIT);
        let own_comes = async {
            while observed.config_status.waits_for().is_empty() {
                tokio::task::yield_now().await;
            }
            let waits = observed.config_status.waits_for();
            assert!(waits[0].contains("contacts Postgres"), "{waits:?}");
            offer.send(own.into()).unwrap();
        };
        let (started, ()) = tokio::join!(starts, own_comes);
        let (inputs, _) = started.unwrap().unwrap();
        assert_eq!(inputs.config.contacts, ContactsKind::Postgres);
    }

    #[tokio::test]
    async fn a_pod_whose_own_document_never_comes_starts_with_the_one_of_before() {
        let [before, own] = documents();
        let (_offer, mut offers) = watch::channel(before.into());
        let (observed, stop) = (Telemetry::default(), CancellationToken::new());
        let pod = pod(&own);
        let patience = Duration::from_millis(20);
        let started = first(Some(&pod), &mut offers, &observed, &stop, patience).await;
        let (inputs, _) = started.unwrap().unwrap();
        assert_eq!(inputs.config.contacts, ContactsKind::Embedded);
        assert_eq!(observed.config_status.waits_for(), Vec::<String>::new());
    }
}
