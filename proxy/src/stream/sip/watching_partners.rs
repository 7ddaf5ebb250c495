//! Users of partners who watch users of SIP: what they ask, what NOTIFYs say, and what they are told.
//!
//! What follows from what is known to [`crate::sip::watcher`]. What is told goes the way of any stanza: nothing of
//! policy is decided here.

use std::{sync::Arc, time::Instant};

use xmpp_edge_crds::{domain::DomainName, jid::BareJid, verdict::Direction};

use super::{
    incoming::{Refused, notified_state},
    link_settings::LinkMoment,
    links::{LinkCommand, LinkHandle},
    outward::{Outward, OutwardOutcome, pair_of},
    server_notes,
};
use crate::{
    contacts::{ContactChange, ContactEvent, Contacts},
    sip::{
        address::sip_uri,
        code::StatusCode,
        compose::{RequestStart, SentBy},
        connection::ReceivedRequest,
        ledger::SubscriptionLedger,
        method::SipMethod,
        notifier::EVENT,
        pidf,
        presence::{PresenceType, device_stanza, presence_stanza},
        share::SipShare,
        subscription::SubscriptionState,
        turns::TwoPeople,
        watcher::{
            Ask, AskOutcome, AskWithin, NotifiedPresence, WatchEvent, WatchMoment, WatchNumber,
            WatchOutput, WatchRoom, WatchStep, WatchTicket, Watchers,
        },
        wire::{HeaderName, Parameterised, WriteFault},
    },
    stream::context::StreamContext,
    telemetry::log_limiter::limited,
};

/// All of one link.
#[derive(Debug)]
pub(super) struct PartnersWatching {
    watchers: Watchers,
    news: Vec<PresenceNews>,
    way: NotifyWay,
    /// How many contacts there were when those who watch were looked for.
    contacts: Option<usize>,
}

/// What the SIP server does not let the edge do, or lets it do again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PresenceNews {
    Refused {
        outcome: &'static str,
        code: StatusCode,
    },
    /// It granted a subscription, and no NOTIFY came.
    NotifyMissing,
    /// One came, after [`Self::NotifyMissing`].
    NotifyCame,
}

/// Whether NOTIFYs come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum NotifyWay {
    /// As far as anybody knows.
    Open,
    Missing,
}

/// What R asks of U by presence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PartnerWish<'a> {
    Subscribe,
    /// Of one device, or of all.
    Probe(Option<&'a str>),
    Unsubscribe,
}

impl PartnersWatching {
    pub(super) fn new(expires: u32) -> Self {
        Self {
            watchers: Watchers::new(expires),
            news: Vec::new(),
            way: NotifyWay::Open,
            contacts: None,
        }
    }

    /// R asks something of U.
    pub(super) fn wished(
        &mut self,
        moment: &LinkMoment<'_>,
        outward: &mut Outward,
        ledger: &mut SubscriptionLedger,
        people: &TwoPeople,
        wish: PartnerWish<'_>,
    ) -> WatchRoom {
        let share = ledger.share(moment.partner(people.from.domain()));
        self.step(moment, outward, ledger, |watchers, step| match wish {
            PartnerWish::Subscribe => watchers.subscribe(step, people, share),
            PartnerWish::Probe(resource) => watchers.probe(step, people, resource, share),
            PartnerWish::Unsubscribe => {
                watchers.unsubscribe(step, people);
                WatchRoom::Taken
            }
        })
    }

    /// A NOTIFY came: whose it is. It is answered before what it says is looked at.
    ///
    /// # Errors
    /// What is answered.
    pub(super) fn take_notify(
        &mut self,
        moment: &LinkMoment<'_>,
        ledger: &mut SubscriptionLedger,
        received: &ReceivedRequest,
    ) -> Result<(WatchNumber, SubscriptionState), Refused> {
        let request = &received.request;
        if !self.watchers.has_call(&request.call_id) {
            return Err(Refused::code(481));
        }
        let state = notified_state(received)?;
        let moment = watch_moment(moment.now);
        match self.watchers.take_notify(ledger, request, moment) {
            Ok(number) => {
                if self.way == NotifyWay::Missing {
                    self.way = NotifyWay::Open;
                    self.news.push(PresenceNews::NotifyCame);
                }
                Ok((number, state))
            }
            Err(fault) => Err(Refused::code(fault.code())),
        }
    }

