//! The streams that are open: for status, for limits, and to reach them when something changes.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use xmpp_edge_crds::{domain::DomainName, negotiation::Method, verdict::Direction};

use super::{Command, handle::StreamHandle, unread::UnreadTime};
use crate::{
    config::ActiveConfig,
    negotiation::{Pair, PeerRole, Side},
    tls::TlsFacts,
};

/// Streams that the pool's limit leaves a partner at most for its many domains.
const MOST_BY_PAIRS: usize = 1_000;
/// Pairs that ask for one stream at the same time.
const ASKING: usize = 4;
/// Streams that are told at once of what makes each of them work.
const PORTION: usize = 64;
/// Told in so many portions at most.
const PORTIONS: usize = 50;
/// Between two portions.
const PAUSE: Duration = Duration::from_millis(10);

/// All streams of this replica.
#[derive(Debug, Default)]
pub struct StreamRegistry {
    next: AtomicU64,
    open: Mutex<HashMap<u64, Arc<StreamInfo>>>,
    authenticated: Arc<Mutex<Authenticated>>,
}

/// Counts of authenticated streams with partners.
#[derive(Debug, Default)]
struct Authenticated {
    all: u32,
    of_partner: HashMap<String, u32>,
}

/// One authenticated stream in the counts, of each partner that has a pair on it; dropping it takes
/// it out.
#[derive(Debug)]
pub struct StreamQuota {
    counts: Arc<Mutex<Authenticated>>,
    partners: Vec<String>,
}

/// What is known of one stream.
#[derive(Debug)]
pub struct StreamInfo {
    pub id: u64,
    pub side: Side,
    /// The peer opened it as `Client`, or we dialled it as `Server`.
    pub peer: PeerRole,
    pub address: Option<SocketAddr>,
    pub opened: Instant,
    pub opened_time: Timestamp,
    pub handle: Arc<StreamHandle>,
    /// The peer has opened its stream.
    answered: AtomicBool,
    bidirectional: AtomicBool,
    acknowledged: AtomicBool,
    trunk: AtomicBool,
    /// What was sent is confirmed by an answer that comes on another stream, and has not come yet.
    answered_elsewhere: AtomicBool,
    /// Left unread by us, for a while.
    pub unread: UnreadTime,
    /// Further pairs may ask for it.
    open: AtomicBool,
    /// Places for pairs that ask at the same time: each makes the peer verify a key.
    pub asking: Arc<Semaphore>,
    facts: Mutex<AuthInfo>,
    pub stanzas_in: AtomicU64,
    pub bytes_in: AtomicU64,
    pub stanzas_out: AtomicU64,
    pub bytes_out: AtomicU64,
    /// Milliseconds after `opened`.
    last_stanza: AtomicU64,
}

/// What authentication told; changes seldom.
#[derive(Clone, Debug, Default)]
pub struct AuthInfo {
    pub established: Option<Timestamp>,
    /// When the newest pair came.
    pub changed: Option<Timestamp>,
    /// From the peer.
    pub receives: Vec<Pair>,
    /// To the peer.
    pub sends: Vec<Pair>,
    pub method: Option<Method>,
    pub tls_version: Option<&'static str>,
    pub tls_cipher: Option<&'static str>,
    pub peer_certificate_not_after: Option<Timestamp>,
    pub peer_key_sha256: Option<String>,
}

impl StreamRegistry {
    pub fn enter(
        &self,
        side: Side,
        peer: PeerRole,
        address: Option<SocketAddr>,
        handle: Arc<StreamHandle>,
    ) -> Arc<StreamInfo> {
        let opened = Instant::now();
        let entry = Arc::new(StreamInfo {
            id: self.next.fetch_add(1, Ordering::Relaxed),
            side,
            peer,
            address,
            opened,
            unread: UnreadTime::new(opened),
            opened_time: Timestamp::now(),
            handle,
            answered: AtomicBool::new(false),
            bidirectional: AtomicBool::new(false),
            acknowledged: AtomicBool::new(false),
            trunk: AtomicBool::new(false),
            answered_elsewhere: AtomicBool::new(false),
            open: AtomicBool::new(false),
            asking: Arc::new(Semaphore::new(ASKING)),
            facts: Mutex::default(),
            stanzas_in: AtomicU64::new(0),
            bytes_in: AtomicU64::new(0),
            stanzas_out: AtomicU64::new(0),
            bytes_out: AtomicU64::new(0),
            last_stanza: AtomicU64::new(0),
        });
        self.open.lock().insert(entry.id, Arc::clone(&entry));
        entry
    }

    pub fn leave(&self, entry: &StreamInfo) {
        self.open.lock().remove(&entry.id);
    }

