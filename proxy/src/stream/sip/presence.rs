//! Presence on one link, both ways: its requests with their answers, and what time brings. Who watches whom is known to
//! [`PartnersWatching`] and [`UsersWatching`].

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use xmpp_edge_crds::{
    edge_config::GatewaySip,
    jid::{BareJid, JidParts},
    verdict::Direction,
};

use super::{
    connection::LinkIo,
    figures::LinkFigures,
    link_settings::LinkMoment,
    outgoing::malformed_address,
    outward::Outward,
    users_watching::UsersWatching,
    watching_partners::{PartnerWish, PartnersWatching},
};
use crate::{
    routing::failure::{Failure, FailureKind},
    sip::{
        address::sip_uri,
        code::StatusCode,
        compose,
        ledger::SubscriptionLedger,
        method::SipMethod,
        notifier::{NotifyOutcome, NotifyTicket},
        presence::said_by,
        share::{SharedRoom, SipShare},
        subscription::seconds,
        transaction::{Answered, ClientTransactions, LinkConnection, Started},
        turns::TwoPeople,
        watcher::{AskOutcome, WatchRoom, WatchTicket},
        wire::{HeaderName, SipResponse},
    },
    telemetry::metrics::SubscriptionCounts,
    xml::{Element, StreamHeader, stanza::Stanza},
};

/// Requests in work, a quarter of them of one partner object: what nobody answers is in work for [`TIMEOUT`].
const IN_WORK: usize = 4_000;
/// How long an answer may take: timer F (RFC 3261 section 17.1.2.2).
const TIMEOUT: Duration = Duration::from_secs(32);

/// All subscriptions of one SIP server, both ways.
#[derive(Debug)]
pub(super) struct LinkPresence {
    pub(super) ledger: SubscriptionLedger,
    /// Users of partners who watch users of SIP.
    pub(super) partners: PartnersWatching,
    /// Users of SIP who watch users of partners.
    pub(super) users: UsersWatching,
    transactions: ClientTransactions<PresenceRequest>,
    room: SharedRoom,
    /// What the metrics have of it.
    counted: SubscriptionCounts,
    figures: Arc<LinkFigures>,
}

/// A request of ours that has no answer.
#[derive(Debug)]
enum PresenceRequest {
    Subscribe(WatchTicket),
    Notify(NotifyTicket),
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RequestEnd {
    Answered {
        code: StatusCode,
        expires: Option<u32>,
        min_expires: Option<u32>,
        retry_after: Option<u32>,
    },
    Unanswered,
    /// Its connection ended.
    Lost,
}

impl PresenceRequest {
    fn method(&self) -> SipMethod {
        match self {
            Self::Subscribe(_) => SipMethod::Subscribe,
            Self::Notify(_) => SipMethod::Notify,
        }
    }

    fn share(&self) -> &SipShare {
        match self {
            Self::Subscribe(ticket) => ticket.share(),
            Self::Notify(ticket) => ticket.share(),
        }
    }
}

impl LinkPresence {
    /// `tag` is ours, in all answers.
    pub(super) fn new(settings: &GatewaySip, tag: &str, figures: Arc<LinkFigures>) -> Self {
        Self {
            ledger: SubscriptionLedger::default(),
            partners: PartnersWatching::new(settings.presence_expires_seconds),
            users: UsersWatching::new(settings, tag),
            transactions: ClientTransactions::default(),
            room: SharedRoom::new(IN_WORK),
            counted: SubscriptionCounts::default(),
            figures,
        }
    }

