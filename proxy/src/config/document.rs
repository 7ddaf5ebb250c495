//! The document as files: one of JSON, or a directory of shards as a ConfigMap volume shows them.
//! Reads again only what changed, and keeps the last that was whole.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use xmpp_edge_crds::edge_config::{
    EdgeConfig,
    shards::{self, DecodeError, MAX_SHARDS, WholeDocument},
};

/// A file changed this recently may change again without its time telling.
const RACY: Duration = Duration::from_millis(100);
/// Shards of several generations are a write under way for so long: the kubelet looks once a
/// minute. After it they are worth a word.
const UNDER_WAY: Duration = Duration::from_secs(90);

/// Where the document is.
#[derive(Clone, Debug)]
pub(super) enum Source {
    /// JSON.
    File(PathBuf),
    /// `shard-0` … `shard-7`, each optional.
    Shards(PathBuf),
}

/// One reading.
enum Reading {
    Whole(Box<WholeDocument>),
    /// The rest may come.
    Incomplete(String),
    Broken(String),
}

/// The document, as last whole, with what is wrong with the newest.
pub(super) struct Document {
    source: Source,
    stamps: Option<Vec<Option<Stamp>>>,
    whole: Option<ReadDocument>,
    trouble: Option<DocumentTrouble>,
}

/// A document, and the hash of the bytes that it was read from.
#[derive(Clone)]
pub(super) struct ReadDocument {
    pub(super) config: Arc<EdgeConfig>,
    pub(super) sha256: Arc<str>,
}

struct DocumentTrouble {
    text: String,
    incomplete: bool,
    since: Instant,
    /// Seen in two looks: not the middle of a write.
    settled: bool,
}

/// What tells that a file is another, or has changed.
#[derive(PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    length: u64,
    changed: (i64, i64),
}

impl Source {
    /// A directory holds shards.
    pub(super) fn of(path: PathBuf) -> io::Result<Self> {
        if std::fs::metadata(&path)?.is_dir() {
            Ok(Self::Shards(path))
        } else {
            Ok(Self::File(path))
        }
    }

    pub(super) fn is_shards(&self) -> bool {
        matches!(self, Self::Shards(_))
    }

    fn path(&self) -> &Path {
        match self {
            Self::File(path) | Self::Shards(path) => path,
        }
    }

    fn files(&self) -> Vec<PathBuf> {
        match self {
            Self::File(path) => vec![path.clone()],
            Self::Shards(directory) => (0..MAX_SHARDS)
                .map(|number| directory.join(format!("shard-{number}")))
                .collect(),
        }
    }

    fn read(&self) -> Reading {
        let mut contents = Vec::new();
        for path in self.files() {
            match std::fs::read(&path) {
                Ok(content) => contents.push(content),
                Err(cause) if cause.kind() == io::ErrorKind::NotFound => {}
                Err(cause) => return Reading::Broken(format!("{}: {cause}", path.display())),
            }
        }
        let shown = self.path().display();
        match self {
            Self::File(_) => match contents.first() {
                None => Reading::Incomplete(format!("{shown} is not there")),
                Some(json) => match serde_json::from_slice(json) {
                    Ok(config) => {
                        let sha256 = shards::sha256(json);
                        Reading::Whole(Box::new(WholeDocument { config, sha256 }))
                    }
                    Err(cause) => Reading::Broken(format!("{shown}: not an EdgeConfig: {cause}")),
                },
            },
            Self::Shards(_) => match shards::decode(&contents) {
                Ok(whole) => Reading::Whole(Box::new(whole)),
                Err(error @ DecodeError::NoShard) => {
                    Reading::Incomplete(format!("{shown}: {error}"))
                }
                Err(error) if error.is_incomplete() => {
                    Reading::Incomplete(format!("{shown}: {error}"))
                }
                Err(error) => Reading::Broken(format!("{shown}: {error}")),
            },
        }
    }
}

impl Document {
    pub(super) fn new(source: Source) -> Self {
        Self {
            source,
            stamps: None,
            whole: None,
            trouble: None,
        }
    }

    /// Looks whether the files changed, and reads them if so. Blocks for the time of reading.
    pub(super) fn look(&mut self) {
        let stamps: Vec<_> = self
            .source
            .files()
            .iter()
            .map(|path| Stamp::of(path))
            .collect();
        if self.stamps.as_ref() == Some(&stamps) {
            if let Some(trouble) = &mut self.trouble {
                trouble.settled = true;
            }
            return;
        }
        let racy = stamps.iter().flatten().any(Stamp::is_racy);
        let reading = self.source.read();
        self.stamps = Some(stamps).filter(|_| !racy);
        let (text, incomplete) = match reading {
            Reading::Whole(read) => {
                self.trouble = None;
                let WholeDocument { config, sha256 } = *read;
                let before = self.whole.take().map(|whole| whole.config);
                // Other bytes may say the same.
                let same = before.filter(|before| **before == config);
                self.whole = Some(ReadDocument {
                    config: same.unwrap_or_else(|| Arc::new(config)),
                    sha256: sha256.into(),
                });
                return;
            }
            Reading::Incomplete(text) => (text, true),
            Reading::Broken(text) => (text, false),
        };
        match &mut self.trouble {
            Some(trouble) if trouble.text == text => trouble.settled = true,
            other => {
                *other = Some(DocumentTrouble {
                    text,
                    incomplete,
                    since: Instant::now(),
                    settled: false,
                });
            }
        }
    }

    /// The last that was whole.
    pub(super) fn whole(&self) -> Option<&ReadDocument> {
        self.whole.as_ref()
    }

    /// Why there is none yet.
    pub(super) fn missing(&self) -> Option<String> {
        match (&self.whole, &self.trouble) {
            (Some(_), _) => None,
            (None, Some(trouble)) => Some(format!("the configuration ({})", trouble.text)),
            (None, None) => Some("the configuration".to_owned()),
        }
    }

    /// Why the newest is none, once that is no write under way.
    pub(super) fn unreadable(&self) -> Option<&str> {
        self.trouble
            .as_ref()
            .filter(|trouble| trouble.settled && !trouble.incomplete)
            .map(|trouble| trouble.text.as_str())
    }

    /// What is still not complete after a long time, where there was one before.
    pub(super) fn stale(&self) -> Option<String> {
        let trouble = self.trouble.as_ref()?;
        let long = trouble.since.elapsed() >= UNDER_WAY;
        (self.whole.is_some() && trouble.incomplete && long)
            .then(|| format!("the last configuration stays: {}", trouble.text))
    }
}

impl Stamp {
    fn of(path: &Path) -> Option<Self> {
        use std::os::unix::fs::MetadataExt;
        let file = std::fs::metadata(path).ok()?;
        Some(Self {
            device: file.dev(),
            inode: file.ino(),
            length: file.len(),
            changed: (file.ctime(), file.ctime_nsec()),
        })
    }

    fn is_racy(&self) -> bool {
        let seconds = u64::try_from(self.changed.0).unwrap_or_default();
        let nanoseconds = u32::try_from(self.changed.1).unwrap_or_default();
        let changed = SystemTime::UNIX_EPOCH + Duration::new(seconds, nanoseconds);
        changed.elapsed().is_ok_and(|age| age < RACY)
    }
}
