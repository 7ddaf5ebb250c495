//! What streams find out about peers that peers do not announce: whether they answer pings, and what
//! they end a stream over. Kept for an hour, how they write their names for a day; bounded. Gateways and listed
//! domains have their places, and each partner object a share for the names under its wildcards.

use std::time::{Duration, Instant};

use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use parking_lot::Mutex;
use xmpp_edge_crds::domain::{DomainName, NameForm};

use crate::{
    config::ActiveConfig,
    negotiation::{Side, WireNames},
    remembered::{Owner, Remembered},
    telemetry::attempts::AttemptPeer,
};

/// How long something holds that was found out.
const REMEMBERED: Duration = Duration::from_secs(3600);
/// As [`REMEMBERED`], of how a peer writes its name: that hardly ever changes.
const FORM_REMEMBERED: Duration = Duration::from_secs(24 * 3600);
/// Names remembered under the wildcards of one partner object, the newest: of at most 253 bytes each.
pub(super) const MADE_UP: usize = 256;
/// Stanzas up to this size are never held back: XEP-0478 section 3 lets nobody take less.
pub const LEAST_BYTES: usize = 10_000;

/// Peers by side and domain.
#[derive(Debug)]
pub struct PeerMemory {
    peers: Mutex<Remembered<(Side, DomainName), KnownPeer>>,
    forms: Mutex<Remembered<(Side, DomainName), NameForm>>,
    /// Tells this process from others of the pool, in the ids of pings.
    pub process: [u8; 8],
}

#[derive(Clone, Copy, Debug, Default)]
struct KnownPeer {
    pings: PingAnswers,
    max_bytes: Option<u64>,
}