    /// What a partner's user says to a user of SIP: neither a message nor an error.
    ///
    /// # Errors
    /// What is answered, where its like is.
    pub(super) fn take(
        &mut self,
        moment: &LinkMoment<'_>,
        outward: &mut Outward,
        stanza: &Stanza<'_>,
        header: &StreamHeader,
    ) -> Result<(), Failure> {
        let (from, to) = (stanza.from.as_deref(), stanza.to.as_deref());
        let bare = |text: Option<&str>| BareJid::of_full(text?).ok();
        let (Some(from), Some(to_bare)) = (bare(from), bare(to)) else {
            return Err(malformed_address());
        };
        let people = TwoPeople { from, to: to_bare };
        let resource = to.and_then(|to| JidParts::split(to).ok()?.resource);
        let Self {
            ledger,
            partners,
            users,
            ..
        } = self;
        let untranslated = || {
            let metrics = &moment.context.metrics;
            metrics.sip_untranslated(Direction::Inbound, "Presence");
        };
        let wish = match stanza.type_.as_deref() {
            Some("subscribe") => PartnerWish::Subscribe,
            Some("probe") => PartnerWish::Probe(resource),
            Some("unsubscribe") => PartnerWish::Unsubscribe,
            Some("subscribed") => {
                users.approved(moment, outward, ledger, &people);
                return Ok(());
            }
            Some("unsubscribed") => {
                users.withdrawn(moment, &people);
                return Ok(());
            }
            None | Some("unavailable") => {
                let element = Element::parse(stanza.bytes(), header).ok();
                let language = header.lang.as_deref();
                let said = element.and_then(|it| said_by(&it, language, Timestamp::now()));
                let is_kept =
                    said.is_some_and(|said| users.heard(moment, outward, ledger, &people, said));
                if !is_kept {
                    untranslated();
                }
                return Ok(());
            }
            Some(_) => {
                untranslated();
                return Ok(());
            }
        };
        // Whom neither side could name is nobody's to watch.
        if sip_uri(&people.from).is_err() || sip_uri(&people.to).is_err() {
            return Err(malformed_address());
        }
        match partners.wished(moment, outward, ledger, &people, wish) {
            WatchRoom::Taken => Ok(()),
            WatchRoom::Full => {
                let text = "the gateway watches as many people for this partner as it may";
                Err(Failure::new(FailureKind::QueueFull, text))
            }
        }
    }

    /// Writes what has its time, as far as the connection takes it.
    pub(super) fn ask(&mut self, moment: &LinkMoment<'_>, outward: &mut Outward, io: &mut LinkIo) {
        while io.takes_more() && !self.room.is_full() {
            if !self.write_notify(moment, io) && !self.write_subscribe(moment, outward, io) {
                break;
            }
        }
    }

    /// An answer came.
    pub(super) fn answered(
        &mut self,
        moment: &LinkMoment<'_>,
        outward: &mut Outward,
        response: &SipResponse,
    ) {
        let Answered::Final {
            code,
            since,
            ticket,
        } = self.transactions.answer(response)
        else {
            return;
        };
        let metrics = &moment.context.metrics;
        let method = response.method.as_str();
        metrics.sip_request(Direction::Inbound, method, Some(code.get()));
        metrics.sip_answered(Direction::Inbound, method, moment.now - since);
        let number = |name| response.headers.first(name).and_then(seconds);
        let end = RequestEnd::Answered {
            code,
            expires: number(HeaderName::Expires),
            min_expires: number(HeaderName::MinExpires),
            retry_after: number(HeaderName::RetryAfter),
        };
        self.ended(moment, outward, ticket, end);
    }

    /// What time brings.
    pub(super) fn on_time(&mut self, moment: &LinkMoment<'_>, outward: &mut Outward) {
        for ticket in self.transactions.expired(moment.now) {
            let metrics = &moment.context.metrics;
            metrics.sip_request(Direction::Inbound, ticket.method().as_str(), None);
            self.ended(moment, outward, ticket, RequestEnd::Unanswered);
        }
        let Self { ledger, .. } = self;
        self.partners.on_time(moment, outward, ledger);
        self.users.on_time(moment, outward, ledger);
    }

    /// When [`Self::on_time`] has something to do or, where requests `can_go`, [`Self::ask`].
    pub(super) fn next_deadline(&self, can_go: bool) -> Option<Instant> {
        let times = [
            self.transactions.next_deadline(),
            self.partners.next_alarm(),
            self.users.next_end(),
        ];
        let can_go = can_go && !self.room.is_full();
        let may = |share: &SipShare| self.room.has_room(share);
        let asks = [self.partners.next_ask(may), self.users.next_notify(may)];
        let asks = asks.into_iter().filter(|_| can_go);
        times.into_iter().chain(asks).flatten().min()
    }

    /// The connection that requests went out on is gone.
    pub(super) fn connection_lost(
        &mut self,
        moment: &LinkMoment<'_>,
        outward: &mut Outward,
        connection: LinkConnection,
    ) {
        for ticket in self.transactions.lost(connection) {
            self.ended(moment, outward, ticket, RequestEnd::Lost);
        }
        self.partners.server_away(moment.now);
    }

    /// Policy changed: who may not see each other any more does not.
    pub(super) fn follow_policy(&mut self, moment: &LinkMoment<'_>, outward: &mut Outward) {
        self.partners
            .follow_policy(moment, outward, &mut self.ledger);
        self.users.follow_policy(moment);
    }

