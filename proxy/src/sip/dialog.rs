//! A dialog of a subscription or a session (RFC 3261 section 12, RFC 6665 section 4.4): which requests belong to it, and
//! how the next one of ours in it begins.

use thiserror::Error;

use super::{
    compose::{MAX_FORWARDS, SentBy},
    method::SipMethod,
    wire::{
        HeaderName, NameAddr, SipHeaders, SipRequest, SipResponse, SipWriter, ValueFault,
        WriteFault, split_list,
    },
};

/// Most bytes of the other side's Contact.
const MAX_TARGET_BYTES: usize = 1_024;
/// Most bytes of the hops of a dialog, all of them together.
const MAX_ROUTE_BYTES: usize = 2_048;

/// What stays the same while a subscription or a session stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dialog {
    call_id: Box<str>,
    local: DialogEnd,
    remote: DialogEnd,
    /// Contact of the other side: Request-URI of what goes there.
    target: Box<str>,
    /// Hops to it, in their order, as Route has them.
    routes: Box<[Box<str>]>,
    /// Number of the last request of ours.
    sent: u32,
    /// Number of the last request of theirs.
    received: u32,
}

/// One side of a dialog.
#[derive(Clone, Debug, PartialEq, Eq)]
struct DialogEnd {
    uri: Box<str>,
    tag: Box<str>,
}

/// What a first request of ours was known by, before anybody answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallKey {
    pub call_id: Box<str>,
    /// Of ours.
    pub tag: Box<str>,
}

/// Why a request makes no dialog, or is not of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Error)]
pub enum DialogFault {
    #[error("no Contact, or several")]
    Contact,
    #[error("Contact: {0}")]
    ContactValue(ValueFault),
    #[error("Record-Route: {0}")]
    Routes(ValueFault),
    #[error("a Contact or hops that are longer than they may be")]
    TooLong,
    #[error("a side that has no tag")]
    Tag,
    #[error("of another dialog")]
    Other,
    #[error("older than one that came")]
    OutOfOrder,
}

impl DialogFault {
    /// The code of the answer (RFC 3261 section 12.2.2).
    #[must_use]
    pub fn code(self) -> u16 {
        match self {
            Self::Contact | Self::ContactValue(_) | Self::Routes(_) | Self::Tag => 400,
            Self::TooLong => 413,
            Self::Other => 481,
            Self::OutOfOrder => 500,
        }
    }
}

impl Dialog {
    /// The dialog that a request makes: a SUBSCRIBE, or the first NOTIFY to one of ours (RFC 6665 section 4.4.1).
    /// `tag` is ours; `sent` the number of the last request of ours, 0 where there was none.
    ///
    /// # Errors
    /// [`DialogFault`].
    pub fn of_request(request: &SipRequest, tag: &str, sent: u32) -> Result<Self, DialogFault> {
        Ok(Self {
            call_id: request.call_id.as_str().into(),
            local: DialogEnd {
                uri: request.to.uri.as_str().into(),
                tag: tag.into(),
            },
            remote: DialogEnd {
                uri: request.from.uri.as_str().into(),
                tag: request.from.tag().unwrap_or_default().into(),
            },
            target: target(&request.headers)?.ok_or(DialogFault::Contact)?,
            routes: routes(&request.headers)?.into(),
            sent,
            received: request.cseq,
        })
    }

    /// The dialog that a 2xx to an INVITE of ours makes: who asked takes the hops backwards (RFC 3261 section 12.1.2).
    ///
    /// # Errors
    /// [`DialogFault`].
    pub fn of_response(response: &SipResponse) -> Result<Self, DialogFault> {
        let end = |of: &NameAddr| {
            let tag = of.tag().ok_or(DialogFault::Tag)?;
            Ok(DialogEnd {
                uri: of.uri.as_str().into(),
                tag: tag.into(),
            })
        };
        let from = response.headers.first(HeaderName::From);
        let from = NameAddr::read(from.unwrap_or_default()).map_err(|_| DialogFault::Tag)?;
        let mut hops = routes(&response.headers)?;
        hops.reverse();
        Ok(Self {
            call_id: response.call_id.as_str().into(),
            local: end(&from)?,
            remote: end(&response.to)?,
            target: target(&response.headers)?.ok_or(DialogFault::Contact)?,
            routes: hops.into(),
            sent: response.cseq,
            received: 0,
        })
    }

