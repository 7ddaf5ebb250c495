//! What a request of a SIP server is, checked from the outside in (RFC 3261 section 8.2): what it is not, is answered.

use xmpp_edge_crds::{
    edge_config::SipDialect,
    jid::BareJid,
    verdict::{Direction, Reason},
};

use super::link_settings::LinkMoment;
use crate::{
    policy,
    sip::{
        address::{AddressFault, Scheme, SipUri, UriFault},
        body::{self, MessageBody, RequestParties, Typing},
        code::{FinalCode, StatusCode},
        connection::ReceivedRequest,
        message::IncomingText,
        method::SipMethod,
        notifier::{EVENT, SubscribeWish},
        pidf,
        session::{DESCRIPTION_TYPE, SessionDescription},
        subscription::SubscriptionState,
        turns::TwoPeople,
        wire::{HeaderName, MAGIC_COOKIE, Parameterised, RequestFault, SipRequest, quoted},
    },
    xml::StanzaKind,
};

/// Methods that are taken: value of Allow.
const ALLOW: &str = "MESSAGE, NOTIFY, OPTIONS, SUBSCRIBE";
/// The same where messages go in sessions.
const ALLOW_SESSIONS: &str = "ACK, BYE, CANCEL, INFO, INVITE, MESSAGE, NOTIFY, OPTIONS, SUBSCRIBE";
/// Most bytes of a presence document.
const DOCUMENT_BYTES: usize = 64 * 1024;
/// Characters of somebody's words that stand in a Warning.
const QUOTED: usize = 200;

/// What has to be done about a request.
#[derive(Debug)]
pub(super) enum Incoming {
    Message(IncomingMessage),
    /// A NOTIFY: its subscription knows whether it is one of its own.
    Notify,
    /// The first SUBSCRIBE of one.
    Subscribe(IncomingSubscribe),
    /// A further one.
    Refresh(SubscribeWish),
    /// Who asks learns that somebody is there.
    Alive,
    /// The first INVITE of a session, which policy allows.
    Invite(IncomingInvite),
    /// Something in a session, which knows whether it is one of its own.
    InSession,
    /// An ACK: never answered.
    Acknowledged,
    /// A CANCEL.
    Cancelled,
}

/// A message of a user whom its server vouches for.
#[derive(Debug)]
pub(super) struct IncomingMessage {
    pub(super) people: TwoPeople,
    /// The one device that it is for.
    pub(super) resource: Option<String>,
    pub(super) said: IncomingContent,
}

/// A user whom its server vouches for wants to see somebody's presence.
#[derive(Debug)]
pub(super) struct IncomingSubscribe {
    pub(super) people: TwoPeople,
    pub(super) wish: SubscribeWish,
}

/// A user whom its server vouches for wants a session with somebody.
#[derive(Debug)]
pub(super) struct IncomingInvite {
    pub(super) people: TwoPeople,
}

#[derive(Debug)]
pub(super) enum IncomingContent {
    Text(IncomingText),
    Typing(Typing),
    Nothing,
}

/// An answer.
#[derive(Clone, Debug)]
pub(super) struct Refused {
    pub(super) code: StatusCode,
    pub(super) fields: Vec<(HeaderName, String)>,
    /// The media of a session: no other answer has a body.
    pub(super) description: Option<String>,
}

impl Refused {
    pub(super) fn plain(code: StatusCode) -> Self {
        Self {
            code,
            fields: Vec::new(),
            description: None,
        }
    }

    /// `code` is one of ours.
    pub(super) fn code(code: u16) -> Self {
        debug_assert!(StatusCode::new(code).is_some(), "{code}");
        Self::plain(StatusCode::new(code).unwrap_or(StatusCode::OK))
    }

    pub(super) fn of(answer: FinalCode) -> Self {
        let mut refused = Self::plain(answer.code);
        if let Some(seconds) = answer.retry_after {
            let field = (HeaderName::RetryAfter, seconds.to_string());
            refused.fields.push(field);
        }
        refused
    }

    /// A subscription stands for so many seconds.
    pub(super) fn granted(moment: &LinkMoment<'_>, request: &SipRequest, seconds: u32) -> Self {
        Self::plain(StatusCode::OK)
            .with(HeaderName::Expires, seconds.to_string())
            .with(HeaderName::Contact, moment.settings.contact.as_str())
            .with_hops(request)
    }

    /// A session stands; its description says of what.
    pub(super) fn accepted(
        moment: &LinkMoment<'_>,
        request: &SipRequest,
        description: String,
    ) -> Self {
        let mut accepted = Self::plain(StatusCode::OK)
            .with(HeaderName::Contact, moment.settings.contact.as_str())
            .with(HeaderName::Allow, ALLOW_SESSIONS)
            .with_hops(request);
        accepted.description = Some(description);
        accepted
    }

