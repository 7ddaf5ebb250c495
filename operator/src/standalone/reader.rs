//! Follows the files of one directory: polls, compares contents, keeps the last good text of each.
//!
//! It must not know what the documents mean. A change counts once two polls in a row saw the same
//! content, so that a file half written is never taken for a short one.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, fs,
    path::{Path, PathBuf},
};

use super::{
    documents::{self, Document},
    manifests::{self, Manifests, Place, Problem, Stored},
    memory::{self, MemoryError},
};
use crate::{
    compile::Severity,
    secrets::{files, store::StoreError},
};

/// What a full disk leaves of a copy.
const EMPTIED: &str = "the file has become empty, as a copy to a full disk leaves it: delete it, or leave a comment in it, if that is meant";

/// Longest file that is read, in bytes.
const MAX_FILE_BYTES: u64 = 64 * 1024 * 1024;

/// Why the directory cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error("cannot read the manifests in {path}: {source}; give a directory with --manifests")]
    Directory {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error(transparent)]
    Memory(#[from] MemoryError),
}

/// A file's name and what is in it.
pub type FileDocuments = (String, Vec<Document>);

/// The texts of a directory's manifest files by name; `Err` where one cannot be read.
type Texts = BTreeMap<String, Result<String, String>>;

/// The documents in force of one file.
#[derive(Clone, Default)]
struct File {
    documents: Vec<Document>,
    problem: Option<Problem>,
}

/// A directory that is followed.
pub struct Reader {
    directory: PathBuf,
    /// Where last good texts are kept, so that a broken file survives a restart too.
    memory: Option<PathBuf>,
    seen: Option<Texts>,
    taken: Option<Texts>,
    files: BTreeMap<String, File>,
    /// What edits are held against; `None` before the first look.
    stored: Option<Stored>,
    /// What memory lacks.
    unkept: Unkept,
}

/// What is in force and not in memory yet.
#[derive(Default)]
struct Unkept {
    /// Files with another good text, or that are gone.
    files: BTreeSet<String>,
    /// The objects as they were last valid.
    stored: bool,
}

/// The texts may be those of Secrets: they are not shown.
impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader")
            .field("directory", &self.directory)
            .finish_non_exhaustive()
    }
}

impl Reader {
    /// A reader of `directory`. With `memory`, a directory of its own, last good texts outlive it.
    #[must_use]
    pub fn new(directory: impl Into<PathBuf>, memory: Option<PathBuf>) -> Self {
        Self {
            directory: directory.into(),
            memory,
            seen: None,
            taken: None,
            files: BTreeMap::new(),
            stored: None,
            unkept: Unkept::default(),
        }
    }

