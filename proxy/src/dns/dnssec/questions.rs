//! Questions that ask for signatures, to the resolvers as they come; answers are kept by their TTL.

use std::{
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::{Stream, stream};
use hickory_net::{NetError, runtime::TokioRuntimeProvider, xfer::DnsHandle};
use hickory_proto::{
    dnssec::rdata::DNSSECRData,
    op::{DnsRequest, DnsResponse, Edns, Message, Query, ResponseCode},
    rr::{Name, RData, Record, RecordType},
};
use parking_lot::Mutex;

use super::{
    super::{
        DnsError,
        cache::{DnsCache, Holds},
        exchange::{Over, exchange},
        resolv_conf::Upstreams,
    },
    shown,
};

/// One resolver is waited for this long, over each of UDP and TCP.
const TIMEOUT: Duration = Duration::from_secs(2);
/// How long TCP goes first for a resolver that was silent over UDP alone.
const SILENT: Duration = Duration::from_secs(600);
/// Rounds over all resolvers.
const ROUNDS: usize = 2;
/// What fits into one packet everywhere (DNS flag day 2020).
const PAYLOAD: u16 = 1232;

/// Asks. Cheap to clone.
#[derive(Clone)]
pub(super) struct Questions {
    shared: Arc<Shared>,
}

struct Shared {
    upstreams: Vec<Upstream>,
    tcp_alone: bool,
    /// On the wire, so that what they take is known: 64 KiB of it may be many times that when it is read.
    answers: DnsCache<Vec<u8>>,
}

/// A resolver, and how it is reached.
struct Upstream {
    address: SocketAddr,
    /// When it was silent over UDP, and answered over TCP.
    silent: Mutex<Option<Instant>>,
}

impl Upstream {
    fn is_silent(&self) -> bool {
        let since = *self.silent.lock();
        since.is_some_and(|since| since.elapsed() < SILENT)
    }
}

/// By what a resolver is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trial {
    /// UDP, and TCP for what is truncated. One that is silent leaves time for the next.
    Usual,
    /// For what is silent over UDP (RFC 7766 section 5).
    TcpFirst,
    TcpAlone,
}

/// How a question is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum QuestionForm {
    /// For signatures, and for the resolver's own verdict.
    Signed,
    /// For signatures, whatever the resolver thinks of them (CD).
    Raw,
    /// Without EDNS (RFC 6891 section 6.2.2), which some resolvers and what stands before them do not take.
    Plain,
}

impl Questions {
    pub(super) fn new(upstreams: Upstreams, least_age: Duration) -> Self {
        let addresses = upstreams.addresses.into_iter();
        let upstream = |address| Upstream {
            address,
            silent: Mutex::default(),
        };
        Self {
            shared: Arc::new(Shared {
                upstreams: addresses.map(upstream).collect(),
                tcp_alone: upstreams.tcp_alone,
                answers: DnsCache::forgetting_after(least_age),
            }),
        }
    }

    /// What is known is asked anew; gives what it was.
    pub(super) fn forget(&self, name: &Name, kind: RecordType) -> Option<Message> {
        let known = self.shared.answers.forget(name, kind)?;
        Message::from_vec(&known).ok()
    }

    /// Bytes that are kept.
    #[cfg(test)]
    pub(super) fn weight(&self) -> u64 {
        self.shared.answers.weight()
    }

    pub(super) fn forget_all(&self) {
        self.shared.answers.forget_all();
    }

    /// As hickory's validator wants them.
    pub(super) fn traced(&self) -> Traced {
        Traced::new(self.clone())
    }

    /// Whether every resolver is on this machine.
    pub(super) fn on_loopback(&self) -> bool {
        self.shared
            .upstreams
            .iter()
            .all(|upstream| upstream.address.ip().is_loopback())
    }

    /// The answer with its signatures, whatever it says: also NXDOMAIN. Where the resolver
    /// validates by itself and fails, it is asked for the raw answer (CD): so that we can tell what
    /// is wrong with it.
    ///
    /// # Errors
    /// [`DnsError`]: why there is none.
    pub(super) async fn ask(&self, name: &Name, kind: RecordType) -> Result<Message, DnsError> {
        if let Some(known) = self.shared.answers.get(name, kind)
            && let Ok(known) = Message::from_vec(&known)
        {
            return Ok(known);
        }
        let mut answer = self.rounds(name, kind, QuestionForm::Signed).await;
        if matches!(answer, Err(DnsError::ServFail { .. }))
            && let Ok(mut raw) = self.rounds(name, kind, QuestionForm::Raw).await
        {
            // Nobody validated it.
            raw.metadata.authentic_data = false;
            answer = Ok(raw);
        }
        let message = trimmed(answer?, kind);
        let holds = Holds::of(&message);
        // What does not fit into a message when it is written again is asked again.
        if let Ok(bytes) = message.to_vec()
            && !is_truncated(&bytes)
        {
            self.shared.answers.put(name, kind, bytes, holds);
        }
        Ok(message)
    }

    /// The answer without signatures, where nothing hangs on them; it is not kept.
    ///
    /// # Errors
    /// [`DnsError`]: why there is none.
    pub(super) async fn ask_plainly(
        &self,
        name: &Name,
        kind: RecordType,
    ) -> Result<Message, DnsError> {
        let answer = self.rounds(name, kind, QuestionForm::Plain).await;
        answer.map(|message| trimmed(message, kind))
    }

