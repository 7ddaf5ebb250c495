//! The counters of XEP-0198, acks without resumption, for both ways of one stream.
//!
//! They count; who keeps the unacknowledged stanzas (`route/`) and when an `<a/>` or `<r/>` is
//! written (`stream/`) is decided elsewhere. Counts are modulo 2³² (XEP-0198 section 4).

use super::Fault;

/// The version that the stream speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Namespace {
    Sm2,
    Sm3,
}

impl Namespace {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sm2 => "urn:xmpp:sm:2",
            Self::Sm3 => "urn:xmpp:sm:3",
        }
    }

    #[must_use]
    pub fn of(namespace: &str) -> Option<Self> {
        match namespace {
            "urn:xmpp:sm:2" => Some(Self::Sm2),
            "urn:xmpp:sm:3" => Some(Self::Sm3),
            _ => None,
        }
    }
}

/// `<r/>` or `<a/>` in the form in which all servers write them. Others are read as elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AcksWord {
    Request,
    Answer(u32),
}

impl AcksWord {
    /// Reads one whole element that a scanner has checked.
    #[must_use]
    pub fn of(element: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(element).ok()?;
        let inside = text.strip_prefix('<')?.strip_suffix("/>")?;
        let (name, attributes) = inside.split_once(' ')?;
        let mut attributes = attributes.trim_end().split(' ').map(attribute);
        let (first, second) = (attributes.next()??, attributes.next());
        if attributes.next().is_some() {
            return None;
        }
        match (name, first, second) {
            ("r", ("xmlns", version), None) => {
                Namespace::of(version)?;
                Some(Self::Request)
            }
            ("a", ("xmlns", version), Some(Some(("h", handled))))
            | ("a", ("h", handled), Some(Some(("xmlns", version))))
                if handled.bytes().all(|digit| digit.is_ascii_digit()) =>
            {
                Namespace::of(version)?;
                handled.parse().ok().map(Self::Answer)
            }
            _ => None,
        }
    }
}

/// `name='value'` in either quotes.
fn attribute(text: &str) -> Option<(&str, &str)> {
    let (name, quoted) = text.split_once('=')?;
    let quote = quoted
        .chars()
        .next()
        .filter(|own| matches!(own, '\'' | '"'))?;
    let value = quoted.strip_prefix(quote)?.strip_suffix(quote)?;
    (!value.contains(quote)).then_some((name, value))
}

/// What was sent to a peer that acknowledges by a count; both begin at zero.
#[derive(Clone, Copy, Debug, Default)]
pub struct SentCount {
    sent: u32,
    acknowledged: u32,
}

impl SentCount {
    /// `count` stanzas were written to the peer.
    pub fn sent(&mut self, count: u32) {
        self.sent = self.sent.wrapping_add(count);
    }

    /// Stanzas written and not acknowledged.
    #[must_use]
    pub fn outstanding(&self) -> u32 {
        self.sent.wrapping_sub(self.acknowledged)
    }

    /// The peer says that it handled `h`; answers how many stanzas that newly acknowledges. An `h`
    /// below the last one is read as one beyond what was sent: counts never go back.
    ///
    /// # Errors
    /// [`Fault::HandledCountTooHigh`] where the peer claims more than was sent.
    pub fn acknowledge(&mut self, h: u32) -> Result<u32, Fault> {
        let fresh = h.wrapping_sub(self.acknowledged);
        if fresh > self.outstanding() {
            return Err(Fault::HandledCountTooHigh {
                acknowledged: h,
                sent: self.sent,
            });
        }
        self.acknowledged = h;
        Ok(fresh)
    }

    /// The peer says that it handled `h`, which [`Self::acknowledge`] refused; answers how many stanzas that
    /// newly acknowledges. One ahead of what was sent comes of a peer that counts something twice: it has
    /// handled all of that. One that went back proves nothing.
    pub fn acknowledge_beyond(&mut self, h: u32) -> u32 {
        let is_ahead = h.wrapping_sub(self.sent) < 1 << 31;
        let fresh = if is_ahead { self.outstanding() } else { 0 };
        self.acknowledged = self.acknowledged.wrapping_add(fresh);
        fresh
    }
}

/// What was sent and handled since acks were enabled; both ways begin at zero.
#[derive(Clone, Debug)]
pub struct Acks {
    namespace: Namespace,
    handled: u32,
    told: u32,
    count: SentCount,
}

impl Acks {
    #[must_use]
    pub fn new(namespace: Namespace) -> Self {
        Self {
            namespace,
            handled: 0,
            told: 0,
            count: SentCount::default(),
        }
    }

    /// `count` more of the peer's stanzas are settled: acknowledged by the next hop, answered, or
    /// written where the next hop cannot acknowledge. Settle in the order in which they came.
    pub fn settle(&mut self, count: u32) {
        self.handled = self.handled.wrapping_add(count);
    }

