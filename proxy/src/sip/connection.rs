//! One connection with a SIP server: what came, what has to be written, and whether the server lives.
//!
//! It knows no socket: the caller pushes what it read, takes steps until there is none, and says what time it
//! is. What it does not take stays here, so that a caller that has enough in work stops, and reads no further.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use thiserror::Error;

use crate::sip::{
    code::StatusCode,
    method::SipMethod,
    wire::{
        FrameError, FrameFault, Framed, Framer, MAX_BODY_BYTES, MAX_HEAD_BYTES, RequestFault,
        ResponseFault, SipHeaders, SipRequest, SipResponse, SipWriter, StartLine,
    },
};

/// Silence after which a sign of life is asked for (RFC 5626 section 4.4.1; *departs* from its 95 to 120 s:
/// death shows sooner).
const SILENCE: Duration = Duration::from_secs(30);
/// How long who has ever answered one may take for it (RFC 5626 section 4.4.1).
const ANSWER: Duration = Duration::from_secs(10);

const PING: &[u8] = b"\r\n\r\n";
const PONG: &[u8] = b"\r\n";

/// Most bytes that may be pushed and not taken: a message, and one read behind it.
pub const MAX_UNREAD_BYTES: usize = MAX_HEAD_BYTES + MAX_BODY_BYTES + 64 * 1024;

/// The state of one connection.
#[derive(Debug)]
pub struct SipConnection {
    framer: Framer,
    read: Vec<u8>,
    /// Bytes of it that were taken.
    taken: usize,
    /// Steps that follow from one that was taken.
    steps: VecDeque<ConnectionStep>,
    /// Of us, in answers that this end gives by itself.
    tag: Box<str>,
    life: Life,
    ended: Option<ConnectionEnd>,
}

/// What the server does about signs of life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Life {
    heard: Instant,
    /// When one was asked for, since something was heard.
    asked: Option<Instant>,
    answers: Answers,
    ping: OwnPing,
}

/// What came of the last sign of life that was asked for. One CRLF answers it; a server that sends its own (two of
/// them), or one behind a message, has not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum OwnPing {
    None,
    Unanswered,
    /// By a CRLF, unless a second one follows.
    Answered,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answers {
    /// Nothing is concluded from silence.
    NeverYet,
    Always,
}

/// What the caller has to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConnectionStep {
    Write(Vec<u8>),
    Request(Box<ReceivedRequest>),
    Response(Box<ReceivedResponse>),
    /// A request that was not right, of which the sender was told, where it could be.
    Refused(RequestFault),
    /// An answer of which nobody can tell whose it is.
    Dropped(ResponseFault),
    /// Nothing more comes: what was to be written first has been named.
    End(ConnectionEnd),
}

/// A request, right as far as every method wants it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReceivedRequest {
    pub request: SipRequest,
    pub body: Vec<u8>,
}

/// An answer to a request of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReceivedResponse {
    pub response: SipResponse,
    pub body: Vec<u8>,
}

/// Why a connection has no more to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Error)]
pub enum ConnectionEnd {
    #[error("it sent {0}")]
    Frame(FrameFault),
    #[error("it gave no sign of life for 10 s")]
    Dead,
}

impl SipConnection {
    /// A connection that stands from `now` on. `tag` is a token.
    #[must_use]
    pub fn new(tag: &str, now: Instant) -> Self {
        Self {
            framer: Framer::default(),
            read: Vec::new(),
            taken: 0,
            steps: VecDeque::new(),
            tag: tag.into(),
            life: Life {
                heard: now,
                asked: None,
                answers: Answers::NeverYet,
                ping: OwnPing::None,
            },
            ended: None,
        }
    }

    /// How many bytes more may be pushed.
    #[must_use]
    pub fn room(&self) -> usize {
        MAX_UNREAD_BYTES.saturating_sub(self.read.len() - self.taken)
    }

