//! What a notifier says of a subscription, and what a watcher makes of it (RFC 6665 sections 4.1.3 and 8.2.3;
//! RFC 8048 section 5.2).

use std::time::Duration;

use crate::sip::wire::{HeaderName, Parameterised, SipHeaders, ValueFault};

/// Longest time that is believed, whoever says it: a day.
const MAX_SECONDS: u32 = 86_400;

/// Value of Subscription-State.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SubscriptionState {
    /// Seconds that are left, where it says so.
    Active { expires: Option<u32> },
    /// Nobody decided yet; and any state that is not known.
    Pending { expires: Option<u32> },
    Terminated {
        reason: EndReason,
        retry_after: Option<u32>,
    },
}

/// Why a subscription ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EndReason {
    Deactivated,
    Giveup,
    Invariant,
    NoResource,
    Probation,
    Rejected,
    Timeout,
    /// None, or one that is not known.
    Other,
}

/// What a watcher does once its subscription ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resumption {
    /// Subscribes again now.
    Now,
    /// Again after this time.
    After(Duration),
    /// Again later, each time later than the last: the notifier gave up and did not say for how long.
    Later,
    /// Never: the watched one does not want it, or is not.
    Never,
    /// Never, and all that is known stays true.
    Unneeded,
}

impl SubscriptionState {
    /// # Errors
    /// [`ValueFault`]: the field is malformed, or not there ([`ValueFault::Empty`]).
    pub fn of_headers(headers: &SipHeaders) -> Result<Self, ValueFault> {
        let text = headers.only(HeaderName::SubscriptionState);
        let text = text.map_err(|_| ValueFault::Several)?;
        let value = Parameterised::read(text.unwrap_or_default())?;
        let number = |name: &str| value.parameters.get(name).and_then(seconds);
        let reason = value.parameters.get("reason").unwrap_or_default();
        Ok(match value.value.as_str() {
            "active" => Self::Active {
                expires: number("expires"),
            },
            "terminated" => Self::Terminated {
                reason: EndReason::of_name(reason),
                retry_after: number("retry-after"),
            },
            _ => Self::Pending {
                expires: number("expires"),
            },
        })
    }
}

impl EndReason {
    fn of_name(name: &str) -> Self {
        match name.to_ascii_lowercase().as_str() {
            "deactivated" => Self::Deactivated,
            "giveup" => Self::Giveup,
            "invariant" => Self::Invariant,
            "noresource" => Self::NoResource,
            "probation" => Self::Probation,
            "rejected" => Self::Rejected,
            "timeout" => Self::Timeout,
            _ => Self::Other,
        }
    }

    /// What follows, where `retry_after` seconds were asked for.
    #[must_use]
    pub fn resumption(self, retry_after: Option<u32>) -> Resumption {
        let after = retry_after.map(|it| Resumption::After(Duration::from_secs(it.into())));
        match self {
            Self::Deactivated | Self::Timeout => Resumption::Now,
            Self::Giveup | Self::Probation => after.unwrap_or(Resumption::Later),
            Self::Other => after.unwrap_or(Resumption::Now),
            Self::NoResource | Self::Rejected => Resumption::Never,
            Self::Invariant => Resumption::Unneeded,
        }
    }
}

/// Seconds that a field says: Expires, Min-Expires, Retry-After with whatever stands behind its number (RFC
/// 3261 section 20.33). What is too large is a day (RFC 4475 section 3.1.2.4); `None` for no number.
#[must_use]
pub fn seconds(text: &str) -> Option<u32> {
    let end = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (digits, behind) = text.split_at(end);
    if digits.is_empty() || !behind.is_empty() && !behind.starts_with([' ', '\t', ';', '(']) {
        return None;
    }
    Some(digits.parse().unwrap_or(MAX_SECONDS).min(MAX_SECONDS))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sip::wire::{Framed, Framer};

    fn read(value: &str) -> Result<SubscriptionState, ValueFault> {
        let text = format!(
            "NOTIFY sip:a SIP/2.0\r\nSubscription-State: {value}\r\nContent-Length: 0\r\n\r\n"
        );
        match Framer::default().next(text.as_bytes()) {
            Ok(Some(Framed::Message { headers, .. })) => SubscriptionState::of_headers(&headers),
            other => panic!("{value}: {other:?}"),
        }
    }

    #[test]
    fn a_state_is_read_with_what_it_says() {
        let terminated = |reason, retry_after| {
            Ok(SubscriptionState::Terminated {
                reason,
                retry_after,
            })
        };
        for (value, expected) in [
            (
                "active;expires=1799",
                Ok(SubscriptionState::Active {
                    expires: Some(1_799),
                }),
            ),
            ("Active", Ok(SubscriptionState::Active { expires: None })),
            (
                "active;expires=x",
                Ok(SubscriptionState::Active { expires: None }),
            ),
            (
                "pending;expires=60",
                Ok(SubscriptionState::Pending { expires: Some(60) }),
            ),
            ("waiting", Ok(SubscriptionState::Pending { expires: None })),
            ("terminated", terminated(EndReason::Other, None)),
            (
                "terminated;reason=TimeOut",
                terminated(EndReason::Timeout, None),
            ),
            (
                "terminated;reason=giveup;retry-after=5",
                terminated(EndReason::Giveup, Some(5)),
            ),
            (
                "terminated;reason=\"rejected\"",
                terminated(EndReason::Rejected, None),
            ),
            (
                "terminated;reason=x;retry-after=99999999999",
                terminated(EndReason::Other, Some(MAX_SECONDS)),
            ),
            ("", Err(ValueFault::Empty)),
            ("active;expires=1;expires=2", Err(ValueFault::TwoParameters)),
            (
                "active\r\nSubscription-State: pending",
                Err(ValueFault::Several),
            ),
        ] {
            assert_eq!(read(value), expected, "{value}");
        }
    }

    #[test]
    fn sip_30_what_follows_an_end_is_what_its_reason_says() {
        use EndReason::{
            Deactivated, Giveup, Invariant, NoResource, Other, Probation, Rejected, Timeout,
        };
        let five = Resumption::After(Duration::from_secs(5));
        for (reason, without, with) in [
            (Deactivated, Resumption::Now, Resumption::Now),
            (Timeout, Resumption::Now, Resumption::Now),
            (Giveup, Resumption::Later, five),
            (Probation, Resumption::Later, five),
            (Other, Resumption::Now, five),
            (Rejected, Resumption::Never, Resumption::Never),
            (NoResource, Resumption::Never, Resumption::Never),
            (Invariant, Resumption::Unneeded, Resumption::Unneeded),
        ] {
            assert_eq!(reason.resumption(None), without, "{reason:?}");
            assert_eq!(reason.resumption(Some(5)), with, "{reason:?}");
        }
    }

    #[test]
    fn seconds_are_a_number_of_at_most_a_day() {
        for (text, expected) in [
            ("0", Some(0)),
            ("3600", Some(3_600)),
            ("18000;duration=3600", Some(18_000)),
            ("120 (I'm in a meeting)", Some(120)),
            ("949302838503028349304023988", Some(MAX_SECONDS)),
            ("-1", None),
            ("+1", None),
            ("1.5", None),
            ("", None),
            ("x", None),
        ] {
            assert_eq!(seconds(text), expected, "{text}");
        }
    }
}
