//! What can be wrong with what a SIP server sends: one value maps to the code of an answer and a label.

use thiserror::Error;

use super::{MAX_BODY_BYTES, MAX_HEAD_BYTES, MAX_HEAD_LINES, MAX_LINE_BYTES, ValueFault};

/// Why a stream cannot be read any further. Texts name nothing that the peer sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Error)]
pub enum FrameFault {
    #[error("not SIP")]
    NotSip,
    #[error("a version of SIP other than 2.0")]
    Version,
    #[error("a malformed start line")]
    StartLine,
    #[error("a head of more than {MAX_HEAD_BYTES} bytes")]
    HeadTooLarge,
    #[error("a head of more than {MAX_HEAD_LINES} lines")]
    TooManyLines,
    #[error("a header field of more than {MAX_LINE_BYTES} bytes")]
    LineTooLong,
    #[error("a line of a head that is no header field")]
    HeaderLine,
    #[error("a carriage return or a line feed by itself in a head")]
    BareLineEnd,
    #[error("a head that is not UTF-8")]
    NotUtf8,
    #[error("no Content-Length, without which a stream cannot be framed")]
    NoLength,
    #[error("more than one Content-Length")]
    SeveralLengths,
    #[error("a Content-Length that is no number of bytes")]
    Length,
    #[error("a body of more than {MAX_BODY_BYTES} bytes")]
    BodyTooLarge,
}

impl FrameFault {
    /// The code of the answer before the end.
    #[must_use]
    pub fn code(self) -> u16 {
        match self {
            Self::Version => 505,
            Self::BodyTooLarge => 413,
            Self::NotSip
            | Self::StartLine
            | Self::HeadTooLarge
            | Self::TooManyLines
            | Self::LineTooLong
            | Self::HeaderLine
            | Self::BareLineEnd
            | Self::NotUtf8
            | Self::NoLength
            | Self::SeveralLengths
            | Self::Length => 400,
        }
    }

    /// A name for metrics and logs: a fixed set of CamelCase words.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::NotSip => "NotSip",
            Self::Version => "SipVersion",
            Self::StartLine => "StartLine",
            Self::HeadTooLarge => "HeadTooLarge",
            Self::TooManyLines => "TooManyLines",
            Self::LineTooLong => "LineTooLong",
            Self::HeaderLine => "HeaderLine",
            Self::BareLineEnd => "BareLineEnd",
            Self::NotUtf8 => "NotUtf8",
            Self::NoLength => "NoLength",
            Self::SeveralLengths => "SeveralLengths",
            Self::Length => "Length",
            Self::BodyTooLarge => "BodyTooLarge",
        }
    }
}

/// Why a request that was framed is not one that can be served. The connection goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Error)]
pub enum RequestFault {
    #[error("no {0}")]
    Missing(&'static str),
    #[error("more than one {0}")]
    Several(&'static str),
    #[error("{0}: {1}")]
    Value(&'static str, ValueFault),
    #[error("CSeq names another method than the request")]
    MethodMismatch,
    #[error("more hops than {}", super::MAX_HOPS)]
    TooManyHops,
    #[error("Max-Forwards is 0")]
    NoForwardsLeft,
    /// RFC 3261 section 8.2.2.3: nothing that would be required is spoken here.
    #[error("Require asks for an extension")]
    Extension,
    #[error("a body with a Content-Encoding")]
    Encoded,
}

impl RequestFault {
    /// The code of the answer.
    #[must_use]
    pub fn code(self) -> u16 {
        match self {
            Self::Missing(_) | Self::Several(_) | Self::Value(..) | Self::MethodMismatch => 400,
            Self::Encoded => 415,
            Self::Extension => 420,
            Self::TooManyHops | Self::NoForwardsLeft => 483,
        }
    }
}

/// Why an answer is none that can be told whose it is: it is dropped, and counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Error)]
pub enum ResponseFault {
    #[error("no {0}")]
    Missing(&'static str),
    #[error("more than one {0}")]
    Several(&'static str),
    #[error("{0}: {1}")]
    Value(&'static str, ValueFault),
}
