//! Which presence crossed the edge, so that it can be taken back: when a policy forbids it, and when
//! a partner is gone. In memory, per replica, bounded; a restart forgets it.
//!
//! Bounds are in bytes: for all, for each partner object, and for each pair of users. A partner object takes
//! a third of what all leave free at most, as queues do: there is something left for whoever comes, however
//! many have taken theirs. What finds no room is not remembered, and costs nobody but the partner whose share
//! is used up.

use std::{
    collections::{BTreeSet, HashMap},
    hash::{BuildHasher, RandomState},
    num::NonZeroU64,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use xmpp_edge_crds::{domain::DomainName, verdict::Direction};

use super::{
    address::{NotedAddress, split_bare},
    own::{OwnAddress, OwnPresence},
    seen::{DomainPresence, Sighting, Users, contact_bytes, pair_bytes},
};
use crate::{
    config::ActiveConfig,
    negotiation::{Pair, Side},
    xml::stanza::{Stanza, StanzaKind},
};

/// Most bytes for all that is remembered.
pub const TOTAL_BYTES: usize = 64 << 20;
/// Most bytes for one partner object, where a third of what is free is more.
pub const SHARE_BYTES: usize = TOTAL_BYTES / 8;
/// A partner's domain without any stream for so long is gone, whoever ended the last.
pub const ABSENCE: Duration = Duration::from_secs(60);
/// Locks, by remote domain.
const SHARDS: usize = 16;
/// What a presence takes at most, but for the longest names.
const USUAL: usize = 4 << 10;
/// What a domain takes beside its presence.
const DOMAIN_OVERHEAD: usize = size_of::<(DomainName, RemoteDomain)>() + 96;

#[derive(Debug, Default)]
pub struct PresenceTracker {
    shards: [PresenceShard; SHARDS],
    hasher: RandomState,
    shares: Mutex<HashMap<String, Arc<PresenceShare>>>,
    total: AtomicUsize,
    /// Domains without a stream, by the time since when.
    absent: Mutex<BTreeSet<(Instant, DomainName)>>,
}

/// What one partner object takes.
#[derive(Debug, Default)]
struct PresenceShare {
    object: String,
    bytes: AtomicUsize,
}

#[derive(Debug, Default)]
struct PresenceShard {
    held: Mutex<HeldPresence>,
    /// How often something was remembered no longer; changed under the lock.
    losses: AtomicU64,
}

#[derive(Debug, Default)]
struct HeldPresence {
    domains: HashMap<DomainName, RemoteDomain>,
    users: Users,
}

/// A sender's presence is remembered, as it was noted, for as long as its shard loses nothing: the same again
/// needs no lock, and no look at its addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotedPresence(NonZeroU64);

impl NotedPresence {
    /// One of [`SHARDS`], and how much it had lost: in one word, as streams hold many.
    fn new(shard: u8, losses: u64) -> Self {
        Self(NonZeroU64::MIN | u64::from(shard) << 1 | losses << 8)
    }

    fn shard(self) -> usize {
        usize::from(self.0.get().to_le_bytes()[0] >> 1)
    }
}

#[derive(Debug, Default)]
struct RemoteDomain {
    /// Whose bytes these are; none while there are none.
    share: Option<Arc<PresenceShare>>,
    /// Streams with it that stand.
    streams: usize,
    /// Since when there is none.
    absent_since: Option<Instant>,
    seen: DomainPresence,
    /// Whose presence was taken back because the domain was gone or the policy forbade it: contact and
    /// user, to be probed when it is back or allowed again.
    withdrawn: BTreeSet<(Box<str>, Box<str>)>,
    /// What `withdrawn` takes.
    withdrawn_bytes: usize,
}

/// A stream with a remote domain stands, until this is dropped.
#[derive(Debug)]
pub struct Attendance {
    tracker: Arc<PresenceTracker>,
    domain: DomainName,
}

/// A domain that is gone.
#[derive(Debug)]
pub struct GoneDomain {
    pub domain: DomainName,
    /// Pairs of users whose presence is taken back.
    pub pairs: usize,
    /// `unavailable` to those inside.
    pub stanzas: Vec<OwnPresence>,
}

impl PresenceTracker {
    /// A presence passed between a user and somebody at the partner of this object. Of one that is remembered
    /// now, what [`Self::still_has`] takes.
    pub fn note(
        &self,
        object: Option<&str>,
        direction: Direction,
        stanza: &Stanza<'_>,
    ) -> Option<NotedPresence> {
        debug_assert_eq!(stanza.kind, StanzaKind::Presence);
        let from = NotedAddress::parse(stanza.from.as_deref()?)?;
        let to = NotedAddress::parse(stanza.to.as_deref()?)?;
        let (user, contact) = match direction {
            Direction::Outbound => (&from, &to),
            Direction::Inbound => (&to, &from),
        };
        let seen = Sighting {
            direction,
            user: &user.bare,
            contact: &contact.bare,
            from_resource: from.resource,
            to_resource: to.resource,
        };
        match stanza.type_.as_deref() {
            None => self.available(object, contact.domain(), seen),
            Some("unavailable") => {
                self.unavailable(contact.domain(), seen);
                None
            }
            _ => None,
        }
    }

    /// Whether an available presence that was noted, and comes again between the same addresses, is remembered
    /// still.
    #[must_use]
    pub fn still_has(&self, noted: NotedPresence) -> bool {
        let losses = noted.0.get() >> 8;
        let shard = self.shards.get(noted.shard());
        shard.is_some_and(|shard| shard.losses.load(Ordering::Acquire) == losses)
    }

    /// A stream with a partner's domain stands. Where its presence was taken back and is allowed by this
    /// configuration it is asked for again: the probes, on behalf of who had it.
    #[must_use]
    pub fn attend(
        self: &Arc<Self>,
        domain: &DomainName,
        config: &ActiveConfig,
    ) -> (Attendance, Vec<OwnPresence>) {
        let mut shard = self.shard(domain.as_str()).held.lock();
        let remote = shard.domains.entry(domain.clone()).or_default();
        remote.streams += 1;
        if let Some(since) = remote.absent_since.take() {
            self.absent.lock().remove(&(since, domain.clone()));
        }
        let probes = self.probes(remote, domain, config);
        self.forget_if_idle(&mut shard.domains, domain.as_str());
        drop(shard);
        let attendance = Attendance {
            tracker: Arc::clone(self),
            domain: domain.clone(),
        };
        (attendance, probes)
    }

    /// A configuration has come into force: the probes for presence of a domain that was taken back and
    /// is allowed now, where a stream with it stands.
    #[must_use]
    pub fn take_allowed(&self, domain: &DomainName, config: &ActiveConfig) -> Vec<OwnPresence> {
        let mut shard = self.shard(domain.as_str()).held.lock();
        let attended = |remote: &&mut RemoteDomain| remote.streams > 0;
        let Some(remote) = shard.domains.get_mut(domain).filter(attended) else {
            return Vec::new();
        };
        let probes = self.probes(remote, domain, config);
        self.forget_if_idle(&mut shard.domains, domain.as_str());
        probes
    }

    /// The next domain that has had no stream for [`ABSENCE`]: those inside who saw somebody there
    /// see him leave.
    pub fn next_gone(&self, now: Instant) -> Option<GoneDomain> {
        loop {
            let (_, domain) = {
                let mut absent = self.absent.lock();
                let (since, _) = absent.first()?;
                if now.saturating_duration_since(*since) < ABSENCE {
                    return None;
                }
                absent.pop_first()?
            };
            let gone = self.take_gone(domain);
            if !gone.stanzas.is_empty() {
                return Some(gone);
            }
        }
    }

    /// Domains of which anything is remembered.
    #[must_use]
    pub fn domains(&self) -> Vec<DomainName> {
        let known = |shard: &PresenceShard| {
            let shard = shard.held.lock();
            let domains = shard.domains.iter();
            let held = domains.filter(|(_, remote)| remote.share.is_some());
            held.map(|(domain, _)| domain.clone()).collect::<Vec<_>>()
        };
        self.shards.iter().flat_map(known).collect()
    }

    /// `unavailable` for all of a domain that this configuration forbids. Of a partner that is still one,
    /// those inside who saw somebody there are remembered, to see him again once they may. What stays is
    /// accounted to the partner object that has the domain now.
    #[must_use]
    pub fn take_forbidden(&self, domain: &DomainName, config: &ActiveConfig) -> Vec<OwnPresence> {
        let object = config.partner(domain).map(|partner| partner.name.as_str());
        let mut stanzas = Vec::new();
        let mut unseen: Vec<(Box<str>, Box<str>)> = Vec::new();
        let shard = self.shard(domain.as_str());
        let mut held = shard.held.lock();
        let HeldPresence { domains, users } = &mut *held;
        if let Some(remote) = domains.get_mut(domain) {
            let freed = remote.seen.take(
                domain,
                users,
                |user, _| !is_allowed(config, user, domain),
                |contact, user, direction, mut own| {
                    stanzas.append(&mut own);
                    if direction == Direction::Inbound && object.is_some() {
                        unseen.push((contact.into(), user.into()));
                    }
                },
            );
            shard.lost(freed > 0);
            self.release(remote, freed);
            if object.is_none() {
                self.forget_withdrawn(remote);
            }
            self.move_share(remote, domain, object);
            for (contact, user) in unseen {
                self.remember_withdrawn(remote, contact, user);
            }
            self.forget_if_idle(domains, domain.as_str());
        }
        stanzas
    }

    /// Memory held, in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.total.load(Ordering::Relaxed)
    }

    fn available(
        &self,
        object: Option<&str>,
        domain: &str,
        seen: Sighting<'_>,
    ) -> Option<NotedPresence> {
        let at = self.shard_of(domain);
        let shard = self.shards.get(usize::from(at))?;
        let mut held = shard.held.lock();
        let HeldPresence { domains, users } = &mut *held;
        let (remote, is_new) = match domains.get_mut(domain) {
            Some(remote) => (remote, false),
            None => {
                let name = DomainName::parse(domain).ok()?;
                (domains.entry(name).or_default(), true)
            }
        };
        let mut noted = None;
        let mut charged = true;
        if remote.share.is_none() {
            let share = self.share(object);
            charged = self.charge(&share, DOMAIN_OVERHEAD + domain.len());
            remote.share = charged.then_some(share);
        }
        if let Some(share) = remote.share.clone().filter(|_| charged) {
            // Who is there goes before who was.
            if !self.has_room(&share) {
                self.forget_withdrawn(remote);
            }
            let seen = remote
                .seen
                .available(users, seen, |bytes| self.charge(&share, bytes));
            shard.lost(seen.replaces);
            self.release(remote, seen.freed);
            let losses = shard.losses.load(Ordering::Relaxed);
            noted = seen.is_held.then(|| NotedPresence::new(at, losses));
        }
        if is_new {
            // Nothing may have been noted.
            self.forget_if_idle(domains, domain);
        }
        noted
    }

    fn unavailable(&self, domain: &str, seen: Sighting<'_>) {
        let shard = self.shard(domain);
        let mut held = shard.held.lock();
        let HeldPresence { domains, users } = &mut *held;
        if let Some(remote) = domains.get_mut(domain) {
            let freed = remote.seen.unavailable(users, seen);
            shard.lost(freed > 0);
            self.release(remote, freed);
            self.forget_if_idle(domains, domain);
        }
    }

    fn take_gone(&self, domain: DomainName) -> GoneDomain {
        let mut stanzas = Vec::new();
        let mut pairs: Vec<(Box<str>, Box<str>)> = Vec::new();
        let mut count = 0;
        let shard = self.shard(domain.as_str());
        let mut held = shard.held.lock();
        let HeldPresence { domains, users } = &mut *held;
        // A stream may have come since.
        if let Some(remote) = domains.get_mut(&domain).filter(|own| own.streams == 0) {
            remote.absent_since = None;
            let freed = remote.seen.take(
                &domain,
                users,
                |_, direction| direction == Direction::Inbound,
                |contact, user, _, mut own| {
                    stanzas.append(&mut own);
                    pairs.push((contact.into(), user.into()));
                },
            );
            shard.lost(freed > 0);
            self.release(remote, freed);
            count = pairs.len();
            for (contact, user) in pairs {
                self.remember_withdrawn(remote, contact, user);
            }
            self.forget_if_idle(domains, domain.as_str());
        }
        drop(held);
        GoneDomain {
            domain,
            pairs: count,
            stanzas,
        }
    }

    fn remember_withdrawn(&self, remote: &mut RemoteDomain, contact: Box<str>, user: Box<str>) {
        let bytes = contact_bytes(&contact) + pair_bytes(&user);
        let share = remote.share.as_ref();
        if share.is_some_and(|share| self.charge(share, bytes)) {
            if remote.withdrawn.insert((contact, user)) {
                remote.withdrawn_bytes += bytes;
            } else {
                self.release(remote, bytes);
            }
        }
    }

    /// Takes out whose presence was taken back and is allowed now: asks for it on their behalf.
    fn probes(
        &self,
        remote: &mut RemoteDomain,
        domain: &DomainName,
        config: &ActiveConfig,
    ) -> Vec<OwnPresence> {
        let mut freed = 0;
        let mut probes = Vec::new();
        remote.withdrawn.retain(|(contact, user)| {
            if !is_allowed(config, user, domain) {
                return true;
            }
            freed += contact_bytes(contact) + pair_bytes(user);
            if let Ok(from) = DomainName::parse(split_bare(user).1) {
                let to = domain.clone();
                probes.push(OwnPresence {
                    side: Side::Partner,
                    pair: Pair { from, to },
                    from: OwnAddress::new(user, ""),
                    to: OwnAddress::new(contact, ""),
                    type_: "probe",
                });
            }
            false
        });
        remote.withdrawn_bytes -= freed;
        self.release(remote, freed);
        probes
    }

    fn forget_withdrawn(&self, remote: &mut RemoteDomain) {
        let bytes = std::mem::take(&mut remote.withdrawn_bytes);
        self.release(remote, bytes);
        remote.withdrawn.clear();
    }

    /// The last stream with a domain may have ended.
    fn leave(&self, domain: &DomainName) {
        let mut shard = self.shard(domain.as_str()).held.lock();
        let Some(remote) = shard.domains.get_mut(domain) else {
            return;
        };
        remote.streams -= 1;
        if remote.streams == 0 && !remote.seen.is_empty() {
            let now = Instant::now();
            remote.absent_since = Some(now);
            self.absent.lock().insert((now, domain.clone()));
        }
        self.forget_if_idle(&mut shard.domains, domain.as_str());
    }

    /// Gives back what a domain takes that nothing is remembered of, and forgets one without stream.
    fn forget_if_idle(&self, domains: &mut HashMap<DomainName, RemoteDomain>, domain: &str) {
        let Some(remote) = domains.get_mut(domain) else {
            return;
        };
        if !remote.seen.is_empty() || !remote.withdrawn.is_empty() {
            return;
        }
        if remote.share.is_some() {
            self.release(remote, DOMAIN_OVERHEAD + domain.len());
            remote.share = None;
        }
        if remote.streams == 0 {
            let since = remote.absent_since;
            if let Some((name, _)) = domains.remove_entry(domain)
                && let Some(since) = since
            {
                self.absent.lock().remove(&(since, name));
            }
        }
    }

    fn shard(&self, domain: &str) -> &PresenceShard {
        &self.shards[usize::from(self.shard_of(domain))]
    }

    fn shard_of(&self, domain: &str) -> u8 {
        let at = self.hasher.hash_one(domain) % SHARDS as u64;
        u8::try_from(at).unwrap_or_default()
    }

    fn share(&self, object: Option<&str>) -> Arc<PresenceShare> {
        let object = object.unwrap_or("other");
        let mut shares = self.shares.lock();
        if let Some(share) = shares.get(object) {
            return Arc::clone(share);
        }
        // Those of partners that nothing is remembered of any more.
        shares.retain(|_, share| Arc::strong_count(share) > 1);
        let share = Arc::new(PresenceShare {
            object: object.to_owned(),
            bytes: AtomicUsize::new(0),
        });
        shares.insert(object.to_owned(), Arc::clone(&share));
        share
    }

    /// Whether another presence of usual size fits.
    fn has_room(&self, share: &PresenceShare) -> bool {
        let own = share.bytes.load(Ordering::Relaxed) + USUAL;
        own <= most_of_share(self.total.load(Ordering::Relaxed) + USUAL)
    }

    fn charge(&self, share: &PresenceShare, bytes: usize) -> bool {
        let own = share.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        let total = self.total.fetch_add(bytes, Ordering::Relaxed) + bytes;
        let fits = own <= most_of_share(total);
        if !fits {
            share.bytes.fetch_sub(bytes, Ordering::Relaxed);
            self.total.fetch_sub(bytes, Ordering::Relaxed);
        }
        fits
    }

    fn release(&self, remote: &RemoteDomain, bytes: usize) {
        if let Some(share) = &remote.share {
            share.bytes.fetch_sub(bytes, Ordering::Relaxed);
            self.total.fetch_sub(bytes, Ordering::Relaxed);
        }
    }

    /// The domain belongs to this object now. It may be over its share by what it had before.
    fn move_share(&self, remote: &mut RemoteDomain, domain: &DomainName, object: Option<&str>) {
        let moves = remote
            .share
            .take_if(|share| share.object != object.unwrap_or("other"));
        if let Some(old) = moves {
            let own = DOMAIN_OVERHEAD + domain.as_str().len();
            let bytes = own + remote.seen.bytes() + remote.withdrawn_bytes;
            let share = self.share(object);
            old.bytes.fetch_sub(bytes, Ordering::Relaxed);
            share.bytes.fetch_add(bytes, Ordering::Relaxed);
            remote.share = Some(share);
        }
    }
}

impl PresenceShard {
    /// What was noted before may be remembered no longer. The lock is held.
    fn lost(&self, anything: bool) {
        if anything {
            self.losses.fetch_add(1, Ordering::Release);
        }
    }
}

/// What one partner object may take where all take `total`.
fn most_of_share(total: usize) -> usize {
    SHARE_BYTES.min(TOTAL_BYTES.saturating_sub(total) / 3)
}

/// Whether this configuration lets presence cross between a user and anybody of a domain.
fn is_allowed(config: &ActiveConfig, user: &str, domain: &DomainName) -> bool {
    let (local, own) = split_bare(user);
    let allowed = config.policy.allows(local, own, domain.as_str());
    allowed.is_ok()
}

impl Attendance {
    #[must_use]
    pub fn domain(&self) -> &DomainName {
        &self.domain
    }
}

impl Drop for Attendance {
    fn drop(&mut self) {
        self.tracker.leave(&self.domain);
    }
}

#[cfg(test)]
mod tests;
