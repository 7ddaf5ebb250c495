//! Configuration and secrets from files, followed: what is read anew replaces the old as a whole; what
//! cannot be read keeps it.

use std::{io, path::PathBuf, sync::Arc, time::Duration};

use tokio::{sync::watch, time::MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use xmpp_edge_crds::edge_config::Contacts;

use super::{
    ConfigInputs, ConfigSecrets, ConfigUpdate,
    document::{Document, Source},
    secrets::{Needed, Secrets},
};

/// Files are compared this often: mounted volumes swap links, which notifications miss.
const POLL: Duration = Duration::from_millis(300);

/// Why files are no inputs.
#[derive(Debug, thiserror::Error)]
pub enum FollowError {
    #[error("{}: {cause}", path.display())]
    Read { path: PathBuf, cause: io::Error },
    #[error("{0}")]
    Unreadable(String),
    #[error("missing: {0}")]
    Missing(String),
}

/// Follows the document at `config` and what lies in `secrets` until `stop`.
///
/// `config` is a file of JSON, or a directory of shards, `shard-0` to `shard-7`. Of the directory
/// nothing need be there yet, nor of the secrets: the offers say what is waited for, and hold inputs
/// from the time that all is there. With a file all must be there at once, but for the certificates.
///
/// The secrets are `tls.crt` with `tls.key`, `issuer.crt` with `issuer.key`, `internal-ca.crt`,
/// `dialback-secret` and perhaps `dialback-previous`, `admin-token`, `contacts-url` and perhaps
/// `contacts-ca.crt`, `egress-username` with `egress-password`, `sip-pairs.json`. Each such part is taken by itself; one that vanishes, or is not good, stays as
/// last read. Of the two-file parts the optional second vanishes alone and at once.
///
/// # Errors
/// [`FollowError`] where `config` is not there, or is a file and the first reading is not whole.
pub fn files(
    config: PathBuf,
    secrets: PathBuf,
    stop: CancellationToken,
) -> Result<watch::Receiver<ConfigUpdate>, FollowError> {
    let source = Source::of(config.clone()).map_err(|cause| FollowError::Read {
        path: config,
        cause,
    })?;
    let patient = source.is_shards();
    let mut follower = Follower::new(source, secrets);
    follower.look();
    // A command given by hand is told at once what is wrong; nobody is in the middle of a write.
    if !patient {
        follower.look();
    }
    let first = follower.offer();
    if !patient && first.inputs.is_none() {
        return Err(match first.unreadable {
            Some(text) => FollowError::Unreadable(text),
            None => FollowError::Missing(first.missing.join(", ")),
        });
    }
    let (sender, receiver) = watch::channel(first);
    tokio::spawn(poll(follower, sender, stop));
    Ok(receiver)
}

/// What is looked at again and again, and says what it has.
pub trait FollowedSource: Send + 'static {
    /// Blocks for the time of reading.
    fn look(&mut self);

    fn offer(&self) -> ConfigUpdate;
}

/// Looks at `source` until `stop`, and tells what is another than before.
pub async fn poll(
    mut source: impl FollowedSource,
    sender: watch::Sender<ConfigUpdate>,
    stop: CancellationToken,
) {
    let mut poll = tokio::time::interval(POLL);
    poll.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = sender.closed() => return,
            _ = poll.tick() => {}
        }
        let looked = tokio::task::spawn_blocking(move || {
            source.look();
            source
        });
        match looked.await {
            Ok(own) => source = own,
            Err(error) => {
                tracing::error!(%error, "the files are followed no more: what was last read stays");
                return;
            }
        }
        let next = source.offer();
        sender.send_if_modified(|last| {
            let changed = !last.is(&next);
            *last = next;
            changed
        });
    }
}

/// The files with what was last good of them.
struct Follower {
    document: Document,
    secrets: Secrets,
    materials: Option<Arc<ConfigSecrets>>,
    /// Certificates too are waited for.
    patient: bool,
}

impl Follower {
    fn new(source: Source, secrets: PathBuf) -> Self {
        Self {
            patient: source.is_shards(),
            document: Document::new(source),
            secrets: Secrets::new(secrets),
            materials: None,
        }
    }
}

impl FollowedSource for Follower {
    fn look(&mut self) {
        self.document.look();
        if self.secrets.look() {
            self.materials = self.secrets.materials().map(Arc::new);
        }
    }

    fn offer(&self) -> ConfigUpdate {
        let whole = self.document.whole();
        let needed = Needed {
            certificates: self.patient,
            contacts: whole.is_some_and(|whole| whole.config.contacts == Contacts::Postgres),
            egress: whole.is_some_and(|whole| {
                let proxy = whole.config.settings.egress_proxy.as_ref();
                proxy.is_some_and(|proxy| proxy.has_credentials)
            }),
        };
        let mut missing: Vec<_> = self.document.missing().into_iter().collect();
        missing.extend(self.secrets.missing(needed));
        let mut stale: Vec<_> = self.document.stale().into_iter().collect();
        stale.extend(self.secrets.stale());
        let inputs = match (whole, &self.materials) {
            (Some(whole), Some(materials)) if missing.is_empty() => Some(ConfigInputs {
                config: Arc::clone(&whole.config),
                document_sha256: Some(Arc::clone(&whole.sha256)),
                materials: Arc::clone(materials),
                edge_dials: None,
            }),
            _ => None,
        };
        ConfigUpdate {
            inputs,
            missing,
            stale,
            unreadable: self.document.unreadable().map(str::to_owned),
        }
    }
}

#[cfg(test)]
mod tests;
