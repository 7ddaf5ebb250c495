//! SIP's codes and XMPP's conditions (RFC 7247 section 7), with what the design departs in and why.

use crate::xml::stanza_error::{Condition, ErrorType};

/// Code of an answer, 100 to 699 (RFC 3261 section 7.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StatusCode(u16);

impl StatusCode {
    pub const TRYING: Self = Self(100);
    pub const OK: Self = Self(200);
    pub const ADDRESS_INCOMPLETE: Self = Self(484);

    /// `None` for what is no code.
    #[must_use]
    pub fn new(code: u16) -> Option<Self> {
        (100..=699).contains(&code).then_some(Self(code))
    }

    /// Of three digits, as a status line has them.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.len() == 3 && text.bytes().all(|byte| byte.is_ascii_digit());
        digits
            .then(|| text.parse().ok().and_then(Self::new))
            .flatten()
    }

    #[must_use]
    pub fn get(self) -> u16 {
        self.0
    }

    /// Whether more will follow.
    #[must_use]
    pub fn is_provisional(self) -> bool {
        self.0 < 200
    }

    #[must_use]
    pub fn is_success(self) -> bool {
        (200..300).contains(&self.0)
    }

    /// Our words for it: those of a server are never handed on. A code without words of its own has those
    /// of its class (RFC 3261 section 8.1.3.2).
    #[must_use]
    pub fn phrase(self) -> &'static str {
        let of = |code: u16| PHRASES.iter().find(|(known, _)| *known == code);
        let found = of(self.0).or_else(|| of(self.0 / 100 * 100));
        found.map_or("Unknown", |(_, phrase)| phrase)
    }
}

/// RFC 3261 section 21, RFC 6665, RFC 3903, RFC 3329, RFC 5360, RFC 5626, RFC 5839.
const PHRASES: &[(u16, &str)] = &[
    (100, "Trying"),
    (200, "OK"),
    (202, "Accepted"),
    (300, "Multiple Choices"),
    (301, "Moved Permanently"),
    (302, "Moved Temporarily"),
    (305, "Use Proxy"),
    (380, "Alternative Service"),
    (400, "Bad Request"),
    (401, "Unauthorized"),
    (402, "Payment Required"),
    (403, "Forbidden"),
    (404, "Not Found"),
    (405, "Method Not Allowed"),
    (406, "Not Acceptable"),
    (407, "Proxy Authentication Required"),
    (408, "Request Timeout"),
    (410, "Gone"),
    (413, "Request Entity Too Large"),
    (414, "Request-URI Too Long"),
    (415, "Unsupported Media Type"),
    (416, "Unsupported URI Scheme"),
    (420, "Bad Extension"),
    (421, "Extension Required"),
    (423, "Interval Too Brief"),
    (430, "Flow Failed"),
    (439, "First Hop Lacks Outbound Support"),
    (440, "Max-Breadth Exceeded"),
    (480, "Temporarily Unavailable"),
    (481, "Call/Transaction Does Not Exist"),
    (482, "Loop Detected"),
    (483, "Too Many Hops"),
    (484, "Address Incomplete"),
    (485, "Ambiguous"),
    (486, "Busy Here"),
    (487, "Request Terminated"),
    (488, "Not Acceptable Here"),
    (489, "Bad Event"),
    (491, "Request Pending"),
    (493, "Undecipherable"),
    (500, "Server Internal Error"),
    (501, "Not Implemented"),
    (502, "Bad Gateway"),
    (503, "Service Unavailable"),
    (504, "Server Time-out"),
    (505, "Version Not Supported"),
    (513, "Message Too Large"),
    (600, "Busy Everywhere"),
    (603, "Decline"),
    (604, "Does Not Exist Anywhere"),
    (606, "Not Acceptable"),
];

/// Who reads an error that comes from the inside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Audience {
    /// Users of a partner that an administrator named.
    Partner,
    /// Users of a Public partner: they learn nothing of who exists.
    Stranger,
}

/// An answer of the inside as XMPP says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TranslatedError {
    pub condition: Condition,
    pub error_type: ErrorType,
    /// The code and our words for it.
    pub text: Option<String>,
}

/// What a code says of the addressee.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tells {
    /// Whether there is one, or what they do: not for strangers.
    OfUser,
    OfRequest,
}