    /// Somebody is there, and takes this (RFC 3261 section 11.2).
    pub(super) fn alive(moment: &LinkMoment<'_>) -> Self {
        let (allow, described) = match moment.settings.sip.dialect {
            SipDialect::Simple => (ALLOW, ""),
            SipDialect::Lync => (ALLOW_SESSIONS, DESCRIPTION_TYPE),
        };
        let mut accept = format!("{}, {}", body::ACCEPT, pidf::MEDIA_TYPE);
        if !described.is_empty() {
            accept = format!("{accept}, {described}");
        }
        Self::plain(StatusCode::OK)
            .with(HeaderName::Allow, allow)
            .with(HeaderName::Accept, accept)
            .with(HeaderName::AllowEvents, EVENT)
    }

    /// As policy would answer a stanza of this kind and type for this reason.
    pub(super) fn of_reason(
        moment: &LinkMoment<'_>,
        (kind, type_): (StanzaKind, &str),
        reason: Reason,
    ) -> Self {
        let cause = policy::Cause::Rule(reason);
        match policy::answer(Direction::Outbound, kind, Some(type_), cause) {
            policy::Answer::Error(error) | policy::Answer::PresenceError(error) => {
                let mut refused = Self::of(FinalCode::of_condition(Some(error.condition)));
                refused.warn(moment, error.text.unwrap_or_default());
                refused
            }
            policy::Answer::Drop => Self::code(403),
        }
    }

    /// With somebody's words for it, where there are any.
    pub(super) fn warn(&mut self, moment: &LinkMoment<'_>, text: &str) {
        if !text.is_empty() {
            let text: String = text.chars().take(QUOTED).collect();
            let name = &moment.settings.sip.edge_name;
            let warning = format!("399 {name} {}", quoted(&text));
            self.fields.push((HeaderName::Warning, warning));
        }
    }

    /// Who makes a dialog of a request gives its hops back (RFC 3261 section 12.1.1).
    fn with_hops(mut self, request: &SipRequest) -> Self {
        let hops = request.headers.all(HeaderName::RecordRoute);
        let hops = hops.map(|hop| (HeaderName::RecordRoute, hop.to_owned()));
        self.fields.extend(hops);
        self
    }

    fn with(mut self, name: HeaderName, value: impl Into<String>) -> Self {
        self.fields.push((name, value.into()));
        self
    }
}

impl Incoming {
    /// # Errors
    /// What is answered.
    pub(super) fn of(moment: &LinkMoment<'_>, received: &ReceivedRequest) -> Result<Self, Refused> {
        let request = &received.request;
        let has_sessions = moment.settings.sip.dialect == SipDialect::Lync;
        match request.method {
            SipMethod::Ack => return Ok(Self::Acknowledged),
            SipMethod::Cancel => return Ok(Self::Cancelled),
            SipMethod::Bye | SipMethod::Info | SipMethod::Invite | SipMethod::Message
                if has_sessions && request.to.tag().is_some() =>
            {
                understood(request)?;
                return Ok(Self::InSession);
            }
            SipMethod::Invite if has_sessions => {}
            SipMethod::Bye | SipMethod::Info if has_sessions => return Err(Refused::code(481)),
            SipMethod::Options => {
                understood(request)?;
                return Ok(Self::Alive);
            }
            SipMethod::Invite => return Err(Refused::code(488)),
            SipMethod::Unknown => return Err(Refused::code(501)),
            SipMethod::Notify => {
                understood(request)?;
                return Ok(Self::Notify);
            }
            SipMethod::Subscribe if request.to.tag().is_some() => {
                understood(request)?;
                return wish(request).map(Self::Refresh);
            }
            SipMethod::Message | SipMethod::Subscribe => {}
            _ if has_sessions => {
                return Err(Refused::code(405).with(HeaderName::Allow, ALLOW_SESSIONS));
            }
            _ => return Err(Refused::code(405).with(HeaderName::Allow, ALLOW)),
        }
        if is_own(moment, request) {
            return Err(Refused::code(482));
        }
        let to = addressee(moment, request)?;
        let from = sender(moment, request)?;
        understood(request)?;
        if request.method == SipMethod::Subscribe {
            let people = TwoPeople { from, to: to.0 };
            let wish = wish(request)?;
            return Ok(Self::Subscribe(IncomingSubscribe { people, wish }));
        }
        if request.method == SipMethod::Invite {
            let people = TwoPeople { from, to: to.0 };
            let admitted = moment.admits(&people.from, people.to.domain());
            let message = (StanzaKind::Message, "chat");
            admitted.map_err(|reason| Refused::of_reason(moment, message, reason))?;
            return Ok(Self::Invite(IncomingInvite { people }));
        }
        if request.to.tag().is_some() {
            return Err(Refused::code(481));
        }
        let (to, resource) = to;
        let said = content(moment, received, &from, &to)?;
        Ok(Self::Message(IncomingMessage {
            people: TwoPeople { from, to },
            resource,
            said,
        }))
    }
}

