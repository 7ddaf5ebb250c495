mod bounds;
mod ends;
mod watching;

use std::time::{Duration, Instant};

use xmpp_edge_crds::jid::BareJid;

use super::*;
use crate::sip::{
    code::StatusCode,
    dialog::{CallKey, DialogFault},
    ledger::{MAX_DIALOGS, SubscriptionLedger},
    pidf::{Availability, Note, ReadDevice, ReadPresence, Show},
    share::SipShare,
    subscription::SubscriptionState,
    turns::TwoPeople,
    wire::{Framed, Framer, SipRequest, StartLine},
};

/// Seconds that are asked for.
const ASKED: u32 = 1_800;

/// All watches of a server, and time as the test says.
struct Bench {
    ledger: SubscriptionLedger,
    watchers: Watchers,
    start: Instant,
    now: u64,
    calls: u32,
    /// The SUBSCRIBE that went last, and its call.
    ticket: Option<WatchTicket>,
    call: Option<CallKey>,
    cseq: u32,
}

fn people() -> TwoPeople {
    numbered(0)
}

fn numbered(number: usize) -> TwoPeople {
    let jid = |text: String| BareJid::parse(&text).expect("a JID");
    TwoPeople {
        from: jid(format!("r{number}@partner.example")),
        to: jid("u@org.example".to_owned()),
    }
}

fn word(output: &WatchOutput) -> String {
    match output {
        WatchOutput::Subscribed => "subscribed".to_owned(),
        WatchOutput::Unsubscribed => "unsubscribed".to_owned(),
        WatchOutput::Unavailable => "unavailable".to_owned(),
        WatchOutput::Approved => "approved".to_owned(),
        WatchOutput::Forget => "forget".to_owned(),
        WatchOutput::NotifyMissing => "no notify".to_owned(),
        WatchOutput::EventRefused(code) => format!("refused {}", code.get()),
        WatchOutput::AuthenticationDemanded(code) => format!("demanded {}", code.get()),
        WatchOutput::Device(device) => {
            let show = match &device.availability {
                Availability::Unavailable => "gone",
                Availability::Available { show, .. } => show.map_or("there", Show::as_str),
            };
            format!("{}:{show}", device.resource)
        }
    }
}

fn device(text: &str) -> ReadDevice {
    let (resource, show) = text.split_once(':').expect("a device");
    ReadDevice {
        resource: resource.to_owned(),
        availability: match show {
            "gone" => Availability::Unavailable,
            show => Availability::Available {
                show: Show::of_text(show),
                notes: Vec::new(),
                priority: 0,
            },
        },
    }
}

/// A document of these devices, as `a:there b:away`.
fn document(devices: &str) -> NotifiedPresence {
    NotifiedPresence::Document(ReadPresence {
        devices: devices.split_whitespace().map(device).collect(),
        left_out: 0,
    })
}

fn state(value: &str) -> SubscriptionState {
    let text =
        format!("NOTIFY sip:a SIP/2.0\r\nSubscription-State: {value}\r\nContent-Length: 0\r\n\r\n");
    match Framer::default().next(text.as_bytes()) {
        Ok(Some(Framed::Message { headers, .. })) => {
            SubscriptionState::of_headers(&headers).expect("a state")
        }
        other => panic!("{value}: {other:?}"),
    }
}

impl Bench {
    fn new() -> Self {
        Self {
            ledger: SubscriptionLedger::default(),
            watchers: Watchers::new(ASKED),
            start: Instant::now(),
            now: 0,
            calls: 0,
            ticket: None,
            call: None,
            cseq: 0,
        }
    }

    /// One that stands, with these devices; its call is the last.
    fn active(devices: &str) -> Self {
        let mut bench = Self::new();
        bench.subscribes();
        bench.asks();
        bench.answers(200);
        bench.notifies("active;expires=1800", document(devices));
        bench
    }

    fn moment(&self) -> WatchMoment {
        WatchMoment {
            now: self.start + Duration::from_secs(self.now),
            jitter: 0.0,
        }
    }

    fn share(&self) -> SipShare {
        self.ledger.share(Some("partner"))
    }

