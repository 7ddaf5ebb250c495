//! One subscription to a user of SIP on behalf of a user of XMPP (RFC 8048 section 5.2, RFC 6665 section 4.1): R, who
//! watches, and U, who is watched.
//!
//! Times, what R asks, answers and NOTIFYs in; what R is told, and when the next SUBSCRIBE goes, out. Who may watch
//! is the presence agent's to say: nothing is decided here.

use std::time::{Duration, Instant};

use super::{
    exchange::{
        Ask, AskOutcome, AskWithin, NotifiedPresence, WatchCause, WatchMoment, WatchOutput,
        WatchProgress,
    },
    state::{
        AfterLeave, Apart, Approval, Decision, LEAST_GRANTED, LeaveCause, Leaving, OpeningCall,
        PresenceWatchState, Refresh, StandingWatch, WatchHistory,
    },
    told::{ToldPresence, gone},
    trouble::Trouble,
};
use crate::sip::{
    code::StatusCode,
    dialog::{CallKey, Dialog},
    subscription::{Resumption, SubscriptionState},
};

/// A NOTIFY has to follow a SUBSCRIBE within this: timer N (RFC 6665 section 4.1.2.4).
const FIRST_NOTIFY: Duration = Duration::from_secs(32);
/// After so long without success nothing that is known is true any more.
pub(super) const STALE: Duration = Duration::from_secs(60);

/// A subscription.
#[derive(Debug)]
pub struct PresenceWatch {
    approval: Approval,
    history: WatchHistory,
    state: PresenceWatchState,
    told: ToldPresence,
    /// Seconds to ask for.
    expires: u32,
    trouble: Trouble,
}

impl PresenceWatch {
    /// `expires`: seconds to ask for; the first SUBSCRIBE goes at this time.
    #[must_use]
    pub fn new(cause: WatchCause, expires: u32, at: Instant) -> Self {
        let (approval, history) = match cause {
            WatchCause::Subscribe => (Approval::Asked, WatchHistory::New),
            WatchCause::Standing => (Approval::Given, WatchHistory::Stood),
        };
        Self {
            approval,
            history,
            state: PresenceWatchState::Apart(Apart { at }),
            told: ToldPresence::default(),
            expires,
            trouble: Trouble::default(),
        }
    }

    /// `subscribe` of R's.
    pub fn subscribed(&mut self, out: &mut Vec<WatchOutput>) {
        match &mut self.state {
            PresenceWatchState::Apart(_) | PresenceWatchState::Opening(_) => {
                self.approval = Approval::Asked
            }
            PresenceWatchState::Standing(standing) if standing.decision == Decision::Pending => {
                self.approval = Approval::Asked;
            }
            PresenceWatchState::Standing(_) | PresenceWatchState::Final => {
                out.push(WatchOutput::Subscribed);
                self.told.say_available(out);
            }
            PresenceWatchState::Leaving(leaving) => {
                leaving.then = AfterLeave::Anew;
                self.approval = Approval::Asked;
            }
        }
    }

    /// `probe` of R's, to one device or to all.
    pub fn probed(&mut self, resource: Option<&str>, out: &mut Vec<WatchOutput>) {
        let is_known = match &self.state {
            PresenceWatchState::Standing(standing) => standing.decision == Decision::Active,
            PresenceWatchState::Final => true,
            _ => self.told.is_available(),
        };
        if is_known && !self.told.say(resource, out) {
            // One device alone was asked for: nothing is said of the others.
            out.push(match resource {
                Some(resource) if self.told.is_available() => gone(resource.to_owned()),
                _ => WatchOutput::Unavailable,
            });
        }
    }

    /// `unsubscribe` of R's.
    pub fn unsubscribed(&mut self, moment: WatchMoment, out: &mut Vec<WatchOutput>) {
        self.leave(LeaveCause::Unsubscribed, moment, out);
    }

    /// Policy does not let them see each other any more.
    pub fn forbidden(&mut self, moment: WatchMoment, out: &mut Vec<WatchOutput>) {
        self.leave(LeaveCause::Forbidden, moment, out);
    }

