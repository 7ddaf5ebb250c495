//! What a SUBSCRIBE asks for.

use thiserror::Error;

use crate::sip::{
    pidf,
    subscription::seconds,
    wire::{HeaderName, Parameterised, SipHeaders, split_list},
};

/// Package of presence (RFC 3856).
pub const EVENT: &str = "presence";
/// Where nothing is asked for (RFC 3856 section 6.4).
const DEFAULT_SECONDS: u32 = 3_600;
/// Shortest time but none (RFC 6665 section 4.2.1.1).
const LEAST_SECONDS: u32 = 60;
/// Longest: what a restart of the edge forgets is mended after so long at most.
const MOST_SECONDS: u32 = 900;

/// A SUBSCRIBE for presence that can be served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubscribeWish {
    /// 60 to 900; 0: it ends, or is asked once.
    pub seconds: u32,
    /// `id` of Event, which each NOTIFY has too (RFC 6665 section 8.2.1).
    pub event_id: Option<Box<str>>,
}

/// Why it cannot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Error)]
pub enum WishFault {
    #[error("another event than presence")]
    Event,
    #[error("PIDF is not among what is accepted")]
    Accept,
    #[error("a time below {LEAST_SECONDS} s")]
    TooBrief,
    #[error("a field that cannot be read")]
    Malformed,
}

impl WishFault {
    #[must_use]
    pub fn code(self) -> u16 {
        match self {
            Self::Event => 489,
            Self::Accept => 406,
            Self::TooBrief => 423,
            Self::Malformed => 400,
        }
    }

    /// The field that says what would be right.
    #[must_use]
    pub fn field(self) -> Option<(HeaderName, String)> {
        match self {
            Self::Event => Some((HeaderName::AllowEvents, EVENT.to_owned())),
            Self::Accept => Some((HeaderName::Accept, pidf::MEDIA_TYPE.to_owned())),
            Self::TooBrief => Some((HeaderName::MinExpires, LEAST_SECONDS.to_string())),
            Self::Malformed => None,
        }
    }
}

impl SubscribeWish {
    /// # Errors
    /// [`WishFault`].
    pub fn of_headers(headers: &SipHeaders) -> Result<Self, WishFault> {
        let one = |name| headers.only(name).map_err(|_| WishFault::Malformed);
        let event = one(HeaderName::Event)?.ok_or(WishFault::Event)?;
        let event = Parameterised::read(event).map_err(|_| WishFault::Event)?;
        if event.value != EVENT {
            return Err(WishFault::Event);
        }
        if !accepts(headers)? {
            return Err(WishFault::Accept);
        }
        let seconds = match one(HeaderName::Expires)? {
            None => DEFAULT_SECONDS,
            Some(text) => seconds(text).ok_or(WishFault::Malformed)?,
        };
        if (1..LEAST_SECONDS).contains(&seconds) {
            return Err(WishFault::TooBrief);
        }
        let event_id = event.parameters.token("id");
        let event_id = event_id.map_err(|_| WishFault::Malformed)?;
        Ok(Self {
            seconds: seconds.min(MOST_SECONDS),
            event_id: event_id.filter(|id| !id.is_empty()).map(Into::into),
        })
    }
}

/// Without Accept it is PIDF (RFC 3856 section 6.7).
fn accepts(headers: &SipHeaders) -> Result<bool, WishFault> {
    let mut has_any = false;
    for value in headers.all(HeaderName::Accept) {
        for range in split_list(value, ',').map_err(|_| WishFault::Malformed)? {
            has_any = true;
            let is_wild = range.starts_with("*/*") || range.starts_with("application/*");
            let named = Parameterised::read(range);
            if is_wild || named.is_ok_and(|it| it.value == pidf::MEDIA_TYPE) {
                return Ok(true);
            }
        }
    }
    Ok(!has_any)
}