    /// What was read. More than there is [`Self::room`] for is the caller's fault, and kept all the same.
    pub fn push(&mut self, bytes: &[u8], now: Instant) {
        if !bytes.is_empty() {
            self.life.heard = now;
            self.life.asked = None;
        }
        if self.ended.is_none() {
            // Once for all messages that one read brought.
            self.read.drain(..self.taken);
            self.taken = 0;
            self.read.extend_from_slice(bytes);
        }
    }

    /// The next step; `None`: nothing before more was read or [`Self::next_deadline`].
    pub fn step(&mut self, now: Instant) -> Option<ConnectionStep> {
        loop {
            if let Some(step) = self.steps.pop_front() {
                return Some(step);
            }
            if self.ended.is_some() {
                return None;
            }
            match self.framer.next(&self.read[self.taken..]) {
                Ok(Some(framed)) => self.take(framed),
                Ok(None) => return self.sign_of_life(now),
                Err(error) => self.fail(error),
            }
        }
    }

    /// When [`Self::step`] has something to do though nothing is read.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        match (self.ended, self.life.asked, self.life.answers) {
            (Some(_), ..) => None,
            (None, Some(asked), Answers::Always) => Some(asked + ANSWER),
            (None, Some(asked), Answers::NeverYet) => Some(asked + SILENCE),
            (None, None, _) => Some(self.life.heard + SILENCE),
        }
    }

    fn take(&mut self, framed: Framed) {
        let len = framed.len();
        match framed {
            Framed::Pong => self.life.line_end(),
            Framed::Ping => {
                self.life.is_pinged();
                self.steps.push_back(ConnectionStep::Write(PONG.to_vec()));
            }
            Framed::Message {
                start: StartLine::Request { method, uri },
                headers,
                body,
            } => {
                self.life.message();
                let body = self.read[self.taken..][body].to_vec();
                self.request(method, uri, headers, body);
            }
            Framed::Message {
                start: StartLine::Response(code),
                headers,
                body,
            } => {
                self.life.message();
                let body = self.read[self.taken..][body].to_vec();
                let step = match SipResponse::read(code, headers) {
                    Ok(response) => {
                        let received = ReceivedResponse { response, body };
                        ConnectionStep::Response(Box::new(received))
                    }
                    Err(fault) => ConnectionStep::Dropped(fault),
                };
                self.steps.push_back(step);
            }
        }
        self.taken += len;
    }

    fn request(&mut self, method: SipMethod, uri: String, headers: SipHeaders, body: Vec<u8>) {
        // Kept for the answer: reading takes the fields.
        let asked = headers.clone();
        match SipRequest::read(method, uri, headers) {
            Ok(request) => {
                let received = ReceivedRequest { request, body };
                self.steps
                    .push_back(ConnectionStep::Request(Box::new(received)));
            }
            Err(fault) => {
                self.answer(fault.code(), &asked);
                self.steps.push_back(ConnectionStep::Refused(fault));
            }
        }
    }

    fn fail(&mut self, error: FrameError) {
        if let Some(headers) = &error.headers {
            self.answer(error.fault.code(), headers);
        }
        self.end(ConnectionEnd::Frame(error.fault));
    }

    fn answer(&mut self, code: u16, asked: &SipHeaders) {
        let Some(code) = StatusCode::new(code) else {
            return;
        };
        // Who named no way back gets none.
        if let Ok(writer) = SipWriter::answer(code, asked, &self.tag) {
            self.steps.push_back(ConnectionStep::Write(writer.finish()));
        }
    }

    fn end(&mut self, end: ConnectionEnd) {
        self.ended = Some(end);
        self.read = Vec::new();
        self.taken = 0;
        self.steps.push_back(ConnectionStep::End(end));
    }

    fn sign_of_life(&mut self, now: Instant) -> Option<ConnectionStep> {
        if self.next_deadline().is_none_or(|at| at > now) {
            return None;
        }
        if self.life.asked.is_some() && self.life.answers == Answers::Always {
            self.end(ConnectionEnd::Dead);
            return self.steps.pop_front();
        }
        self.life.ping(now);
        Some(ConnectionStep::Write(PING.to_vec()))
    }
}