    /// When the next SUBSCRIBE is to go.
    #[must_use]
    pub fn ask_at(&self) -> Option<Instant> {
        match &self.state {
            PresenceWatchState::Apart(apart) => Some(apart.at),
            PresenceWatchState::Standing(StandingWatch { refresh, .. })
            | PresenceWatchState::Leaving(Leaving { refresh, .. }) => match refresh {
                Refresh::At(at) => Some(*at),
                Refresh::InWork => None,
            },
            PresenceWatchState::Opening(_) | PresenceWatchState::Final => None,
        }
    }

    /// The SUBSCRIBE whose time has come goes out now; `fresh` is the name of a new call, should it be one.
    pub fn ask(&mut self, fresh: impl FnOnce() -> CallKey, moment: WatchMoment) -> Option<Ask> {
        match &mut self.state {
            PresenceWatchState::Apart(_) => {
                let call = fresh();
                self.state = PresenceWatchState::Opening(OpeningCall {
                    call: call.clone(),
                    notify_by: moment.now + FIRST_NOTIFY,
                    grant: None,
                });
                Some(Ask {
                    expires: self.expires,
                    within: AskWithin::New(call),
                })
            }
            PresenceWatchState::Standing(standing) => {
                standing.refresh = Refresh::InWork;
                Some(Ask {
                    expires: self.expires,
                    within: AskWithin::Standing,
                })
            }
            PresenceWatchState::Leaving(leaving) => {
                leaving.refresh = Refresh::InWork;
                Some(Ask {
                    expires: 0,
                    within: AskWithin::Standing,
                })
            }
            PresenceWatchState::Opening(_) | PresenceWatchState::Final => None,
        }
    }

    /// When [`Self::on_time`] has something to do.
    #[must_use]
    pub fn alarm_at(&self) -> Option<Instant> {
        let own = match &self.state {
            PresenceWatchState::Opening(opening) => Some(opening.notify_by),
            PresenceWatchState::Leaving(leaving) => Some(leaving.until),
            PresenceWatchState::Standing(standing) => Some(standing.ends),
            PresenceWatchState::Apart(_) | PresenceWatchState::Final => None,
        };
        let stale = self.trouble.since().filter(|_| self.told.is_available());
        let stale = stale.map(|since| since + STALE);
        own.into_iter().chain(stale).min()
    }

    /// What time brings.
    pub fn on_time(&mut self, moment: WatchMoment, out: &mut Vec<WatchOutput>) {
        let is_over = |at: Instant| at <= moment.now;
        let since = self.trouble.since();
        if since.is_some_and(|since| is_over(since + STALE)) {
            self.told.withdraw(out);
        }
        match &self.state {
            PresenceWatchState::Opening(opening) if is_over(opening.notify_by) => {
                // What was granted stays there for its time, whatever the edge does.
                let at = match opening.grant {
                    Some(_) => {
                        out.push(WatchOutput::NotifyMissing);
                        self.trouble.much_later(moment)
                    }
                    None => self.trouble.later(moment),
                };
                self.state = PresenceWatchState::Apart(Apart { at });
            }
            // Nothing was granted in all that time: what the other side has of it is over.
            PresenceWatchState::Standing(standing) if is_over(standing.ends) => self.anew(moment),
            PresenceWatchState::Leaving(leaving) if is_over(leaving.until) => {
                self.left(moment, out)
            }
            _ => {}
        }
    }

    /// The server has been away for too long.
    pub fn server_away(&mut self, out: &mut Vec<WatchOutput>) {
        self.told.withdraw(out);
    }

    /// The server is back, and may have forgotten: it is asked again at this time, or before.
    pub fn server_back(&mut self, at: Instant) {
        if let PresenceWatchState::Standing(standing) = &mut self.state
            && let Refresh::At(planned) = &mut standing.refresh
        {
            *planned = at.min(*planned);
        }
    }

    /// The dialog in which requests of ours go.
    pub fn dialog_mut(&mut self) -> Option<&mut Dialog> {
        match &mut self.state {
            PresenceWatchState::Standing(standing) => Some(&mut standing.dialog),
            PresenceWatchState::Leaving(leaving) => Some(&mut leaving.dialog),
            _ => None,
        }
    }