    /// Whether there is something to tell that the peer has not been told.
    #[must_use]
    pub fn has_news(&self) -> bool {
        self.handled != self.told
    }

    /// Writes an `<a/>` with the count so far.
    pub fn write_ack(&mut self, out: &mut Vec<u8>) {
        self.told = self.handled;
        out.extend_from_slice(
            format!(
                "<a xmlns='{}' h='{}'/>",
                self.namespace.as_str(),
                self.handled
            )
            .as_bytes(),
        );
    }

    /// Writes an `<r/>`.
    pub fn write_request(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(format!("<r xmlns='{}'/>", self.namespace.as_str()).as_bytes());
    }

    /// As [`SentCount::sent`].
    pub fn sent(&mut self, count: u32) {
        self.count.sent(count);
    }

    /// As [`SentCount::outstanding`].
    #[must_use]
    pub fn outstanding(&self) -> u32 {
        self.count.outstanding()
    }

    /// As [`SentCount::acknowledge`].
    ///
    /// # Errors
    /// [`Fault::HandledCountTooHigh`] where the peer claims more than was sent.
    pub fn acknowledge(&mut self, h: u32) -> Result<u32, Fault> {
        self.count.acknowledge(h)
    }

    /// As [`SentCount::acknowledge_beyond`].
    pub fn acknowledge_beyond(&mut self, h: u32) -> u32 {
        self.count.acknowledge_beyond(h)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_of_all_servers_are_read_and_odd_ones_are_left_to_the_machine() {
        for (text, word) in [
            ("<r xmlns='urn:xmpp:sm:3'/>", Some(AcksWord::Request)),
            ("<r xmlns=\"urn:xmpp:sm:2\" />", Some(AcksWord::Request)),
            (
                "<a xmlns='urn:xmpp:sm:3' h='17'/>",
                Some(AcksWord::Answer(17)),
            ),
            (
                "<a h=\"0\" xmlns='urn:xmpp:sm:3'/>",
                Some(AcksWord::Answer(0)),
            ),
            ("<a xmlns='urn:xmpp:sm:3' h='4294967296'/>", None),
            ("<a xmlns='urn:xmpp:sm:3' h='+1'/>", None),
            ("<a xmlns='urn:xmpp:sm:3' h=''/>", None),
            ("<a xmlns='urn:xmpp:sm:3'/>", None),
            ("<a xmlns='urn:xmpp:sm:3' h='1' x='2'/>", None),
            ("<a xmlns='urn:xmpp:sm:9' h='1'/>", None),
            ("<a xmlns='urn:xmpp:sm:3' h='1'></a>", None),
            ("<a xmlns='urn:xmpp:sm:3'  h='1'/>", None),
            ("<r xmlns='urn:xmpp:sm:3'></r>", None),
            ("<x:r xmlns:x='urn:xmpp:sm:3'/>", None),
            ("<enable xmlns='urn:xmpp:sm:3'/>", None),
        ] {
            assert_eq!(AcksWord::of(text.as_bytes()), word, "{text}");
        }
    }

    fn written(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).expect("ASCII")
    }

    #[test]
    fn an_ack_tells_what_was_settled_once() {
        let mut acks = Acks::new(Namespace::Sm3);
        assert!(!acks.has_news());
        acks.settle(3);
        assert!(acks.has_news());
        assert_eq!(
            written(|out| acks.write_ack(out)),
            "<a xmlns='urn:xmpp:sm:3' h='3'/>"
        );
        assert!(!acks.has_news());
        assert_eq!(
            written(|out| acks.write_request(out)),
            "<r xmlns='urn:xmpp:sm:3'/>"
        );
    }

    #[test]
    fn the_peer_cannot_acknowledge_what_was_not_sent_nor_take_back() {
        let mut acks = Acks::new(Namespace::Sm2);
        acks.sent(5);
        assert_eq!(acks.acknowledge(2), Ok(2));
        assert_eq!(acks.acknowledge(2), Ok(0));
        assert!(acks.acknowledge(6).is_err());
        assert!(acks.acknowledge(1).is_err(), "counts never go back");
        assert_eq!(acks.acknowledge(5), Ok(3));
        assert_eq!(acks.outstanding(), 0);
    }

    #[test]
    fn counts_wrap_at_two_to_the_32() {
        let mut acks = Acks::new(Namespace::Sm3);
        acks.sent(u32::MAX);
        assert_eq!(acks.acknowledge(u32::MAX), Ok(u32::MAX));
        acks.sent(2);
        assert_eq!(acks.outstanding(), 2);
        assert_eq!(acks.acknowledge(1), Ok(2));
        acks.settle(u32::MAX);
        acks.settle(3);
        assert!(written(|out| acks.write_ack(out)).contains("h='2'"));
    }
}