    fn step<T>(&mut self, act: impl FnOnce(&mut Watchers, &mut WatchStep<'_>) -> T) -> Vec<String> {
        let mut events = Vec::new();
        let moment = self.moment();
        let mut step = WatchStep {
            ledger: &mut self.ledger,
            moment,
            events: &mut events,
        };
        act(&mut self.watchers, &mut step);
        let said = events.iter().flat_map(|event| &event.said);
        said.map(word).collect()
    }

    fn subscribes(&mut self) -> Vec<String> {
        let share = self.share();
        self.step(|watchers, step| watchers.subscribe(step, &people(), share))
    }

    fn probes(&mut self, resource: Option<&str>) -> Vec<String> {
        let share = self.share();
        self.step(|watchers, step| watchers.probe(step, &people(), resource, share))
    }

    fn unsubscribes(&mut self) -> Vec<String> {
        self.step(|watchers, step| watchers.unsubscribe(step, &people()))
    }

    /// Time goes on; what it brings.
    fn waits(&mut self, until: u64) -> Vec<String> {
        self.now = until;
        self.step(Watchers::on_time)
    }

    /// The SUBSCRIBE that goes now, as `new 1800` or `in 0`.
    fn asks(&mut self) -> Option<String> {
        self.calls += 1;
        let call = CallKey {
            call_id: format!("call{}", self.calls).into(),
            tag: format!("tag{}", self.calls).into(),
        };
        let (ticket, ask) = self.watchers.ask(|| call, self.moment(), |_| true)?;
        self.ticket = Some(ticket);
        Some(match ask.within {
            AskWithin::New(call) => {
                self.call = Some(call);
                format!("new {}", ask.expires)
            }
            AskWithin::Standing => format!("in {}", ask.expires),
        })
    }

    /// When the next SUBSCRIBE goes.
    fn next(&self) -> Option<u64> {
        let at = self.watchers.next_ask(|_| true)?;
        Some(at.saturating_duration_since(self.start).as_secs())
    }

    fn ends(&mut self, outcome: AskOutcome) -> Vec<String> {
        let ticket = self.ticket.clone().expect("one went");
        self.step(|watchers, step| watchers.answered(step, &ticket, outcome))
    }

    fn answers(&mut self, code: u16) -> Vec<String> {
        self.answers_with(code, None, None)
    }

    fn answers_with(
        &mut self,
        code: u16,
        expires: Option<u32>,
        min_expires: Option<u32>,
    ) -> Vec<String> {
        let code = StatusCode::new(code).expect("a code");
        self.ends(AskOutcome::Answered {
            code,
            expires,
            min_expires,
        })
    }

    fn notify(&mut self, from_tag: &str) -> SipRequest {
        self.cseq += 1;
        let call = self.call.clone().expect("one went");
        let text = format!(
            "NOTIFY sip:hq.example SIP/2.0\r\nVia: SIP/2.0/TLS a;branch=z9hG4bKa\r\n\
             From: <sip:u@org.example>;tag={from_tag}\r\nTo: <sip:r@partner.example>;tag={}\r\n\
             Call-ID: {}\r\nCSeq: {} NOTIFY\r\nContact: <sip:pa.org.example>\r\n\
             Content-Length: 0\r\n\r\n",
            call.tag, call.call_id, self.cseq
        );
        match Framer::default().next(text.as_bytes()) {
            Ok(Some(Framed::Message {
                start: StartLine::Request { method, uri },
                headers,
                ..
            })) => SipRequest::read(method, uri, headers).expect("a request"),
            other => panic!("{other:?}"),
        }
    }

    fn takes(&mut self, from_tag: &str) -> Result<WatchNumber, DialogFault> {
        let (request, moment) = (self.notify(from_tag), self.moment());
        self.watchers
            .take_notify(&mut self.ledger, &request, moment)
    }

    fn notifies(&mut self, value: &str, presence: NotifiedPresence) -> Vec<String> {
        let number = self.takes("agent").expect("ours");
        self.step(|watchers, step| {
            let _ = watchers.notified(step, number, state(value), presence);
        })
    }

    fn is_forgotten(&self) -> bool {
        self.watchers.counts() == (0, 0)
            && self.ledger.total().dialogs == 0
            && self.ledger.total().presence_bytes == 0
            && self.watchers.next_ask(|_| true).is_none()
            && self.watchers.next_alarm().is_none()
    }
}

const NOTHING: [&str; 0] = [];
