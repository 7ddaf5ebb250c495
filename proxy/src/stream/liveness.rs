//! Time on an established stream: keep-alive, inactivity, unanswered questions, rates, draining.
//!
//! Decides when something is due; `session` does it.

use std::time::{Duration, Instant};

use xmpp_edge_crds::edge_config::Partner;

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
    wrote: Instant,
    seen_stanzas: u64,
    interval: Duration,
    inactivity: Duration,
    question_timeout: Duration,
    enabled: bool,
    ack_now: bool,
    /// Nothing more is taken in; the stream ends once all is settled and confirmed.
    pub draining: bool,
    taking: Rate,
    sending: Rate,
    seen_bytes: u64,
    /// Buffers of a busy stream are still held.
    holds: bool,
}

/// What one direction of a stream may carry; over it, it waits.
#[derive(Debug, Default)]
struct Rate {
    /// Few partners have any.
    limits: Option<Box<RateLimits>>,
    resume: Option<Instant>,
}

#[derive(Debug)]
struct RateLimits {
    stanzas: Option<Bucket>,
    bytes: Option<Bucket>,
}

impl Rate {
    fn new(partner: Option<&Partner>, now: Instant) -> Self {
        let bucket = |rate: Option<u32>| rate.map(|rate| Bucket::new(rate, now));
        let stanzas = bucket(partner.and_then(|partner| partner.stanzas_per_second));
        let bytes = bucket(partner.and_then(|partner| partner.bytes_per_second));
        let limited = stanzas.is_some() || bytes.is_some();
        Self {
            limits: limited.then(|| Box::new(RateLimits { stanzas, bytes })),
            resume: None,
        }
    }

    fn take(&mut self, stanzas: u64, bytes: u64, now: Instant) -> Option<Duration> {
        let limits = self.limits.as_mut()?;
        let stanzas = limits
            .stanzas
            .as_mut()
            .and_then(|bucket| bucket.take(stanzas, now));
        let bytes = limits
            .bytes
            .as_mut()
            .and_then(|bucket| bucket.take(bytes, now));
        let pause = stanzas.max(bytes)?;
        self.resume = Some(now + pause);
        Some(pause)
    }

    /// Whether a pause is over that had not been noticed.
    fn resumes(&mut self, now: Instant) -> bool {
        self.resume.take_if(|resume| now >= *resume).is_some()
    }
}