impl Life {
    fn ping(&mut self, now: Instant) {
        self.judge();
        self.asked = Some(now);
        self.ping = OwnPing::Unanswered;
    }

    /// One CRLF, and nothing before it since the last message.
    fn line_end(&mut self) {
        if self.ping == OwnPing::Unanswered {
            self.ping = OwnPing::Answered;
        }
    }

    /// The CRLF before was the first half of a ping.
    fn is_pinged(&mut self) {
        if self.ping == OwnPing::Answered {
            self.ping = OwnPing::Unanswered;
        }
    }

    /// What comes behind it answers no ping.
    fn message(&mut self) {
        self.judge();
        self.ping = OwnPing::None;
    }

    /// No second CRLF follows any more.
    fn judge(&mut self) {
        if self.ping == OwnPing::Answered {
            self.answers = Answers::Always;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPTIONS: &str = "OPTIONS sip:user@example.com SIP/2.0\r\n\
        Via: SIP/2.0/TLS host.example.com;branch=z9hG4bKkdjuw\r\n\
        From: <sip:caller@example.net>;tag=34525\r\nTo: <sip:user@example.com>\r\n\
        Call-ID: dj0234sxdfl3\r\nCSeq: 8 OPTIONS\r\nContent-Length: 0\r\n\r\n";

    struct Bench {
        connection: SipConnection,
        start: Instant,
    }

    impl Bench {
        fn new() -> Self {
            let start = Instant::now();
            Self {
                connection: SipConnection::new("ours", start),
                start,
            }
        }

        fn at(&self, seconds: u64) -> Instant {
            self.start + Duration::from_secs(seconds)
        }

        fn push(&mut self, text: &str, seconds: u64) {
            let now = self.at(seconds);
            self.connection.push(text.as_bytes(), now);
        }

        /// All steps at that time, each as a word.
        fn steps(&mut self, seconds: u64) -> Vec<String> {
            let now = self.at(seconds);
            let steps = std::iter::from_fn(|| self.connection.step(now));
            let words = steps.map(|step| match step {
                ConnectionStep::Write(bytes) => {
                    let text = String::from_utf8(bytes).expect("UTF-8");
                    text.lines()
                        .next()
                        .filter(|line| !line.is_empty())
                        .map_or_else(|| format!("{} bytes", text.len()), |line| line.to_owned())
                }
                ConnectionStep::Request(it) => format!("{:?} {}", it.request.method, it.body.len()),
                ConnectionStep::Response(it) => it.response.code.get().to_string(),
                ConnectionStep::Refused(fault) => fault.to_string(),
                ConnectionStep::Dropped(fault) => fault.to_string(),
                ConnectionStep::End(end) => end.to_string(),
            });
            words.collect()
        }
    }

    #[test]
    fn what_comes_is_told_apart_and_what_is_not_right_is_answered() {
        let mut bench = Bench::new();
        let body = OPTIONS.replace("Length: 0\r\n\r\n", "Length: 2\r\n\r\nab");
        let no_call_id = OPTIONS.replace("Call-ID", "X");
        let answer = OPTIONS.replace("OPTIONS sip:user@example.com SIP/2.0", "SIP/2.0 200 OK");
        let astray = answer.replace(";branch=z9hG4bKkdjuw", "");
        let (first, second) = OPTIONS.split_at(70);
        bench.push(first, 0);
        assert!(bench.steps(0).is_empty());
        bench.push(
            &format!("{second}{body}{no_call_id}{answer}{astray}\r\n\r\n"),
            1,
        );
        assert_eq!(
            bench.steps(1),
            [
                "Options 0",
                "Options 2",
                "SIP/2.0 400 Bad Request",
                "no Call-ID",
                "200",
                "no branch of Via",
                "2 bytes",
            ]
        );
        assert_eq!(bench.connection.room(), MAX_UNREAD_BYTES);
    }

    #[test]
    fn sip_43_what_cannot_be_read_on_is_answered_and_is_the_end() {
        let mut bench = Bench::new();
        let twice = OPTIONS.replace("Length: 0", "Length: 0\r\nl: 0");
        bench.push(&format!("{twice}{OPTIONS}"), 0);
        assert_eq!(
            bench.steps(0),
            [
                "SIP/2.0 400 Bad Request",
                "it sent more than one Content-Length"
            ]
        );
        bench.push(OPTIONS, 1);
        assert!(bench.steps(100).is_empty() && bench.connection.next_deadline().is_none());
        assert_eq!(bench.connection.room(), MAX_UNREAD_BYTES);
        // An ACK is never answered (RFC 3261 section 17).
        let mut bench = Bench::new();
        bench.push(&twice.replace("OPTIONS", "ACK"), 0);
        assert_eq!(bench.steps(0), ["it sent more than one Content-Length"]);
        let mut bench = Bench::new();
        bench.push("GET / HTTP/1.1\r\n\r\n", 0);
        assert_eq!(bench.steps(0), ["it sent not SIP"]);
    }

    #[test]
    fn what_is_not_taken_waits_here() {
        let mut bench = Bench::new();
        bench.push(&OPTIONS.repeat(3), 0);
        let now = bench.at(0);
        assert!(matches!(
            bench.connection.step(now),
            Some(ConnectionStep::Request(_))
        ));
        assert_eq!(
            bench.connection.room(),
            MAX_UNREAD_BYTES - 2 * OPTIONS.len()
        );
    }

    #[test]
    fn who_has_answered_once_has_to_answer_and_nobody_else() {
        let mut bench = Bench::new();
        assert!(bench.steps(29).is_empty());
        assert_eq!(bench.steps(30), ["4 bytes"]);
        assert!(bench.steps(59).is_empty(), "it may not know them");
        assert_eq!(bench.steps(60), ["4 bytes"]);
        bench.push("\r\n", 61);
        assert!(bench.steps(61).is_empty());
        assert_eq!(bench.connection.next_deadline(), Some(bench.at(91)));
        assert_eq!(bench.steps(91), ["4 bytes"]);
        // Whatever comes is a sign of life.
        bench.push(OPTIONS, 100);
        assert_eq!(bench.steps(100), ["Options 0"]);
        assert_eq!(bench.steps(130), ["4 bytes"]);
        assert!(bench.steps(139).is_empty());
        assert_eq!(bench.steps(140), ["it gave no sign of life for 10 s"]);
        assert!(bench.steps(141).is_empty());
    }

    #[test]
    fn a_ping_of_the_server_and_a_line_end_behind_a_message_are_no_answer_to_ours() {
        for (name, sent) in [
            ("a ping", "\r\n\r\n".to_owned()),
            ("a line end behind a message", format!("{OPTIONS}\r\n")),
        ] {
            let mut bench = Bench::new();
            // Before anything was asked, and after it.
            for at in [10, 50, 100] {
                bench.push(&sent, at);
                bench.steps(at);
                assert_eq!(bench.steps(at + 30), ["4 bytes"], "{name}");
            }
            assert_eq!(bench.steps(160), ["4 bytes"], "{name}: it never answers");
        }
        // Cut in two on its way it is one all the same.
        let mut bench = Bench::new();
        assert_eq!(bench.steps(30), ["4 bytes"]);
        bench.push("\r\n", 31);
        assert!(bench.steps(31).is_empty());
        bench.push("\r\n", 32);
        assert_eq!(bench.steps(32), ["2 bytes"]);
        assert_eq!(bench.steps(62), ["4 bytes"]);
        assert_eq!(bench.steps(92), ["4 bytes"], "it never answers");
        // Who answers as well as asks has answered.
        bench.push("\r\n", 93);
        bench.push(OPTIONS, 94);
        assert_eq!(bench.steps(94), ["Options 0"]);
        assert_eq!(bench.steps(124), ["4 bytes"]);
        assert_eq!(bench.steps(134), ["it gave no sign of life for 10 s"]);
    }
}