    async fn rounds(
        &self,
        name: &Name,
        kind: RecordType,
        form: QuestionForm,
    ) -> Result<Message, DnsError> {
        let mut fault = DnsError::Timeout { name: shown(name) };
        for round in 0..ROUNDS {
            for upstream in &self.shared.upstreams {
                let trial = self.trial(upstream, round);
                match one(upstream, trial, name, kind, form).await {
                    Ok(message) => return Ok(message),
                    // Asking again would not change it.
                    Err(refused @ DnsError::ServFail { .. }) => return Err(refused),
                    Err(cause) => fault = cause,
                }
            }
        }
        Err(fault)
    }

    fn trial(&self, upstream: &Upstream, round: usize) -> Trial {
        match round {
            _ if self.shared.tcp_alone => Trial::TcpAlone,
            0 if !upstream.is_silent() => Trial::Usual,
            _ => Trial::TcpFirst,
        }
    }
}

async fn one(
    upstream: &Upstream,
    trial: Trial,
    name: &Name,
    kind: RecordType,
    form: QuestionForm,
) -> Result<Message, DnsError> {
    let unusable = |cause: String| DnsError::Unusable {
        name: shown(name),
        cause,
    };
    let mut question = Message::query();
    question.metadata.recursion_desired = true;
    question.metadata.checking_disabled = form == QuestionForm::Raw;
    // The wish for the resolver's own verdict (RFC 6840 section 5.7).
    question.metadata.authentic_data = form == QuestionForm::Signed;
    question.add_query(Query::query(name.clone(), kind));
    if form != QuestionForm::Plain {
        let mut edns = Edns::new();
        edns.set_max_payload(PAYLOAD);
        edns.enable_dnssec();
        question.set_edns(edns);
    }
    let bytes = question
        .to_vec()
        .map_err(|cause| unusable(cause.to_string()))?;
    let mut fault = DnsError::Timeout { name: shown(name) };
    let ways: &[Over] = match trial {
        Trial::Usual => &[Over::Udp, Over::Tcp],
        Trial::TcpFirst => &[Over::Tcp, Over::Udp],
        Trial::TcpAlone => &[Over::Tcp],
    };
    for over in ways {
        let answer = match exchange(upstream.address, &bytes, *over, TIMEOUT).await {
            Ok(answer) => answer,
            Err(cause) => {
                if cause.kind() != std::io::ErrorKind::TimedOut {
                    fault = unusable(cause.to_string());
                } else if trial == Trial::Usual {
                    break;
                }
                continue;
            }
        };
        if trial == Trial::TcpFirst && *over == Over::Tcp && !upstream.is_silent() {
            *upstream.silent.lock() = Some(Instant::now());
        }
        let message = Message::from_vec(&answer).map_err(|cause| unusable(cause.to_string()))?;
        if message.metadata.truncation {
            fault = unusable("the answer is truncated".to_owned());
            continue;
        }
        return match message.metadata.response_code {
            ResponseCode::NoError | ResponseCode::NXDomain => Ok(message),
            ResponseCode::ServFail => Err(DnsError::ServFail { name: shown(name) }),
            ResponseCode::Refused => Err(DnsError::Refused { name: shown(name) }),
            other => Err(unusable(other.to_string())),
        };
    }
    Err(fault)
}

/// The TC bit of a header (RFC 1035 section 4.1.1).
fn is_truncated(message: &[u8]) -> bool {
    message.get(2).is_some_and(|flags| flags & 0x02 != 0)
}

/// Whether a record is a signature.
pub(super) fn is_signed(record: &Record) -> bool {
    record.record_type() == RecordType::RRSIG
}

/// Whether a record is a DNAME: the aliases made from it have no signatures, which the validator
/// would take for bogus. What lies behind one is not secure for us.
pub(super) fn is_redirected(record: &Record) -> bool {
    u16::from(record.record_type()) == 39
}

/// Leaves out what does not belong to the answer or to the proof that there is none: it would be
/// validated for nothing.
fn trimmed(mut message: Message, asked: RecordType) -> Message {
    message.additionals.clear();
    message.answers.retain(|record| {
        let kind = record.record_type();
        kind == asked || kind == RecordType::CNAME || is_signed(record) || is_redirected(record)
    });
    if asked != RecordType::NS {
        message.authorities.retain(|record| {
            let kind = match &record.data {
                RData::DNSSEC(DNSSECRData::RRSIG(signature)) => signature.input().type_covered,
                _ => record.record_type(),
            };
            matches!(kind, RecordType::SOA | RecordType::NSEC | RecordType::NSEC3)
        });
    }
    message
}

/// [`Questions`] as hickory's validator wants them; remembers what could not be answered.
#[derive(Clone)]
pub(super) struct Traced {
    questions: Questions,
    trouble: Arc<Mutex<Option<DnsError>>>,
}

impl Traced {
    fn new(questions: Questions) -> Self {
        Self {
            questions,
            trouble: Arc::default(),
        }
    }

    /// Why the last question without answer had none.
    pub(super) fn take_trouble(&self) -> Option<DnsError> {
        self.trouble.lock().take()
    }

    async fn answer(self, query: Option<Query>) -> Result<DnsResponse, NetError> {
        let query = query.ok_or_else(|| NetError::from("no question"))?;
        match self.questions.ask(query.name(), query.query_type()).await {
            Ok(message) => Ok(DnsResponse::from_message(message)?),
            Err(fault) => {
                let text = fault.to_string();
                *self.trouble.lock() = Some(fault);
                Err(NetError::from(text))
            }
        }
    }
}

impl DnsHandle for Traced {
    type Response = Pin<Box<dyn Stream<Item = Result<DnsResponse, NetError>> + Send>>;
    type Runtime = TokioRuntimeProvider;

    fn send(&self, request: DnsRequest) -> Self::Response {
        let query = request.queries.first().cloned();
        Box::pin(stream::once(self.clone().answer(query)))
    }
}
