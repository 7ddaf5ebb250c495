//! Configuration and secrets from files, followed: what is read anew replaces the old as a whole; what
//! cannot be read keeps it.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tokio::{sync::watch, time::MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use xmpp_edge_crds::edge_config::{EdgeConfig, VERSION};
use zeroize::Zeroizing;

use super::{Inputs, Materials, PemPair};

/// Files are compared this often: mounted volumes swap links, which notifications miss.
const POLL: Duration = Duration::from_secs(1);

/// Why files are no inputs.
#[derive(Debug, thiserror::Error)]
pub enum FollowError {
    #[error("{}: {cause}", path.display())]
    Read { path: PathBuf, cause: io::Error },
    #[error("{}: not an EdgeConfig: {cause}", path.display())]
    Parse { path: PathBuf, cause: String },
    #[error(
        "{}: version {found} of the format; this proxy takes {}.x only",
        path.display(),
        VERSION.major
    )]
    Version { path: PathBuf, found: u32 },
    #[error("{}: it is there, but {} is missing: both are needed", path.display(), missing.display())]
    Half { path: PathBuf, missing: PathBuf },
    #[error("{}: 16 octets at least are needed", path.display())]
    ShortSecret { path: PathBuf },
}

/// Reads `config` (JSON) and what lies in `secrets`, and follows both until `stop`.
///
/// Of the secrets `internal-ca.crt` and `dialback-secret` are required; `tls.crt` with `tls.key`,
/// `issuer.crt` with `issuer.key`, `dialback-previous`, `admin-token`, `contacts-url` and
/// `contacts-ca.crt` may be absent.
///
/// # Errors
/// [`FollowError`] when the first reading fails; later failures are logged, once for each cause.
pub fn files(
    config: PathBuf,
    secrets: PathBuf,
    stop: CancellationToken,
) -> Result<watch::Receiver<Inputs>, FollowError> {
    let mut last = Files::read(&config, &secrets)?;
    let (sender, receiver) = watch::channel(last.inputs(&config, &secrets)?);
    tokio::spawn(async move {
        let mut poll = tokio::time::interval(POLL);
        poll.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut complaint = String::new();
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = sender.closed() => return,
                _ = poll.tick() => {}
            }
            let read = Files::read(&config, &secrets).and_then(|files| {
                if files == last {
                    return Ok(None);
                }
                let inputs = files.inputs(&config, &secrets)?;
                Ok(Some((files, inputs)))
            });
            match read {
                Ok(None) => complaint.clear(),
                Ok(Some((files, inputs))) => {
                    complaint.clear();
                    last = files;
                    tracing::info!(
                        generation = inputs.config.generation,
                        "configuration read anew"
                    );
                    sender.send_replace(inputs);
                }
                Err(error) => {
                    let error = error.to_string();
                    if error != complaint {
                        tracing::warn!(%error, "the configuration cannot be used; the last one stays");
                        complaint = error;
                    }
                }
            }
        }
    });
    Ok(receiver)
}

/// The bytes of every file, as last read.
#[derive(PartialEq, Eq)]
struct Files {
    config: String,
    internal_ca: String,
    certificate: Option<PemPair>,
    issuer: Option<PemPair>,
    dialback_secret: Zeroizing<Vec<u8>>,
    dialback_previous: Option<Zeroizing<Vec<u8>>>,
    admin_token: Option<Zeroizing<String>>,
    contacts_url: Option<Zeroizing<String>>,
    contacts_ca: Option<String>,
}

impl Files {
    fn read(config: &Path, secrets: &Path) -> Result<Self, FollowError> {
        let secret = |name: &str| secrets.join(name);
        let line = |name| {
            let text = optional(&secret(name))?;
            Ok::<_, FollowError>(text.map(|text| Zeroizing::new(text.trim().to_owned())))
        };
        let bytes = |name| {
            Ok::<_, FollowError>(line(name)?.map(|text| Zeroizing::new(text.as_bytes().to_vec())))
        };
        let dialback = secret("dialback-secret");
        Ok(Self {
            config: required(config)?,
            internal_ca: required(&secret("internal-ca.crt"))?,
            certificate: pair(secrets, "tls")?,
            issuer: pair(secrets, "issuer")?,
            dialback_secret: bytes("dialback-secret")?.ok_or(FollowError::Read {
                path: dialback,
                cause: io::ErrorKind::NotFound.into(),
            })?,
            dialback_previous: bytes("dialback-previous")?,
            admin_token: line("admin-token")?,
            contacts_url: line("contacts-url")?,
            contacts_ca: optional(&secret("contacts-ca.crt"))?,
        })
    }

    fn inputs(&self, path: &Path, secrets: &Path) -> Result<Inputs, FollowError> {
        let config: EdgeConfig =
            serde_json::from_str(&self.config).map_err(|cause| FollowError::Parse {
                path: path.to_owned(),
                cause: cause.to_string(),
            })?;
        if config.version.major != VERSION.major {
            let found = config.version.major;
            return Err(FollowError::Version {
                path: path.to_owned(),
                found,
            });
        }
        if self.dialback_secret.len() < 16 {
            return Err(FollowError::ShortSecret {
                path: secrets.join("dialback-secret"),
            });
        }
        Ok(Inputs {
            config: Arc::new(config),
            materials: Arc::new(Materials {
                certificate: self.certificate.clone(),
                internal_ca: self.internal_ca.clone(),
                issuer: self.issuer.clone(),
                dialback_secret: self.dialback_secret.clone(),
                dialback_previous: self.dialback_previous.clone(),
                admin_token: self.admin_token.clone(),
                contacts_url: self.contacts_url.clone(),
                contacts_ca: self.contacts_ca.clone(),
            }),
        })
    }
}

fn required(path: &Path) -> Result<String, FollowError> {
    std::fs::read_to_string(path).map_err(|cause| FollowError::Read {
        path: path.to_owned(),
        cause,
    })
}

fn optional(path: &Path) -> Result<Option<String>, FollowError> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(cause) => Err(FollowError::Read {
            path: path.to_owned(),
            cause,
        }),
    }
}

fn pair(directory: &Path, name: &str) -> Result<Option<PemPair>, FollowError> {
    let (chain_path, key_path) = (
        directory.join(format!("{name}.crt")),
        directory.join(format!("{name}.key")),
    );
    match (optional(&chain_path)?, optional(&key_path)?) {
        (Some(chain), Some(key)) => Ok(Some(PemPair {
            chain,
            key: Zeroizing::new(key),
        })),
        (None, None) => Ok(None),
        (Some(_), None) => Err(FollowError::Half {
            path: chain_path,
            missing: key_path,
        }),
        (None, Some(_)) => Err(FollowError::Half {
            path: key_path,
            missing: chain_path,
        }),
    }
}
