//! What a MESSAGE carries (RFC 3428, 3862, 3994): text, or that somebody is writing.

mod cpim;
mod mime;
#[cfg(test)]
mod tests;
mod text;
mod typing;

use thiserror::Error;
use xmpp_edge_crds::jid::BareJid;

use self::mime::MimeEntity;
pub use self::typing::Typing;
use crate::sip::wire::{Parameterised, ValueFault};

/// Media types that a MESSAGE may have here: value of Accept in a 415 (RFC 3261 section 8.2.3).
pub const ACCEPT: &str =
    "text/plain, application/im-iscomposing+xml, message/cpim, multipart/alternative";

/// What a MESSAGE carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MessageBody {
    /// As XMPP can carry it: line ends are LF, what XML forbids is U+FFFD. Never empty.
    Text(String),
    Typing(Typing),
    /// No bytes, or a text of none.
    Nothing,
}

/// Who the request says that it is from and to: a wrapper inside may not say otherwise.
#[derive(Clone, Copy, Debug)]
pub struct RequestParties<'a> {
    pub from: &'a BareJid,
    pub to: &'a BareJid,
}

/// Why a body is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Error)]
pub enum BodyFault {
    #[error("a body without Content-Type")]
    NoType,
    #[error("Content-Type: {0}")]
    Type(ValueFault),
    /// The type, its charset, or a transfer encoding.
    #[error("a media type that is not carried")]
    Unsupported,
    #[error("bytes that are not of the charset that they are said to be")]
    Charset,
    #[error("a malformed wrapper")]
    Wrapper,
    #[error("a malformed application/im-iscomposing+xml")]
    Typing,
    /// From or To of the wrapper is not that of the request.
    #[error("a wrapper that is from or to somebody else")]
    OtherParties,
}

impl BodyFault {
    /// The code of the answer; with 415 goes [`ACCEPT`].
    #[must_use]
    pub fn code(self) -> u16 {
        match self {
            Self::Unsupported => 415,
            Self::OtherParties => 403,
            Self::NoType | Self::Type(_) | Self::Charset | Self::Wrapper | Self::Typing => 400,
        }
    }
}

impl MessageBody {
    /// Of a MESSAGE with this Content-Type. One wrapper is opened, none inside another.
    ///
    /// # Errors
    /// [`BodyFault`].
    pub fn read(
        content_type: Option<&str>,
        body: &[u8],
        parties: RequestParties<'_>,
    ) -> Result<Self, BodyFault> {
        if body.is_empty() {
            return Ok(Self::Nothing);
        }
        let content_type = content_type.ok_or(BodyFault::NoType)?;
        let media = Parameterised::read(content_type).map_err(BodyFault::Type)?;
        match media.value.as_str() {
            "message/cpim" => plain(&cpim::content(body, parties)?),
            "multipart/alternative" => {
                let boundary = media.parameters.get("boundary").ok_or(BodyFault::Wrapper)?;
                alternative(&mime::parts(body, boundary)?)
            }
            _ => plain(&MimeEntity {
                media: Some(media),
                encoding: None,
                content: body,
            }),
        }
    }
}

/// What one of the media types of which none holds another says.
fn plain(entity: &MimeEntity<'_>) -> Result<MessageBody, BodyFault> {
    if !entity.is_as_it_is() {
        return Err(BodyFault::Unsupported);
    }
    match entity.media_type() {
        "text/plain" => {
            let charset = entity
                .media
                .as_ref()
                .and_then(|it| it.parameters.get("charset"));
            let text = text::decode(charset, entity.content)?;
            Ok(if text.is_empty() {
                MessageBody::Nothing
            } else {
                MessageBody::Text(text)
            })
        }
        "application/im-iscomposing+xml" => Typing::read(entity.content)
            .map(MessageBody::Typing)
            .map_err(|_| BodyFault::Typing),
        _ => Err(BodyFault::Unsupported),
    }
}

/// The first text among them: the others say the same in other types (RFC 2046 section 5.1.4).
fn alternative(parts: &[MimeEntity<'_>]) -> Result<MessageBody, BodyFault> {
    let text = parts.iter().find(|it| it.media_type() == "text/plain");
    plain(text.ok_or(BodyFault::Unsupported)?)
}
