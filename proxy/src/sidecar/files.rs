//! The sidecar's files, followed: its document, the internal CA, and the certificate that it is shown by,
//! where one is mounted. Each part is taken by itself once it is whole and good; one that goes or breaks stays
//! as last read, and is told.

use std::{
    io::{self, ErrorKind, Read},
    path::{Path, PathBuf},
    sync::Arc,
};

use jiff::Timestamp;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use xmpp_edge_crds::sidecar_config::{MAX_BYTES, SidecarConfig};
use zeroize::Zeroizing;

use super::{
    LoopbackAuthority, SidecarIdentity, StateDir,
    settings::{SidecarConstants, SidecarParts, settings},
    view::SidecarViewRules,
};
use crate::{
    config::{
        ConfigInputs, ConfigUpdate, PemPair,
        follow::{self, FollowedSource},
    },
    tls::{Identity, Roots},
};

/// Where what is.
#[derive(Clone, Debug)]
pub struct SidecarPaths {
    /// `sidecar.json`.
    pub config: PathBuf,
    /// Folder of `ca.crt`, the internal CA, and perhaps `tls.crt` with `tls.key`, and `token`, without which
    /// `/status` is not shown then.
    pub secrets: PathBuf,
    /// The Secret that both are mounted from, where they are.
    pub secret: Option<String>,
}

/// The files with what was last good of them.
pub struct SidecarFiles {
    paths: SidecarPaths,
    constants: SidecarConstants,
    state: StateDir,
    /// What edges are shown where nothing is mounted.
    own: SidecarIdentity,
    rules: Option<SidecarViewRules>,
    config: FollowedPart<SidecarConfig>,
    internal_ca: FollowedPart<String>,
    mounted: FollowedPart<PemPair>,
    /// What `/status` asks for, where it is there.
    token: FollowedPart<Zeroizing<String>>,
    generation: u64,
    inputs: Option<ConfigInputs>,
    /// Why what is there is not in force.
    unused: Option<String>,
}

/// Keys are in it: where they are is shown.
impl std::fmt::Debug for SidecarFiles {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SidecarFiles")
            .field("paths", &self.paths)
            .finish_non_exhaustive()
    }
}

/// One thing that is read from files.
struct FollowedPart<T> {
    seen: Option<Vec<Option<Zeroizing<Vec<u8>>>>>,
    last: Option<Arc<T>>,
    trouble: Option<FileTrouble>,
}

/// Why the newest is not taken.
struct FileTrouble {
    text: String,
    /// Seen in two looks: not the middle of a write.
    settled: bool,
}

impl<T> Default for FollowedPart<T> {
    fn default() -> Self {
        Self {
            seen: None,
            last: None,
            trouble: None,
        }
    }
}

impl<T: PartialEq> FollowedPart<T> {
    /// Reads the files, and takes what `parse` makes of them; true where that is another than before. With
    /// none of the files there is nothing, and what was stays.
    fn look(
        &mut self,
        paths: &[&Path],
        parse: impl FnOnce(&[Zeroizing<Vec<u8>>]) -> Result<T, String>,
    ) -> bool {
        let contents = paths.iter().map(|path| contents(path)).collect();
        let contents: Vec<_> = match contents {
            Ok(contents) => contents,
            Err(cause) => {
                // Once it can be read again it counts, whatever it holds.
                self.seen = None;
                self.fault(cause);
                return false;
            }
        };
        if self.seen.as_ref() == Some(&contents) {
            if let Some(trouble) = &mut self.trouble {
                trouble.settled = true;
            }
            return false;
        }
        let there: Vec<_> = contents.iter().flatten().cloned().collect();
        let absent = paths.iter().zip(&contents);
        let absent = absent.filter_map(|(path, it)| it.is_none().then_some(*path));
        let absent: Vec<_> = absent.map(|path| path.display().to_string()).collect();
        self.seen = Some(contents);
        if !absent.is_empty() {
            self.fault(format!("{} is not there", absent.join(", ")));
            return false;
        }
        match parse(&there) {
            Ok(read) => {
                self.trouble = None;
                // Other bytes may say the same.
                let same = self.last.as_deref() == Some(&read);
                if !same {
                    self.last = Some(Arc::new(read));
                }
                !same
            }
            Err(cause) => {
                self.fault(cause);
                false
            }
        }
    }

    fn fault(&mut self, cause: String) {
        match &mut self.trouble {
            Some(trouble) if trouble.text == cause => trouble.settled = true,
            other => {
                *other = Some(FileTrouble {
                    text: cause,
                    settled: false,
                });
            }
        }
    }

    fn missing(&self) -> Option<String> {
        let trouble = self.trouble.as_ref()?;
        self.last.is_none().then(|| trouble.text.clone())
    }

    /// Whether no file of it was ever there.
    fn is_absent(&self) -> bool {
        let mut seen = self.seen.iter().flatten();
        self.last.is_none() && seen.all(Option::is_none)
    }

    /// What is there and was never good.
    fn unusable(&self) -> Option<String> {
        let trouble = self.trouble.as_ref()?;
        let there = self.seen.iter().flatten().any(Option::is_some);
        (self.last.is_none() && there && trouble.settled).then(|| trouble.text.clone())
    }

    fn stale(&self) -> Option<String> {
        let trouble = self.trouble.as_ref()?;
        let told = || format!("what was read before stays: {}", trouble.text);
        (self.last.is_some() && trouble.settled).then(told)
    }
}

