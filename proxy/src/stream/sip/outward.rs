//! Stanzas that a link makes of what came by SIP, on their way to a partner: judged and queued as those of any server
//! inside.

use std::{collections::HashMap, sync::Arc};

use xmpp_edge_crds::{
    negotiation::Method,
    verdict::{Direction, Reason},
};

use super::{link_settings::LinkMoment, linked_stanza::StanzaReader};
use crate::{
    negotiation::{Pair, Side},
    routing::{acknowledgement::AckTracker, batch::BatchBuilder},
    sip::turns::TwoPeople,
    stream::{
        carried::Carried,
        relay::{KnownAddresses, Owed},
    },
    telemetry::{
        log_limiter::limited,
        metrics::{OTHER, ReasonCounters},
    },
    xml::Element,
};

/// Pairs whose counters and routes are kept at hand. Who writes to more domains than these looks them up again.
const MOST_PAIRS: usize = 1_000;
/// Of a stanza that was made of one SIP message: each byte of it may have become an escape of six.
const STANZA_BYTES: usize = 2 * 1024 * 1024;

/// The way outwards.
#[derive(Debug)]
pub(super) struct Outward {
    pairs: HashMap<Pair, Carried>,
    reader: StanzaReader,
}

/// What became of a stanza.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OutwardOutcome {
    /// It is queued.
    Taken,
    /// Policy does not let it pass: where its like is answered, the answer is on its way back.
    Answered,
    /// Nobody may write to that domain. It was counted, and is the sender's to answer: there is no end of domains, and
    /// none of them leaves anything behind.
    Forbidden(Reason),
    /// The partner's queue is full. It was not taken.
    NoRoom,
    /// The scanner does not take it: the fault is the translator's. It was not taken.
    Malformed,
}

impl Default for Outward {
    fn default() -> Self {
        Self {
            pairs: HashMap::new(),
            reader: StanzaReader::new(STANZA_BYTES),
        }
    }
}

impl Outward {
    /// The configuration changed: partners may have other names.
    pub(super) fn config_changed(&mut self) {
        self.pairs.clear();
    }

    /// One stanza of this pair; `tracker` hears of it as of its stanza 0.
    pub(super) fn send(
        &mut self,
        moment: &LinkMoment<'_>,
        pair: &Pair,
        stanza: &Element,
        tracker: Option<&Arc<AckTracker>>,
    ) -> OutwardOutcome {
        if let Err(reason) = moment.config.policy.admit(pair.to.as_str()) {
            forbidden(moment, pair, stanza, reason);
            return OutwardOutcome::Forbidden(reason);
        }
        let bytes = stanza.to_bytes();
        if self.pairs.len() >= MOST_PAIRS && !self.pairs.contains_key(pair) {
            self.pairs.clear();
        }
        let (context, config) = (moment.context, moment.config);
        let carried = self.pairs.entry(pair.clone()).or_insert_with(|| {
            let (router, metrics) = (&context.router, &context.metrics);
            let method = Method::SaslOverTls;
            Carried::new(router, metrics, config, Side::Gateway, pair.clone(), method)
        });
        let Some((stanza, header)) = self.reader.stanza(&bytes) else {
            self.reader = StanzaReader::new(STANZA_BYTES);
            return OutwardOutcome::Malformed;
        };
        if !has_room(carried, moment, bytes.len()) {
            return OutwardOutcome::NoRoom;
        }
        carried.count(&stanza);
        let owed = Owed { tracker, number: 0 };
        let Some(passing) = moment
            .relay()
            .judge(carried, &stanza, KnownAddresses::Nothing, owed)
        else {
            return OutwardOutcome::Answered;
        };
        let mut builder = BatchBuilder::default();
        builder.add(0, bytes.len(), |out| passing.write(&stanza, header, out));
        if let Some(batch) = builder.take(tracker, moment.now) {
            context.router.enqueue(&carried.route, batch);
        }
        OutwardOutcome::Taken
    }
}

/// The pair that what one of them sends to the other is of.
pub(super) fn pair_of(people: &TwoPeople) -> Pair {
    Pair {
        from: people.from.domain().clone(),
        to: people.to.domain().clone(),
    }
}

/// Counts it, and says so in the log now and then.
fn forbidden(moment: &LinkMoment<'_>, pair: &Pair, stanza: &Element, reason: Reason) {
    let (context, partner) = (moment.context, moment.partner(&pair.to));
    let mut reasons = ReasonCounters::new(partner, Direction::Outbound);
    limited!(
        info,
        reasons.refused(&context.metrics, &context.log, reason.as_str()),
        partner = partner.unwrap_or(OTHER), direction = "outbound",
        kind = %stanza.name, reason = reason.as_str(),
        from = %stanza.attribute("from").unwrap_or_default().escape_debug(),
        to = %stanza.attribute("to").unwrap_or_default().escape_debug(),
        "refused"
    );
}

/// As of a stream: an empty queue takes any stanza, and who does not take his errors gets no more of them.
fn has_room(carried: &Carried, moment: &LinkMoment<'_>, bytes: usize) -> bool {
    let settings = &moment.config.document.settings;
    let bound = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
    let (limit, whole) = (
        bound(settings.queue_bytes),
        bound(settings.queue_total_bytes),
    );
    let held = carried.route.held();
    let fits = held == 0 || held + bytes <= limit;
    fits && !carried.share.is_full(whole) && carried.back.held() <= limit
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use xmpp_edge_crds::jid::BareJid;

    use super::{super::link_settings::fixture, *};
    use crate::{
        sip::presence::{PresenceType, presence_stanza},
        stream::context::StreamContext,
    };

    #[tokio::test]
    async fn sip_43_domains_of_nobody_make_no_routes() {
        let (context, _dials) = StreamContext::alone(fixture::sip_config());
        let config = context.config();
        let settings = fixture::sip_settings(&config);
        let moment = LinkMoment {
            context: &context,
            config: &config,
            settings: &settings,
            now: Instant::now(),
        };
        let mut outward = Outward::default();
        let mut send = |domain: &str| {
            let people = TwoPeople {
                from: BareJid::parse("alice@org.example").unwrap(),
                to: BareJid::parse(&format!("rob@{domain}")).unwrap(),
            };
            let stanza = presence_stanza(&people, PresenceType::Subscribe, "1");
            outward.send(&moment, &pair_of(&people), &stanza, None)
        };
        for number in 0..100 {
            let outcome = send(&format!("n{number}.nobody.example"));
            let refused = OutwardOutcome::Forbidden(Reason::PartnerNotAllowed);
            assert_eq!(outcome, refused);
        }
        assert!(context.router.all().is_empty());
        assert_eq!(send("a.partner.example"), OutwardOutcome::Taken);
        assert_eq!(context.router.all().len(), 2);
    }
}
