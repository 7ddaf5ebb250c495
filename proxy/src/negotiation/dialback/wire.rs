//! The four elements of dialback on the wire: requests and answers of `db:result` and `db:verify`.
//! Read by namespace whatever the prefix; written with the prefix `db`, which our headers declare.

use xmpp_edge_crds::domain::{DomainName, NameForm};

use crate::{
    negotiation::{
        Output, Pair, Unavailable, VerifyRequest, WireNames,
        wire::{Writer, ns},
    },
    xml::Element,
};

/// Longest key that is looked at, in bytes. XEP-0185 keys have 64; the format is the peer's affair.
const MAX_KEY: usize = 1024;
/// Longest stream id in a `db:verify`.
const MAX_ID: usize = 1024;

/// Which element.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::negotiation) enum Kind {
    Result,
    Verify,
}

/// One dialback element, its addresses parsed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::negotiation) struct Message {
    pub kind: Kind,
    /// As on the element: its sender first.
    pub from: DomainName,
    pub to: DomainName,
    /// How its sender wrote them.
    pub names: WireNames,
    pub id: Option<String>,
    pub body: Body,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::negotiation) enum Body {
    /// No `type`: a key is sent or asked about.
    Key(String),
    Valid,
    Invalid,
    /// The error's condition.
    Error(String),
}

/// Why a dialback element cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::negotiation) enum Unreadable {
    /// Not `db:result` or `db:verify`.
    Name,
    /// `from` or `to` missing, or no domain.
    Addresses,
    /// An unknown `type`, or an id too long.
    Form,
}

impl Message {
    /// Reads an element of the dialback namespace.
    pub(crate) fn read(element: &Element) -> Result<Self, Unreadable> {
        let kind = match element.name.as_str() {
            "result" => Kind::Result,
            "verify" => Kind::Verify,
            _ => return Err(Unreadable::Name),
        };
        let domain = |name| {
            let text = element.attribute(name).ok_or(Unreadable::Addresses)?;
            DomainName::parse(text).map_err(|_| Unreadable::Addresses)
        };
        let from = domain("from")?;
        let to = domain("to")?;
        let form = |name| NameForm::of(element.attribute(name).unwrap_or_default());
        let names = WireNames {
            peer: form("from"),
            local: form("to"),
        };
        let id = element
            .attribute("id")
            .filter(|id| !id.is_empty())
            .map(str::to_owned);
        if id.as_ref().is_some_and(|id| id.len() > MAX_ID) {
            return Err(Unreadable::Form);
        }
        let body = match element.attribute("type") {
            None => {
                let text = element.text();
                let key = text.trim();
                if key.len() > MAX_KEY {
                    return Err(Unreadable::Form);
                }
                Body::Key(key.to_owned())
            }
            Some("valid") => Body::Valid,
            Some("invalid") => Body::Invalid,
            Some("error") => Body::Error(error_condition(element)),
            Some(_) => return Err(Unreadable::Form),
        };
        Ok(Self {
            kind,
            from,
            to,
            names,
            id,
            body,
        })
    }
}

fn error_condition(element: &Element) -> String {
    element
        .children()
        .find(|child| child.name == "error")
        .and_then(|error| {
            error
                .children()
                .find(|child| child.namespace == ns::STANZA_ERRORS && child.name != "text")
        })
        .map_or_else(
            || "undefined-condition".to_owned(),
            |condition| condition.name.clone(),
        )
}

/// A dialback error (XEP-0220 section 2.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::negotiation) enum DialbackError {
    BadRequest,
    ItemNotFound,
    PolicyViolation,
    RemoteConnectionFailed,
    RemoteServerNotFound,
    RemoteServerTimeout,
    ResourceConstraint,
}

impl DialbackError {
    fn condition(self) -> &'static str {
        match self {
            Self::BadRequest => "bad-request",
            Self::ItemNotFound => "item-not-found",
            Self::PolicyViolation => "policy-violation",
            Self::RemoteConnectionFailed => "remote-connection-failed",
            Self::RemoteServerNotFound => "remote-server-not-found",
            Self::RemoteServerTimeout => "remote-server-timeout",
            Self::ResourceConstraint => "resource-constraint",
        }
    }

    /// Whether trying again may help (RFC 6120 section 8.3.2).
    fn kind(self) -> &'static str {
        match self {
            Self::RemoteConnectionFailed | Self::RemoteServerTimeout | Self::ResourceConstraint => {
                "wait"
            }
            Self::BadRequest => "modify",
            Self::ItemNotFound | Self::PolicyViolation | Self::RemoteServerNotFound => "cancel",
        }
    }
}

