//! Another clock for a process, set while it runs (libfaketime). Timers are not touched: only what
//! asks for the time of day gets another answer.

use std::{fs, path::PathBuf};

use anyhow::Result;
use tempfile::TempDir;

/// A clock that a process is started by.
pub struct Clock {
    file: PathBuf,
    _directory: TempDir,
}

impl Clock {
    /// The system's time.
    ///
    /// # Errors
    /// When its file cannot be written.
    pub fn new() -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("clock-").tempdir()?;
        let clock = Self {
            file: directory.path().join("offset"),
            _directory: directory,
        };
        clock.ahead(0)?;
        Ok(clock)
    }

    /// From now on the process is this many seconds ahead of the system.
    ///
    /// # Errors
    /// When its file cannot be written.
    pub fn ahead(&self, seconds: i64) -> Result<()> {
        let next = self.file.with_extension("next");
        fs::write(&next, format!("{seconds:+}\n"))?;
        fs::rename(next, &self.file)?;
        Ok(())
    }

    pub(super) fn environment(&self) -> [(&'static str, String); 4] {
        [
            // The dynamic linker knows the folder.
            (
                "LD_PRELOAD",
                "/usr/$LIB/faketime/libfaketimeMT.so.1".to_owned(),
            ),
            ("FAKETIME_TIMESTAMP_FILE", self.file.display().to_string()),
            ("FAKETIME_NO_CACHE", "1".to_owned()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
        ]
    }
}