    /// The documents of each file, each that can be read, and what cannot: to look at, and not to go by.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn documents(&self) -> Result<(Vec<FileDocuments>, Vec<Problem>), ReadError> {
        let (mut files, mut problems) = (Vec::new(), Vec::new());
        for (name, text) in self.texts()? {
            let mut problem = |document, line, message| {
                problems.push(Problem {
                    place: Place {
                        file: name.clone(),
                        document,
                        line,
                    },
                    path: String::new(),
                    message,
                    severity: Severity::Error,
                });
            };
            match text {
                Ok(text) => {
                    let (documents, errors) = documents::read_each(&text);
                    for error in errors {
                        let message = format!(
                            "{}; the other documents of the file are looked at without it, and standalone takes nothing new of the file before it is corrected",
                            error.message
                        );
                        problem(error.document, error.line, message);
                    }
                    files.push((name, documents));
                }
                Err(message) => problem(1, 1, message),
            }
        }
        Ok((files, problems))
    }

    /// Everything as it stands now, without waiting for it to settle.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn read(&mut self) -> Result<Manifests, ReadError> {
        let texts = self.texts()?;
        self.seen = Some(texts.clone());
        self.take(texts);
        self.manifests()
    }

    /// What changed and settled since the last call, or `None`. Call it in a steady rhythm.
    ///
    /// # Errors
    /// [`ReadError`]; what was read before stays in force.
    pub fn poll(&mut self) -> Result<Option<Manifests>, ReadError> {
        let texts = self.texts()?;
        let settled = self.seen.as_ref() == Some(&texts);
        let news = self.taken.as_ref() != Some(&texts);
        self.seen = Some(texts.clone());
        if !(settled && news) {
            return Ok(None);
        }
        self.take(texts);
        self.manifests().map(Some)
    }

    /// Puts into memory what was read since: to be called once it is in force. What could not be written waits for the
    /// next call.
    ///
    /// # Errors
    /// [`StoreError::Write`]; nothing else depends on it.
    pub fn keep(&mut self) -> Result<(), StoreError> {
        let Some(memory) = self.memory.clone() else {
            self.unkept = Unkept::default();
            return Ok(());
        };
        while let Some(name) = self.unkept.files.first().cloned() {
            match self.taken.as_ref().and_then(|taken| taken.get(&name)) {
                Some(Ok(text)) => remember(&memory, &name, text)?,
                // Broken again: the text that is kept is the last good one.
                Some(Err(_)) => {}
                None => {
                    // A text kept for a file that is gone is never used: failing to remove it harms nobody.
                    let _ = fs::remove_file(memory.join(&name));
                }
            }
            self.unkept.files.remove(&name);
        }
        if self.unkept.stored
            && let Some(stored) = &self.stored
        {
            memory::keep(&memory, stored)?;
            self.unkept.stored = false;
        }
        Ok(())
    }

    fn texts(&self) -> Result<Texts, ReadError> {
        let fault = |source| ReadError::Directory {
            path: self.directory.clone(),
            source,
        };
        let mut texts = Texts::new();
        for entry in fs::read_dir(&self.directory).map_err(fault)? {
            let entry = entry.map_err(fault)?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let manifest = Path::new(&name).extension().is_some_and(|extension| {
                let endings = ["yaml", "yml", "json"];
                endings.iter().any(|it| extension.eq_ignore_ascii_case(it))
            });
            let path = entry.path();
            if !manifest || name.starts_with('.') || path.is_dir() {
                continue;
            }
            let text = match fs::metadata(&path) {
                // Reading a pipe would wait for whoever writes to it.
                Ok(metadata) if !metadata.is_file() => {
                    Err("it is no regular file: put one there, or remove it".to_owned())
                }
                Ok(metadata) if metadata.len() > MAX_FILE_BYTES => Err(format!(
                    "the file has more than {MAX_FILE_BYTES} bytes: cut it into several"
                )),
                Ok(_) => fs::read(&path)
                    .map_err(|error| error.to_string())
                    .and_then(|bytes| {
                        String::from_utf8(bytes)
                            .map_err(|_| "the file is not UTF-8: save it as UTF-8".to_owned())
                    }),
                Err(error) => Err(error.to_string()),
            };
            texts.insert(name, text);
        }
        Ok(texts)
    }

    fn take(&mut self, texts: Texts) {
        let mut files = BTreeMap::new();
        for (name, text) in &texts {
            let unchanged = self.taken.as_ref().and_then(|taken| taken.get(name)) == Some(text);
            if unchanged && let Some(file) = self.files.get(name) {
                files.insert(name.clone(), file.clone());
                continue;
            }
            let read = text
                .clone()
                .and_then(|text| {
                    if text.is_empty() && self.had_documents(name) {
                        return Err(EMPTIED.to_owned());
                    }
                    Ok(text)
                })
                .map_err(|message| (1, 1, message))
                .and_then(|text| {
                    documents::read(&text)
                        .map_err(|error| (error.document, error.line, error.message))
                });
            let file = match read {
                Ok(mut documents) => {
                    if let Some(earlier) = self.files.get(name) {
                        documents::carry_over(&earlier.documents, &mut documents);
                    }
                    self.unkept.files.insert(name.clone());
                    File {
                        documents,
                        problem: None,
                    }
                }
                Err((document, line, message)) => self.last_good(name, document, line, &message),
            };
            files.insert(name.clone(), file);
        }
        let gone = self.files.keys().filter(|name| !texts.contains_key(*name));
        self.unkept.files.extend(gone.cloned());
        self.files = files;
        self.taken = Some(texts);
    }

    /// Whether the last good content of a file was anything.
    fn had_documents(&self, name: &str) -> bool {
        match (self.files.get(name), &self.memory) {
            (Some(file), _) => !file.documents.is_empty(),
            (None, Some(memory)) => {
                fs::metadata(memory.join(name)).is_ok_and(|kept| kept.len() > 0)
            }
            (None, None) => false,
        }
    }

    /// A file that cannot be read: as it was, with a problem that says so.
    fn last_good(&self, name: &str, document: usize, line: usize, message: &str) -> File {
        let documents = match self.files.get(name) {
            Some(file) => Some(file.documents.clone()),
            None => self
                .memory
                .as_ref()
                .and_then(|memory| fs::read_to_string(memory.join(name)).ok())
                .and_then(|text| documents::read(&text).ok()),
        };
        let stays = match &documents {
            Some(_) => "; the file's last good content stays in force",
            None => "; nothing of this file is in force",
        };
        let problem = Problem {
            place: Place {
                file: name.to_owned(),
                document,
                line,
            },
            path: String::new(),
            message: format!("{message}{stays}"),
            severity: Severity::Error,
        };
        File {
            documents: documents.unwrap_or_default(),
            problem: Some(problem),
        }
    }

    fn manifests(&mut self) -> Result<Manifests, ReadError> {
        if self.stored.is_none() {
            self.stored = Some(match &self.memory {
                Some(memory) => memory::recall(memory)?,
                None => Stored::new(),
            });
        }
        let before = self.stored.clone().unwrap_or_default();
        let documents = self
            .files
            .iter()
            .map(|(name, file)| (name.as_str(), file.documents.as_slice()));
        let mut manifests = manifests::gather(documents, &before);
        manifests
            .problems
            .extend(self.files.values().filter_map(|file| file.problem.clone()));
        self.unkept.stored |= manifests.stored != before;
        self.stored = Some(manifests.stored.clone());
        Ok(manifests)
    }
}