/// Whose share it takes to remember something of a peer.
pub(super) fn owner_of<'a>(config: &'a ActiveConfig, side: Side, peer: &DomainName) -> Owner<'a> {
    match config.attempt_peer(side, peer) {
        AttemptPeer::Partner { listed: true, .. } | AttemptPeer::Gateway => Owner::Configuration,
        AttemptPeer::Partner {
            object,
            listed: false,
        } => Owner::Object(object),
        AttemptPeer::Stranger | AttemptPeer::NoGateway => Owner::Object(""),
    }
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
            peers: Mutex::new(Remembered::new(REMEMBERED, MADE_UP)),
            forms: Mutex::new(Remembered::new(FORM_REMEMBERED, MADE_UP)),
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
    pub fn note_ping(
        &self,
        config: &ActiveConfig,
        (side, peer): (Side, &DomainName),
        answered: bool,
        now: Instant,
    ) {
        self.change(config, (side, peer), now, |known| {
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
    pub fn note_too_large(
        &self,
        config: &ActiveConfig,
        (side, peer): (Side, &DomainName),
        bytes: usize,
        now: Instant,
    ) {
        let limit = bytes.saturating_sub(1).max(LEAST_BYTES) as u64;
        self.change(config, (side, peer), now, |known| {
            known.max_bytes = Some(known.max_bytes.map_or(limit, |own| own.min(limit)));
        });
    }

    /// In which form that peer hosts its name: as it wrote it last, or took it.
    #[must_use]
    pub fn form(&self, side: Side, peer: &DomainName, now: Instant) -> Option<NameForm> {
        if !peer.is_international() {
            return None;
        }
        self.forms.lock().get(&(side, peer.clone()), now).copied()
    }

    /// The peer wrote its name so, or took it.
    pub fn note_form(
        &self,
        config: &ActiveConfig,
        (side, peer): (Side, &DomainName),
        form: NameForm,
        now: Instant,
    ) {
        if peer.is_international() {
            let owner = owner_of(config, side, peer);
            let mut forms = self.forms.lock();
            forms.note(owner, (side, peer.clone()), form, now);
        }
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
        self.peers.lock().get(&(side, peer.clone()), now).copied()
    }

    fn change(
        &self,
        config: &ActiveConfig,
        (side, peer): (Side, &DomainName),
        now: Instant,
        change: impl FnOnce(&mut KnownPeer),
    ) {
        let owner = owner_of(config, side, peer);
        let mut peers = self.peers.lock();
        peers.change(owner, (side, peer.clone()), now, change);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::config::fixture;

    /// An organisation with a listed partner and two that have wildcards.
    fn config() -> ActiveConfig {
        fixture::active_config(|document| {
            let partners = document["partners"].as_array_mut().expect("a list");
            let mut another = |name: &str, domains: &[&str]| {
                let mut partner = partners[0].clone();
                partner["name"] = name.into();
                partner["domains"] = json!(domains);
                partners.push(partner);
            };
            another("wild", &["*.wild.example"]);
            another(
                "listed",
                &["partner.example", "other.example", "bücher.example"],
            );
        })
    }

    #[test]
    fn what_was_found_out_holds_for_an_hour_and_for_that_peer() {
        let (memory, now, config) = (PeerMemory::default(), Instant::now(), config());
        let peer = |name: &str| DomainName::parse(name).expect("valid");
        let (one, other) = (peer("partner.example"), peer("other.example"));
        memory.note_too_large(&config, (Side::Partner, &one), 200_000, now);
        memory.note_too_large(&config, (Side::Partner, &one), 300_000, now);
        assert_eq!(memory.max_bytes(Side::Partner, &one, now), Some(199_999));
        assert_eq!(memory.max_bytes(Side::Partner, &other, now), None);
        assert_eq!(memory.max_bytes(Side::Gateway, &one, now), None);
        memory.note_too_large(&config, (Side::Partner, &one), 500, now);
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
        let (memory, now, config) = (PeerMemory::default(), Instant::now(), config());
        let domain = |name: &str| DomainName::parse(name).expect("valid");
        let (peer, own) = (domain("bücher.example"), domain("mühlen.example"));
        let form = |now| memory.form(Side::Partner, &peer, now);
        assert_eq!(form(now), None);
        memory.note_form(&config, (Side::Partner, &peer), NameForm::Ascii, now);
        assert_eq!(form(now), Some(NameForm::Ascii));
        assert_eq!(form(now + FORM_REMEMBERED), None);
        assert_eq!(memory.form(Side::Gateway, &peer, now), None);
        let names = memory.names(Side::Partner, &peer, &own, now);
        assert_eq!(
            (names.peer, names.local),
            (NameForm::Ascii, NameForm::Letters)
        );
        memory.note_form(&config, (Side::Gateway, &own), NameForm::Ascii, now);
        let names = memory.names(Side::Partner, &peer, &own, now);
        assert_eq!(
            (names.peer, names.local),
            (NameForm::Ascii, NameForm::Ascii)
        );
        memory.note_form(&config, (Side::Partner, &peer), NameForm::Letters, now);
        assert_eq!(form(now), Some(NameForm::Letters));
    }

    #[test]
    fn a_peer_that_answered_before_is_given_up_after_its_second_silence() {
        let (memory, now, config) = (PeerMemory::default(), Instant::now(), config());
        let peer = DomainName::parse("partner.example").expect("valid");
        let pings = || memory.pings(Side::Partner, &peer, now);
        assert_eq!(pings(), PingAnswers::Unknown);
        memory.note_ping(&config, (Side::Partner, &peer), true, now);
        memory.note_ping(&config, (Side::Partner, &peer), false, now);
        assert_eq!(pings(), PingAnswers::Doubtful);
        memory.note_ping(&config, (Side::Partner, &peer), true, now);
        assert_eq!(pings(), PingAnswers::Comes);
        memory.note_ping(&config, (Side::Partner, &peer), false, now);
        memory.note_ping(&config, (Side::Partner, &peer), false, now);
        assert_eq!(pings(), PingAnswers::Never);
    }

    #[test]
    fn s01_names_under_a_wildcard_cost_their_own_partner_a_share_and_others_nothing() {
        let (memory, now, config) = (PeerMemory::default(), Instant::now(), config());
        let domain = |name: &str| DomainName::parse(name).expect("valid");
        let note = |side, name: &str| {
            let peer = domain(name);
            memory.note_ping(&config, (side, &peer), false, now);
            memory.note_form(&config, (side, &peer), NameForm::Ascii, now);
        };
        let is_known = |side, name: &str| {
            let pings = memory.pings(side, &domain(name), now);
            let form = memory.form(side, &domain(name), now);
            (pings == PingAnswers::Never, form.is_some())
        };
        note(Side::Partner, "bücher.partner.example");
        for number in 0..20 * MADE_UP {
            note(Side::Partner, &format!("x{number}.bücher.wild.example"));
            note(
                Side::Partner,
                &format!("x{number}.bücher.of-nobody.example"),
            );
        }
        assert_eq!(memory.peers.lock().len(), 1 + 2 * MADE_UP);
        assert_eq!(memory.forms.lock().len(), 1 + 2 * MADE_UP);
        assert_eq!(
            is_known(Side::Partner, "bücher.partner.example"),
            (true, true)
        );
        // Of the many the newest are known.
        for (number, expected) in [(20 * MADE_UP - 1, true), (0, false)] {
            let name = format!("x{number}.bücher.wild.example");
            assert_eq!(is_known(Side::Partner, &name), (expected, expected));
        }
        // Learnt after them: gateways, and who is listed.
        note(Side::Gateway, "org.example");
        note(Side::Partner, "bücher.example");
        assert_eq!(is_known(Side::Gateway, "org.example"), (true, false));
        assert_eq!(is_known(Side::Partner, "bücher.example"), (true, true));
    }
}
