//! Why bytes were refused.

use thiserror::Error;

/// The first thing wrong with what a peer sent. The stream ends with [`XmlError::condition`]; the
/// `Display` text is short and names nothing that the peer sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Error)]
pub enum XmlError {
    #[error("not UTF-8")]
    NotUtf8,
    #[error("encoding other than UTF-8")]
    Encoding,
    #[error("XML version other than 1.0")]
    Version,
    #[error("a document that is not standalone")]
    NotStandalone,
    #[error("a character that XML forbids")]
    ForbiddenCharacter,
    #[error("comment")]
    Comment,
    #[error("processing instruction")]
    ProcessingInstruction,
    #[error("document type declaration")]
    DocumentType,
    #[error("entity reference other than the five")]
    EntityReference,
    #[error("element or attribute name outside ASCII")]
    ExoticName,
    #[error("malformed markup")]
    Markup,
    #[error("no white space before an attribute")]
    MissingSpace,
    #[error("'<' in an attribute value")]
    LessThanInAttribute,
    #[error("']]>' in text")]
    SectionEndInText,
    #[error("malformed reference")]
    Reference,
    #[error("attribute given twice")]
    DuplicateAttribute,
    #[error("end tag does not match")]
    EndTag,
    #[error("bytes after the end of the stream")]
    AfterEnd,
    #[error("prefix not declared")]
    UndeclaredPrefix,
    #[error("reserved prefix or namespace, or a prefix undeclared")]
    ReservedPrefix,
    #[error("white space or control character in a namespace name")]
    NamespaceName,
    #[error("not the namespace of streams")]
    StreamNamespace,
    #[error("the first element is not a stream")]
    NotAStream,
    #[error("text between stanzas")]
    TextBetweenStanzas,
    #[error(
        "TLS where a plain stream was expected: is this the port of direct TLS (_xmpps-server)?"
    )]
    TlsRecord,
    #[error("text where a stream was expected: what speaks there is not XMPP")]
    NotXmpp,
    #[error("a stanza in another namespace than that of the stream")]
    StanzaNamespace,
    #[error("a stream header inside the stream")]
    SecondHeader,
    #[error("element larger than allowed")]
    TooLarge,
    #[error("elements nested too deep")]
    TooDeep,
    #[error("too many attributes")]
    TooManyAttributes,
    #[error("too many namespace declarations")]
    TooManyNamespaces,
    #[error("name too long")]
    NameTooLong,
}

impl XmlError {
    /// The stream error condition, RFC 6120 section 4.9.3.
    pub fn condition(&self) -> &'static str {
        match self {
            Self::Encoding => "unsupported-encoding",
            Self::Comment
            | Self::ProcessingInstruction
            | Self::DocumentType
            | Self::EntityReference
            | Self::ExoticName
            | Self::Version
            | Self::NotStandalone => "restricted-xml",
            Self::NotUtf8
            | Self::ForbiddenCharacter
            | Self::TlsRecord
            | Self::Markup
            | Self::MissingSpace
            | Self::LessThanInAttribute
            | Self::SectionEndInText
            | Self::Reference
            | Self::DuplicateAttribute
            | Self::EndTag
            | Self::AfterEnd => "not-well-formed",
            Self::UndeclaredPrefix | Self::ReservedPrefix => "bad-namespace-prefix",
            Self::StreamNamespace | Self::StanzaNamespace => "invalid-namespace",
            Self::NamespaceName | Self::NotAStream | Self::TextBetweenStanzas | Self::NotXmpp => {
                "bad-format"
            }
            Self::SecondHeader => "unsupported-stanza-type",
            Self::TooLarge
            | Self::TooDeep
            | Self::TooManyAttributes
            | Self::TooManyNamespaces
            | Self::NameTooLong => "policy-violation",
        }
    }

    /// Whether well-formed XML can have it, so that the end of the stanza can be found all the same:
    /// a limit, or a rule that is stricter than XML and its namespaces are. What breaks those has to
    /// end the stream (RFC 6120 sections 11.1 and 11.3).
    pub fn is_of_one_stanza(&self) -> bool {
        self.is_limit()
            || matches!(
                self,
                Self::NamespaceName | Self::ExoticName | Self::StanzaNamespace
            )
    }

    /// Whether it is a limit.
    pub fn is_limit(&self) -> bool {
        matches!(
            self,
            Self::TooLarge
                | Self::TooDeep
                | Self::TooManyAttributes
                | Self::TooManyNamespaces
                | Self::NameTooLong
        )
    }

    /// For the sender of a stanza that was refused over it.
    pub fn as_text(&self) -> &'static str {
        match self {
            Self::TooLarge => "The stanza is larger than servers here take.",
            Self::TooDeep => "The elements of the stanza are nested too deep.",
            Self::TooManyAttributes => "An element of the stanza has too many attributes.",
            Self::TooManyNamespaces => "The stanza has too many namespace declarations.",
            Self::NameTooLong => "A name in the stanza is too long.",
            Self::StanzaNamespace => "The stanza is in another namespace than that of its stream.",
            _ => "The stanza has names that not every server can read.",
        }
    }

    /// A name for metrics and logs: a fixed set of CamelCase words.
    pub fn label(&self) -> &'static str {
        match self {
            Self::NotUtf8 => "NotUtf8",
            Self::Encoding => "Encoding",
            Self::Version => "XmlVersion",
            Self::NotStandalone => "NotStandalone",
            Self::ForbiddenCharacter => "ForbiddenCharacter",
            Self::Comment => "Comment",
            Self::ProcessingInstruction => "ProcessingInstruction",
            Self::DocumentType => "DocumentType",
            Self::EntityReference => "EntityReference",
            Self::ExoticName => "ExoticName",
            Self::Markup => "Markup",
            Self::MissingSpace => "MissingSpace",
            Self::LessThanInAttribute => "LessThanInAttribute",
            Self::SectionEndInText => "SectionEndInText",
            Self::Reference => "Reference",
            Self::DuplicateAttribute => "DuplicateAttribute",
            Self::EndTag => "EndTag",
            Self::AfterEnd => "AfterEnd",
            Self::UndeclaredPrefix => "UndeclaredPrefix",
            Self::ReservedPrefix => "ReservedPrefix",
            Self::NamespaceName => "NamespaceName",
            Self::StreamNamespace => "StreamNamespace",
            Self::NotAStream => "NotAStream",
            Self::TextBetweenStanzas => "TextBetweenStanzas",
            Self::TlsRecord => "TlsRecord",
            Self::NotXmpp => "NotXmpp",
            Self::StanzaNamespace => "StanzaNamespace",
            Self::SecondHeader => "SecondHeader",
            Self::TooLarge => "TooLarge",
            Self::TooDeep => "TooDeep",
            Self::TooManyAttributes => "TooManyAttributes",
            Self::TooManyNamespaces => "TooManyNamespaces",
            Self::NameTooLong => "NameTooLong",
        }
    }
}
