//! What streams find out about peers that peers do not announce: whether they answer pings, and what
//! they end a stream over. Kept for an hour, how they write their names for a day; bounded.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use parking_lot::Mutex;
use xmpp_edge_crds::domain::{DomainName, NameForm};

use crate::negotiation::{Side, WireNames};

/// How long something holds that was found out.
const REMEMBERED: Duration = Duration::from_secs(3600);
/// As [`REMEMBERED`], of how a peer writes its name: that hardly ever changes.
const FORM_REMEMBERED: Duration = Duration::from_secs(24 * 3600);
/// Peers remembered. More are only had by partners with a wildcard: those are then asked anew.
const MOST: usize = 4_096;
/// Stanzas up to this size are never held back: XEP-0478 section 3 lets nobody take less.
pub const LEAST_BYTES: usize = 10_000;

/// Peers by side and domain.
#[derive(Debug)]
pub struct PeerMemory {
    peers: Mutex<HashMap<(Side, DomainName), KnownPeer>>,
    forms: Mutex<HashMap<(Side, DomainName), (Instant, NameForm)>>,
    /// Tells this process from others of the pool, in the ids of pings.
    pub process: [u8; 8],
}

#[derive(Clone, Copy, Debug)]
struct KnownPeer {
    noted: Instant,
    pings: PingAnswers,
    max_bytes: Option<u64>,
}

/// Whether a peer's server answers an XEP-0199 ping to where it was sent from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PingAnswers {
    #[default]
    Unknown,
    Comes,
    /// It came before, and then once did not.
    Doubtful,
    /// The answer does not come, or goes to another replica.
    Never,
}

impl Default for PeerMemory {
    fn default() -> Self {
        let mut process = [0; 8];
        // Where the system gives none, all replicas take each other's for their own: an answer to a
        // stream that is not there is dropped.
        let _ = SystemRandom::new().fill(&mut process);
        Self {
            peers: Mutex::default(),
            forms: Mutex::default(),
            process,
        }
    }
}

impl PeerMemory {
    #[must_use]
    pub fn pings(&self, side: Side, peer: &DomainName, now: Instant) -> PingAnswers {
        self.known(side, peer, now)
            .map_or(PingAnswers::Unknown, |known| known.pings)
    }

    /// A ping was answered, or not in time.
    pub fn note_ping(&self, side: Side, peer: &DomainName, answered: bool, now: Instant) {
        self.change(side, peer, now, |known| {
            known.pings = match (answered, known.pings) {
                (true, _) => PingAnswers::Comes,
                (false, PingAnswers::Comes) => PingAnswers::Doubtful,
                (false, _) => PingAnswers::Never,
            };
        });
    }

    /// The largest stanza that the peer takes, where it ended a stream over a larger one.
    #[must_use]
    pub fn max_bytes(&self, side: Side, peer: &DomainName, now: Instant) -> Option<u64> {
        self.known(side, peer, now)?.max_bytes
    }

    /// The peer ended a stream over a stanza of `bytes`: none as large goes there for a while.
    pub fn note_too_large(&self, side: Side, peer: &DomainName, bytes: usize, now: Instant) {
        let limit = bytes.saturating_sub(1).max(LEAST_BYTES) as u64;
        self.change(side, peer, now, |known| {
            known.max_bytes = Some(known.max_bytes.map_or(limit, |own| own.min(limit)));
        });
    }

    /// In which form that peer hosts its name: as it wrote it last, or took it.
    #[must_use]
    pub fn form(&self, side: Side, peer: &DomainName, now: Instant) -> Option<NameForm> {
        if !peer.is_international() {
            return None;
        }
        let (noted, form) = *self.forms.lock().get(&(side, peer.clone()))?;
        (now.saturating_duration_since(noted) < FORM_REMEMBERED).then_some(form)
    }

    /// The peer wrote its name so, or took it.
    pub fn note_form(&self, side: Side, peer: &DomainName, form: NameForm, now: Instant) {
        if !peer.is_international() {
            return;
        }
        let key = (side, peer.clone());
        let mut known = self.forms.lock();
        if known.len() >= MOST && !known.contains_key(&key) {
            known.retain(|_, (noted, _)| now.saturating_duration_since(*noted) < FORM_REMEMBERED);
            if known.len() >= MOST {
                return;
            }
        }
        known.insert(key, (now, form));
    }

    /// How names are written on a stream to `peer` from `local`: each as its own server has it, and with
    /// U-labels while nothing is known.
    #[must_use]
    pub fn names(
        &self,
        side: Side,
        peer: &DomainName,
        local: &DomainName,
        now: Instant,
    ) -> WireNames {
        WireNames {
            peer: self.form(side, peer, now).unwrap_or_default(),
            local: self.form(side.opposite(), local, now).unwrap_or_default(),
        }
    }

    fn known(&self, side: Side, peer: &DomainName, now: Instant) -> Option<KnownPeer> {
        let known = *self.peers.lock().get(&(side, peer.clone()))?;
        (now.saturating_duration_since(known.noted) < REMEMBERED).then_some(known)
    }