    /// Those open now, in no order.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<StreamInfo>> {
        self.open.lock().values().cloned().collect()
    }

    /// How to reach the stream of this number, where it is open.
    #[must_use]
    pub fn handle(&self, id: u64) -> Option<Arc<StreamHandle>> {
        let open = self.open.lock();
        open.get(&id).map(|entry| Arc::clone(&entry.handle))
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.open.lock().is_empty()
    }

    /// Whether a peer of any has still to answer on a stream of its own.
    #[must_use]
    pub fn wait_for_answers(&self) -> bool {
        let open = self.open.lock();
        let mut all = open.values();
        all.any(|entry| entry.answered_elsewhere.load(Ordering::Relaxed))
    }

    /// Tells every stream.
    pub fn tell_all(&self, command: impl Fn() -> Command) {
        for entry in self.all() {
            entry.handle.tell(command());
        }
    }

    /// Tells every stream that is open now, [`PORTION`] at once, the rest by [`Announcement::finish`].
    pub fn announce<C: Fn() -> Command>(&self, command: C) -> Announcement<C> {
        let all = self.all();
        let mut announcement = Announcement {
            portion: PORTION.max(all.len().div_ceil(PORTIONS)),
            rest: all.into_iter(),
            command,
        };
        announcement.tell_next();
        announcement
    }

    /// Whether [`Self::count`] would count one more.
    ///
    /// # Errors
    /// The limit that is reached: a metric label.
    pub fn has_room(&self, config: &ActiveConfig, peer: &DomainName) -> Result<(), &'static str> {
        let (name, limit) = limit_of(config, peer);
        let counts = self.authenticated.lock();
        if counts.all >= config.document.settings.connection_limit {
            Err("ConnectionLimit")
        } else if !counts.has_room(&name, limit) {
            Err("PartnerConnectionLimit")
        } else {
            Ok(())
        }
    }

    /// Counts one more authenticated stream with the partner that `peer` belongs to.
    ///
    /// # Errors
    /// The limit that is reached: a metric label.
    pub fn count(
        &self,
        config: &ActiveConfig,
        peer: &DomainName,
    ) -> Result<StreamQuota, &'static str> {
        let (name, limit) = limit_of(config, peer);
        let mut counts = self.authenticated.lock();
        if counts.all >= config.document.settings.connection_limit {
            return Err("ConnectionLimit");
        }
        counts.enter(&name, limit)?;
        counts.all += 1;
        drop(counts);
        Ok(StreamQuota {
            counts: Arc::clone(&self.authenticated),
            partners: vec![name],
        })
    }
}

/// What every stream is told, portion by portion: what all of them do about it does not come in one
/// turn. Dropped, it tells the rest nothing.
#[derive(Debug)]
pub struct Announcement<C> {
    rest: std::vec::IntoIter<Arc<StreamInfo>>,
    portion: usize,
    command: C,
}

impl<C: Fn() -> Command> Announcement<C> {
    /// Tells the rest, within half a second.
    pub async fn finish(mut self) {
        while !self.rest.as_slice().is_empty() {
            tokio::time::sleep(PAUSE).await;
            self.tell_next();
        }
    }

    fn tell_next(&mut self) {
        for entry in self.rest.by_ref().take(self.portion) {
            entry.handle.tell((self.command)());
        }
    }
}

/// The name and the limit of the partner that `peer` belongs to. A limit of its own holds as it is; the pool's
/// leaves room for a stream each way for every pair of an own domain and one of the partner's, since each
/// pair may need streams of its own.
fn limit_of(config: &ActiveConfig, peer: &DomainName) -> (String, u32) {
    let pools = config.document.settings.partner_connection_limit;
    match config.partner(peer) {
        Some(partner) if partner.connection_limit != pools => {
            (partner.name.clone(), partner.connection_limit)
        }
        Some(partner) => {
            let pairs = config.document.domains.len() * partner.domains.len();
            let both_ways = (2 * pairs).min(MOST_BY_PAIRS);
            let least = u32::try_from(both_ways).unwrap_or(u32::MAX);
            (partner.name.clone(), pools.max(least))
        }
        None => (String::new(), pools),
    }
}

impl Authenticated {
    fn has_room(&self, partner: &str, limit: u32) -> bool {
        self.of_partner.get(partner).copied().unwrap_or_default() < limit
    }

    fn enter(&mut self, partner: &str, limit: u32) -> Result<(), &'static str> {
        if !self.has_room(partner, limit) {
            return Err("PartnerConnectionLimit");
        }
        *self.of_partner.entry(partner.to_owned()).or_default() += 1;
        Ok(())
    }
}