    /// What it says.
    pub(super) fn notified(
        &mut self,
        moment: &LinkMoment<'_>,
        outward: &mut Outward,
        ledger: &mut SubscriptionLedger,
        number: WatchNumber,
        state: SubscriptionState,
        received: &ReceivedRequest,
    ) {
        let Some(people) = self.watchers.people(number) else {
            return;
        };
        let presence = presence_of(received, &people.to);
        let metrics = &moment.context.metrics;
        match &presence {
            NotifiedPresence::Document(document) if document.left_out > 0 => {
                metrics.sip_untranslated(Direction::Outbound, "Devices");
            }
            NotifiedPresence::Unreadable => {
                metrics.sip_untranslated(Direction::Outbound, "Document");
            }
            _ => {}
        }
        let room = self.step(moment, outward, ledger, |watchers, step| {
            watchers.notified(step, number, state, presence)
        });
        if room == WatchRoom::Full {
            metrics.sip_untranslated(Direction::Outbound, "NoRoom");
        }
    }

    /// The next SUBSCRIBE whose time has come, of those accounts that `may`.
    pub(super) fn next_request(
        &mut self,
        moment: &LinkMoment<'_>,
        by: SentBy<'_>,
        may: impl Fn(&SipShare) -> bool,
    ) -> Option<(WatchTicket, Result<Vec<u8>, WriteFault>)> {
        let call = || moment.fresh_call();
        let (ticket, ask) = self.watchers.ask(call, watch_moment(moment.now), may)?;
        let written = self.write(moment, &ticket, &ask, by);
        Some((ticket, written))
    }

    /// How a SUBSCRIBE ended.
    pub(super) fn answered(
        &mut self,
        moment: &LinkMoment<'_>,
        outward: &mut Outward,
        ledger: &mut SubscriptionLedger,
        ticket: &WatchTicket,
        outcome: AskOutcome,
    ) {
        self.step(moment, outward, ledger, |watchers, step| {
            watchers.answered(step, ticket, outcome);
        });
    }

    /// What time brings.
    pub(super) fn on_time(
        &mut self,
        moment: &LinkMoment<'_>,
        outward: &mut Outward,
        ledger: &mut SubscriptionLedger,
    ) {
        self.step(moment, outward, ledger, Watchers::on_time);
    }

    /// Policy changed.
    pub(super) fn follow_policy(
        &mut self,
        moment: &LinkMoment<'_>,
        outward: &mut Outward,
        ledger: &mut SubscriptionLedger,
    ) {
        self.step(moment, outward, ledger, |watchers, step| {
            watchers.follow_policy(step, |people| {
                moment.allows(&people.to, people.from.domain())
            });
        });
    }

    /// The link ends, and another may begin: what was told is taken back.
    pub(super) fn withdraw(
        &mut self,
        moment: &LinkMoment<'_>,
        outward: &mut Outward,
        ledger: &mut SubscriptionLedger,
    ) {
        self.step(moment, outward, ledger, Watchers::withdraw_all);
    }

    /// The connection with the server is gone.
    pub(super) fn server_away(&mut self, now: Instant) {
        self.watchers.server_away(now);
    }

    /// The server is there again, and may have forgotten what it knew.
    pub(super) fn server_back(&mut self, now: Instant) {
        self.watchers.server_back(now);
    }

    /// Whether contacts may tell of somebody who watches and is not known here.
    pub(super) fn misses_contacts(&self, context: &StreamContext) -> bool {
        self.contacts != Some(context.contacts.len())
    }

