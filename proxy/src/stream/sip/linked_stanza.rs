//! Stanzas as the queues hold them, read again: each has been checked when it came.

use std::sync::Arc;

use crate::{
    negotiation::OwnHeader,
    xml::{Element, Item, Limits, Scanner, StreamHeader, stanza::Stanza},
};

/// A stream of ours as far as what stands in it has to be read.
#[derive(Debug)]
pub(super) struct StanzaReader {
    scanner: Scanner,
    header: Arc<StreamHeader>,
}

impl StanzaReader {
    /// For stanzas of at most so many bytes.
    pub(super) fn new(stanza_bytes: usize) -> Self {
        let text = OwnHeader {
            from: None,
            to: None,
            id: None,
            version: true,
        }
        .text();
        let mut scanner = Scanner::new(Limits::of_our_own(stanza_bytes));
        let header = match scanner.next(text.as_bytes()) {
            Ok(Some(Item::Header { header, .. })) => header,
            // A header of our own is one.
            _ => Arc::new(StreamHeader::implied()),
        };
        Self { scanner, header }
    }

    /// The one stanza that these bytes are; `None` where they are something else.
    pub(super) fn stanza<'a>(
        &'a mut self,
        bytes: &'a [u8],
    ) -> Option<(Stanza<'a>, &'a StreamHeader)> {
        let Self { scanner, header } = self;
        match scanner.next(bytes) {
            Ok(Some(Item::Stanza(stanza))) if stanza.text.len() == bytes.len() => {
                Some((stanza, header))
            }
            _ => None,
        }
    }

    /// As [`Self::stanza`], as a tree.
    pub(super) fn element(&mut self, bytes: &[u8]) -> Option<Element> {
        let (stanza, header) = self.stanza(bytes)?;
        Element::parse(stanza.bytes(), header).ok()
    }

    /// The language that a stanza without one has.
    pub(super) fn language(&self) -> Option<String> {
        self.header.lang.as_deref().map(str::to_owned)
    }
}
