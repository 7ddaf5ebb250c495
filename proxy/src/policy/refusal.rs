//! What the refused side learns. A refusal never tells a partner more than an unknown user would.

use xmpp_edge_crds::verdict::{Direction, Reason};

use super::Cause;
use crate::xml::{
    stanza::StanzaKind,
    stanza_error::{Condition, ErrorType},
};

/// The `<error/>` to send back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StanzaError {
    pub error_type: ErrorType,
    pub condition: Condition,
    /// English, for people; free of markup.
    pub text: Option<&'static str>,
    /// Goes into `<policy xmlns='urn:xmpp-edge:errors:0' reason='…'/>`.
    pub reason: Option<Reason>,
}

/// What happens to a refused stanza's sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// `type='error'` on a message or iq.
    Error(StanzaError),
    /// `<presence type='error'/>`.
    PresenceError(StanzaError),
    /// Nothing is sent: counted only.
    Drop,
}

/// What the sender of a refused stanza learns; `type_` as it stands in the stanza.
#[must_use]
pub fn answer(direction: Direction, kind: StanzaKind, type_: Option<&str>, cause: Cause) -> Answer {
    match (kind, type_) {
        // Never answered, RFC 6120 section 8.3.1 and 8.2.3; an iq of unknown type is no request.
        (StanzaKind::Message, Some("error" | "headline")) => Answer::Drop,
        (StanzaKind::Message, _) | (StanzaKind::Iq, Some("get" | "set")) => {
            Answer::Error(error(direction, cause))
        }
        (StanzaKind::Iq, _) => Answer::Drop,
        (StanzaKind::Presence, Some("subscribe")) if direction == Direction::Outbound => {
            Answer::PresenceError(error(direction, cause))
        }
        (StanzaKind::Presence, None) if matches!(cause, Cause::Join(_)) => {
            Answer::PresenceError(error(direction, cause))
        }
        (StanzaKind::Presence, _) => Answer::Drop,
    }
}

fn error(direction: Direction, cause: Cause) -> StanzaError {
    let reason = match cause {
        Cause::Malformed | Cause::Unaddressed => {
            return StanzaError {
                error_type: ErrorType::Modify,
                condition: Condition::JidMalformed,
                text: None,
                reason: None,
            };
        }
        Cause::Faulty(error) => {
            return StanzaError {
                error_type: ErrorType::Modify,
                condition: if error.is_limit() {
                    Condition::PolicyViolation
                } else {
                    Condition::BadRequest
                },
                text: Some(error.as_text()),
                reason: None,
            };
        }
        // What a partner may not learn of the domains here, it learns in the words of any refusal.
        Cause::Misdirected => {
            let (condition, text) = match direction {
                Direction::Inbound => (Condition::ServiceUnavailable, None),
                Direction::Outbound => (
                    Condition::RemoteServerNotFound,
                    Some("The stanza came on a stream that was not opened for this domain."),
                ),
            };
            return StanzaError {
                error_type: ErrorType::Cancel,
                condition,
                text,
                reason: None,
            };
        }
        Cause::Rule(reason) | Cause::Join(reason) => reason,
    };
    if direction == Direction::Inbound {
        return StanzaError {
            error_type: ErrorType::Cancel,
            condition: Condition::ServiceUnavailable,
            text: None,
            reason: None,
        };
    }
    let condition = match reason {
        Reason::PartnerNotAllowed => Condition::RemoteServerNotFound,
        _ => Condition::NotAllowed,
    };
    StanzaError {
        error_type: ErrorType::Cancel,
        condition,
        text: Some(text(reason)),
        reason: Some(reason),
    }
}