impl StreamQuota {
    /// Whether a pair with `peer` may be added: its partner is counted here already, or has room.
    pub fn has_room(&self, config: &ActiveConfig, peer: &DomainName) -> bool {
        let (name, limit) = limit_of(config, peer);
        self.partners.contains(&name) || self.counts.lock().has_room(&name, limit)
    }

    /// Counts the stream for the partner of a further pair too.
    ///
    /// # Errors
    /// The limit that is reached: a metric label.
    pub fn further(
        &mut self,
        config: &ActiveConfig,
        peer: &DomainName,
    ) -> Result<(), &'static str> {
        let (name, limit) = limit_of(config, peer);
        if !self.partners.contains(&name) {
            self.counts.lock().enter(&name, limit)?;
            self.partners.push(name);
        }
        Ok(())
    }
}

impl Drop for StreamQuota {
    fn drop(&mut self) {
        let mut counts = self.counts.lock();
        counts.all -= 1;
        for partner in &self.partners {
            if let Some(own) = counts.of_partner.get_mut(partner) {
                *own -= 1;
                if *own == 0 {
                    counts.of_partner.remove(partner);
                }
            }
        }
    }
}

impl AuthInfo {
    /// Name of the partner object behind the stream: of its first pair.
    #[must_use]
    pub fn partner<'a>(&self, side: Side, config: &'a ActiveConfig) -> Option<&'a str> {
        // Stanzas of a pair that is received go to the other side.
        let received = self.receives.first().map(|pair| match side {
            Side::Partner => config.pair_partner(Side::Gateway, pair),
            Side::Gateway => config.pair_partner(Side::Partner, pair),
        });
        let sent = || {
            let pair = self.sends.first()?;
            config.pair_partner(side, pair)
        };
        received.unwrap_or_else(sent)
    }
}

impl StreamInfo {
    /// Whether what was sent waits for an answer on another stream.
    /// The peer has opened its stream.
    pub(super) fn set_answered(&self) {
        self.answered.store(true, Ordering::Relaxed);
    }

    /// Whether the peer has opened its stream, whatever becomes of it.
    #[must_use]
    pub fn has_answered(&self) -> bool {
        self.answered.load(Ordering::Relaxed)
    }

    pub(super) fn set_answered_elsewhere(&self, waits: bool) {
        // Told at every turn of the stream: a change is seldom.
        if self.answered_elsewhere.load(Ordering::Relaxed) != waits {
            self.answered_elsewhere.store(waits, Ordering::Relaxed);
        }
    }

    /// A pair stands on this stream; `receives` says in which direction.
    pub fn carries(&self, pair: &Pair, method: Method, tls: Option<TlsFacts<'_>>, receives: bool) {
        let mut facts = self.facts.lock();
        let now = Timestamp::now();
        facts.established.get_or_insert(now);
        facts.changed = Some(now);
        facts.method.get_or_insert(method);
        if let Some(tls) = tls {
            facts.tls_version = Some(tls.version);
            facts.tls_cipher = Some(tls.cipher);
            if let Some(certificate) = tls.peer_chain.first() {
                facts.peer_certificate_not_after = crate::tls::not_after(certificate).ok();
                facts.peer_key_sha256 = crate::tls::spki_sha256(certificate)
                    .ok()
                    .map(|key| key.to_string());
            }
        }
        let list = if receives {
            &mut facts.receives
        } else {
            &mut facts.sends
        };
        if !list.contains(pair) {
            list.reserve_exact(1);
            list.push(pair.clone());
        }
    }

    #[must_use]
    pub fn facts(&self) -> AuthInfo {
        self.facts.lock().clone()
    }

    pub fn set_bidirectional(&self) {
        self.bidirectional.store(true, Ordering::Relaxed);
    }

    #[must_use]
    pub fn is_bidirectional(&self) -> bool {
        self.bidirectional.load(Ordering::Relaxed)
    }

    pub fn set_acknowledged(&self) {
        self.acknowledged.store(true, Ordering::Relaxed);
    }

    #[must_use]
    pub fn is_acknowledged(&self) -> bool {
        self.acknowledged.load(Ordering::Relaxed)
    }

    /// It is one between a sidecar and an edge pod, who have proved to be these two. No stanza is of this pair.
    pub fn set_trunk(&self, ends: &Pair, tls: Option<TlsFacts<'_>>) {
        self.trunk.store(true, Ordering::Relaxed);
        self.carries(ends, Method::SaslOverTls, tls, true);
    }

    /// Whether it carries the pairs of a sidecar and an edge pod.
    #[must_use]
    pub fn is_trunk(&self) -> bool {
        self.trunk.load(Ordering::Relaxed)
    }