    #[must_use]
    pub fn dialog(&self) -> Option<&Dialog> {
        match &self.state {
            PresenceWatchState::Standing(standing) => Some(&standing.dialog),
            PresenceWatchState::Leaving(leaving) => Some(&leaving.dialog),
            _ => None,
        }
    }

    /// The call by which requests and answers of now are known.
    #[must_use]
    pub fn call_id(&self) -> Option<&str> {
        match &self.state {
            PresenceWatchState::Opening(opening) => Some(&opening.call.call_id),
            _ => self.dialog().map(Dialog::call_id),
        }
    }

    /// The call that waits for its first NOTIFY.
    #[must_use]
    pub fn opening(&self) -> Option<&CallKey> {
        match &self.state {
            PresenceWatchState::Opening(opening) => Some(&opening.call),
            _ => None,
        }
    }

    /// The first NOTIFY made this dialog (RFC 6665 section 4.4.1).
    pub fn opened(&mut self, dialog: Dialog, moment: WatchMoment) {
        let PresenceWatchState::Opening(opening) = &self.state else {
            return;
        };
        let granted = opening.grant;
        let lasts = granted.unwrap_or(Duration::from_secs(self.expires.into()));
        self.state = PresenceWatchState::Standing(StandingWatch {
            dialog,
            decision: Decision::Pending,
            refresh: granted.map_or(Refresh::InWork, |granted| {
                Refresh::At(Refresh::after(granted, moment))
            }),
            ends: moment.now + lasts.max(FIRST_NOTIFY),
        });
    }

    /// A NOTIFY of the dialog that stands.
    pub fn notified(
        &mut self,
        state: SubscriptionState,
        presence: NotifiedPresence,
        moment: WatchMoment,
        out: &mut Vec<WatchOutput>,
    ) {
        let PresenceWatchState::Standing(standing) = &mut self.state else {
            // What R does not want any more; its end is awaited by the answer to what was asked.
            return;
        };
        let expires = match state {
            SubscriptionState::Active { expires } | SubscriptionState::Pending { expires } => {
                expires
            }
            SubscriptionState::Terminated { .. } => None,
        };
        if let Some(seconds) = expires {
            // It may be shorter than what was granted, and is never counted anew (RFC 6665 section 4.1.3).
            let left = Duration::from_secs(seconds.into());
            standing.ends = moment.now + left.max(LEAST_GRANTED);
            if let Refresh::At(planned) = &mut standing.refresh {
                *planned = Refresh::after(left, moment).min(*planned);
            }
        }
        match state {
            SubscriptionState::Active { .. } => {
                if standing.decision == Decision::Pending {
                    out.push(WatchOutput::Approved);
                }
                standing.decision = Decision::Active;
                self.history = WatchHistory::Stood;
                self.trouble.success();
                self.approve(out);
                match presence {
                    NotifiedPresence::Document(document) => self.told.take(document, out),
                    NotifiedPresence::None => self.told.withdraw(out),
                    NotifiedPresence::Unreadable => {}
                }
            }
            SubscriptionState::Pending { .. } => {
                standing.decision = Decision::Pending;
                self.trouble.success();
                self.told.withdraw(out);
            }
            SubscriptionState::Terminated {
                reason,
                retry_after,
            } => self.terminated(reason.resumption(retry_after), presence, moment, out),
        }
    }