    /// A further request of theirs: what it says of where they are is so from here on. `has_room` is asked whether
    /// there is room for so many bytes of [`Self::bytes`]; where there is not, the dialog is as before.
    ///
    /// # Errors
    /// [`DialogFault`]; [`DialogFault::TooLong`] where there is no room.
    pub fn take(
        &mut self,
        request: &SipRequest,
        has_room: impl FnOnce(usize) -> bool,
    ) -> Result<(), DialogFault> {
        if !self.has(request) {
            return Err(DialogFault::Other);
        }
        if request.cseq <= self.received {
            return Err(DialogFault::OutOfOrder);
        }
        if let Some(target) = target(&request.headers)? {
            if !has_room(self.bytes() - self.target.len() + target.len()) {
                return Err(DialogFault::TooLong);
            }
            self.target = target;
        }
        self.received = request.cseq;
        Ok(())
    }

    /// Whether a request of theirs belongs to it.
    #[must_use]
    pub fn has(&self, request: &SipRequest) -> bool {
        *self.call_id == *request.call_id
            && request.to.tag() == Some(&*self.local.tag)
            && request.from.tag() == Some(&*self.remote.tag)
    }

    /// Whether it is the dialog of this answer.
    #[must_use]
    pub fn answers(&self, response: &SipResponse) -> bool {
        *self.call_id == *response.call_id && response.to.tag() == Some(&*self.remote.tag)
    }

    #[must_use]
    pub fn call_id(&self) -> &str {
        &self.call_id
    }

    /// Call-ID, and the tag of the other side.
    #[must_use]
    pub fn remote_key(&self) -> (Box<str>, Box<str>) {
        (self.call_id.clone(), self.remote.tag.clone())
    }

    /// Memory held beside the value itself, in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let ends = [&self.local, &self.remote];
        let ends = ends.iter().map(|end| end.uri.len() + end.tag.len());
        let routes = self
            .routes
            .iter()
            .map(|route| route.len() + size_of::<Box<str>>());
        self.call_id.len() + self.target.len() + ends.sum::<usize>() + routes.sum::<usize>()
    }

    /// Begins the next request of ours in it.
    ///
    /// # Errors
    /// [`WriteFault`].
    pub fn begin(&mut self, method: SipMethod, by: SentBy<'_>) -> Result<SipWriter, WriteFault> {
        self.sent += 1;
        self.write(method, self.sent, by)
    }

    /// The ACK of a 2xx to the INVITE of this number (RFC 3261 section 13.2.2.4).
    ///
    /// # Errors
    /// [`WriteFault`].
    pub fn acknowledge(&self, cseq: u32, by: SentBy<'_>) -> Result<Vec<u8>, WriteFault> {
        Ok(self.write(SipMethod::Ack, cseq, by)?.finish())
    }

    fn write(&self, method: SipMethod, cseq: u32, by: SentBy<'_>) -> Result<SipWriter, WriteFault> {
        let name = method.as_str().ok_or(WriteFault::Method)?;
        let mut writer = SipWriter::request(method, &self.target)?
            .field(HeaderName::Via, &by.via())?
            .field(HeaderName::MaxForwards, MAX_FORWARDS)?;
        for route in &self.routes {
            writer = writer.field(HeaderName::Route, route)?;
        }
        writer
            .field(HeaderName::From, &self.local.as_field())?
            .field(HeaderName::To, &self.remote.as_field())?
            .field(HeaderName::CallId, &self.call_id)?
            .field(HeaderName::CSeq, &format!("{cseq} {name}"))
    }
}

impl DialogEnd {
    fn as_field(&self) -> String {
        format!("<{}>;tag={}", self.uri, self.tag)
    }
}

fn target(headers: &SipHeaders) -> Result<Option<Box<str>>, DialogFault> {
    let contact = headers.only(HeaderName::Contact);
    let Some(contact) = contact.map_err(|_| DialogFault::Contact)? else {
        return Ok(None);
    };
    let all = split_list(contact, ',').map_err(DialogFault::ContactValue)?;
    let [contact] = all[..] else {
        return Err(DialogFault::Contact);
    };
    let contact = NameAddr::read(contact).map_err(DialogFault::ContactValue)?;
    if contact.uri.len() > MAX_TARGET_BYTES {
        return Err(DialogFault::TooLong);
    }
    Ok(Some(contact.uri.into()))
}