    /// How many there are, to the metrics.
    pub(super) fn report(&mut self, moment: &LinkMoment<'_>) {
        let now = SubscriptionCounts {
            watcher: self.partners.counts(),
            notifier: self.users.counts(),
        };
        self.count(moment, now);
    }

    /// As [`Self::report`], once there are none any more.
    pub(super) fn report_end(&mut self, moment: &LinkMoment<'_>) {
        self.count(moment, SubscriptionCounts::default());
    }

    fn count(&mut self, moment: &LinkMoment<'_>, now: SubscriptionCounts) {
        if now != self.counted {
            let metrics = &moment.context.metrics;
            metrics.sip_subscriptions(self.counted, now);
            self.figures.show_subscriptions(now);
            self.counted = now;
        }
    }

    fn write_notify(&mut self, moment: &LinkMoment<'_>, io: &mut LinkIo) -> bool {
        let branch = compose::branch(&moment.config.dialback.new_stream_id());
        let by = moment.sent_by(&branch);
        let may = |share: &SipShare| self.room.has_room(share);
        match self.users.next_request(moment, &mut self.ledger, by, may) {
            None => false,
            Some(Ok((ticket, bytes))) => {
                io.write(&bytes);
                self.begin(moment, io.id, &branch, PresenceRequest::Notify(ticket));
                true
            }
            // It is gone: what its server said is longer than a line may be.
            Some(Err(_)) => true,
        }
    }

    fn write_subscribe(
        &mut self,
        moment: &LinkMoment<'_>,
        outward: &mut Outward,
        io: &mut LinkIo,
    ) -> bool {
        let branch = compose::branch(&moment.config.dialback.new_stream_id());
        let by = moment.sent_by(&branch);
        let may = |share: &SipShare| self.room.has_room(share);
        match self.partners.next_request(moment, by, may) {
            None => false,
            Some((ticket, Ok(bytes))) => {
                io.write(&bytes);
                self.begin(moment, io.id, &branch, PresenceRequest::Subscribe(ticket));
                true
            }
            Some((ticket, Err(_))) => {
                // An address that is longer than a line may be is nobody's.
                let end = RequestEnd::Answered {
                    code: StatusCode::ADDRESS_INCOMPLETE,
                    expires: None,
                    min_expires: None,
                    retry_after: None,
                };
                self.became(moment, outward, PresenceRequest::Subscribe(ticket), end);
                true
            }
        }
    }

    fn begin(
        &mut self,
        moment: &LinkMoment<'_>,
        connection: LinkConnection,
        branch: &str,
        ticket: PresenceRequest,
    ) {
        self.room.take(ticket.share());
        let begun = self.transactions.begin(Started {
            branch: branch.into(),
            method: ticket.method(),
            connection,
            at: moment.now,
            expires: moment.now + TIMEOUT,
            ticket,
        });
        debug_assert!(begun.is_ok(), "a branch of 128 random bits is used once");
    }

    /// What was in work ended so.
    fn ended(
        &mut self,
        moment: &LinkMoment<'_>,
        outward: &mut Outward,
        ticket: PresenceRequest,
        end: RequestEnd,
    ) {
        self.room.give_back(ticket.share());
        self.became(moment, outward, ticket, end);
    }

    fn became(
        &mut self,
        moment: &LinkMoment<'_>,
        outward: &mut Outward,
        ticket: PresenceRequest,
        end: RequestEnd,
    ) {
        let ledger = &mut self.ledger;
        match ticket {
            PresenceRequest::Subscribe(ticket) => {
                let outcome = match end {
                    RequestEnd::Answered {
                        code,
                        expires,
                        min_expires,
                        ..
                    } => AskOutcome::Answered {
                        code,
                        expires,
                        min_expires,
                    },
                    RequestEnd::Unanswered => AskOutcome::Unanswered,
                    RequestEnd::Lost => AskOutcome::Lost,
                };
                self.partners
                    .answered(moment, outward, ledger, &ticket, outcome);
            }
            PresenceRequest::Notify(ticket) => {
                let outcome = match end {
                    RequestEnd::Answered {
                        code, retry_after, ..
                    } => NotifyOutcome::Answered {
                        code,
                        retry_after: retry_after.map(|it| Duration::from_secs(it.into())),
                    },
                    RequestEnd::Unanswered => NotifyOutcome::Unanswered,
                    RequestEnd::Lost => NotifyOutcome::Lost,
                };
                self.users
                    .answered(ledger, ticket.number(), outcome, moment.now);
            }
        }
    }
}