    /// Looks for those who watched before this link did; it is told of them. Beside, for contacts are many.
    pub(super) fn look(&mut self, context: &Arc<StreamContext>, link: &Arc<LinkHandle>) {
        self.contacts = Some(context.contacts.len());
        let (own, link) = (Arc::clone(context), Arc::clone(link));
        context.tasks.spawn_blocking(move || {
            let watched = watched_users(&own.contacts, &link.gateway.domains);
            link.task.tell(LinkCommand::Watched(watched));
        });
    }

    /// Those who watched before this link did, R and U of each: of them the server is asked again.
    pub(super) fn resume(
        &mut self,
        moment: &LinkMoment<'_>,
        outward: &mut Outward,
        ledger: &mut SubscriptionLedger,
        watched: Vec<TwoPeople>,
    ) {
        for people in watched {
            if !moment.allows(&people.to, people.from.domain()) {
                continue;
            }
            let share = ledger.share(moment.partner(people.from.domain()));
            let room = self.step(moment, outward, ledger, |watchers, step| {
                watchers.resume(step, &people, share)
            });
            if room == WatchRoom::Full {
                let metrics = &moment.context.metrics;
                metrics.sip_untranslated(Direction::Inbound, "NoRoom");
            }
        }
    }

    /// What the server does not let the edge do, since this was asked last.
    pub(super) fn take_news(&mut self) -> Vec<PresenceNews> {
        std::mem::take(&mut self.news)
    }

    pub(super) fn next_alarm(&self) -> Option<Instant> {
        self.watchers.next_alarm()
    }

    pub(super) fn next_ask(&self, may: impl Fn(&SipShare) -> bool) -> Option<Instant> {
        self.watchers.next_ask(may)
    }

    /// How many there are, and how many of them see somebody.
    pub(super) fn counts(&self) -> (usize, usize) {
        self.watchers.counts()
    }

    fn write(
        &mut self,
        moment: &LinkMoment<'_>,
        ticket: &WatchTicket,
        ask: &Ask,
        by: SentBy<'_>,
    ) -> Result<Vec<u8>, WriteFault> {
        let writer = match &ask.within {
            AskWithin::Standing => {
                let dialog = self.watchers.dialog_mut(ticket);
                let dialog = dialog.ok_or(WriteFault::RequestUri)?;
                dialog.begin(SipMethod::Subscribe, by)?
            }
            AskWithin::New(call) => {
                let people = self.watchers.people(ticket.number());
                let uri = |jid: Option<&BareJid>| jid.and_then(|jid| sip_uri(jid).ok());
                let uris = (uri(people.map(|it| &it.from)), uri(people.map(|it| &it.to)));
                let (Some(from), Some(to)) = uris else {
                    return Err(WriteFault::RequestUri);
                };
                RequestStart {
                    method: SipMethod::Subscribe,
                    uri: &to,
                    from: &from,
                    by,
                    tag: &call.tag,
                    call_id: &call.call_id,
                }
                .begin()?
            }
        };
        let writer = writer
            .field(HeaderName::Event, EVENT)?
            .field(HeaderName::Accept, pidf::MEDIA_TYPE)?
            .field(HeaderName::Expires, &ask.expires.to_string())?
            .field(HeaderName::Contact, &moment.settings.contact)?;
        Ok(writer.finish())
    }

