//! The stream header, every part of it replaceable.

use std::fmt::Write;

use super::ns;
use crate::xml::escape;

/// A stream header to be written.
#[derive(Clone, Debug)]
pub struct Open {
    pub from: Option<String>,
    pub to: Option<String>,
    pub id: Option<String>,
    pub version: Option<String>,
    /// The default namespace.
    pub content: String,
    /// The namespace of the prefix `stream`.
    pub stream: String,
    /// Before the root element.
    pub declaration: String,
    /// Written into the start tag as it stands.
    pub more: String,
}

impl Open {
    /// The header of a well-behaved initiator.
    pub fn new(from: &str, to: &str) -> Self {
        Self {
            from: Some(from.to_owned()),
            to: Some(to.to_owned()),
            id: None,
            version: Some("1.0".to_owned()),
            content: ns::SERVER.to_owned(),
            stream: ns::STREAM.to_owned(),
            declaration: "<?xml version='1.0'?>".to_owned(),
            more: String::new(),
        }
    }

    /// The text, ready to be sent.
    pub fn text(&self) -> String {
        let mut text = format!(
            "{}<stream:stream xmlns='{}' xmlns:db='{}' xmlns:stream='{}'",
            self.declaration,
            escape(&self.content),
            ns::DIALBACK,
            escape(&self.stream)
        );
        for (name, value) in [
            ("from", &self.from),
            ("to", &self.to),
            ("id", &self.id),
            ("version", &self.version),
        ] {
            if let Some(value) = value {
                write!(text, " {name}='{}'", escape(value)).expect("strings take all");
            }
        }
        text + &self.more + ">"
    }
}
