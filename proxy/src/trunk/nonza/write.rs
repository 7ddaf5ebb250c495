//! From a nonza to bytes.

use std::io::Write;

use super::{
    EdgeChange, Enable, Enabled, Nonza, OpenedPair, ServerState, TEXT_CHARACTERS, TrunkAck,
};
use crate::{trunk::NAMESPACE, xml::text::escape_attribute};

impl Nonza {
    /// Appends it as it stands on a trunk.
    pub fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Enable(enable) => write_enable(enable, out),
            Self::Enabled(enabled) => write_enabled(enabled, out),
            Self::Pair(pair) => pair.write(out),
            Self::Ack(ack) => ack.write(out),
            Self::Request(number) => Tag::open("r", out).plain("n", *number).close(),
            Self::End(number) => Tag::open("end", out).plain("i", number.0).close(),
            Self::Drain => Tag::open("drain", out).close(),
            Self::Edge(change) => Tag::open("edge", out).change(*change).close(),
            Self::Server(state) => write_server(state, out),
            Self::Claim(since) => Tag::open("claim", out).some("since", *since).close(),
        }
    }
}

impl OpenedPair {
    /// As [`Nonza::write`].
    pub fn write(&self, out: &mut Vec<u8>) {
        Tag::open("pair", out)
            .plain("i", self.number.0)
            .text("from", self.pair.from.as_str())
            .text("to", self.pair.to.as_str())
            .close();
    }
}

impl TrunkAck {
    /// As [`Nonza::write`].
    pub fn write(&self, out: &mut Vec<u8>) {
        let tag = Tag::open("a", out).some("n", self.answers);
        if self.counts.is_empty() {
            return tag.close();
        }
        tag.0.push(b'>');
        for count in &self.counts {
            write(
                out,
                format_args!("<p i='{}' h='{}'/>", count.number, count.h),
            );
        }
        out.extend_from_slice(b"</a>");
    }
}

fn write_enable(enable: &Enable, out: &mut Vec<u8>) {
    let server = match enable.server {
        // Its words follow once the trunk stands.
        ServerState::Up | ServerState::Refuses { .. } => "up",
        ServerState::Down { .. } => "down",
    };
    Tag::open("enable", out)
        .text("instance", enable.instance.as_str())
        .some("start", enable.start)
        .plain("version", enable.version)
        .plain("queue", enable.queue)
        .some("claim", enable.claim)
        .text("server", server)
        .close();
}

fn write_enabled(enabled: &Enabled, out: &mut Vec<u8>) {
    let facts = enabled.facts;
    Tag::open("enabled", out)
        .text("pool", enabled.pool.as_str())
        .text("pod", enabled.pod.as_str())
        .plain("version", enabled.version)
        .plain("queue", enabled.queue)
        .change(EdgeChange {
            priority: Some(facts.priority),
            weight: Some(facts.weight),
            is_withdrawn: facts.is_withdrawn.then_some(true),
            replicas: Some(facts.replicas),
            activity: Some(enabled.activity),
        })
        .close();
}

fn write_server(state: &ServerState, out: &mut Vec<u8>) {
    let is_up = !matches!(state, ServerState::Down { .. });
    let tag = Tag::open("server", out).plain("up", is_up);
    match state.words() {
        None => tag.close(),
        Some(text) => {
            let text: String = text.chars().take(TEXT_CHARACTERS).collect();
            tag.text("text", &text).close();
        }
    }
}

/// The start tag of an empty element of [`NAMESPACE`].
struct Tag<'a>(&'a mut Vec<u8>);

impl<'a> Tag<'a> {
    fn open(name: &str, out: &'a mut Vec<u8>) -> Self {
        write(out, format_args!("<{name} xmlns='{NAMESPACE}'"));
        Self(out)
    }

    /// A value that needs no escaping.
    fn plain(self, name: &str, value: impl std::fmt::Display) -> Self {
        write(self.0, format_args!(" {name}='{value}'"));
        self
    }

    fn some(self, name: &str, value: Option<impl std::fmt::Display>) -> Self {
        match value {
            Some(value) => self.plain(name, value),
            None => self,
        }
    }

    fn text(self, name: &str, value: &str) -> Self {
        write(self.0, format_args!(" {name}='"));
        escape_attribute(value, self.0);
        self.0.push(b'\'');
        self
    }

    fn change(self, change: EdgeChange) -> Self {
        self.some("priority", change.priority)
            .some("weight", change.weight)
            .some("withdrawn", change.is_withdrawn)
            .some("replicas", change.replicas)
            .some("active", change.activity.map(|own| own.is_active))
            .some("claim", change.activity.and_then(|own| own.claim))
    }

    fn close(self) {
        self.0.extend_from_slice(b"/>");
    }
}

fn write(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    // Writing into memory does not fail.
    let _ = out.write_fmt(text);
}