/// As they stand: who is asked by a request takes its hops in their order (RFC 3261 section 12.1.1).
fn routes(headers: &SipHeaders) -> Result<Vec<Box<str>>, DialogFault> {
    let mut routes: Vec<Box<str>> = Vec::new();
    let mut bytes = 0;
    for value in headers.all(HeaderName::RecordRoute) {
        for route in split_list(value, ',').map_err(DialogFault::Routes)? {
            NameAddr::read(route).map_err(DialogFault::Routes)?;
            bytes += route.len();
            routes.push(route.into());
        }
    }
    if bytes > MAX_ROUTE_BYTES {
        return Err(DialogFault::TooLong);
    }
    Ok(routes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sip::wire::{Framed, Framer, StartLine};

    fn read(text: &str) -> SipRequest {
        let framed = Framer::default().next(text.as_bytes());
        let Ok(Some(Framed::Message {
            start: StartLine::Request { method, uri },
            headers,
            ..
        })) = framed
        else {
            panic!("{text}: {framed:?}");
        };
        SipRequest::read(method, uri, headers).expect("a request")
    }

    fn subscribe(to_tag: &str, cseq: u32, more: &str) -> SipRequest {
        read(&format!(
            "SUBSCRIBE sip:rob@partner.example SIP/2.0\r\nVia: SIP/2.0/TLS a;branch=z9hG4bKa\r\n\
             From: <sip:alice@org.example>;tag=hers\r\nTo: <sip:rob@partner.example>{to_tag}\r\n\
             Call-ID: c\r\nCSeq: {cseq} SUBSCRIBE\r\n{more}Content-Length: 0\r\n\r\n"
        ))
    }

    const BY: SentBy<'_> = SentBy {
        sent_by: "SIP/2.0/TLS hq.example:5061",
        branch: "z9hG4bKx",
    };

    #[test]
    fn what_goes_back_takes_the_hops_and_ends_of_what_came() {
        let hops = "Record-Route: <sip:p2.example;lr>, <sip:p1.example;lr>\r\nRecord-Route: <sip:p0.example;lr>\r\n";
        let more = format!("{hops}Contact: \"A, B\" <sip:alice@10.0.0.1:5070>;expires=60\r\n");
        let mut dialog = Dialog::of_request(&subscribe("", 7, &more), "ours", 0).expect("a dialog");
        let written = dialog.begin(SipMethod::Notify, BY).expect("written");
        let text = String::from_utf8(written.finish()).expect("UTF-8");
        assert_eq!(
            text,
            "NOTIFY sip:alice@10.0.0.1:5070 SIP/2.0\r\n\
             Via: SIP/2.0/TLS hq.example:5061;branch=z9hG4bKx;alias\r\n\
             Max-Forwards: 70\r\n\
             Route: <sip:p2.example;lr>\r\nRoute: <sip:p1.example;lr>\r\nRoute: <sip:p0.example;lr>\r\n\
             From: <sip:rob@partner.example>;tag=ours\r\n\
             To: <sip:alice@org.example>;tag=hers\r\n\
             Call-ID: c\r\nCSeq: 1 NOTIFY\r\nContent-Length: 0\r\n\r\n"
        );
        let refresh = subscribe(";tag=ours", 8, "Contact: <sip:alice@10.0.0.2>\r\n");
        assert_eq!(dialog.take(&refresh, |_| true), Ok(()));
        let written = dialog.begin(SipMethod::Notify, BY).expect("written");
        let text = String::from_utf8(written.finish()).expect("UTF-8");
        assert!(text.starts_with("NOTIFY sip:alice@10.0.0.2 SIP/2.0\r\n"));
        assert!(text.contains("CSeq: 2 NOTIFY") && text.contains("Route: <sip:p1"));
    }

    #[test]
    fn what_is_of_another_dialog_or_older_is_not_taken() {
        let contact = "Contact: <sip:alice@10.0.0.1>\r\n";
        let mut dialog =
            Dialog::of_request(&subscribe("", 7, contact), "ours", 0).expect("a dialog");
        for (request, expected) in [
            (subscribe(";tag=other", 8, contact), DialogFault::Other),
            (subscribe("", 8, contact), DialogFault::Other),
            (subscribe(";tag=ours", 7, contact), DialogFault::OutOfOrder),
            (
                subscribe(";tag=ours", 8, "Contact: <sip:a@b>, <sip:c@d>\r\n"),
                DialogFault::Contact,
            ),
        ] {
            assert_eq!(dialog.take(&request, |_| true), Err(expected));
        }
        let refresh = subscribe(";tag=ours", 8, "");
        assert_eq!(dialog.take(&refresh, |_| true), Ok(()));
    }

    #[test]
    fn sip_43_contacts_and_hops_have_bounds() {
        let of = |more: &str| Dialog::of_request(&subscribe("", 1, more), "t", 0);
        assert_eq!(of(""), Err(DialogFault::Contact));
        let long = format!("Contact: <sip:{}@b>\r\n", "x".repeat(MAX_TARGET_BYTES));
        assert_eq!(of(&long), Err(DialogFault::TooLong));
        let hop = format!("Record-Route: <sip:{};lr>\r\n", "x".repeat(1_100));
        let hops = format!("Contact: <sip:a@b>\r\n{}", hop.repeat(2));
        assert_eq!(of(&hops), Err(DialogFault::TooLong));
    }
}