impl TranslatedError {
    /// What the sender of a stanza reads where its request got this code (RFC 7247 section 7.2); `None`
    /// for a code that is no failure.
    ///
    /// *Departs*: 3xx is told and never followed, without the address that it names, which may lead past
    /// policy; and no code makes the gateway authenticate itself, for it is a server.
    #[must_use]
    pub fn of_code(code: StatusCode, audience: Audience) -> Option<Self> {
        let (condition, error_type, tells) = meaning(code)?;
        if audience == Audience::Stranger && tells == Tells::OfUser {
            return Some(Self {
                condition: Condition::ServiceUnavailable,
                error_type: ErrorType::Cancel,
                text: None,
            });
        }
        Some(Self {
            condition,
            error_type,
            text: Some(format!("{} {}", code.get(), code.phrase())),
        })
    }
}

fn meaning(code: StatusCode) -> Option<(Condition, ErrorType, Tells)> {
    use Condition as C;
    use ErrorType::{Auth, Cancel, Modify, Wait};
    use Tells::{OfRequest, OfUser};
    Some(match code.get() {
        100..300 => return None,
        301 | 410 => (C::Gone, Cancel, OfUser),
        380 | 406 | 415 | 416 | 421 | 482 | 483 | 488 | 505 | 606 => {
            (C::NotAcceptable, Modify, OfRequest)
        }
        300..400 => (C::Redirect, Modify, OfRequest),
        401 => (C::NotAuthorized, Auth, OfRequest),
        403 => (C::Forbidden, Auth, OfUser),
        404 | 481 | 484 | 485 | 604 => (C::ItemNotFound, Cancel, OfUser),
        405 | 420 | 439 | 501 => (C::FeatureNotImplemented, Cancel, OfRequest),
        407 => (C::RegistrationRequired, Auth, OfRequest),
        408 | 504 => (C::RemoteServerTimeout, Wait, OfRequest),
        413 | 414 | 440 | 489 | 513 => (C::PolicyViolation, Modify, OfRequest),
        423 => (C::ResourceConstraint, Wait, OfRequest),
        430 | 480 | 486 | 487 | 600 | 603 => (C::RecipientUnavailable, Wait, OfUser),
        491 => (C::UnexpectedRequest, Wait, OfRequest),
        400..500 => (C::BadRequest, Modify, OfRequest),
        502 => (C::RemoteServerNotFound, Cancel, OfRequest),
        500..600 => (C::InternalServerError, Cancel, OfRequest),
        _ => (C::RecipientUnavailable, Wait, OfUser),
    })
}

/// The final answer to a request of the inside that the outside or policy did not take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FinalCode {
    pub code: StatusCode,
    /// Seconds after which it may be tried again.
    pub retry_after: Option<u32>,
}

