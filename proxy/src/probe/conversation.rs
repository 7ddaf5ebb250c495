//! The little of a stream that a probe needs: header, features, STARTTLS.

use std::{io, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};
use xmpp_edge_crds::domain::DomainName;

use super::report::{FeaturesReport, StartTlsOffer};
use crate::{
    negotiation::{OwnHeader, acks, ns, stream_error},
    tls::Transport,
    xml::{Element, Item, Limits, Scanner, XmlError},
};

/// Largest element taken from a peer that nobody authenticated.
const MAX_ELEMENT: usize = 16_384;
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// Why the peer's side of the stream was of no use.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConversationError {
    #[error("the connection failed: {0}")]
    Io(#[from] io::Error),
    #[error("the peer closed the stream")]
    Closed,
    #[error("the peer does not speak XMPP: {0}")]
    Xml(#[from] XmlError),
    #[error("the peer sent {0}, which was not expected here")]
    Unexpected(String),
    #[error("the peer ended the stream with the error {condition}{}", said(text))]
    Error { condition: String, text: String },
    #[error("the peer refused STARTTLS although it offers it")]
    StartTlsRefused,
}

fn said(text: &str) -> String {
    if text.is_empty() {
        String::new()
    } else {
        format!(" ({text})")
    }
}

pub(super) struct Conversation {
    transport: Transport,
    scanner: Scanner,
    buffer: Vec<u8>,
}

/// What the peer said next, copied out of the buffer.
enum Heard {
    Header { version: bool, dialback: bool },
    Element(Element),
    Close,
}

impl Conversation {
    pub(super) fn new(transport: Transport) -> Self {
        Self {
            transport,
            scanner: Scanner::new(Limits::with_stanza_bytes(MAX_ELEMENT)),
            buffer: Vec::new(),
        }
    }

    /// Opens the stream and waits for the peer's header and features.
    pub(super) async fn open(
        &mut self,
        to: &DomainName,
        from: Option<&DomainName>,
    ) -> Result<FeaturesReport, ConversationError> {
        let header = OwnHeader {
            from: from.map(DomainName::as_str),
            to: Some(to.as_str()),
            id: None,
            version: true,
        }
        .text();
        self.transport.write_all(header.as_bytes()).await?;
        self.transport.flush().await?;
        match self.hear().await? {
            // From before XMPP 1.0: no features will come.
            Heard::Header {
                version: false,
                dialback,
            } => Ok(FeaturesReport {
                dialback,
                ..FeaturesReport::default()
            }),
            Heard::Header { version: true, .. } => match self.hear().await? {
                Heard::Element(element) if element.is(ns::STREAM, "features") => {
                    Ok(read_features(&element))
                }
                other => Err(unexpected(other)),
            },
            other => Err(unexpected(other)),
        }
    }

    /// Asks for TLS. What came with the answer is thrown away: it was not protected.
    pub(super) async fn starttls(&mut self) -> Result<(), ConversationError> {
        self.transport
            .write_all(format!("<starttls xmlns='{}'/>", ns::TLS).as_bytes())
            .await?;
        self.transport.flush().await?;
        match self.hear().await? {
            Heard::Element(element) if element.is(ns::TLS, "proceed") => Ok(()),
            Heard::Element(element) if element.is(ns::TLS, "failure") => {
                Err(ConversationError::StartTlsRefused)
            }
            other => Err(unexpected(other)),
        }
    }

    pub(super) fn into_transport(self) -> Transport {
        self.transport
    }

    /// Hangs up politely; whether the peer minds does not matter any more.
    pub(super) async fn close(mut self) {
        let farewell = async {
            self.transport.write_all(b"</stream:stream>").await?;
            self.transport.shutdown().await
        };
        let _ = timeout(CLOSE_TIMEOUT, farewell).await;
    }

    async fn hear(&mut self) -> Result<Heard, ConversationError> {
        loop {
            if let Some((heard, taken)) = self.next()? {
                self.buffer.drain(..taken);
                if let Some(heard) = heard {
                    return Ok(heard);
                }
                continue;
            }
            if self.transport.read_buf(&mut self.buffer).await? == 0 {
                return Err(ConversationError::Closed);
            }
        }
    }

    fn next(&mut self) -> Result<Option<(Option<Heard>, usize)>, ConversationError> {
        let (bytes, taken) = match self.scanner.next(&self.buffer)? {
            None => return Ok(None),
            Some(
                Item::Whitespace { len }
                | Item::Skipped { len }
                | Item::Faulty { len, .. }
                | Item::Dropped { len, .. },
            ) => {
                return Ok(Some((None, len)));
            }
            Some(Item::Close { len }) => return Ok(Some((Some(Heard::Close), len))),
            Some(Item::Header { len, header }) => {
                let heard = Heard::Header {
                    version: header.version.is_some(),
                    dialback: header.declares_dialback(),
                };
                return Ok(Some((Some(heard), len)));
            }
            Some(Item::Stanza(stanza)) => (stanza.bytes().to_vec(), stanza.bytes().len()),
            Some(Item::Other(other)) => (other.bytes.to_vec(), other.bytes.len()),
        };
        let header = self.scanner.header().cloned().unwrap_or_default();
        let element = Element::parse(&bytes, &header)
            .map_err(|cause| ConversationError::Unexpected(cause.to_string()))?;
        Ok(Some((Some(Heard::Element(element)), taken)))
    }
}

fn unexpected(heard: Heard) -> ConversationError {
    match heard {
        Heard::Close => ConversationError::Closed,
        Heard::Header { .. } => ConversationError::Unexpected("a second header".to_owned()),
        Heard::Element(element) => match stream_error(&element) {
            Some((condition, text)) => ConversationError::Error { condition, text },
            None => ConversationError::Unexpected(format!("<{}/>", element.name)),
        },
    }
}

fn read_features(features: &Element) -> FeaturesReport {
    let starttls = features.child(ns::TLS, "starttls").map(|starttls| {
        match starttls.child(ns::TLS, "required") {
            Some(_) => StartTlsOffer::Required,
            None => StartTlsOffer::Optional,
        }
    });
    let mechanisms = features
        .child(ns::SASL, "mechanisms")
        .map(|mechanisms| {
            mechanisms
                .children()
                .filter(|child| child.is(ns::SASL, "mechanism"))
                .map(|child| child.text().trim().to_owned())
                .collect()
        })
        .unwrap_or_default();
    let dialback = features.child(ns::DIALBACK_FEATURE, "dialback");
    let acks = [acks::Namespace::Sm3, acks::Namespace::Sm2].map(acks::Namespace::as_str);
    let limits = features.child(ns::LIMITS, "limits");
    let number = |name| limits?.child(ns::LIMITS, name)?.text().trim().parse().ok();
    FeaturesReport {
        starttls,
        mechanisms,
        dialback: dialback.is_some(),
        dialback_errors: dialback
            .is_some_and(|dialback| dialback.child(ns::DIALBACK_FEATURE, "errors").is_some()),
        bidi: features.child(ns::BIDI_FEATURE, "bidi").is_some(),
        acks: acks
            .into_iter()
            .find(|version| features.child(version, "sm").is_some())
            .map(Into::into),
        max_bytes: number("max-bytes"),
        idle_seconds: number("idle-seconds"),
    }
}