impl Liveness {
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self {
            heard: now,
            stanza: now,
            signed: now,
            ping: None,
            wrote: now,
            seen_stanzas: 0,
            interval: FAR,
            inactivity: FAR,
            question_timeout: FAR,
            enabled: true,
            ack_now: false,
            draining: false,
            taking: Rate::default(),
            sending: Rate::default(),
            seen_bytes: 0,
            holds: true,
        }
    }

    /// These settings count from here.
    pub fn consider(&mut self, config: &ActiveConfig, partner: Option<&Partner>) {
        let settings = &config.document.settings;
        self.interval = Duration::from_secs(u64::from(settings.keep_alive_interval_seconds));
        self.inactivity =
            Duration::from_secs(u64::from(settings.stream_inactivity_timeout_seconds));
        self.question_timeout = Duration::from_secs(u64::from(settings.queue_timeout_seconds));
        self.enabled = partner.is_none_or(|partner| partner.enable_keep_alive);
        let now = Instant::now();
        self.taking = Rate::new(partner, now);
        self.sending = Rate::new(partner, now);
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

    /// `stanzas` and `bytes` have been taken in all; over its rate, the stream is not read for a
    /// while. Says for how long.
    pub fn took(&mut self, stanzas: u64, bytes: u64, now: Instant) -> Option<Duration> {
        let new = stanzas - self.seen_stanzas;
        if new == 0 {
            return None;
        }
        self.stanza = now;
        let new_bytes = bytes - self.seen_bytes;
        self.seen_stanzas = stanzas;
        self.seen_bytes = bytes;
        self.taking.take(new, new_bytes, now)
    }

    #[must_use]
    pub fn may_read(&self) -> bool {
        self.taking.resume.is_none()
    }

    #[must_use]
    pub fn may_send(&self) -> bool {
        self.sending.resume.is_none()
    }

    /// `stanzas` of `bytes` in all go out; over the rate, no more do for a while: says how long.
    pub fn sends(&mut self, stanzas: u64, bytes: u64, now: Instant) -> Option<Duration> {
        self.stanza = now;
        self.holds = true;
        self.sending.take(stanzas, bytes, now)
    }

    pub fn ack_requested(&mut self) {
        self.ack_now = true;
    }

    #[must_use]
    pub fn ack_now(&self) -> bool {
        self.ack_now
    }

    pub fn acked(&mut self) {
        self.ack_now = false;
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
        if let Some(since) = egress.asked_since().into_iter().chain(self.ping).min() {
            next = next.min(since + self.question_timeout);
        }
        if self.holds {
            next = next.min(self.heard.max(self.stanza) + SILENCE);
        }
        if !egress.is_empty() {
            next = next.min(self.wrote + self.question_timeout);
        }
        for resume in [self.taking.resume, self.sending.resume]
            .into_iter()
            .flatten()
        {
            next = next.min(resume);
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
        self.keepalive.sending.resumes(now);
        if self.keepalive.taking.resumes(now) {
            self.take_partial();
        }
        let stuck = !self.egress.is_empty()
            && now.duration_since(self.keepalive.wrote) >= self.keepalive.question_timeout;
        let keepalive = &mut self.keepalive;
        let unanswered = self
            .egress
            .asked_since()
            .into_iter()
            .chain(keepalive.ping)
            .any(|since| now.duration_since(since) >= keepalive.question_timeout);
        if unanswered || stuck {
            self.input(Input::End(Fault::Unresponsive));
            return;
        }
        if !keepalive.enabled {
            if now.duration_since(keepalive.stanza) >= keepalive.inactivity {
                self.input(Input::End(Fault::Inactive));
            }
            return;
        }
        let silence = now.duration_since(keepalive.heard.max(keepalive.signed));
        let limit = if self.egress.unconfirmed() > 0 {
            UNCONFIRMED.min(keepalive.interval)
        } else {
            keepalive.interval
        };
        if silence < limit {
            return;
        }
        keepalive.signed = now;
        self.sign_of_life(now);
    }

    /// `<r/>` where acks run; else a `db:verify` towards a gateway that answers it; else a space.
    fn sign_of_life(&mut self, now: Instant) {
        let covers = self.egress.in_custody();
        match self.egress.confirmation_mut() {
            Confirmation::Acks { acks, asked, .. } => {
                let mut out = Vec::new();
                acks.write_request(&mut out);
                asked.get_or_insert(now);
                self.egress.control(out);
            }
            Confirmation::Probe { next, asked, last } => {
                if asked.is_none() {
                    *next += 1;
                    *asked = Some((*next, covers, now));
                    *last = Some(now);
                    let number = *next;
                    self.input(Input::Probe { number });
                }
            }
            Confirmation::Written => {
                if self.side == Side::Partner
                    && self.entry.is_bidirectional()
                    && let Some(route) = self.outgoing.first()
                {
                    let key = self.config.dialback.mac_key();
                    let ping = partner_ping::ping(&key, &route.pair.from, &route.pair.to);
                    self.keepalive.ping = Some(now);
                    self.egress.control(ping);
                } else {
                    self.egress.control(&b" "[..]);
                }
            }
        }
    }
}

/// A token bucket of one second's worth.
#[derive(Debug)]
struct Bucket {
    rate: f64,
    tokens: f64,
    filled: Instant,
}

impl Bucket {
    fn new(rate: u32, now: Instant) -> Self {
        let rate = f64::from(rate.max(1));
        Self {
            rate,
            tokens: rate,
            filled: now,
        }
    }

    /// Takes `count`; says how long until the debt is paid, where there is one.
    fn take(&mut self, count: u64, now: Instant) -> Option<Duration> {
        let earned = now.duration_since(self.filled).as_secs_f64() * self.rate;
        self.tokens = (self.tokens + earned).min(self.rate);
        self.filled = now;
        #[allow(clippy::cast_precision_loss)] // Counts of one read.
        let count = count as f64;
        self.tokens -= count;
        (self.tokens < 0.0).then(|| Duration::from_secs_f64(-self.tokens / self.rate))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn over_its_rate_a_stream_waits_as_long_as_its_debt() {
        let start = Instant::now();
        let mut bucket = Bucket::new(100, start);
        assert_eq!(bucket.take(100, start), None);
        let pause = bucket.take(50, start).expect("over the rate");
        assert!((pause.as_secs_f64() - 0.5).abs() < 0.01);
        assert_eq!(bucket.take(1, start + Duration::from_secs(2)), None);
    }
}