impl From<Unavailable> for DialbackError {
    fn from(why: Unavailable) -> Self {
        match why {
            Unavailable::NotFound => Self::RemoteServerNotFound,
            Unavailable::ConnectionFailed | Unavailable::Refused => Self::RemoteConnectionFailed,
            Unavailable::TimedOut => Self::RemoteServerTimeout,
            Unavailable::Busy | Unavailable::ConnectionLimit => Self::ResourceConstraint,
            Unavailable::Policy => Self::PolicyViolation,
        }
    }
}

impl DialbackError {
    /// What somebody learns who has proved nothing: the names that he sends decide whom the edge looks
    /// up and dials, so how that failed would tell him what DNS, firewalls and networks say to the edge.
    pub(in crate::negotiation) fn to_stranger(why: Unavailable) -> Self {
        match why {
            Unavailable::NotFound
            | Unavailable::ConnectionFailed
            | Unavailable::TimedOut
            | Unavailable::Refused
            | Unavailable::Policy => Self::RemoteConnectionFailed,
            Unavailable::Busy | Unavailable::ConnectionLimit => Self::ResourceConstraint,
        }
    }
}

/// How a request is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::negotiation) enum DialbackAnswer {
    Valid,
    Invalid,
    Error(DialbackError),
}

/// `<db:result>` with our key for `pair`, to a peer that writes names so.
pub(in crate::negotiation) fn send_result(
    pair: &Pair,
    names: WireNames,
    key: &str,
    out: &mut Vec<Output>,
) {
    open("result", (&pair.from, &pair.to), names, None)
        .raw(">")
        .text(key)
        .raw("</db:result>")
        .send(out);
}

/// `<db:verify>`: the receiving domain asks the sending domain's authoritative server.
pub(in crate::negotiation) fn send_verify(question: &VerifyRequest, out: &mut Vec<Output>) {
    open(
        "verify",
        (&question.pair.to, &question.pair.from),
        question.names,
        Some(&question.stream_id),
    )
    .raw(">")
    .text(&question.key)
    .raw("</db:verify>")
    .send(out);
}

/// Answers the request, addresses swapped.
pub(in crate::negotiation) fn send_answer(
    request: &Message,
    answer: DialbackAnswer,
    out: &mut Vec<Output>,
) {
    let name = match request.kind {
        Kind::Result => "result",
        Kind::Verify => "verify",
    };
    let id = match request.kind {
        Kind::Result => None,
        Kind::Verify => request.id.as_deref(),
    };
    let ends = (&request.to, &request.from);
    answer_to(name, ends, request.names, id, answer, out);
}

/// Answers the `db:result` of a peer's pair, later.
pub(in crate::negotiation) fn send_result_answer(
    pair: &Pair,
    names: WireNames,
    answer: DialbackAnswer,
    out: &mut Vec<Output>,
) {
    let ends = (&pair.to, &pair.from);
    answer_to("result", ends, names, None, answer, out);
}

fn answer_to(
    name: &str,
    ends: (&DomainName, &DomainName),
    names: WireNames,
    id: Option<&str>,
    answer: DialbackAnswer,
    out: &mut Vec<Output>,
) {
    let writer = open(name, ends, names, id);
    match answer {
        DialbackAnswer::Valid => writer.raw(" type='valid'/>"),
        DialbackAnswer::Invalid => writer.raw(" type='invalid'/>"),
        DialbackAnswer::Error(error) => writer
            .raw(" type='error'><error type='")
            .raw(error.kind())
            .raw("'><")
            .raw(error.condition())
            .raw(" xmlns='")
            .raw(ns::STANZA_ERRORS)
            .raw("'/></error></db:")
            .raw(name)
            .raw(">"),
    }
    .send(out);
}

/// `from` is ours, `to` the peer's.
fn open(
    name: &str,
    (from, to): (&DomainName, &DomainName),
    names: WireNames,
    id: Option<&str>,
) -> Writer {
    Writer::new()
        .raw("<db:")
        .raw(name)
        .attribute("from", Some(&names.local.write(from)))
        .attribute("to", Some(&names.peer.write(to)))
        .attribute("id", id)
}
