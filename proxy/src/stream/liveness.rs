//! Time on an established stream: keep-alive, inactivity, unanswered questions.
//!
//! Decides when something is due; `stream` does it.

use std::{
    ops::RangeInclusive,
    time::{Duration, Instant},
};

use super::{
    Input, Stream,
    egress::{Confirmation, SendBuffer},
};
use crate::{
    config::ActiveConfig,
    negotiation::{Fault, Side},
    stream::partner_ping,
};

/// Between two signs of life asked of a gateway without XEP-0198 (behaviour: at most one a second).
pub const PROBE_PAUSE: Duration = Duration::from_secs(1);
/// The least and the most that a peer's `idle-seconds` are read as.
const IDLE_SECONDS: RangeInclusive<u64> = 3..=86_400;
/// Silence, with stanzas unconfirmed, after which a sign of life is asked for.
const UNCONFIRMED: Duration = Duration::from_secs(15);
/// Silence after which a stream gives back what only busy streams need.
const SILENCE: Duration = Duration::from_secs(2);
/// How far ahead the next look is where nothing is due.
const FAR: Duration = Duration::from_secs(3600);

#[derive(Debug)]
pub struct Liveness {
    /// Something was read.
    heard: Instant,
    /// A stanza went either way.
    stanza: Instant,
    /// A sign of life of ours was sent.
    signed: Instant,
    /// A ping that has not been answered.
    ping: Option<Instant>,
    /// When that was left unread last which may hold an answer, as last looked at.
    unread: Instant,
    wrote: Instant,
    interval: Duration,
    inactivity: Duration,
    question_timeout: Duration,
    enabled: bool,
    /// Silence of ours after which the peer may close the stream (XEP-0478).
    idle: Option<Duration>,
    /// Bytes of ours were taken by the socket.
    said: Instant,
    /// Buffers of a busy stream are still held.
    holds: bool,
}

impl Liveness {
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self {
            heard: now,
            stanza: now,
            signed: now,
            ping: None,
            unread: now,
            wrote: now,
            interval: FAR,
            inactivity: FAR,
            question_timeout: FAR,
            enabled: true,
            idle: None,
            said: now,
            holds: true,
        }
    }

    /// These settings count from here.
    pub fn apply(&mut self, config: &ActiveConfig, enabled: bool) {
        let settings = &config.document.settings;
        self.interval = Duration::from_secs(u64::from(settings.keep_alive_interval_seconds));
        self.inactivity =
            Duration::from_secs(u64::from(settings.stream_inactivity_timeout_seconds));
        self.question_timeout = Duration::from_secs(u64::from(settings.queue_timeout_seconds));
        self.enabled = enabled;
    }

    /// The peer has told after what silence it may close the stream.
    pub fn idle_limit(&mut self, seconds: Option<u64>) {
        let (least, most) = IDLE_SECONDS.into_inner();
        // Well before: what is on its way must come in time.
        self.idle = seconds.map(|seconds| Duration::from_secs(seconds.clamp(least, most)) * 2 / 3);
    }

    /// Anything from the peer is a sign of life.
    pub fn heard(&mut self, now: Instant) {
        self.heard = now;
        self.ping = None;
        self.holds = true;
    }

    /// The socket took something, or had nothing to take.
    pub fn wrote(&mut self, now: Instant) {
        self.wrote = now;
    }

    /// The socket took bytes of ours.
    pub fn said(&mut self, now: Instant) {
        self.said = now;
        self.wrote = now;
    }

    /// A stanza crossed, either way.
    pub fn stanza_crossed(&mut self, now: Instant) {
        self.stanza = now;
        self.holds = true;
    }

    /// How long an answer to a question of ours may take.
    #[must_use]
    pub fn question_timeout(&self) -> Duration {
        self.question_timeout
    }

    /// Since when a ping is unanswered.
    #[must_use]
    pub fn pinged(&self) -> Option<Instant> {
        self.ping
    }

    /// The peer's silence counts from then on at the earliest.
    #[must_use]
    pub fn unread(&self) -> Instant {
        self.unread
    }

    /// What may hold an answer of the peer was left unread until then.
    pub fn was_unread(&mut self, until: Instant) {
        self.unread = self.unread.max(until);
    }

    /// The peer answered a question of ours.
    pub fn answered(&mut self) {
        self.ping = None;
    }

    /// When the next look is due.
    #[must_use]
    pub fn deadline(&self, egress: &SendBuffer) -> Instant {
        let mut next = if self.enabled {
            self.heard.max(self.signed) + self.interval
        } else {
            self.stanza + self.inactivity
        };
        if let Some(idle) = self.idle.filter(|_| self.enabled) {
            next = next.min(self.said + idle);
        }
        if egress.unconfirmed() > 0 {
            if self.enabled {
                next = next.min(self.heard.max(self.signed) + UNCONFIRMED);
            }
            next = egress.asks_again().map_or(next, |again| next.min(again));
            if let Confirmation::Probe {
                asked: None,
                last: Some(last),
                ..
            } = egress.confirmation()
            {
                next = next.min(*last + PROBE_PAUSE);
            }
        }
        if self.holds {
            next = next.min(self.heard.max(self.stanza) + SILENCE);
        }
        if !egress.is_empty() {
            next = next.min(self.wrote + self.question_timeout);
        }
        next
    }
}