    fn step<T>(
        &mut self,
        moment: &LinkMoment<'_>,
        outward: &mut Outward,
        ledger: &mut SubscriptionLedger,
        act: impl FnOnce(&mut Watchers, &mut WatchStep<'_>) -> T,
    ) -> T {
        let mut events = Vec::new();
        let mut step = WatchStep {
            ledger,
            moment: watch_moment(moment.now),
            events: &mut events,
        };
        let outcome = act(&mut self.watchers, &mut step);
        for WatchEvent { people, said } in events {
            for output in said {
                self.tell(moment, outward, &people, output);
            }
        }
        outcome
    }

    /// `people`: R and U.
    fn tell(
        &mut self,
        moment: &LinkMoment<'_>,
        outward: &mut Outward,
        people: &TwoPeople,
        output: WatchOutput,
    ) {
        let back = people.reversed();
        let plain = |of| presence_stanza(&back, of, &moment.config.dialback.new_stream_id());
        let stanza = match output {
            WatchOutput::Subscribed => plain(PresenceType::Subscribed),
            WatchOutput::Unsubscribed => plain(PresenceType::Unsubscribed),
            WatchOutput::Unavailable => plain(PresenceType::Unavailable),
            WatchOutput::Device(device) => device_stanza(&back, &device),
            WatchOutput::Approved => return remember(moment, people),
            WatchOutput::Forget => return,
            WatchOutput::EventRefused(code) => {
                let outcome = server_notes::EVENT;
                return self.news.push(PresenceNews::Refused { outcome, code });
            }
            WatchOutput::AuthenticationDemanded(code) => {
                let outcome = server_notes::AUTHENTICATION;
                return self.news.push(PresenceNews::Refused { outcome, code });
            }
            WatchOutput::NotifyMissing => {
                self.way = NotifyWay::Missing;
                return self.news.push(PresenceNews::NotifyMissing);
            }
        };
        if outward.send(moment, &pair_of(&back), &stanza, None) == OutwardOutcome::NoRoom {
            let metrics = &moment.context.metrics;
            metrics.sip_untranslated(Direction::Outbound, "NoRoom");
        }
    }
}

/// A partner probes at login alone (RFC 6121 section 4.3.1), and a SIP server has no roster for the edge: who watches is
/// kept among the contacts, whatever the partner's type. Its ends are seen where stanzas are judged.
fn remember(moment: &LinkMoment<'_>, people: &TwoPeople) {
    let change = ContactChange {
        user: people.to.to_string().into(),
        remote: people.from.to_string().into(),
        event: ContactEvent::UserLetsFollow,
    };
    if let Err(error) = moment.context.contacts.record(&change) {
        let partner = moment.partner(people.from.domain());
        limited!(
            warn,
            moment.context.log.lines("contact", partner, Direction::Outbound, error.label()),
            %error, user = %change.user.escape_debug(), "contact not recorded"
        );
    }
}

/// Who watches users of these domains, as the contacts know it: R and U of each.
fn watched_users(contacts: &Contacts, domains: &[DomainName]) -> Vec<TwoPeople> {
    let followed = contacts.followed(|user| {
        let domain = user.rsplit_once('@').map(|(_, domain)| domain);
        domain.is_some_and(|domain| domains.iter().any(|own| own.as_str() == domain))
    });
    let people = followed.into_iter().filter_map(|(user, remote)| {
        Some(TwoPeople {
            from: BareJid::parse(&remote).ok()?,
            to: BareJid::parse(&user).ok()?,
        })
    });
    people.collect()
}

fn watch_moment(now: Instant) -> WatchMoment {
    WatchMoment {
        now,
        jitter: crate::random::unit(),
    }
}

/// What a NOTIFY says of U.
fn presence_of(received: &ReceivedRequest, user: &BareJid) -> NotifiedPresence {
    let headers = &received.request.headers;
    if received.body.is_empty() {
        return NotifiedPresence::None;
    }
    let media_type = headers
        .first(HeaderName::ContentType)
        .and_then(|text| Parameterised::read(text).ok());
    if media_type.is_none_or(|it| it.value != pidf::MEDIA_TYPE) {
        return NotifiedPresence::Unreadable;
    }
    let language = headers.first(HeaderName::ContentLanguage);
    match pidf::read(&received.body, user, language) {
        Ok(document) => NotifiedPresence::Document(document),
        Err(fault) => {
            tracing::debug!(%fault, "a presence document that is not taken");
            NotifiedPresence::Unreadable
        }
    }
}
