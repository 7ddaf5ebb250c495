//! The API server's time of day, by the `Date` of its answers.
//!
//! What it wrote into objects is compared with this alone: its clock and this machine's may be hours
//! apart. Replicas of it are taken to agree within seconds.

use hyper::{HeaderMap, header::DATE};
use jiff::{SignedDuration, Timestamp, fmt::rfc2822};
use parking_lot::Mutex;
use tokio::time::Instant;

/// Follows the answers of the API server.
#[derive(Debug, Default)]
pub struct ServerClock {
    /// What it said last, and when by the monotonic clock.
    said: Mutex<Option<(Timestamp, Instant)>>,
}

impl ServerClock {
    /// Takes the headers of an answer.
    pub fn heard(&self, headers: &HeaderMap) {
        let date = headers.get(DATE).and_then(|date| date.to_str().ok());
        if let Some(date) = date.and_then(|date| rfc2822::parse(date).ok()) {
            *self.said.lock() = Some((date.timestamp(), Instant::now()));
        }
    }

    /// How long ago something was that the API server dated; `None` before its first answer. Negative
    /// where it is still to come.
    #[must_use]
    pub fn since(&self, dated: Timestamp) -> Option<SignedDuration> {
        self.since_at(dated, Instant::now())
    }

    fn since_at(&self, dated: Timestamp, now: Instant) -> Option<SignedDuration> {
        let (said, at) = (*self.said.lock())?;
        let passed = SignedDuration::try_from(now.saturating_duration_since(at)).ok()?;
        Some(said.duration_since(dated) + passed)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::time::Duration;

    use super::*;

    #[test]
    fn time_is_measured_between_what_the_api_server_said_whatever_this_machine_thinks() {
        let (clock, mut headers) = (ServerClock::default(), HeaderMap::new());
        let dated: Timestamp = "1994-11-06T08:39:37Z".parse().unwrap();
        assert_eq!(clock.since(dated), None);
        headers.insert(DATE, "Sun, 06 Nov 1994 08:49:37 GMT".parse().unwrap());
        clock.heard(&headers);
        let (_, heard) = clock.said.lock().unwrap();
        let after = |seconds| clock.since_at(dated, heard + Duration::from_secs(seconds));
        assert_eq!(after(0), Some(SignedDuration::from_mins(10)));
        headers.insert(DATE, "yesterday".parse().unwrap());
        clock.heard(&headers);
        assert_eq!(after(60), Some(SignedDuration::from_mins(11)));
    }
}