/// What our own user reads: why, and who can change it.
fn text(reason: Reason) -> &'static str {
    match reason {
        Reason::PoolSuspended => {
            "Federation is suspended for the whole organisation at the moment."
        }
        Reason::PartnerNotAllowed => {
            "Federation policy: this domain is not among the allowed partners. An administrator can add it."
        }
        Reason::PartnerSuspended => {
            "Federation policy: communication with this partner is suspended by an administrator."
        }
        Reason::AccessPolicy => {
            "External access policy: your account may not communicate with this partner. An administrator can grant it."
        }
        Reason::Content => {
            "Federation policy: this kind of content may not cross to other organisations."
        }
        Reason::Contact => "Federation policy: add this person to your contacts first.",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Direction::{Inbound, Outbound};
    use StanzaKind::{Iq, Message, Presence};

    fn told(
        direction: Direction,
        kind: StanzaKind,
        type_: &str,
        cause: Cause,
    ) -> Option<(bool, &'static str, bool)> {
        match answer(
            direction,
            kind,
            Some(type_).filter(|t| !t.is_empty()),
            cause,
        ) {
            Answer::Drop => None,
            Answer::Error(e) => Some((
                false,
                e.condition.as_str(),
                e.text.is_some() && e.reason.is_some(),
            )),
            Answer::PresenceError(e) => Some((
                true,
                e.condition.as_str(),
                e.text.is_some() && e.reason.is_some(),
            )),
        }
    }

    #[test]
    fn the_refused_side_learns_what_the_table_says() {
        let access = Cause::Rule(Reason::AccessPolicy);
        let unlisted = Cause::Rule(Reason::PartnerNotAllowed);
        for (kind, type_, outbound, inbound) in [
            (
                Message,
                "",
                Some((false, "not-allowed", true)),
                Some((false, "service-unavailable", false)),
            ),
            (
                Message,
                "chat",
                Some((false, "not-allowed", true)),
                Some((false, "service-unavailable", false)),
            ),
            (
                Message,
                "groupchat",
                Some((false, "not-allowed", true)),
                Some((false, "service-unavailable", false)),
            ),
            (Message, "headline", None, None),
            (Message, "error", None, None),
            (
                Iq,
                "get",
                Some((false, "not-allowed", true)),
                Some((false, "service-unavailable", false)),
            ),
            (
                Iq,
                "set",
                Some((false, "not-allowed", true)),
                Some((false, "service-unavailable", false)),
            ),
            (Iq, "result", None, None),
            (Iq, "error", None, None),
            (Iq, "frob", None, None),
            (
                Presence,
                "subscribe",
                Some((true, "not-allowed", true)),
                None,
            ),
            (Presence, "subscribed", None, None),
            (Presence, "probe", None, None),
            (Presence, "", None, None),
            (Presence, "error", None, None),
        ] {
            assert_eq!(
                told(Outbound, kind, type_, access),
                outbound,
                "outbound {kind:?} {type_}"
            );
            assert_eq!(
                told(Inbound, kind, type_, access),
                inbound,
                "inbound {kind:?} {type_}"
            );
            let renamed =
                outbound.map(|(presence, _, named)| (presence, "remote-server-not-found", named));
            assert_eq!(
                told(Outbound, kind, type_, unlisted),
                renamed,
                "unlisted {kind:?} {type_}"
            );
            assert_eq!(
                told(Inbound, kind, type_, unlisted),
                inbound,
                "a partner cannot tell the reasons apart"
            );
        }
    }

    /// XEP-0045 section 7.2.
    #[test]
    fn who_asks_to_be_let_into_a_room_is_told_that_he_is_not() {
        for (reason, condition) in [
            (Reason::Content, "not-allowed"),
            (Reason::AccessPolicy, "not-allowed"),
            (Reason::PartnerNotAllowed, "remote-server-not-found"),
        ] {
            let join = Cause::Join(reason);
            assert_eq!(
                told(Outbound, Presence, "", join),
                Some((true, condition, true))
            );
            assert_eq!(
                told(Inbound, Presence, "", join),
                Some((true, "service-unavailable", false)),
                "as a message to nobody"
            );
        }
    }
}
