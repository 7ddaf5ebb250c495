//! The board: what is shown now, and which of it changed since a browser last heard.
//!
//! A browser's place is a number and a key, never a queue: who reads slowly costs a constant, and gets what
//! is so by then. Memory is that of one copy of what is shown, held while anybody looks.

use std::{
    collections::{BTreeMap, VecDeque},
    ops::Bound,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use serde::Serialize;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::model::Section;

/// Browsers that may follow at a time.
pub const LISTENERS: usize = 16;
/// Bytes of an update, to which one record more may come.
const PORTION: usize = 64 * 1024;
/// Records taken away that are told one by one; whoever missed more is told everything again.
const GONE: usize = 1_024;
/// What is shown is this old at most when it is told.
pub const REFRESH: Duration = Duration::from_secs(2);

type RecordKey = (Section, String);

/// What is to be shown: filled anew at each look.
#[derive(Debug, Default)]
pub struct Contents(BTreeMap<RecordKey, Box<str>>);

impl Contents {
    /// A record with a key that is its own in its section.
    pub fn add(&mut self, section: Section, key: impl Into<String>, value: &impl Serialize) {
        // What the model has, has a form as JSON.
        if let Ok(json) = serde_json::to_string(value) {
            self.0.insert((section, key.into()), json.into_boxed_str());
        }
    }
}

/// Where [`Contents`] come from.
pub trait Look: Send + Sync + 'static {
    /// What is so now. Runs where blocking is allowed.
    fn look(&self) -> Contents;
}

/// See the module.
pub struct Board {
    source: Arc<dyn Look>,
    shown: Mutex<Shown>,
    looking: tokio::sync::Mutex<()>,
    places: Arc<Semaphore>,
}

#[derive(Debug, Default)]
struct Shown {
    records: BTreeMap<RecordKey, Record>,
    gone: VecDeque<(u64, RecordKey)>,
    /// The last change of which `gone` has forgotten something.
    forgotten: u64,
    /// Counts looks that found a change.
    version: u64,
    looked: Option<Instant>,
}

#[derive(Debug)]
struct Record {
    json: Box<str>,
    version: u64,
}

/// One browser that follows.
#[derive(Debug)]
pub struct Listener {
    /// All changes up to here were told.
    version: u64,
    pass: Option<Pass>,
    _place: OwnedSemaphorePermit,
}

/// An update that is told in portions.
#[derive(Debug)]
struct Pass {
    whole: bool,
    begun: bool,
    /// The board's version when it began.
    until: u64,
    /// The last record that was told.
    told: Option<RecordKey>,
}

impl std::fmt::Debug for Board {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Board").finish_non_exhaustive()
    }
}

impl Board {
    #[must_use]
    pub fn new(source: Arc<dyn Look>) -> Arc<Self> {
        Arc::new(Self {
            source,
            shown: Mutex::default(),
            looking: tokio::sync::Mutex::default(),
            places: Arc::new(Semaphore::new(LISTENERS)),
        })
    }

    /// A place to follow from; none where [`LISTENERS`] follow already.
    #[must_use]
    pub fn listen(&self) -> Option<Listener> {
        let place = Arc::clone(&self.places).try_acquire_owned().ok()?;
        if self.places.available_permits() + 1 == LISTENERS {
            // Nobody followed: what was shown then is of no use.
            let mut shown = self.shown.lock();
            *shown = Shown {
                version: shown.version,
                ..Shown::default()
            };
        }
        Some(Listener {
            version: 0,
            pass: None,
            _place: place,
        })
    }

    /// Looks again where the last look is [`REFRESH`] old, once for all who follow.
    pub async fn refresh(self: &Arc<Self>) {
        let _one = self.looking.lock().await;
        let fresh = |looked: Instant| looked.elapsed() < REFRESH;
        if self.shown.lock().looked.is_some_and(fresh) {
            return;
        }
        let board = Arc::clone(self);
        // A panic of it is told by the runtime; the page then stays as it is.
        let _ = tokio::task::spawn_blocking(move || {
            let contents = board.source.look();
            board.shown.lock().show(contents);
        })
        .await;
    }

    /// The next portion for a browser as JSON; none where it has heard everything.
    #[must_use]
    pub fn next(&self, listener: &mut Listener) -> Option<String> {
        let shown = self.shown.lock();
        let pass = match &mut listener.pass {
            Some(pass) => pass,
            None if listener.version == shown.version => return None,
            None => listener.pass.insert(Pass {
                whole: listener.version == 0 || listener.version < shown.forgotten,
                begun: false,
                until: shown.version,
                told: None,
            }),
        };
        let since = if pass.whole { 0 } else { listener.version };
        let first = !std::mem::replace(&mut pass.begun, true);
        let mut text = String::from("{\"whole\":");
        text.push_str(if first && pass.whole { "true" } else { "false" });
        if first && !pass.whole {
            text.push_str(",\"gone\":");
            text.push_str(&shown.gone_since(since));
        }
        text.push_str(",\"records\":[");
        let from = match pass.told.take() {
            Some(key) => Bound::Excluded(key),
            None => Bound::Unbounded,
        };
        let mut rest = shown.records.range((from, Bound::Unbounded));
        let mut comma = false;
        let more = loop {
            let Some((key, record)) = rest.next() else {
                break false;
            };
            if record.version <= since {
                continue;
            }
            if std::mem::replace(&mut comma, true) {
                text.push(',');
            }
            push_record(&mut text, key, &record.json);
            if text.len() >= PORTION {
                pass.told = Some(key.clone());
                break true;
            }
        };
        text.push_str(if more {
            "],\"more\":true}"
        } else {
            "],\"more\":false}"
        });
        if !more {
            listener.version = pass.until;
            listener.pass = None;
        }
        Some(text)
    }
}

fn push_record(text: &mut String, (section, key): &RecordKey, json: &str) {
    // Names of sections and keys have a form as JSON.
    let head = serde_json::to_string(&(section, key)).unwrap_or_default();
    text.push_str(head.trim_end_matches(']'));
    text.push(',');
    text.push_str(json);
    text.push(']');
}

impl Shown {
    fn show(&mut self, contents: Contents) {
        self.looked = Some(Instant::now());
        let version = self.version + 1;
        let mut changed = false;
        let before = std::mem::take(&mut self.records);
        let mut after = contents.0;
        for (key, record) in before {
            match after.remove(&key) {
                Some(json) if json == record.json => {
                    self.records.insert(key, record);
                }
                Some(json) => {
                    changed = true;
                    self.records.insert(key, Record { json, version });
                }
                None => {
                    changed = true;
                    self.gone.push_back((version, key));
                }
            }
        }
        changed |= !after.is_empty();
        let new = after.into_iter();
        self.records
            .extend(new.map(|(key, json)| (key, Record { json, version })));
        while self.gone.len() > GONE {
            if let Some((version, _)) = self.gone.pop_front() {
                self.forgotten = version;
            }
        }
        if changed {
            self.version = version;
        }
    }

    fn gone_since(&self, since: u64) -> String {
        let gone = self.gone.iter().filter(|(version, _)| *version > since);
        let keys: Vec<_> = gone.map(|(_, key)| key).collect();
        serde_json::to_string(&keys).unwrap_or_else(|_| "[]".to_owned())
    }
}

#[cfg(test)]
mod tests;
