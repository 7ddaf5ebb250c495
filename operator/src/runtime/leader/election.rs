//! Who leads, as a state machine: it is told answers and times and never sees a clock or a socket.
//!
//! The rules that make it safe: a lease is taken over only when it has not changed for its whole
//! duration by this process's own clock; every write carries the resourceVersion that it was decided
//! on; who leads stops at the renew deadline, counted from before its last successful write was
//! sent, and so ahead of anyone's taking over.

use std::time::Duration;

/// Times of an election. The defaults are those of client-go.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// How long others wait for a renewal.
    pub lease: Duration,
    /// When a leader that could not renew stops; shorter than `lease`.
    pub renew_deadline: Duration,
    /// Between tries.
    pub retry: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            lease: Duration::from_secs(15),
            renew_deadline: Duration::from_secs(10),
            retry: Duration::from_secs(2),
        }
    }
}

/// The lease as the API server holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseRecord {
    /// Empty: given up.
    pub holder: String,
    /// How often the holder changed.
    pub transitions: i32,
    /// What the holder promises to renew within.
    pub lease: Duration,
    pub version: String,
}

/// What to ask of the API server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    Get,
    /// There is none: only the first of several creates it.
    Create,
    /// Refused unless the lease still has this version.
    Replace {
        version: String,
        transitions: i32,
        /// Whether the holder changes.
        taken_over: bool,
    },
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LeaseAnswer {
    /// The lease as it is now.
    Is(LeaseRecord),
    Absent,
    /// Another form of it is there, or another created it.
    Conflict,
    /// No answer, or one that says nothing: the write may have been done or not.
    Failed,
}

/// What this process is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ElectionState {
    Following(Following),
    Leading(Leading),
    /// Led, and may not any more. It does not become anything else.
    Lost,
}

/// Watches the holder.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Following {
    /// The version last seen, and when it was first seen.
    seen: Option<(String, Duration)>,
    /// What to claim with next.
    claim: Option<Request>,
}

/// Acts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leading {
    version: String,
    transitions: i32,
    /// When acting ends unless renewed before.
    until: Duration,
    /// Whether a write's fate is unknown, so that the version is.
    unsure: bool,
    /// Whether the lease itself is gone.
    absent: bool,
}

/// An election as one process sees it. Times are since any fixed moment of its own clock.
#[derive(Clone, Debug)]
pub struct Election {
    identity: String,
    timing: Timing,
    state: ElectionState,
}

impl Election {
    /// `identity` is of this process alone.
    #[must_use]
    pub fn new(identity: String, timing: Timing) -> Self {
        Self {
            identity,
            timing,
            state: ElectionState::Following(Following::default()),
        }
    }

    /// Until when this process may act; `None` while it may not.
    #[must_use]
    pub fn acting_until(&self) -> Option<Duration> {
        match &self.state {
            ElectionState::Leading(leading) => Some(leading.until),
            _ => None,
        }
    }

    /// Whether it led and has to stop for good.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        self.state == ElectionState::Lost
    }

    /// Time passed: a leader past its deadline is none.
    pub fn at(&mut self, now: Duration) {
        if self.acting_until().is_some_and(|until| now >= until) {
            self.state = ElectionState::Lost;
        }
    }

    /// What to ask next.
    #[must_use]
    pub fn request(&self) -> Request {
        match &self.state {
            ElectionState::Following(following) => following.claim.clone().unwrap_or(Request::Get),
            ElectionState::Leading(leading) if leading.absent => Request::Create,
            ElectionState::Leading(leading) if leading.unsure => Request::Get,
            ElectionState::Leading(leading) => Request::Replace {
                version: leading.version.clone(),
                transitions: leading.transitions,
                taken_over: false,
            },
            ElectionState::Lost => Request::Get,
        }
    }

    /// Takes the answer to a request sent at `sent`; says how long to wait before the next.
    pub fn answer(
        &mut self,
        sent: Duration,
        now: Duration,
        request: &Request,
        answer: LeaseAnswer,
    ) -> Duration {
        self.at(now);
        let renewed = |record: &LeaseRecord, timing: &Timing| {
            ElectionState::Leading(Leading {
                version: record.version.clone(),
                transitions: record.transitions,
                until: sent + timing.renew_deadline,
                unsure: false,
                absent: false,
            })
        };
        match (&mut self.state, answer) {
            (ElectionState::Following(following), LeaseAnswer::Is(record)) => {
                if *request == Request::Get {
                    return following.observe(&self.identity, record, now, &self.timing);
                }
                self.state = renewed(&record, &self.timing);
                // The answer may have come too late to be of use.
                self.at(now);
                self.renew_after()
            }
            (ElectionState::Following(following), LeaseAnswer::Absent) => {
                following.claim = Some(Request::Create);
                Duration::ZERO
            }
            (ElectionState::Following(following), LeaseAnswer::Conflict | LeaseAnswer::Failed) => {
                following.claim = None;
                self.timing.retry
            }
            (ElectionState::Leading(leading), LeaseAnswer::Is(record))
                if *request == Request::Get =>
            {
                if record.holder == self.identity {
                    leading.version = record.version;
                    leading.transitions = record.transitions;
                    leading.unsure = false;
                    leading.absent = false;
                    Duration::ZERO
                } else {
                    self.state = ElectionState::Lost;
                    self.timing.retry
                }
            }
            (ElectionState::Leading(_), LeaseAnswer::Is(record)) => {
                self.state = renewed(&record, &self.timing);
                self.at(now);
                self.renew_after()
            }
            (ElectionState::Leading(leading), LeaseAnswer::Absent) => {
                leading.absent = true;
                Duration::ZERO
            }
            (ElectionState::Leading(leading), LeaseAnswer::Conflict) => {
                leading.unsure = true;
                leading.absent = false;
                Duration::ZERO
            }
            (ElectionState::Leading(leading), LeaseAnswer::Failed) => {
                leading.unsure = true;
                leading.absent = false;
                self.timing.retry
            }
            (ElectionState::Lost, _) => self.timing.retry,
        }
    }

    fn renew_after(&self) -> Duration {
        self.timing.lease / 3
    }
}