    fn change(
        &self,
        side: Side,
        peer: &DomainName,
        now: Instant,
        change: impl FnOnce(&mut KnownPeer),
    ) {
        let fresh = |known: &KnownPeer| now.saturating_duration_since(known.noted) < REMEMBERED;
        let mut peers = self.peers.lock();
        let key = (side, peer.clone());
        if peers.len() >= MOST && !peers.contains_key(&key) {
            peers.retain(|_, known| fresh(known));
            if peers.len() >= MOST {
                return;
            }
        }
        let nothing = KnownPeer {
            noted: now,
            pings: PingAnswers::Unknown,
            max_bytes: None,
        };
        let known = peers.entry(key).or_insert(nothing);
        if !fresh(known) {
            *known = nothing;
        }
        change(known);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_found_out_holds_for_an_hour_and_for_that_peer() {
        let (memory, now) = (PeerMemory::default(), Instant::now());
        let peer = |name: &str| DomainName::parse(name).expect("valid");
        let (one, other) = (peer("partner.example"), peer("other.example"));
        memory.note_too_large(Side::Partner, &one, 200_000, now);
        memory.note_too_large(Side::Partner, &one, 300_000, now);
        assert_eq!(memory.max_bytes(Side::Partner, &one, now), Some(199_999));
        assert_eq!(memory.max_bytes(Side::Partner, &other, now), None);
        assert_eq!(memory.max_bytes(Side::Gateway, &one, now), None);
        memory.note_too_large(Side::Partner, &one, 500, now);
        assert_eq!(
            memory.max_bytes(Side::Partner, &one, now),
            Some(LEAST_BYTES as u64)
        );
        assert_eq!(
            memory.max_bytes(Side::Partner, &one, now + REMEMBERED),
            None
        );
    }

    #[test]
    fn s3_how_a_peer_writes_its_name_holds_for_a_day_and_the_last_word_counts() {
        let (memory, now) = (PeerMemory::default(), Instant::now());
        let domain = |name: &str| DomainName::parse(name).expect("valid");
        let (peer, own) = (domain("bücher.example"), domain("mühlen.example"));
        let form = |now| memory.form(Side::Partner, &peer, now);
        assert_eq!(form(now), None);
        memory.note_form(Side::Partner, &peer, NameForm::Ascii, now);
        assert_eq!(form(now), Some(NameForm::Ascii));
        assert_eq!(form(now + FORM_REMEMBERED), None);
        assert_eq!(memory.form(Side::Gateway, &peer, now), None);
        let names = memory.names(Side::Partner, &peer, &own, now);
        assert_eq!(
            (names.peer, names.local),
            (NameForm::Ascii, NameForm::Letters)
        );
        memory.note_form(Side::Gateway, &own, NameForm::Ascii, now);
        let names = memory.names(Side::Partner, &peer, &own, now);
        assert_eq!(
            (names.peer, names.local),
            (NameForm::Ascii, NameForm::Ascii)
        );
        memory.note_form(Side::Partner, &peer, NameForm::Letters, now);
        assert_eq!(form(now), Some(NameForm::Letters));
        for number in 0..2 * MOST {
            let peer = domain(&format!("x{number}.bücher.example"));
            memory.note_form(Side::Partner, &peer, NameForm::Ascii, now);
        }
        assert_eq!(memory.forms.lock().len(), MOST);
        memory.note_form(Side::Gateway, &domain("org.example"), NameForm::Ascii, now);
        assert_eq!(
            memory.form(Side::Gateway, &domain("org.example"), now),
            None
        );
    }

    #[test]
    fn a_peer_that_answered_before_is_given_up_after_its_second_silence() {
        let (memory, now) = (PeerMemory::default(), Instant::now());
        let peer = DomainName::parse("partner.example").expect("valid");
        let pings = || memory.pings(Side::Partner, &peer, now);
        assert_eq!(pings(), PingAnswers::Unknown);
        memory.note_ping(Side::Partner, &peer, true, now);
        memory.note_ping(Side::Partner, &peer, false, now);
        assert_eq!(pings(), PingAnswers::Doubtful);
        memory.note_ping(Side::Partner, &peer, true, now);
        assert_eq!(pings(), PingAnswers::Comes);
        memory.note_ping(Side::Partner, &peer, false, now);
        memory.note_ping(Side::Partner, &peer, false, now);
        assert_eq!(pings(), PingAnswers::Never);
    }

    #[test]
    fn names_under_a_wildcard_fill_no_memory() {
        let (memory, now) = (PeerMemory::default(), Instant::now());
        for number in 0..3 * MOST {
            let peer = DomainName::parse(&format!("x{number}.partner.example")).expect("valid");
            memory.note_ping(Side::Partner, &peer, false, now);
        }
        assert_eq!(memory.peers.lock().len(), MOST);
    }
}
