//! Stanzas that will not be delivered and whose senders have not been told yet.
//!
//! The errors are made when the stream to the senders takes them, a portion at a time: an error can be
//! many times as long as the stanza that it answers, and an outage fails whole queues at once.

use std::time::Instant;

use super::{
    batch::{Batch, ReplyBuilder},
    failure::Failure,
};
use crate::{
    negotiation::OwnHeader,
    xml::{Item, Limits, Scanner, rewrite, stanza::Stanza, stanza::StanzaKind},
};

/// Bytes of errors that are made at once, roughly.
const PORTION: usize = 32 * 1024;

/// One batch, with its fate.
#[derive(Debug)]
pub struct Unanswered {
    pub batch: Batch,
    pub failure: Failure,
}

/// What was made of it.
#[derive(Debug)]
pub struct Portion {
    pub replies: Option<Batch>,
    /// How many were answered, and how many never are.
    pub answered: u32,
    pub dropped: u32,
    pub rest: Option<Unanswered>,
}

impl Unanswered {
    /// Makes the next errors.
    #[must_use]
    pub fn portion(mut self, now: Instant) -> Portion {
        let mut replies = ReplyBuilder::default();
        let (mut answered, mut dropped) = (0, 0);
        // What waits was checked by a scanner; this one only finds the attributes again.
        let mut scanner = scanner_of_our_own();
        while replies.len() < PORTION
            && let Some((bytes, receipt)) = self.batch.take_first()
        {
            match scanner.next(&bytes) {
                Ok(Some(Item::Stanza(stanza))) if is_answered(&stanza) => {
                    answered += 1;
                    replies.add(receipt, |out| write_error(&stanza, &self.failure, out));
                }
                other => {
                    let is_stanza = matches!(other, Ok(Some(Item::Stanza(_))));
                    debug_assert!(is_stanza, "a queued stanza is one stanza");
                    if !is_stanza {
                        // An error is final: it must not cost those behind it.
                        scanner = scanner_of_our_own();
                    }
                    dropped += 1;
                    if let Some(receipt) = receipt {
                        receipt.settle();
                    }
                }
            }
        }
        Portion {
            replies: replies.finish(now),
            answered,
            dropped,
            rest: (self.batch.count() > 0).then_some(self),
        }
    }
}

/// Whether the sender of such a stanza learns that it was not delivered (RFC 6120 section 8.3).
#[must_use]
pub(super) fn is_answered(stanza: &Stanza<'_>) -> bool {
    match (stanza.kind, stanza.type_.as_deref()) {
        (StanzaKind::Message, Some("error" | "headline")) => false,
        (StanzaKind::Message, _)
        | (StanzaKind::Iq, Some("get" | "set"))
        | (
            StanzaKind::Presence,
            Some("subscribe" | "subscribed" | "unsubscribe" | "unsubscribed"),
        ) => true,
        // XEP-0045 section 7.2: a client waits for the room's answer.
        (StanzaKind::Presence, None) => stanza.is_join(),
        _ => false,
    }
}

/// The error that tells the sender its stanza's fate.
pub(super) fn write_error(stanza: &Stanza<'_>, failure: &Failure, out: &mut Vec<u8>) {
    rewrite::error_reply(
        stanza,
        rewrite::Reply {
            error_type: failure.kind.error_type(),
            condition: failure.kind.condition(),
            text: Some(&*failure.text).filter(|text| !text.is_empty()),
            reason: None,
        },
        out,
    );
}

/// A scanner within a stream as ours are: what stands in a queue stands in one of those.
fn scanner_of_our_own() -> Scanner {
    let header = OwnHeader {
        from: None,
        to: None,
        id: None,
        version: true,
    }
    .text();
    let mut scanner = Scanner::new(Limits::of_our_own(u32::MAX as usize));
    let header = scanner.next(header.as_bytes());
    debug_assert!(
        matches!(header, Ok(Some(Item::Header { .. }))),
        "a header of our own"
    );
    scanner
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::routing::{batch::BatchBuilder, failure::FailureKind};

    /// What a scanner of a peer takes of `stanza`, as it stands in our streams.
    fn written(header: &str, stanza: &str) -> Vec<u8> {
        let mut scanner = Scanner::new(Limits::default());
        let Ok(Some(Item::Header { header, .. })) = scanner.next(header.as_bytes()) else {
            panic!("no header");
        };
        let mut out = Vec::new();
        match scanner.next(stanza.as_bytes()) {
            Ok(Some(Item::Stanza(stanza))) => {
                rewrite::relay(&stanza, &header, &mut out).expect("written")
            }
            other => panic!("{other:?}"),
        }
        out
    }

    #[test]
    fn whatever_a_peer_may_send_is_answered_and_so_are_its_neighbours() {
        const HEADER: &str = "<stream:stream xmlns='jabber:server' xmlns:s='jabber:server' xml:lang='de' \
            xmlns:stream='http://etherx.jabber.org/streams' version='1.0'>";
        const ENDS: &str = "from='rob@p.example' to='alice@org.example'";
        let attributes: String = (0..62).map(|n| format!(" a{n}=''")).collect();
        let nested: String = (0..900)
            .map(|n| format!("<x:e xmlns:x='urn:{n}'/>"))
            .collect();
        let mut builder = BatchBuilder::default();
        let stanzas = [
            format!("<message {ENDS}{attributes}/>"),
            format!("<message {ENDS}><body>hello</body></message>"),
            format!("<s:message {ENDS}>{nested}</s:message>"),
            format!("<message {ENDS}><body>hello</body></message>"),
        ];
        for (number, stanza) in (0..).zip(&stanzas) {
            builder.add(number, 0, |out| {
                out.extend_from_slice(&written(HEADER, stanza))
            });
        }
        let now = Instant::now();
        let unanswered = Unanswered {
            batch: builder.take(None, now).expect("some"),
            failure: Failure::new(FailureKind::Unreachable, "nobody there"),
        };
        let portion = unanswered.portion(now);
        assert_eq!((portion.answered, portion.dropped), (4, 0));
    }

    /// XEP-0045 section 7.2.
    #[test]
    fn a_join_that_reaches_no_room_is_answered_and_other_presence_is_not() {
        const HEADER: &str = "<stream:stream xmlns='jabber:server' \
            xmlns:stream='http://etherx.jabber.org/streams' version='1.0'>";
        let muc = "<x xmlns='http://jabber.org/protocol/muc'/>";
        for (type_, child, answered) in [
            ("", muc, 1),
            ("", "<x xmlns='http://jabber.org/protocol/muc#user'/>", 0),
            ("", "", 0),
            (" type='unavailable'", muc, 0),
            (" type='error'", muc, 0),
        ] {
            let stanza = format!(
                "<presence from='alice@org.example/d' to='room@p.example/alice'{type_}>{child}</presence>"
            );
            let mut builder = BatchBuilder::default();
            builder.add(0, 0, |out| out.extend_from_slice(&written(HEADER, &stanza)));
            let now = Instant::now();
            let unanswered = Unanswered {
                batch: builder.take(None, now).expect("some"),
                failure: Failure::new(FailureKind::Unreachable, "nobody there"),
            };
            assert_eq!(unanswered.portion(now).answered, answered, "{stanza}");
        }
    }
}
