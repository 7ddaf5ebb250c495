//! `message/cpim` (RFC 3862): who said something, around what was said.

use super::{
    BodyFault, RequestParties,
    mime::{MimeEntity, split_fields},
};
use crate::sip::{
    address::SipUri,
    wire::{NameAddr, split_list},
};

/// What it is around. From and each To have to be the request's, where they are given: they are who the
/// reader would believe it to be from.
pub(super) fn content<'a>(
    body: &'a [u8],
    parties: RequestParties<'_>,
) -> Result<MimeEntity<'a>, BodyFault> {
    let (fields, inner) = split_fields(body)?;
    for (name, value) in fields {
        // Names have case, and a prefix where they are another namespace's (section 3.4).
        let expected = match name.as_str() {
            "From" => parties.from,
            "To" => parties.to,
            // What has to be understood is not (section 3.5).
            "Require" => return Err(BodyFault::Unsupported),
            _ => continue,
        };
        // Parameters stand before the value: `From:;lang=de …`.
        let value = if value.starts_with(';') {
            let parts = split_list(&value, ' ').map_err(|_| BodyFault::Wrapper)?;
            parts[1..].join(" ")
        } else {
            value
        };
        let address = NameAddr::read(&value).map_err(|_| BodyFault::Wrapper)?;
        let found = SipUri::parse(&address.uri)
            .ok()
            .and_then(|uri| uri.bare_jid().ok());
        if found.as_ref() != Some(expected) {
            return Err(BodyFault::OtherParties);
        }
    }
    MimeEntity::read(inner)
}