impl FinalCode {
    /// Of the condition of a stanza error (RFC 7247 section 7.1); `None`: one that no RFC defines.
    ///
    /// *Departs*: no 6xx, which ends other branches, no 405, which takes the method from the address, no
    /// 401 and 407, which make clients log in, no 408 (RFC 4320 section 4.2), no 503, which servers take
    /// for the whole next hop, and no 3xx, for a partner would choose the address.
    #[must_use]
    pub fn of_condition(condition: Option<Condition>) -> Self {
        use Condition as C;
        let code = match condition {
            Some(
                C::BadRequest
                | C::JidMalformed
                | C::Conflict
                | C::UndefinedCondition
                | C::UnexpectedRequest
                | C::SubscriptionRequired,
            )
            | None => 400,
            Some(
                C::Forbidden
                | C::NotAllowed
                | C::PolicyViolation
                | C::NotAuthorized
                | C::RegistrationRequired,
            ) => 403,
            Some(C::ItemNotFound | C::RemoteServerNotFound) => 404,
            Some(C::NotAcceptable) => 406,
            Some(C::Gone | C::Redirect) => 410,
            Some(C::RecipientUnavailable | C::ServiceUnavailable) => 480,
            Some(C::InternalServerError | C::ResourceConstraint) => 500,
            Some(C::FeatureNotImplemented) => 501,
            Some(C::RemoteServerTimeout) => 504,
        };
        let full = condition == Some(C::ResourceConstraint);
        Self {
            code: StatusCode(code),
            retry_after: full.then_some(5),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn translated(code: u16, audience: Audience) -> Option<(&'static str, &'static str)> {
        let code = StatusCode::new(code).expect("a code");
        let error = TranslatedError::of_code(code, audience)?;
        Some((error.condition.as_str(), error.error_type.as_str()))
    }

    #[test]
    fn sip_21_each_code_has_its_condition_and_strangers_learn_nothing_of_users() {
        for (codes, expected, hidden) in [
            (&[300, 302, 305, 399][..], ("redirect", "modify"), false),
            (&[301, 410], ("gone", "cancel"), true),
            (&[400, 402, 493, 499, 424], ("bad-request", "modify"), false),
            (&[401], ("not-authorized", "auth"), false),
            (&[407], ("registration-required", "auth"), false),
            (&[403], ("forbidden", "auth"), true),
            (
                &[404, 481, 484, 485, 604],
                ("item-not-found", "cancel"),
                true,
            ),
            (
                &[380, 406, 415, 416, 421, 482, 483, 488, 505, 606],
                ("not-acceptable", "modify"),
                false,
            ),
            (
                &[413, 414, 440, 489, 513],
                ("policy-violation", "modify"),
                false,
            ),
            (&[423], ("resource-constraint", "wait"), false),
            (
                &[430, 480, 486, 487, 600, 603, 607, 699],
                ("recipient-unavailable", "wait"),
                true,
            ),
            (&[491], ("unexpected-request", "wait"), false),
            (
                &[500, 503, 580, 599],
                ("internal-server-error", "cancel"),
                false,
            ),
            (
                &[405, 420, 439, 501],
                ("feature-not-implemented", "cancel"),
                false,
            ),
            (&[502], ("remote-server-not-found", "cancel"), false),
            (&[408, 504], ("remote-server-timeout", "wait"), false),
        ] {
            for &code in codes {
                assert_eq!(
                    translated(code, Audience::Partner),
                    Some(expected),
                    "{code}"
                );
                let to_stranger = if hidden {
                    ("service-unavailable", "cancel")
                } else {
                    expected
                };
                assert_eq!(
                    translated(code, Audience::Stranger),
                    Some(to_stranger),
                    "{code}"
                );
            }
        }
        for code in [100, 199, 200, 202, 299] {
            assert_eq!(translated(code, Audience::Partner), None, "{code}");
        }
    }

    #[test]
    fn what_hides_a_user_says_nothing_more() {
        let code = |code| StatusCode::new(code).expect("a code");
        let error = TranslatedError::of_code(code(404), Audience::Stranger).expect("a failure");
        assert_eq!(error.text, None);
        let error = TranslatedError::of_code(code(404), Audience::Partner).expect("a failure");
        assert_eq!(error.text.as_deref(), Some("404 Not Found"));
        let error = TranslatedError::of_code(code(499), Audience::Partner).expect("a failure");
        assert_eq!(error.text.as_deref(), Some("499 Bad Request"));
    }

    #[test]
    fn sip_22_each_condition_has_its_code_and_none_that_speaks_of_more_than_it() {
        for (code, conditions) in [
            (
                400,
                "bad-request jid-malformed conflict undefined-condition unexpected-request \
                 subscription-required",
            ),
            (
                403,
                "forbidden not-allowed policy-violation not-authorized registration-required",
            ),
            (404, "item-not-found remote-server-not-found"),
            (406, "not-acceptable"),
            (410, "gone redirect"),
            (480, "recipient-unavailable service-unavailable"),
            (500, "internal-server-error resource-constraint"),
            (501, "feature-not-implemented"),
            (504, "remote-server-timeout"),
        ] {
            for name in conditions.split(' ') {
                let condition = Condition::of_name(name).expect(name);
                let of = FinalCode::of_condition(Some(condition));
                assert_eq!(of.code.get(), code, "{name}");
                assert_eq!(
                    of.retry_after,
                    (name == "resource-constraint").then_some(5),
                    "{name}"
                );
            }
        }
        assert_eq!(FinalCode::of_condition(None).code.get(), 400);
        for condition in Condition::ALL {
            let code = FinalCode::of_condition(Some(condition)).code.get();
            assert!(
                !matches!(code, 401 | 405 | 407 | 408 | 503 | 600..) && code >= 400,
                "{condition:?}"
            );
        }
    }

    #[test]
    fn a_code_is_three_digits_of_six_classes() {
        for text in ["", "20", "0200", "099", "700", "4 4", "+20", "٢٠٠"] {
            assert_eq!(StatusCode::parse(text), None, "{text}");
        }
        assert_eq!(StatusCode::parse("699").map(StatusCode::get), Some(699));
        assert_eq!(StatusCode::parse("200"), Some(StatusCode::OK));
    }

    #[test]
    fn every_code_has_words() {
        for code in 100..=699 {
            let phrase = StatusCode(code).phrase();
            assert_ne!(phrase, "Unknown", "{code}");
        }
    }
}