    /// The SUBSCRIBE of the call of now ended so.
    pub fn answered(
        &mut self,
        outcome: AskOutcome,
        moment: WatchMoment,
        out: &mut Vec<WatchOutput>,
    ) {
        match (&mut self.state, outcome) {
            (PresenceWatchState::Leaving(_), _) => self.left(moment, out),
            (
                PresenceWatchState::Opening(_) | PresenceWatchState::Standing(_),
                AskOutcome::Answered { code, expires, .. },
            ) if code.is_success() => {
                let asked = self.expires;
                self.granted(expires.unwrap_or(asked), moment);
            }
            (
                PresenceWatchState::Opening(_) | PresenceWatchState::Standing(_),
                AskOutcome::Answered {
                    code, min_expires, ..
                },
            ) => self.refused(code, min_expires, moment, out),
            (PresenceWatchState::Opening(_), _) => {
                self.state = PresenceWatchState::Apart(Apart {
                    at: self.later(outcome, moment),
                });
            }
            (PresenceWatchState::Standing(_), _) => {
                let at = self.later(outcome, moment);
                if let PresenceWatchState::Standing(standing) = &mut self.state {
                    standing.refresh = Refresh::At(at);
                }
            }
            (PresenceWatchState::Apart(_) | PresenceWatchState::Final, _) => {}
        }
    }

    /// How it stands; `None`: it is being left.
    #[must_use]
    pub fn standing(&self) -> Option<WatchProgress> {
        match &self.state {
            PresenceWatchState::Standing(standing) if standing.decision == Decision::Active => {
                Some(WatchProgress::Active)
            }
            PresenceWatchState::Final => Some(WatchProgress::Active),
            PresenceWatchState::Leaving(_) => None,
            _ => Some(WatchProgress::Pending),
        }
    }

    /// Bytes of what R was told.
    #[must_use]
    pub fn presence_bytes(&self) -> usize {
        self.told.bytes()
    }

    fn granted(&mut self, seconds: u32, moment: WatchMoment) {
        let granted = Duration::from_secs(seconds.into()).max(LEAST_GRANTED);
        match &mut self.state {
            PresenceWatchState::Opening(opening) => opening.grant = Some(granted),
            PresenceWatchState::Standing(standing) => {
                standing.refresh = Refresh::At(Refresh::after(granted, moment));
                standing.ends = moment.now + granted;
                self.trouble.success();
            }
            _ => {}
        }
    }

    fn refused(
        &mut self,
        code: StatusCode,
        min_expires: Option<u32>,
        moment: WatchMoment,
        out: &mut Vec<WatchOutput>,
    ) {
        if matches!(code.get(), 405 | 406 | 489 | 501) {
            out.push(WatchOutput::EventRefused(code));
        }
        if matches!(code.get(), 401 | 407) {
            out.push(WatchOutput::AuthenticationDemanded(code));
        }
        let stands = matches!(self.state, PresenceWatchState::Standing(_));
        match code.get() {
            423 if min_expires.is_some_and(|least| least > self.expires) => {
                self.expires = min_expires.unwrap_or(self.expires);
                match &mut self.state {
                    PresenceWatchState::Standing(standing) => {
                        standing.refresh = Refresh::At(moment.now)
                    }
                    _ => self.state = PresenceWatchState::Apart(Apart { at: moment.now }),
                }
            }
            // RFC 8048 section 5.2.2 has these.
            403 | 603 => self.rejected(out),
            489 if !stands => self.rejected(out),
            // The others say that there is nobody to watch, to who asks. Of whom U let watch they may say no more than that
            // U's phone is off.
            404 | 410 | 416 | 484 | 485 | 604 | 606 if !stands => match self.history {
                WatchHistory::New => self.rejected(out),
                WatchHistory::Stood => self.is_nowhere(moment, out),
            },
            606 if self.history == WatchHistory::New => self.rejected(out),
            // It ends the dialog (RFC 6665 section 4.1.2.2), whatever else it says of U: the next one is told.
            404 | 405 | 410 | 416 | 480..=485 | 489 | 501 | 604 if stands => self.anew(moment),
            481 => self.anew(moment),
            405 | 406 | 501 => {
                let at = self.trouble.in_an_hour(moment);
                self.state = PresenceWatchState::Apart(Apart { at });
            }
            _ => {
                let at = self.trouble.later(moment);
                match &mut self.state {
                    PresenceWatchState::Standing(standing) => standing.refresh = Refresh::At(at),
                    _ => self.state = PresenceWatchState::Apart(Apart { at }),
                }
            }
        }
    }

