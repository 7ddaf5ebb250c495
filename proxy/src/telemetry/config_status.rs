//! How the configuration comes in: what is waited for, what stays although its source is gone, and
//! the newest that was not taken. It lives before the edge does.

use std::sync::Arc;

use jiff::Timestamp;
use parking_lot::Mutex;
use serde::Serialize;

use super::{log_limiter::LogLimiter, metrics::Metrics};

/// What is seen from outside, from the first moment of the process.
#[derive(Debug, Clone, Default)]
pub struct Telemetry {
    pub metrics: Arc<Metrics>,
    pub config_status: Arc<ConfigStatus>,
    pub log: Arc<LogLimiter>,
}

/// See the module.
#[derive(Debug, Default)]
pub struct ConfigStatus {
    state: Mutex<ConfigState>,
}

#[derive(Debug, Default)]
struct ConfigState {
    missing: Vec<String>,
    stale: Vec<String>,
    unusable: Vec<String>,
    rejected: Option<RejectedStatus>,
    contacts: Option<ContactsStatus>,
    /// Why the process ends.
    failed: Option<String>,
    /// Contacts that are not loaded are waited for no longer.
    contacts_given_up: bool,
}

#[derive(Debug)]
struct ContactsStatus {
    loaded: bool,
    failure: Option<String>,
}

/// The newest configuration that was not taken.
#[derive(Clone, Debug, Serialize)]
pub struct RejectedStatus {
    pub time: Timestamp,
    pub error: String,
}

impl Telemetry {
    /// The newest configuration is not taken, or is (`None`). Each cause counts once and is logged
    /// once, however often it is seen.
    pub fn reject(&self, error: Option<String>) {
        let mut state = self.config_status.state.lock();
        let known = state.rejected.as_ref().map(|rejected| &rejected.error);
        if known == error.as_ref() {
            return;
        }
        if let Some(error) = &error {
            self.metrics.config_rejected.inc();
            tracing::error!(%error, "configuration rejected, the one before stays");
        }
        let gauge = &self.metrics.config_last_reload_successful;
        gauge.set(i64::from(error.is_none()));
        state.rejected = error.map(|error| RejectedStatus {
            time: Timestamp::now(),
            error,
        });
    }
}

impl ConfigStatus {
    /// What the source says of itself; news are logged.
    pub fn note(&self, missing: &[String], stale: &[String]) {
        let mut state = self.state.lock();
        if state.missing != missing {
            state.missing = missing.to_vec();
            if !missing.is_empty() {
                tracing::info!("waiting for {}", missing.join(", "));
            }
        }
        for text in stale.iter().filter(|text| !state.stale.contains(text)) {
            tracing::warn!("{text}");
        }
        state.stale = stale.to_vec();
    }

    /// What of the configuration in force cannot be used; news are logged, as far as a few lines go.
    pub fn note_unusable(&self, unusable: &[String]) {
        /// Lines for one configuration.
        const MOST: usize = 20;
        let mut state = self.state.lock();
        let news = unusable
            .iter()
            .filter(|text| !state.unusable.contains(text));
        for text in news.take(MOST) {
            tracing::warn!("{text}; the rest of the configuration is in force");
        }
        state.unusable = unusable.to_vec();
    }

    /// How the contacts' store is: whether it was loaded, and its newest failure.
    pub fn note_contacts(&self, loaded: bool, failure: Option<String>) {
        self.state.lock().contacts = Some(ContactsStatus { loaded, failure });
    }

    /// A database that is away for long keeps nobody from being ready.
    pub fn give_up_contacts(&self) {
        let mut state = self.state.lock();
        if state.contacts.as_ref().is_some_and(|held| !held.loaded) {
            tracing::warn!(
                "ready without the contacts: until they are loaded they look like strangers"
            );
        }
        state.contacts_given_up = true;
    }

    /// A task has ended that the process cannot do without: it is not ready any more.
    pub fn fail(&self, reason: String) {
        self.state.lock().failed = Some(reason);
    }

    #[must_use]
    pub fn rejected(&self) -> Option<RejectedStatus> {
        self.state.lock().rejected.clone()
    }

    /// What has to come before anything is ready.
    #[must_use]
    pub fn waits_for(&self) -> Vec<String> {
        let state = self.state.lock();
        let mut waits = state.missing.clone();
        waits.extend(
            state
                .failed
                .iter()
                .map(|reason| format!("a new process, as this one ends: {reason}")),
        );
        if let Some(contacts) = &state.contacts
            && !contacts.loaded
            && !state.contacts_given_up
        {
            waits.push("the contacts to be loaded".to_owned());
        }
        waits
    }

    /// What is not as it should be, and keeps nobody from being ready.
    #[must_use]
    pub fn remarks(&self) -> Vec<String> {
        let state = self.state.lock();
        let mut remarks = state.stale.clone();
        remarks.extend(state.unusable.iter().cloned());
        if let Some(rejected) = &state.rejected {
            remarks.push(format!("configuration rejected: {}", rejected.error));
        }
        let contacts = state.contacts.as_ref();
        remarks.extend(contacts.and_then(|contacts| contacts.failure.clone()));
        remarks
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_that_is_away_for_long_keeps_nobody_from_being_ready() {
        let config_status = ConfigStatus::default();
        let away = "contacts: PostgreSQL db: refused";
        config_status.note_contacts(false, Some(away.to_owned()));
        assert_eq!(config_status.waits_for(), ["the contacts to be loaded"]);
        config_status.give_up_contacts();
        assert!(config_status.waits_for().is_empty());
        assert_eq!(config_status.remarks(), [away]);
        config_status.note_contacts(true, None);
        assert!(config_status.remarks().is_empty());
    }

    #[test]
    fn each_cause_of_a_rejection_counts_once_however_often_it_is_seen() {
        let observed = Telemetry::default();
        let reject = |error: Option<&str>| observed.reject(error.map(str::to_owned));
        for error in [Some("a"), Some("a"), Some("b"), None, Some("b"), Some("b")] {
            reject(error);
        }
        assert_eq!(observed.metrics.config_rejected.get(), 3);
        let rejected = observed
            .config_status
            .rejected()
            .map(|rejected| rejected.error);
        assert_eq!(rejected.as_deref(), Some("b"));
    }
}
