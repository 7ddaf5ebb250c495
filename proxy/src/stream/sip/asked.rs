//! What is asked of a SIP server: a stanza while it waits for its turn, the request that it became, and what an answer
//! means beyond it.

use std::{sync::Arc, time::Duration};

use super::{
    link_settings::LinkMoment,
    outgoing::{AskedAbout, ReceiptWanted},
    sessions::{MessageWay, PendingInvite},
};
use crate::{
    negotiation::Pair,
    routing::{batch::Batch, route::Route},
    sip::{
        code::StatusCode,
        dialog::CallKey,
        message::{self, StanzaAddresses},
        session::SessionNumber,
        share::SipShare,
        transaction::LinkConnection,
        turns::TwoPeople,
    },
    xml::Element,
};

/// A stanza of one message.
#[derive(Debug)]
pub(super) struct WaitingStanza {
    pub(super) route: Arc<Route>,
    pub(super) batch: Batch,
    pub(super) number: u64,
    /// The way that it has to go; none: whichever there is.
    pub(super) only: Option<MessageWay>,
    /// What its request was known by, where it went by itself and its connection ended before the answer: what goes once
    /// more is the same request.
    pub(super) call: Option<CallKey>,
}

/// Whether a request is one that went before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Repetition {
    New,
    SameAgain,
}

/// What a request of ours was for.
#[derive(Debug)]
pub(super) enum OwnTicket {
    Message(Box<AskedMessage>),
    /// A message goes once there is a session.
    Invite(Box<AskedMessage>, Box<PendingInvite>),
    /// An INVITE whose message is answered: what comes for it is seen to its end.
    Abandoned(Box<PendingInvite>),
    /// Whether the server is there, on this connection.
    Options(LinkConnection),
}

#[derive(Debug)]
pub(super) struct AskedMessage {
    pub(super) people: Arc<TwoPeople>,
    pub(super) share: SipShare,
    pub(super) stanza: WaitingStanza,
    pub(super) about: AskedAbout,
    pub(super) inside: Option<SessionNumber>,
    pub(super) repetition: Repetition,
    pub(super) connection: LinkConnection,
}

/// What an answer means beyond its message.
#[derive(Debug)]
pub(super) enum AnswerNews {
    /// The server is there, on this connection.
    Alive(LinkConnection),
    /// Its user has the message: what to tell its sender, for this pair.
    Received(Pair, Element),
    /// The server takes the edge for a user.
    AuthenticationDemanded(StatusCode),
}

/// What nobody waits for any more.
#[derive(Debug, Default)]
pub(super) struct ExpiredRequests {
    /// Those that went to a user: it may be the user's device that says nothing.
    pub(super) to_users: usize,
    /// Connections whose server was asked whether it is there.
    pub(super) silent: Vec<LinkConnection>,
}

impl ExpiredRequests {
    /// After how much silence the server is asked whether it is there: `usual`, or less where somebody waited in vain.
    pub(super) fn silence(&self, usual: Duration, limit: Duration) -> Duration {
        if self.to_users > 0 {
            limit.min(usual)
        } else {
            usual
        }
    }
}

/// R asked to be told that U has the message.
pub(super) fn received(
    moment: &LinkMoment<'_>,
    people: &TwoPeople,
    wanted: &ReceiptWanted,
) -> AnswerNews {
    let pair = Pair {
        from: people.to.domain().clone(),
        to: people.from.domain().clone(),
    };
    let addresses = StanzaAddresses {
        from: &people.to,
        to: &people.from,
        resource: wanted.resource.as_deref(),
        id: &moment.config.dialback.new_stream_id(),
    };
    AnswerNews::Received(pair, message::received(addresses, &wanted.id))
}
