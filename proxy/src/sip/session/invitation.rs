//! An INVITE of ours (RFC 3261 section 13.2).

use super::description::{DESCRIPTION_TYPE, SessionDescription, TypingForm, offer};
use crate::sip::{
    compose::{MAX_FORWARDS, RequestStart, SentBy},
    connection::ReceivedResponse,
    dialog::{CallKey, Dialog, DialogFault},
    method::SipMethod,
    wire::{HeaderName, SipResponse, SipWriter, WriteFault},
};

/// One that has no final answer: what its ACK has to say again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invitation {
    from: Box<str>,
    uri: Box<str>,
    branch: Box<str>,
    call: CallKey,
}

impl Invitation {
    /// That of a request which begins so.
    #[must_use]
    pub fn new(start: &RequestStart<'_>) -> Self {
        Self {
            from: start.from.into(),
            uri: start.uri.into(),
            branch: start.by.branch.into(),
            call: CallKey {
                call_id: start.call_id.into(),
                tag: start.tag.into(),
            },
        }
    }

    /// The INVITE, on behalf of `host`. `conversation` is fresh: clients refuse a second session of one conversation.
    ///
    /// # Errors
    /// [`WriteFault`].
    pub fn write(
        start: &RequestStart<'_>,
        host: &str,
        contact: &str,
        conversation: &str,
    ) -> Result<Vec<u8>, WriteFault> {
        start
            .begin()?
            .field(HeaderName::Contact, contact)?
            .field(HeaderName::MsConversationId, conversation)?
            .finish_with(DESCRIPTION_TYPE, offer(host).as_bytes())
    }

    /// Which answers are its own.
    #[must_use]
    pub fn branch(&self) -> &str {
        &self.branch
    }

    /// The CANCEL, which goes where the INVITE went, once that had a provisional answer (RFC 3261 section 9.1).
    ///
    /// # Errors
    /// [`WriteFault`].
    pub fn cancel(&self, sent_by: &str) -> Result<Vec<u8>, WriteFault> {
        let by = SentBy {
            sent_by,
            branch: &self.branch,
        };
        let start = RequestStart {
            method: SipMethod::Cancel,
            uri: &self.uri,
            from: &self.from,
            by,
            tag: &self.call.tag,
            call_id: &self.call.call_id,
        };
        start.bare()
    }

    /// The ACK of an answer from 300 on: it ends at the next hop (RFC 3261 section 17.1.1.3).
    ///
    /// # Errors
    /// [`WriteFault`].
    pub fn acknowledge_refusal(
        &self,
        refusal: &SipResponse,
        sent_by: &str,
    ) -> Result<Vec<u8>, WriteFault> {
        let by = SentBy {
            sent_by,
            branch: &self.branch,
        };
        let from = format!("<{}>;tag={}", self.from, self.call.tag);
        let to = refusal.headers.first(HeaderName::To).unwrap_or_default();
        let writer = SipWriter::request(SipMethod::Ack, &self.uri)?
            .field(HeaderName::Via, &by.via())?
            .field(HeaderName::MaxForwards, MAX_FORWARDS)?
            .field(HeaderName::From, &from)?
            .field(HeaderName::To, to)?
            .field(HeaderName::CallId, &self.call.call_id)?
            .field(HeaderName::CSeq, &format!("{} ACK", refusal.cseq))?;
        Ok(writer.finish())
    }
}

/// The dialog that a 2xx makes, and how typing is told in it: `None` where it has no messages.
///
/// # Errors
/// [`DialogFault`].
pub fn accepted(received: &ReceivedResponse) -> Result<(Dialog, Option<TypingForm>), DialogFault> {
    let dialog = Dialog::of_response(&received.response)?;
    let said = SessionDescription::read(&received.body).ok();
    Ok((dialog, said.and_then(|said| said.messages())))
}
