//! Rates: what one direction of a stream may carry in a second; over it, it waits.

use std::time::{Duration, Instant};

use xmpp_edge_crds::edge_config::Partner;

/// Limits of one direction, of each second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RateLimits {
    pub stanzas: Option<u32>,
    pub bytes: Option<u32>,
}

impl RateLimits {
    /// The strictest of all partners that have a pair on the stream.
    #[must_use]
    pub fn strictest<'a>(partners: impl IntoIterator<Item = &'a Partner>) -> Self {
        let least = |one: Option<u32>, other: Option<u32>| one.into_iter().chain(other).min();
        partners
            .into_iter()
            .fold(Self::default(), |so_far, partner| Self {
                stanzas: least(so_far.stanzas, partner.stanzas_per_second),
                bytes: least(so_far.bytes, partner.bytes_per_second),
            })
    }
}

/// Both directions of a stream.
#[derive(Debug, Default)]
pub struct Throttle {
    limits: RateLimits,
    taking: Rate,
    sending: Rate,
    seen_stanzas: u64,
    seen_bytes: u64,
}

impl Throttle {
    /// These limits count from here. What was used up stays used up where they are the same.
    pub fn apply(&mut self, limits: RateLimits, now: Instant) {
        if limits != self.limits {
            self.limits = limits;
            self.taking.apply(limits, now);
            self.sending.apply(limits, now);
        }
    }

    /// `stanzas` and `bytes` have been taken in all. Says whether any of them are new; over its rate,
    /// the stream is not read for a while: says for how long.
    pub fn took(&mut self, stanzas: u64, bytes: u64, now: Instant) -> (bool, Option<Duration>) {
        let new = stanzas - self.seen_stanzas;
        if new == 0 {
            return (false, None);
        }
        let new_bytes = bytes - self.seen_bytes;
        self.seen_stanzas = stanzas;
        self.seen_bytes = bytes;
        (true, self.taking.take(new, new_bytes, now))
    }

    /// `stanzas` of `bytes` in all go out; over the rate, no more do for a while.
    pub fn sends(&mut self, stanzas: u64, bytes: u64, now: Instant) {
        self.sending.take(stanzas, bytes, now);
    }

    #[must_use]
    pub fn may_read(&self) -> bool {
        self.taking.resume.is_none()
    }

    #[must_use]
    pub fn may_send(&self) -> bool {
        self.sending.resume.is_none()
    }

    /// When the next pause is over.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.taking
            .resume
            .into_iter()
            .chain(self.sending.resume)
            .min()
    }

    /// Ends the pauses that are over; says whether the stream may be read again.
    pub fn resume(&mut self, now: Instant) -> bool {
        self.sending.resumes(now);
        self.taking.resumes(now)
    }
}

#[derive(Debug, Default)]
struct Rate {
    /// Few partners have any.
    buckets: Option<Box<Buckets>>,
    resume: Option<Instant>,
}

#[derive(Debug)]
struct Buckets {
    stanzas: Option<Bucket>,
    bytes: Option<Bucket>,
}

impl Rate {
    fn apply(&mut self, limits: RateLimits, now: Instant) {
        let bucket = |rate: Option<u32>| rate.map(|rate| Bucket::new(rate, now));
        let (stanzas, bytes) = (bucket(limits.stanzas), bucket(limits.bytes));
        let limited = stanzas.is_some() || bytes.is_some();
        self.buckets = limited.then(|| Box::new(Buckets { stanzas, bytes }));
    }

    fn take(&mut self, stanzas: u64, bytes: u64, now: Instant) -> Option<Duration> {
        let buckets = self.buckets.as_mut()?;
        let stanzas = buckets
            .stanzas
            .as_mut()
            .and_then(|bucket| bucket.take(stanzas, now));
        let bytes = buckets
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

    #[test]
    fn a_stream_of_several_partners_has_the_strictest_of_their_limits() {
        let partner = |stanzas: Option<u32>, bytes: Option<u32>| {
            let mut partner: Partner = serde_json::from_value(serde_json::json!({
                "name": "partner", "domains": ["partner.example"], "partnerType": "Federated",
                "negotiation": {"tls": "Required", "sasl": "Optional", "dialback": true},
                "methods": ["TlsDialback"], "enableKeepAlive": true, "connectionLimit": 20,
            }))
            .expect("a partner");
            partner.stanzas_per_second = stanzas;
            partner.bytes_per_second = bytes;
            partner
        };
        let partners = [
            partner(None, None),
            partner(Some(10), Some(5_000)),
            partner(Some(20), Some(1_000)),
        ];
        let strictest = RateLimits::strictest(&partners);
        assert_eq!(
            (strictest.stanzas, strictest.bytes),
            (Some(10), Some(1_000))
        );
        assert_eq!(RateLimits::strictest(&partners[..1]), RateLimits::default());
    }

    #[test]
    fn the_same_limits_once_more_give_back_nothing_that_was_used_up() {
        let (mut throttle, start) = (Throttle::default(), Instant::now());
        let limits = RateLimits {
            stanzas: Some(10),
            bytes: None,
        };
        throttle.apply(limits, start);
        assert_eq!(throttle.took(10, 100, start), (true, None));
        throttle.apply(limits, start);
        let (new, pause) = throttle.took(15, 150, start);
        assert!(new && pause.is_some() && !throttle.may_read());
        assert_eq!(throttle.took(15, 150, start), (false, None));
        let over = throttle.deadline().expect("a pause");
        assert!(throttle.resume(over) && throttle.may_read());
    }
}
