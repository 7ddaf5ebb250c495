//! Servers that took a connection and then said nothing, neither in TLS nor to OPTIONS: others have their turn first
//! (RFC 3263 section 4.3: who does not answer in time has failed).

use std::{
    collections::{BTreeSet, HashMap},
    net::SocketAddr,
    time::{Duration, Instant},
};

/// Who has so long to say something lets the next begin beside it.
pub(super) const SPEAKS_WITHIN: Duration = Duration::from_secs(5);
/// So long its turn comes last; then the records' order holds again.
const REMEMBERED: Duration = Duration::from_secs(600);
/// Most that are remembered: of more, nobody knows.
const MOST: usize = 256;

/// Those of one gateway.
#[derive(Debug, Default)]
pub(super) struct SilentServers(HashMap<SocketAddr, Instant>);

impl SilentServers {
    /// The server at this address said nothing.
    pub(super) fn silent(&mut self, address: SocketAddr, now: Instant) {
        self.0.retain(|_, until| now < *until);
        if self.0.len() < MOST {
            self.0.insert(address, now + REMEMBERED);
        }
    }

    /// It answered.
    pub(super) fn answered(&mut self, address: SocketAddr) {
        self.0.remove(&address);
    }

    /// Those whose turn comes last.
    pub(super) fn last(&self, now: Instant) -> BTreeSet<SocketAddr> {
        let known = self.0.iter().filter(|(_, until)| now < **until);
        known.map(|(address, _)| *address).collect()
    }
}

/// Those that are being asked to prove themselves in one walk, and since when.
#[derive(Debug, Default)]
pub(super) struct AskedServers {
    under_way: Vec<(Option<SocketAddr>, Instant)>,
    silent: Vec<SocketAddr>,
}

impl AskedServers {
    /// One more is asked.
    pub(super) fn begun(&mut self, address: Option<SocketAddr>, now: Instant) {
        self.under_way.push((address, now));
    }

    /// It has answered, or failed.
    pub(super) fn ended(&mut self, address: Option<SocketAddr>, now: Instant) {
        if let Some(at) = self.under_way.iter().position(|(own, _)| *own == address) {
            let (address, since) = self.under_way.remove(at);
            self.silent
                .extend(address.filter(|_| now >= since + SPEAKS_WITHIN));
        }
    }

    /// The walk is over: those that said nothing in time.
    pub(super) fn into_silent(mut self, now: Instant) -> Vec<SocketAddr> {
        for (address, _) in self.under_way.clone() {
            self.ended(address, now);
        }
        self.silent
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(host: u8) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, host], 5_061))
    }

    #[test]
    fn who_was_silent_is_last_until_it_answers_or_for_ten_minutes() {
        let (mut silent, now) = (SilentServers::default(), Instant::now());
        silent.silent(address(1), now);
        silent.silent(address(2), now);
        assert_eq!(silent.last(now), BTreeSet::from([address(1), address(2)]));
        silent.answered(address(1));
        assert_eq!(silent.last(now), BTreeSet::from([address(2)]));
        assert!(silent.last(now + REMEMBERED).is_empty());
    }

    #[test]
    fn silent_is_who_took_too_long_whether_it_failed_or_another_was_faster() {
        let now = Instant::now();
        let late = now + SPEAKS_WITHIN;
        let mut asked = AskedServers::default();
        for host in 1..=4 {
            asked.begun(Some(address(host)), now);
        }
        asked.ended(Some(address(1)), now);
        asked.ended(Some(address(2)), late);
        asked.begun(Some(address(5)), late);
        asked.begun(None, now);
        assert_eq!(
            asked.into_silent(late),
            [address(2), address(3), address(4)]
        );
    }
}