fn remember(memory: &Path, name: &str, text: &str) -> Result<(), StoreError> {
    let path = memory.join(name);
    if fs::read_to_string(&path).is_ok_and(|kept| kept == text) {
        return Ok(());
    }
    files::directory(memory).map_err(|source| StoreError::Write {
        place: memory.display().to_string(),
        source,
    })?;
    files::replace(&path, text.as_bytes(), 0o600)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const PARTNER: &str = "apiVersion: xmpp-edge.dev/v1alpha1\nkind: XmppFederatedPartner\nmetadata: {name: p}\nspec: {domain: p.example}\n";

    fn names(manifests: &Manifests) -> Vec<String> {
        let partners = manifests
            .worlds
            .get("default")
            .map(|world| world.partners.clone());
        partners
            .into_iter()
            .flatten()
            .filter_map(|partner| partner.metadata.name)
            .collect()
    }

    #[test]
    fn a_change_counts_once_it_settled_and_only_once() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.yaml");
        fs::write(&file, PARTNER).unwrap();
        let mut reader = Reader::new(folder.path(), None);
        assert_eq!(names(&reader.read().unwrap()), ["p"]);
        assert!(reader.poll().unwrap().is_none());
        fs::write(&file, PARTNER.replace("name: p", "name: q")).unwrap();
        assert!(reader.poll().unwrap().is_none(), "seen for the first time");
        assert_eq!(names(&reader.poll().unwrap().unwrap()), ["q"]);
        assert!(reader.poll().unwrap().is_none());
        fs::write(folder.path().join("notes.txt"), "no manifest").unwrap();
        fs::write(folder.path().join(".a.yaml.swp"), "{").unwrap();
        assert!(reader.poll().unwrap().is_none() && reader.poll().unwrap().is_none());
    }

    /// As some systems write them.
    #[test]
    fn a_file_counts_by_its_ending_in_capitals_too() {
        let folder = tempfile::tempdir().unwrap();
        for (name, file) in [("p", "A.YAML"), ("q", "b.Yml"), ("r", "c.JSON")] {
            let partner = PARTNER
                .replace("name: p", &format!("name: {name}"))
                .replace("p.example", &format!("{name}.example"));
            fs::write(folder.path().join(file), partner).unwrap();
        }
        let read = Reader::new(folder.path(), None).read().unwrap();
        assert_eq!(names(&read), ["p", "q", "r"]);
    }

    #[test]
    fn a_broken_file_keeps_its_last_good_content_also_over_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let memory = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.yaml");
        fs::write(&file, PARTNER).unwrap();
        let mut reader = Reader::new(folder.path(), Some(memory.path().join("manifests")));
        reader.read().unwrap();
        reader.keep().unwrap();
        fs::write(&file, format!("{PARTNER}---\nspec: [")).unwrap();
        reader.poll().unwrap();
        let broken = reader.poll().unwrap().unwrap();
        let check = |manifests: &Manifests| {
            assert_eq!(names(manifests), ["p"]);
            let problem = &manifests.problems[0];
            assert_eq!(
                (problem.place.file.as_str(), problem.place.document),
                ("a.yaml", 2)
            );
            assert!(problem.place.line >= 6, "{problem}");
            assert!(
                problem.message.contains("last good content stays"),
                "{problem}"
            );
        };
        reader.keep().unwrap();
        check(&broken);
        let mut restarted = Reader::new(folder.path(), Some(memory.path().join("manifests")));
        check(&restarted.read().unwrap());
        fs::remove_file(&file).unwrap();
        restarted.poll().unwrap();
        assert!(
            names(&restarted.poll().unwrap().unwrap()).is_empty(),
            "a deletion takes effect"
        );
        assert!(
            memory.path().join("manifests/a.yaml").exists(),
            "not yet in force"
        );
        restarted.keep().unwrap();
        assert!(!memory.path().join("manifests/a.yaml").exists());
    }

    #[test]
    fn a_directory_that_is_gone_is_an_error_and_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let mut reader = Reader::new(folder.path().join("nowhere"), None);
        let error = reader.poll().expect_err("an error").to_string();
        assert!(
            error.contains("nowhere") && error.contains("--manifests"),
            "{error}"
        );
    }

    #[test]
    fn a_file_that_became_empty_is_a_copy_that_failed_and_deletes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let memory = tempfile::tempdir().unwrap();
        let place = Some(memory.path().join("manifests"));
        let file = folder.path().join("a.yaml");
        fs::write(folder.path().join("empty.yaml"), "").unwrap();
        fs::write(&file, PARTNER).unwrap();
        let mut reader = Reader::new(folder.path(), place.clone());
        let first = reader.read().unwrap();
        assert!(first.problems.is_empty(), "one that was always empty");
        reader.keep().unwrap();
        fs::write(&file, "").unwrap();
        reader.poll().unwrap();
        let mut restarted = Reader::new(folder.path(), place);
        for emptied in [reader.poll().unwrap().unwrap(), restarted.read().unwrap()] {
            assert_eq!(names(&emptied), ["p"]);
            let told = emptied.problems[0].to_string();
            assert!(
                told.contains("a.yaml") && told.contains("full disk"),
                "{told}"
            );
        }
        fs::write(&file, "# nobody").unwrap();
        reader.poll().unwrap();
        assert!(
            names(&reader.poll().unwrap().unwrap()).is_empty(),
            "it is meant"
        );
    }

    #[test]
    fn memory_that_cannot_be_written_stops_no_edit_and_is_written_later() {
        let folder = tempfile::tempdir().unwrap();
        let state = tempfile::tempdir().unwrap();
        let memory = state.path().join("manifests");
        // Not even root can make a directory there.
        fs::write(&memory, "a file").unwrap();
        let file = folder.path().join("a.yaml");
        fs::write(&file, PARTNER).unwrap();
        let mut reader = Reader::new(folder.path(), None);
        reader.memory = Some(memory.clone());
        reader.stored = Some(Stored::new());
        assert_eq!(names(&reader.read().unwrap()), ["p"]);
        let error = reader.keep().expect_err("a file is in the way").to_string();
        assert!(error.contains("manifests"), "{error}");
        assert!(reader.poll().unwrap().is_none());
        fs::remove_file(&memory).unwrap();
        reader.keep().unwrap();
        assert!(memory.join("a.yaml").exists() && memory.join(".objects").exists());
    }

    #[test]
    fn what_is_no_regular_file_is_told_and_not_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("x.yaml");
        let made = std::process::Command::new("mkfifo").arg(&pipe).status();
        assert!(made.unwrap().success());
        let read = Reader::new(folder.path(), None).read().unwrap();
        let told = read.problems[0].to_string();
        assert!(
            told.contains("x.yaml") && told.contains("regular file"),
            "{told}"
        );
    }

    #[test]
    fn a_damaged_memory_of_objects_says_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let memory = tempfile::tempdir().unwrap();
        fs::write(memory.path().join(".objects"), "[{").unwrap();
        let read = Reader::new(folder.path(), Some(memory.path().to_owned())).read();
        let error = read.expect_err("damaged").to_string();
        assert!(
            error.contains(".objects") && error.contains("move it away"),
            "{error}"
        );
    }
}
