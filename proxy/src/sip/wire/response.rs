//! An answer to a request of ours (RFC 3261 section 8.1.3).

use super::{
    HeaderName, NameAddr, ResponseFault, SeveralFields, SipHeaders, Via,
    value::{ValueFault, number, split_list},
};
use crate::sip::{code::StatusCode, method::SipMethod};

/// What tells whose answer it is, and what it says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SipResponse {
    pub code: StatusCode,
    /// Of the one Via, which has to be ours.
    pub branch: String,
    pub method: SipMethod,
    /// Of the request.
    pub cseq: u32,
    pub call_id: String,
    /// With the tag of who answered.
    pub to: NameAddr,
    pub headers: SipHeaders,
}

impl SipResponse {
    /// # Errors
    /// [`ResponseFault`]; one of two Via has gone astray (RFC 3261 section 8.1.3.3).
    pub fn read(code: StatusCode, headers: SipHeaders) -> Result<Self, ResponseFault> {
        let in_field = |name: HeaderName| move |fault| ResponseFault::Value(name.as_str(), fault);
        let via = one(&headers, HeaderName::Via)?;
        let via = match split_list(via, ',').map_err(in_field(HeaderName::Via))?[..] {
            [] => return Err(ResponseFault::Missing("Via")),
            [via] => Via::read(via).map_err(in_field(HeaderName::Via))?,
            _ => return Err(ResponseFault::Several("Via")),
        };
        let branch = via.branch.ok_or(ResponseFault::Missing("branch of Via"))?;
        let cseq = one(&headers, HeaderName::CSeq)?;
        let in_cseq = in_field(HeaderName::CSeq);
        let (digits, method) = cseq
            .split_once([' ', '\t'])
            .ok_or(in_cseq(ValueFault::Character))?;
        let cseq = number(digits, i32::MAX.unsigned_abs()).map_err(in_cseq)?;
        let to = NameAddr::read(one(&headers, HeaderName::To)?);
        Ok(Self {
            code,
            branch,
            method: SipMethod::of_name(method.trim()),
            cseq,
            call_id: one(&headers, HeaderName::CallId)?.to_owned(),
            to: to.map_err(in_field(HeaderName::To))?,
            headers,
        })
    }
}

fn one(headers: &SipHeaders, name: HeaderName) -> Result<&str, ResponseFault> {
    let several = |SeveralFields(name): SeveralFields| ResponseFault::Several(name.as_str());
    let value = headers.only(name).map_err(several)?;
    value.ok_or(ResponseFault::Missing(name.as_str()))
}