    /// Whether further pairs may ask for this stream ([`super::share`]).
    pub fn set_open(&self, open: bool) {
        self.open.store(open, Ordering::Relaxed);
    }

    #[must_use]
    pub fn is_open(&self) -> bool {
        self.open.load(Ordering::Relaxed)
    }

    /// Which way stanzas go that the initiator sends: `Inbound` is from a partner to inside.
    #[must_use]
    pub fn direction(&self) -> Direction {
        match (self.side, self.peer) {
            (Side::Partner, PeerRole::Client) | (Side::Gateway, PeerRole::Server) => {
                Direction::Inbound
            }
            (Side::Partner, PeerRole::Server) | (Side::Gateway, PeerRole::Client) => {
                Direction::Outbound
            }
        }
    }

    /// Totals taken from the peer.
    pub fn took(&self, stanzas: u64, bytes: u64) {
        if self.stanzas_in.swap(stanzas, Ordering::Relaxed) != stanzas {
            self.touch();
        }
        self.bytes_in.store(bytes, Ordering::Relaxed);
    }

    pub fn sent(&self, stanzas: u64, bytes: u64) {
        self.stanzas_out.fetch_add(stanzas, Ordering::Relaxed);
        self.bytes_out.fetch_add(bytes, Ordering::Relaxed);
        self.touch();
    }

    fn touch(&self) {
        let age = u64::try_from(self.opened.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last_stanza.store(age.max(1), Ordering::Relaxed);
    }

    /// How long ago the last stanza crossed, or the stream was opened.
    #[must_use]
    pub fn quiet(&self, now: Instant) -> Duration {
        let last = Duration::from_millis(self.last_stanza.load(Ordering::Relaxed));
        now.saturating_duration_since(self.opened + last)
    }

    #[must_use]
    pub fn last_stanza_time(&self) -> Option<Timestamp> {
        match self.last_stanza.load(Ordering::Relaxed) {
            0 => None,
            age => Some(self.opened_time + Duration::from_millis(age)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::fixture;

    #[test]
    fn five_thousand_streams_are_told_of_a_configuration_a_hundred_at_a_time() {
        let registry = StreamRegistry::default();
        let handles: Vec<_> = (0..5_000)
            .map(|_| {
                let handle = Arc::new(StreamHandle::default());
                registry.enter(Side::Partner, PeerRole::Client, None, Arc::clone(&handle));
                handle
            })
            .collect();
        let newly_told = || {
            let told = handles.iter().filter(|handle| handle.told().is_some());
            told.count()
        };
        let mut announcement = registry.announce(|| Command::ConfigChanged);
        let mut portions = vec![newly_told()];
        while !announcement.rest.as_slice().is_empty() {
            announcement.tell_next();
            portions.push(newly_told());
        }
        assert!(portions.iter().all(|told| *told <= 100), "{portions:?}");
        assert_eq!(portions.iter().sum::<usize>(), 5_000);
        assert!(portions.len() <= PORTIONS, "{portions:?}");
    }

    /// So many own domains, and a partner with this limit of its own, or the pool's.
    fn of_domains(own: usize, limit: u32) -> ActiveConfig {
        fixture::active_config(|document| {
            let names = (0..own).map(|number| format!("x{number}.example"));
            document["domains"] = names.collect::<Vec<_>>().into();
            document["partners"][0]["connectionLimit"] = limit.into();
        })
    }

    /// How many streams of the partner are counted before one is refused.
    fn counted(config: &ActiveConfig) -> usize {
        let registry = StreamRegistry::default();
        let peer = DomainName::parse("x.partner.example").expect("valid");
        let mut quotas = Vec::new();
        while registry.has_room(config, &peer).is_ok() {
            quotas.push(registry.count(config, &peer).expect("there is room"));
        }
        assert!(registry.count(config, &peer).is_err());
        quotas.len()
    }

    #[test]
    fn the_pool_s_limit_leaves_room_for_each_pair_both_ways() {
        for (own, limit, streams) in [
            (1, 20, 20),
            (21, 20, 42),
            // Its own, said by whom it concerns.
            (21, 5, 5),
            (21, 50, 50),
            // And no more than all partners together.
            (5_000, 20, 1_000),
        ] {
            assert_eq!(counted(&of_domains(own, limit)), streams, "{own}, {limit}");
        }
    }

    #[test]
    fn a_few_streams_are_told_at_once() {
        let registry = StreamRegistry::default();
        let handle = Arc::new(StreamHandle::default());
        registry.enter(Side::Partner, PeerRole::Client, None, Arc::clone(&handle));
        drop(registry.announce(|| Command::ConfigChanged));
        assert!(handle.told().is_some());
    }
}