impl Following {
    fn observe(
        &mut self,
        me: &str,
        record: LeaseRecord,
        now: Duration,
        timing: &Timing,
    ) -> Duration {
        let since = match &self.seen {
            Some((version, since)) if *version == record.version => *since,
            _ => {
                self.seen = Some((record.version.clone(), now));
                now
            }
        };
        let lease = record.lease.max(timing.lease);
        let free = record.holder.is_empty() || record.holder == me || now >= since + lease;
        if free {
            let taken_over = record.holder != me;
            self.claim = Some(Request::Replace {
                version: record.version,
                transitions: record.transitions + i32::from(taken_over),
                taken_over,
            });
            return Duration::ZERO;
        }
        self.claim = None;
        timing.retry
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    /// An API server with one lease.
    #[derive(Default)]
    struct Server {
        lease: Option<LeaseRecord>,
        version: u64,
    }

    impl Server {
        fn handle(&mut self, from: &str, request: &Request) -> LeaseAnswer {
            let write = |server: &mut Self, transitions| {
                server.version += 1;
                let record = LeaseRecord {
                    holder: from.to_owned(),
                    transitions,
                    lease: Timing::default().lease,
                    version: server.version.to_string(),
                };
                server.lease = Some(record.clone());
                LeaseAnswer::Is(record)
            };
            match (request, &self.lease) {
                (Request::Get, None) => LeaseAnswer::Absent,
                (Request::Get, Some(record)) => LeaseAnswer::Is(record.clone()),
                (Request::Create, None) => write(self, 0),
                (
                    Request::Replace {
                        version,
                        transitions,
                        ..
                    },
                    Some(record),
                ) if record.version == *version => {
                    let transitions = *transitions;
                    write(self, transitions)
                }
                _ => LeaseAnswer::Conflict,
            }
        }
    }

    /// What happens to one exchange, in milliseconds.
    #[derive(Clone, Copy, Debug)]
    enum Fate {
        Answered {
            there: u64,
            back: u64,
        },
        /// The server never sees it.
        LostThere,
        /// The server does it; nobody hears.
        LostBack {
            there: u64,
        },
        /// The process stands still before it sends.
        Paused {
            pause: u64,
        },
    }

    /// A call without an answer ends after this.
    const GIVE_UP: u64 = 5_000;

    #[derive(Debug)]
    enum Event {
        Send(usize),
        Arrive(usize, u64, Request, Option<u64>),
        Return(usize, u64, Request, LeaseAnswer),
    }

    /// Runs electors against a server; after every event at most one may act.
    fn simulate(
        fates: &[Fate],
        electors: usize,
        until: u64,
    ) -> Result<Vec<Election>, TestCaseError> {
        let ms = Duration::from_millis;
        let mut server = Server::default();
        let mut all: Vec<Election> = (0..electors)
            .map(|index| Election::new(format!("e{index}"), Timing::default()))
            .collect();
        let mut agenda: std::collections::BTreeMap<(u64, u64), Event> = (0..electors)
            .map(|index| ((index as u64 * 7, index as u64), Event::Send(index)))
            .collect();
        let (mut serial, mut fates) = (electors as u64, fates.iter().copied().cycle());
        let mut plan = |agenda: &mut std::collections::BTreeMap<_, _>, at: u64, event| {
            serial += 1;
            agenda.insert((at, serial), event);
        };
        while let Some(((now, _), event)) = agenda.pop_first() {
            if now > until {
                break;
            }
            match event {
                Event::Send(index) => {
                    all[index].at(ms(now));
                    if all[index].is_lost() {
                        // The process exits, and starts again under another identity.
                        let next = all[index].identity.clone() + "'";
                        all[index] = Election::new(next, Timing::default());
                    }
                    let request = all[index].request();
                    match fates.next().unwrap_or(Fate::Answered { there: 5, back: 5 }) {
                        Fate::Answered { there, back } => {
                            plan(
                                &mut agenda,
                                now + there,
                                Event::Arrive(index, now, request, Some(back)),
                            );
                        }
                        Fate::LostThere => {
                            plan(
                                &mut agenda,
                                now + GIVE_UP,
                                Event::Return(index, now, request, LeaseAnswer::Failed),
                            );
                        }
                        Fate::LostBack { there } => {
                            plan(
                                &mut agenda,
                                now + there,
                                Event::Arrive(index, now, request, None),
                            );
                        }
                        Fate::Paused { pause } => {
                            plan(&mut agenda, now + pause, Event::Send(index))
                        }
                    }
                }
                Event::Arrive(index, sent, request, back) => {
                    let identity = all[index].identity.clone();
                    let answer = server.handle(&identity, &request);
                    let (at, answer) = match back {
                        Some(back) if now + back < sent + GIVE_UP => (now + back, answer),
                        _ => (now.max(sent + GIVE_UP), LeaseAnswer::Failed),
                    };
                    plan(&mut agenda, at, Event::Return(index, sent, request, answer));
                }
                Event::Return(index, sent, request, answer) => {
                    let wait = all[index].answer(ms(sent), ms(now), &request, answer);
                    plan(
                        &mut agenda,
                        now + wait.as_millis() as u64,
                        Event::Send(index),
                    );
                }
            }
            let acting = all
                .iter()
                .filter(|it| it.acting_until().is_some_and(|until| ms(now) < until));
            prop_assert!(acting.count() <= 1, "two act at {now}");
        }
        Ok(all)
    }

    fn any_fate() -> impl Strategy<Value = Fate> {
        prop_oneof![
            4 => (0_u64..3000, 0_u64..3000).prop_map(|(there, back)| Fate::Answered { there, back }),
            1 => Just(Fate::LostThere),
            1 => (0_u64..8000).prop_map(|there| Fate::LostBack { there }),
            1 => (0_u64..40_000).prop_map(|pause| Fate::Paused { pause }),
        ]
    }

    proptest! {
        #[test]
        fn never_do_two_act_at_once(fates in proptest::collection::vec(any_fate(), 1..80)) {
            simulate(&fates, 3, 300_000)?;
        }
    }

    #[test]
    fn one_leads_soon_and_stays() {
        let all = simulate(&[Fate::Answered { there: 3, back: 3 }], 3, 60_000).unwrap();
        let leading: Vec<_> = all
            .iter()
            .filter(|it| it.acting_until().is_some())
            .collect();
        assert_eq!(leading.len(), 1);
        assert_eq!(leading[0].identity, "e0");
    }

    #[test]
    fn a_dead_leaders_lease_is_taken_over_by_one_after_its_duration() {
        let timing = Timing::default();
        let mut server = Server::default();
        server.handle("dead", &Request::Create);
        let mut follower = Election::new("f".into(), timing);
        let (mut now, mut tries) = (Duration::ZERO, 0);
        while follower.acting_until().is_none() {
            let request = follower.request();
            let answer = server.handle("f", &request);
            now += follower.answer(now, now, &request, answer);
            tries += 1;
            assert!(tries < 20, "it never leads");
        }
        assert!(
            now >= timing.lease && now <= timing.lease + timing.retry + timing.lease / 3,
            "{now:?}"
        );
        assert_eq!(server.lease.unwrap().transitions, 1);
    }

    #[test]
    fn a_lease_given_up_is_taken_at_once() {
        let mut server = Server::default();
        server.handle("", &Request::Create);
        let mut follower = Election::new("f".into(), Timing::default());
        for _ in 0..2 {
            let request = follower.request();
            let answer = server.handle("f", &request);
            follower.answer(Duration::ZERO, Duration::ZERO, &request, answer);
        }
        assert!(follower.acting_until().is_some());
    }
}
