//! A request, checked as far as every method wants it (RFC 3261 section 8.2).

use super::{
    HeaderName, MAX_HOPS, NameAddr, RequestFault, SeveralFields, SipHeaders, Via,
    value::{ValueFault, number, split_list},
};
use crate::sip::method::SipMethod;

/// What each request says. Its body is beside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SipRequest {
    pub method: SipMethod,
    /// The Request-URI, as it came.
    pub uri: String,
    /// The newest hop first; at least one, 20 at most.
    pub vias: Vec<Via>,
    pub from: NameAddr,
    pub to: NameAddr,
    pub call_id: String,
    /// Below 2³¹ (RFC 3261 section 8.1.1.5).
    pub cseq: u32,
    pub headers: SipHeaders,
}

impl SipRequest {
    /// What every answer needs is checked first, so that a fault can be answered:
    /// [`SipWriter::answer`](super::SipWriter::answer) takes the headers as they came.
    ///
    /// # Errors
    /// [`RequestFault`].
    pub fn read(method: SipMethod, uri: String, headers: SipHeaders) -> Result<Self, RequestFault> {
        let vias = vias(&headers)?;
        let from = name_addr(&headers, HeaderName::From)?;
        let to = name_addr(&headers, HeaderName::To)?;
        let call_id = call_id(&headers)?;
        let cseq = cseq(&headers, method)?;
        if from.tag().is_none() {
            return Err(RequestFault::Missing("tag of From"));
        }
        check_hops(&headers)?;
        Ok(Self {
            method,
            uri,
            vias,
            from,
            to,
            call_id,
            cseq,
            headers,
        })
    }

    /// Whether it can be taken as it is meant: what comes after its method and its addressee
    /// (RFC 3261 section 8.2).
    ///
    /// # Errors
    /// [`RequestFault::Extension`], [`RequestFault::Encoded`].
    pub fn check_understood(&self) -> Result<(), RequestFault> {
        // CANCEL and ACK may not have it (section 8.2.2.3).
        let may_require = !matches!(self.method, SipMethod::Ack | SipMethod::Cancel);
        let mut required = self.headers.all(HeaderName::Require);
        if may_require && required.any(|it| !it.is_empty()) {
            return Err(RequestFault::Extension);
        }
        let is_plain = |it: &str| it.eq_ignore_ascii_case("identity");
        if !self.headers.all(HeaderName::ContentEncoding).all(is_plain) {
            return Err(RequestFault::Encoded);
        }
        Ok(())
    }
}

fn vias(headers: &SipHeaders) -> Result<Vec<Via>, RequestFault> {
    let fault = |fault| RequestFault::Value("Via", fault);
    let mut vias = Vec::new();
    for value in headers.all(HeaderName::Via) {
        for text in split_list(value, ',').map_err(fault)? {
            if vias.len() == MAX_HOPS {
                return Err(RequestFault::TooManyHops);
            }
            vias.push(Via::read(text).map_err(fault)?);
        }
    }
    if vias.is_empty() {
        return Err(RequestFault::Missing("Via"));
    }
    Ok(vias)
}

fn check_hops(headers: &SipHeaders) -> Result<(), RequestFault> {
    let mut routes = 0;
    for value in headers.all(HeaderName::RecordRoute) {
        let values = split_list(value, ',');
        routes += values
            .map_err(|fault| RequestFault::Value("Record-Route", fault))?
            .len();
    }
    if routes > MAX_HOPS {
        return Err(RequestFault::TooManyHops);
    }
    match only(headers, HeaderName::MaxForwards)? {
        None => Ok(()),
        Some(text) => match number(text, 255) {
            Ok(0) => Err(RequestFault::NoForwardsLeft),
            Ok(_) => Ok(()),
            Err(fault) => Err(RequestFault::Value("Max-Forwards", fault)),
        },
    }
}

fn only(headers: &SipHeaders, name: HeaderName) -> Result<Option<&str>, RequestFault> {
    let several = |SeveralFields(name): SeveralFields| RequestFault::Several(name.as_str());
    headers.only(name).map_err(several)
}

fn one(headers: &SipHeaders, name: HeaderName) -> Result<&str, RequestFault> {
    only(headers, name)?.ok_or(RequestFault::Missing(name.as_str()))
}

fn name_addr(headers: &SipHeaders, name: HeaderName) -> Result<NameAddr, RequestFault> {
    let value = one(headers, name)?;
    NameAddr::read(value).map_err(|fault| RequestFault::Value(name.as_str(), fault))
}

fn call_id(headers: &SipHeaders) -> Result<String, RequestFault> {
    let value = one(headers, HeaderName::CallId)?;
    if value.is_empty() {
        return Err(RequestFault::Value("Call-ID", ValueFault::Empty));
    }
    if value.contains([' ', '\t']) {
        return Err(RequestFault::Value("Call-ID", ValueFault::Character));
    }
    Ok(value.to_owned())
}

fn cseq(headers: &SipHeaders, method: SipMethod) -> Result<u32, RequestFault> {
    let fault = |fault| RequestFault::Value("CSeq", fault);
    let value = one(headers, HeaderName::CSeq)?;
    let (digits, name) = value
        .split_once([' ', '\t'])
        .ok_or(fault(ValueFault::Character))?;
    let digits = number(digits, i32::MAX.unsigned_abs()).map_err(fault)?;
    // Of two that are not known nobody can tell; both are answered by 501.
    if SipMethod::of_name(name.trim()) != method {
        return Err(RequestFault::MethodMismatch);
    }
    Ok(digits)
}
