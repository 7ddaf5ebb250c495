//! Names of header fields.

/// The header fields that mean something to the gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HeaderName {
    Accept,
    Allow,
    AllowEvents,
    CallId,
    Contact,
    ContentEncoding,
    ContentLanguage,
    ContentLength,
    ContentType,
    CSeq,
    Date,
    Event,
    Expires,
    From,
    MaxForwards,
    MinExpires,
    MsConversationId,
    RecordRoute,
    Require,
    RetryAfter,
    Route,
    Subject,
    SubscriptionState,
    Supported,
    To,
    Unsupported,
    Via,
    Warning,
}

/// Each with its name and its compact form (RFC 3261 section 7.3.3, RFC 6665 section 8.4).
const NAMES: [(HeaderName, &str, &str); 28] = [
    (HeaderName::Accept, "Accept", ""),
    (HeaderName::Allow, "Allow", ""),
    (HeaderName::AllowEvents, "Allow-Events", "u"),
    (HeaderName::CallId, "Call-ID", "i"),
    (HeaderName::Contact, "Contact", "m"),
    (HeaderName::ContentEncoding, "Content-Encoding", "e"),
    (HeaderName::ContentLanguage, "Content-Language", ""),
    (HeaderName::ContentLength, "Content-Length", "l"),
    (HeaderName::ContentType, "Content-Type", "c"),
    (HeaderName::CSeq, "CSeq", ""),
    (HeaderName::Date, "Date", ""),
    (HeaderName::Event, "Event", "o"),
    (HeaderName::Expires, "Expires", ""),
    (HeaderName::From, "From", "f"),
    (HeaderName::MaxForwards, "Max-Forwards", ""),
    (HeaderName::MinExpires, "Min-Expires", ""),
    (HeaderName::MsConversationId, "Ms-Conversation-ID", ""),
    (HeaderName::RecordRoute, "Record-Route", ""),
    (HeaderName::Require, "Require", ""),
    (HeaderName::RetryAfter, "Retry-After", ""),
    (HeaderName::Route, "Route", ""),
    (HeaderName::Subject, "Subject", "s"),
    (HeaderName::SubscriptionState, "Subscription-State", ""),
    (HeaderName::Supported, "Supported", "k"),
    (HeaderName::To, "To", "t"),
    (HeaderName::Unsupported, "Unsupported", ""),
    (HeaderName::Via, "Via", "v"),
    (HeaderName::Warning, "Warning", ""),
];

impl HeaderName {
    /// The field of that name, in whatever case or compact; `None` for one that means nothing here.
    #[must_use]
    pub fn of_name(name: &str) -> Option<Self> {
        let is = |known: &str| !known.is_empty() && known.eq_ignore_ascii_case(name);
        let found = NAMES.iter().find(|(_, long, short)| is(long) || is(short));
        found.map(|(field, ..)| *field)
    }

    #[must_use]
    pub fn as_str(self) -> &'static str {
        let found = NAMES.iter().find(|(field, ..)| *field == self);
        found.map_or("", |(_, name, _)| name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_found_by_each_of_its_names() {
        for (field, long, short) in NAMES {
            assert_eq!(field.as_str(), long);
            for name in [
                long.to_owned(),
                long.to_ascii_uppercase(),
                short.to_owned(),
                short.to_ascii_uppercase(),
            ] {
                if !name.is_empty() {
                    assert_eq!(HeaderName::of_name(&name), Some(field), "{name}");
                }
            }
        }
        assert_eq!(HeaderName::of_name("P-Asserted-Identity"), None);
    }

    #[test]
    fn an_empty_name_is_no_compact_form() {
        assert_eq!(HeaderName::of_name(""), None);
    }
}