    fn terminated(
        &mut self,
        resumption: Resumption,
        presence: NotifiedPresence,
        moment: WatchMoment,
        out: &mut Vec<WatchOutput>,
    ) {
        match resumption {
            Resumption::Never => self.rejected(out),
            Resumption::Now => self.anew(moment),
            Resumption::After(pause) => {
                self.told.withdraw(out);
                self.state = PresenceWatchState::Apart(Apart {
                    at: moment.now + pause,
                });
            }
            Resumption::Later => {
                self.told.withdraw(out);
                let at = self.trouble.given_up(moment);
                self.state = PresenceWatchState::Apart(Apart { at });
            }
            Resumption::Unneeded => {
                if let NotifiedPresence::Document(document) = presence {
                    self.history = WatchHistory::Stood;
                    self.approve(out);
                    self.told.take(document, out);
                }
                self.state = PresenceWatchState::Final;
            }
        }
    }

    fn rejected(&mut self, out: &mut Vec<WatchOutput>) {
        self.told.withdraw(out);
        out.push(WatchOutput::Unsubscribed);
        out.push(WatchOutput::Forget);
    }

    /// U is on no device, and will be again.
    fn is_nowhere(&mut self, moment: WatchMoment, out: &mut Vec<WatchOutput>) {
        if self.told.is_available() {
            self.told.withdraw(out);
        } else if self.trouble.is_first() {
            // What R knows may be from before a restart.
            out.push(WatchOutput::Unavailable);
        }
        let at = self.trouble.later(moment);
        self.state = PresenceWatchState::Apart(Apart { at });
    }

    fn approve(&mut self, out: &mut Vec<WatchOutput>) {
        if self.approval == Approval::Asked {
            self.approval = Approval::Given;
            out.push(WatchOutput::Subscribed);
        }
    }

    /// The dialog is gone; another one is opened. What is known stays.
    fn anew(&mut self, moment: WatchMoment) {
        let at = self.trouble.anew(moment);
        self.state = PresenceWatchState::Apart(Apart { at });
    }

    /// When what failed is tried again.
    fn later(&mut self, outcome: AskOutcome, moment: WatchMoment) -> Instant {
        if outcome == AskOutcome::Lost {
            // It goes once there is a connection again.
            self.trouble.begins(moment);
            return moment.now;
        }
        self.trouble.later(moment)
    }

    fn leave(&mut self, cause: LeaveCause, moment: WatchMoment, out: &mut Vec<WatchOutput>) {
        self.told.withdraw(out);
        let state = std::mem::replace(&mut self.state, PresenceWatchState::Final);
        match state {
            PresenceWatchState::Standing(StandingWatch { dialog, .. }) => {
                self.state = PresenceWatchState::Leaving(Leaving {
                    dialog,
                    cause,
                    refresh: Refresh::At(moment.now),
                    until: moment.now + STALE,
                    then: AfterLeave::Forget,
                });
            }
            PresenceWatchState::Leaving(mut leaving) => {
                leaving.then = AfterLeave::Forget;
                if cause == LeaveCause::Unsubscribed {
                    leaving.cause = cause;
                }
                self.state = PresenceWatchState::Leaving(leaving);
            }
            // A NOTIFY that comes for it gets 481, which ends it there (RFC 6665 section 4.2.2).
            PresenceWatchState::Apart(_)
            | PresenceWatchState::Opening(_)
            | PresenceWatchState::Final => {
                if cause == LeaveCause::Unsubscribed {
                    out.push(WatchOutput::Unsubscribed);
                }
                out.push(WatchOutput::Forget);
            }
        }
    }

    fn left(&mut self, moment: WatchMoment, out: &mut Vec<WatchOutput>) {
        let PresenceWatchState::Leaving(leaving) = &self.state else {
            return;
        };
        match leaving.then {
            AfterLeave::Anew => self.state = PresenceWatchState::Apart(Apart { at: moment.now }),
            AfterLeave::Forget => {
                if leaving.cause == LeaveCause::Unsubscribed {
                    out.push(WatchOutput::Unsubscribed);
                }
                out.push(WatchOutput::Forget);
            }
        }
    }
}