impl Stream {
    /// Something may be due on an established stream.
    pub(super) fn on_keepalive(&mut self, now: Instant) {
        let last = self.keepalive.heard.max(self.keepalive.stanza);
        if self.keepalive.holds && now.duration_since(last) >= SILENCE {
            self.keepalive.holds = false;
            self.release();
        }
        if self.throttle.resume(now) {
            self.take_partial();
        }
        let stuck = !self.sender.buffer.is_empty()
            && now.duration_since(self.keepalive.wrote) >= self.keepalive.question_timeout;
        let (ping, limit) = (self.keepalive.ping, self.keepalive.question_timeout);
        let ping_unanswered = ping.is_some_and(|since| self.is_unanswered(since, limit, now));
        if ping_unanswered || stuck {
            self.input(Input::End(Fault::Unresponsive));
            return;
        }
        let limit = self.answer_limit();
        let asked = self.sender.buffer.asked_since();
        if asked.is_some_and(|since| self.is_unanswered(since, limit, now)) {
            self.unanswered();
            return;
        }
        let keepalive = &mut self.keepalive;
        if !keepalive.enabled {
            if now.duration_since(keepalive.stanza) >= keepalive.inactivity {
                self.input(Input::End(Fault::Inactive));
            }
            return;
        }
        let silence = now.duration_since(keepalive.heard.max(keepalive.signed));
        let limit = if self.sender.buffer.unconfirmed() > 0 {
            UNCONFIRMED.min(keepalive.interval)
        } else {
            keepalive.interval
        };
        let idles = keepalive
            .idle
            .is_some_and(|idle| now.duration_since(keepalive.said) >= idle);
        if silence < limit && !idles {
            return;
        }
        // Not again before the socket had its chance.
        keepalive.said = now;
        keepalive.signed = now;
        self.sign_of_life(now);
    }

    /// `<r/>` where acks run; else a `db:verify` towards a gateway that answers it; else a space.
    fn sign_of_life(&mut self, now: Instant) {
        match self.sender.buffer.confirmation_mut() {
            Confirmation::Acks { acks, asked, .. } => {
                let mut out = Vec::new();
                acks.write_request(&mut out);
                asked.get_or_insert(now);
                self.sender.buffer.control(out);
            }
            Confirmation::Probe { .. } => self.probe(now),
            Confirmation::Written => {
                if self.side == Side::Partner
                    && self.entry.is_bidirectional()
                    && let Some(route) = self.sender.routes.first()
                {
                    let key = self.config.dialback.mac_key();
                    let names =
                        self.context
                            .peers
                            .names(self.side, &route.pair.to, &route.pair.from, now);
                    let ping = partner_ping::ping(&key, &route.pair.from, &route.pair.to, names);
                    self.keepalive.ping = Some(now);
                    self.sender.buffer.control(ping);
                } else {
                    self.sender.buffer.control(&b" "[..]);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_number_of_idle_seconds_is_too_large_or_too_small() {
        let now = Instant::now();
        for (seconds, expected) in [
            (0, 2),
            (3, 2),
            (60, 40),
            (86_400, 57_600),
            (1 << 63, 57_600),
            (u64::MAX, 57_600),
        ] {
            let mut liveness = Liveness::new(now);
            liveness.interval = FAR * 24 * 365;
            liveness.idle_limit(Some(seconds));
            liveness.holds = false;
            let due = liveness
                .deadline(&SendBuffer::default())
                .duration_since(now);
            assert_eq!(due, Duration::from_secs(expected), "{seconds}");
        }
    }
}