fn contents(path: &Path) -> Result<Option<Zeroizing<Vec<u8>>>, String> {
    let read = || -> io::Result<Zeroizing<Vec<u8>>> {
        let file = std::fs::File::open(path)?;
        let mut content = Zeroizing::new(Vec::new());
        let most = u64::try_from(MAX_BYTES).unwrap_or(u64::MAX);
        file.take(most.saturating_add(1))
            .read_to_end(&mut content)?;
        Ok(content)
    };
    match read() {
        Ok(content) => Ok(Some(content)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(format!("{}: {error}", path.display())),
    }
}

impl SidecarFiles {
    /// Nothing need be there yet. `rules` are those of a view that follows what is read.
    #[must_use]
    pub fn new(
        paths: SidecarPaths,
        constants: SidecarConstants,
        state: StateDir,
        own: SidecarIdentity,
        rules: Option<SidecarViewRules>,
    ) -> Self {
        Self {
            paths,
            constants,
            state,
            own,
            rules,
            config: FollowedPart::default(),
            internal_ca: FollowedPart::default(),
            mounted: FollowedPart::default(),
            token: FollowedPart::default(),
            generation: 0,
            inputs: None,
            unused: None,
        }
    }

    /// Follows the files until `stop`.
    #[must_use]
    pub fn follow(mut self, stop: CancellationToken) -> watch::Receiver<ConfigUpdate> {
        self.look();
        let (sender, receiver) = watch::channel(self.offer());
        tokio::spawn(follow::poll(self, sender, stop));
        receiver
    }

    fn compose(&mut self, now: Timestamp) {
        let (Some(config), Some(internal_ca)) = (&self.config.last, &self.internal_ca.last) else {
            return;
        };
        let authority = match LoopbackAuthority::ensure(&self.state, config, now) {
            Ok(authority) => authority,
            Err(error) => {
                self.unused = Some(error.to_string());
                return;
            }
        };
        self.unused = None;
        self.generation += 1;
        let parts = SidecarParts {
            config,
            identity: self.mounted.last.as_deref().unwrap_or(self.own.pair()),
            internal_ca,
            authority: &authority,
            admin_token: self.token.last.as_deref(),
        };
        let settings = settings(&self.constants, parts, self.generation);
        if let Some(rules) = &self.rules {
            rules.follow(config);
        }
        self.inputs = Some(settings.into_inputs());
    }
}

impl FollowedSource for SidecarFiles {
    fn look(&mut self) {
        let config = self.paths.config.clone();
        let in_secrets = |name: &str| self.paths.secrets.join(name);
        let ca = in_secrets("ca.crt");
        let (chain, key) = (in_secrets("tls.crt"), in_secrets("tls.key"));
        let mut changed = self.config.look(&[&config], |files| {
            let origin = config.display().to_string();
            SidecarConfig::parse(&files[0], &origin).map_err(|error| error.to_string())
        });
        changed |= self.internal_ca.look(&[&ca], |files| {
            let pem = text(&files[0], &ca)?;
            Roots::from_pem(&pem, &ca.display().to_string()).map_err(|error| error.to_string())?;
            Ok(pem)
        });
        changed |= self.mounted.look(&[&chain, &key], |files| {
            let pair = PemPair {
                chain: text(&files[0], &chain)?,
                key: Zeroizing::new(text(&files[1], &key)?),
            };
            Identity::from_pem(&pair.chain, pair.key.as_str(), &chain.display().to_string())
                .map_err(|error| error.to_string())?;
            Ok(pair)
        });
        let token = in_secrets("token");
        changed |= self.token.look(&[&token], |files| {
            let said = Zeroizing::new(text(&files[0], &token)?);
            let said = Zeroizing::new(said.trim().to_owned());
            if said.is_empty() {
                return Err(format!(
                    "{} is empty: write a token into it",
                    token.display()
                ));
            }
            Ok(said)
        });
        // What could not be used may be mended where no file changed.
        if changed || self.unused.is_some() {
            self.compose(Timestamp::now());
        }
    }

    fn offer(&self) -> ConfigUpdate {
        let mut missing: Vec<_> = [self.config.missing(), self.internal_ca.missing()]
            .into_iter()
            .flatten()
            .collect();
        if let Some(secret) = &self.paths.secret
            && self.config.is_absent()
            && self.internal_ca.is_absent()
        {
            missing.push(format!(
                "Secret {secret} in this pod's namespace, which these files are mounted from: the operator writes it once an EdgePool has the gateway that the pod's label xmpp-edge.dev/sidecar names, with sidecar.namespace this one (SidecarIdentity of the pool says why not), and it is here up to 90 s later"
            ));
        }
        if self.inputs.is_none() {
            missing.extend(self.unused.clone());
        }
        let stale = [
            self.config.stale(),
            self.internal_ca.stale(),
            self.mounted.stale(),
            self.mounted.unusable(),
            self.token.stale(),
            self.token.unusable(),
        ];
        ConfigUpdate {
            inputs: self.inputs.clone(),
            missing,
            stale: stale.into_iter().flatten().collect(),
            unreadable: self.inputs.as_ref().and(self.unused.clone()),
        }
    }
}

fn text(content: &[u8], path: &Path) -> Result<String, String> {
    String::from_utf8(content.to_vec()).map_err(|_| format!("{} is no text", path.display()))
}