/// What a MESSAGE of these two says.
///
/// # Errors
/// What is answered.
pub(super) fn content(
    moment: &LinkMoment<'_>,
    received: &ReceivedRequest,
    from: &BareJid,
    to: &BareJid,
) -> Result<IncomingContent, Refused> {
    let headers = &received.request.headers;
    if received.body.len() > moment.settings.sip.max_message_bytes as usize {
        return Err(Refused::code(413));
    }
    let content_type = headers.first(HeaderName::ContentType);
    let parties = RequestParties { from, to };
    let body = MessageBody::read(content_type, &received.body, parties).map_err(|fault| {
        let refused = Refused::code(fault.code());
        match fault.code() {
            415 => refused.with(HeaderName::Accept, body::ACCEPT),
            _ => refused,
        }
    })?;
    Ok(match body {
        MessageBody::Text(text) => IncomingContent::Text(IncomingText::new(text, headers)),
        MessageBody::Typing(typing) => IncomingContent::Typing(typing),
        MessageBody::Nothing => IncomingContent::Nothing,
    })
}

/// What an INVITE offers, if anything.
///
/// # Errors
/// What is answered to what is no description: 488 where it is of other media as calls have them, in several parts.
pub(super) fn offered(received: &ReceivedRequest) -> Result<Option<SessionDescription>, Refused> {
    if received.body.is_empty() {
        return Ok(None);
    }
    let content_type = received.request.headers.first(HeaderName::ContentType);
    let media = Parameterised::read(content_type.unwrap_or_default());
    match media.map_err(|_| Refused::code(400))?.value.as_str() {
        DESCRIPTION_TYPE => {}
        several if several.starts_with("multipart/") => return Err(Refused::code(488)),
        _ => return Err(Refused::code(415).with(HeaderName::Accept, DESCRIPTION_TYPE)),
    }
    let read = SessionDescription::read(&received.body);
    read.map(Some).map_err(|_| Refused::code(400))
}

/// What a NOTIFY says of its subscription.
///
/// # Errors
/// What is answered.
pub(super) fn notified_state(received: &ReceivedRequest) -> Result<SubscriptionState, Refused> {
    let headers = &received.request.headers;
    let event = headers.first(HeaderName::Event).unwrap_or_default();
    if Parameterised::read(event).is_ok_and(|it| it.value != EVENT) {
        return Err(Refused::code(489).with(HeaderName::AllowEvents, EVENT));
    }
    if received.body.len() > DOCUMENT_BYTES {
        return Err(Refused::code(413));
    }
    SubscriptionState::of_headers(headers).map_err(|_| Refused::code(400))
}

/// What a SUBSCRIBE asks for.
fn wish(request: &SipRequest) -> Result<SubscribeWish, Refused> {
    SubscribeWish::of_headers(&request.headers).map_err(|fault| {
        let mut refused = Refused::code(fault.code());
        refused.fields.extend(fault.field());
        refused
    })
}

/// A hop that it has behind it was an edge with our secret: a loop, or a spiral (RFC 3261 section 16.3).
fn is_own(moment: &LinkMoment<'_>, request: &SipRequest) -> bool {
    let mut branches = request.vias.iter().filter_map(|via| via.branch.as_deref());
    branches.any(|branch| {
        let unique = branch.strip_prefix(MAGIC_COOKIE);
        unique.is_some_and(|unique| moment.config.dialback.is_own_stream_id(unique))
    })
}

/// Whom it is for, and on which device: somebody outside, for this is neither a way between own users.
fn addressee(
    moment: &LinkMoment<'_>,
    request: &SipRequest,
) -> Result<(BareJid, Option<String>), Refused> {
    let of_fault = |fault: UriFault| match fault {
        UriFault::Scheme => Refused::code(416),
        _ => Refused::code(404),
    };
    let uri = SipUri::parse(&request.uri).map_err(of_fault)?;
    let to = SipUri::parse(&request.to.uri);
    // XMPP cannot promise TLS on each hop (RFC 7247 section 8).
    let is_sips = |uri: &SipUri| uri.scheme == Scheme::Sips;
    if is_sips(&uri) || to.as_ref().is_ok_and(is_sips) {
        return Err(Refused::code(416));
    }
    let nobody = |_: AddressFault| Refused::code(404);
    let jid = uri.bare_jid().map_err(nobody)?;
    let resource = uri.resource().map_err(nobody)?;
    if moment.config.is_namespace_domain(jid.domain()) {
        return Err(Refused::code(404));
    }
    Ok((jid, resource))
}

/// Who sends it: a user of this gateway's own, for whom its server vouches.
fn sender(moment: &LinkMoment<'_>, request: &SipRequest) -> Result<BareJid, Refused> {
    let uri = SipUri::parse(&request.from.uri).map_err(|_| Refused::code(403))?;
    let jid = uri.bare_jid().map_err(|_| Refused::code(403))?;
    if !moment.settings.gateway.domains.contains(jid.domain()) {
        return Err(Refused::code(403));
    }
    Ok(jid)
}

fn understood(request: &SipRequest) -> Result<(), Refused> {
    request.check_understood().map_err(|fault| {
        let refused = Refused::code(fault.code());
        match fault {
            RequestFault::Extension => {
                let required = request.headers.all(HeaderName::Require);
                let required: Vec<&str> = required.collect();
                refused.with(HeaderName::Unsupported, required.join(", "))
            }
            RequestFault::Encoded => refused.with(HeaderName::Accept, body::ACCEPT),
            _ => refused,
        }
    })
}
