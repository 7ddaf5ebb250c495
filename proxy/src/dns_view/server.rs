//! The view on the wire: UDP and TCP, a bounded number of questions at a time.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use hickory_proto::{
    op::{Edns, Message, MessageType, OpCode, Query, ResponseCode},
    rr::{DNSClass, Name, RData, Record, RecordType, rdata::SOA},
};
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UdpSocket},
    sync::Semaphore,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use super::rules::{Rules, Ruling, TTL};
use crate::{
    dns::exchange::{Over, exchange},
    net::listens_no_more,
};

/// Questions forwarded at a time; one more is answered SERVFAIL.
const MAX_FORWARDED: usize = 256;
/// TCP connections at a time; one more waits.
const MAX_CONNECTIONS: usize = 64;
/// A TCP connection without a question is closed after this.
const IDLE: Duration = Duration::from_secs(10);
/// One upstream resolver is waited for this long; the next is asked then.
const UPSTREAM_TIMEOUT: Duration = Duration::from_secs(2);
/// What a client without EDNS takes over UDP (RFC 1035 section 4.2.1).
const PLAIN_PAYLOAD: u16 = 512;
/// The largest answer that we send over UDP (what avoids fragments).
const MAX_PAYLOAD: u16 = 1232;

/// A DNS server for servers inside.
pub struct View {
    rules: ArcSwap<Rules>,
    upstreams: Box<dyn Fn() -> Vec<SocketAddr> + Send + Sync>,
    forwarding: Arc<Semaphore>,
    answers: Family<AnswerLabel, Counter>,
}

/// How a question was answered.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct AnswerLabel {
    pub answer: &'static str,
}

/// Of itself.
const OWN: &str = "own";
/// SERVFAIL, as there is no configuration yet.
const UNKNOWN: &str = "unknown";
/// What nobody should ask.
const REFUSED: &str = "refused";
const FORWARDED: &str = "forwarded";
/// SERVFAIL, as no resolver answered in time, or too many were asked.
const FAILED: &str = "failed";

impl std::fmt::Debug for View {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("View")
            .field("rules", &self.rules)
            .finish_non_exhaustive()
    }
}

impl View {
    /// `upstreams` answer what the rules do not, asked in order; see
    /// [`crate::dns::Resolver::upstreams`].
    #[must_use]
    pub fn new(
        rules: Rules,
        upstreams: impl Fn() -> Vec<SocketAddr> + Send + Sync + 'static,
    ) -> Arc<Self> {
        Arc::new(Self {
            rules: ArcSwap::from_pointee(rules),
            upstreams: Box::new(upstreams),
            forwarding: Arc::new(Semaphore::new(MAX_FORWARDED)),
            answers: Family::default(),
        })
    }

    /// Questions that were answered, by how.
    #[must_use]
    pub fn answers(&self) -> Family<AnswerLabel, Counter> {
        self.answers.clone()
    }

    fn count(&self, answer: &'static str) {
        let label = AnswerLabel { answer };
        self.answers.get_or_create_owned(&label).inc();
    }

    /// Answers by these rules from now on.
    pub fn swap(&self, rules: Rules) {
        self.rules.store(Arc::new(rules));
    }

    /// Serves both sockets until `stop`, or until one of them is none any more. Errors of single clients are not told.
    pub async fn serve(self: Arc<Self>, udp: UdpSocket, tcp: TcpListener, stop: CancellationToken) {
        let udp = Arc::new(udp);
        tokio::select! {
            () = Arc::clone(&self).serve_udp(udp) => {}
            () = self.serve_tcp(tcp) => {}
            () = stop.cancelled() => {}
        }
    }

    async fn serve_udp(self: Arc<Self>, socket: Arc<UdpSocket>) {
        let mut buffer = vec![0; usize::from(u16::MAX)];
        loop {
            let Ok((length, client)) = socket.recv_from(&mut buffer).await else {
                // An ICMP error of an earlier answer; the socket goes on.
                tokio::task::yield_now().await;
                continue;
            };
            match self.local(&buffer[..length], Over::Udp) {
                Local::Answer(answer) => {
                    // A client that is gone learns nothing anyway.
                    let _ = socket.try_send_to(&answer, client);
                }
                Local::Silence => {}
                Local::Forward(query) => {
                    let view = Arc::clone(&self);
                    let socket = Arc::clone(&socket);
                    let bytes = buffer[..length].to_vec();
                    let Ok(permit) = Arc::clone(&self.forwarding).try_acquire_owned() else {
                        self.count(FAILED);
                        let _ =
                            socket.try_send_to(&refusal(&query, ResponseCode::ServFail), client);
                        continue;
                    };
                    tokio::spawn(async move {
                        let answer = view.forward(&query, &bytes, Over::Udp).await;
                        let _ = socket.send_to(&answer, client).await;
                        drop(permit);
                    });
                }
            }
        }
    }

    async fn serve_tcp(self: Arc<Self>, listener: TcpListener) {
        let connections = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        loop {
            let Ok(permit) = Arc::clone(&connections).acquire_owned().await else {
                return;
            };
            match listener.accept().await {
                Ok((stream, _)) => {
                    let view = Arc::clone(&self);
                    tokio::spawn(async move {
                        // A client's broken connection is its own affair.
                        let _ = view.converse(stream).await;
                        drop(permit);
                    });
                }
                Err(error) if listens_no_more(&error) => return,
                // Out of descriptors: the ones in use end within IDLE.
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
    }

    async fn converse(&self, mut stream: TcpStream) -> io::Result<()> {
        loop {
            let bytes = timeout(IDLE, async {
                let length = usize::from(stream.read_u16().await?);
                let mut bytes = vec![0; length];
                stream.read_exact(&mut bytes).await?;
                io::Result::Ok(bytes)
            })
            .await??;
            let answer = match self.local(&bytes, Over::Tcp) {
                Local::Answer(answer) => answer,
                Local::Silence => return Ok(()),
                Local::Forward(query) => match self.forwarding.try_acquire() {
                    Ok(_permit) => self.forward(&query, &bytes, Over::Tcp).await,
                    Err(_) => {
                        self.count(FAILED);
                        refusal(&query, ResponseCode::ServFail)
                    }
                },
            };
            let length = u16::try_from(answer.len())
                .map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
            let mut framed = Vec::with_capacity(answer.len() + 2);
            framed.extend_from_slice(&length.to_be_bytes());
            framed.extend_from_slice(&answer);
            timeout(IDLE, stream.write_all(&framed)).await??;
        }
    }

    /// What can be said without asking anyone.
    fn local(&self, bytes: &[u8], over: Over) -> Local {
        let refuse = |query: &Message, code| {
            self.count(REFUSED);
            Local::Answer(refusal(query, code))
        };
        let Ok(query) = Message::from_vec(bytes) else {
            return Local::malformed(bytes);
        };
        if query.metadata.message_type != MessageType::Query {
            // Never an answer to an answer.
            return Local::Silence;
        }
        if query.metadata.op_code != OpCode::Query {
            return refuse(&query, ResponseCode::NotImp);
        }
        let [question] = query.queries.as_slice() else {
            return refuse(&query, ResponseCode::FormErr);
        };
        if matches!(question.query_type, RecordType::AXFR | RecordType::IXFR) {
            return refuse(&query, ResponseCode::Refused);
        }
        if question.query_class != DNSClass::IN {
            return Local::Forward(Box::new(query));
        }
        match self
            .rules
            .load()
            .ruling(&question.name, question.query_type)
        {
            Ruling::Forward => Local::Forward(Box::new(query)),
            Ruling::Unknown => {
                self.count(UNKNOWN);
                Local::Answer(refusal(&query, ResponseCode::ServFail))
            }
            Ruling::Records(records) => {
                self.count(OWN);
                Local::Answer(answer(&query, question, records, over))
            }
        }
    }

    /// The upstream's answer as it is; SERVFAIL when none answers in time.
    async fn forward(&self, query: &Message, bytes: &[u8], over: Over) -> Vec<u8> {
        for upstream in (self.upstreams)() {
            if let Ok(answer) = exchange(upstream, bytes, over, UPSTREAM_TIMEOUT).await {
                self.count(FORWARDED);
                return answer;
            }
        }
        self.count(FAILED);
        refusal(query, ResponseCode::ServFail)
    }
}

enum Local {
    Answer(Vec<u8>),
    Forward(Box<Message>),
    Silence,
}

impl Local {
    /// FORMERR for what has a header of a query, else nothing.
    fn malformed(bytes: &[u8]) -> Self {
        match bytes {
            [high, low, flags, ..] if bytes.len() >= 12 && flags & 0x80 == 0 => {
                let id = u16::from_be_bytes([*high, *low]);
                let message = Message::error_msg(id, OpCode::Query, ResponseCode::FormErr);
                Self::Answer(message.to_vec().unwrap_or_default())
            }
            _ => Self::Silence,
        }
    }
}

fn answer(query: &Message, question: &Query, records: Vec<RData>, over: Over) -> Vec<u8> {
    let mut message = reply(query);
    message.metadata.authoritative = true;
    if records.is_empty() {
        message.add_authority(nothing_at(&question.name));
    }
    for data in records {
        message.add_answer(Record::from_rdata(question.name.clone(), TTL, data));
    }
    let Ok(bytes) = message.to_vec() else {
        return refusal(query, ResponseCode::ServFail);
    };
    let payload = query.edns.as_ref().map_or(PLAIN_PAYLOAD, Edns::max_payload);
    let limit = usize::from(payload.clamp(PLAIN_PAYLOAD, MAX_PAYLOAD));
    if over == Over::Udp && bytes.len() > limit {
        // The client asks again over TCP.
        return message.truncate().to_vec().unwrap_or_default();
    }
    bytes
}

fn refusal(query: &Message, code: ResponseCode) -> Vec<u8> {
    let mut message = reply(query);
    message.metadata.response_code = code;
    message.to_vec().unwrap_or_default()
}

fn reply(query: &Message) -> Message {
    let mut message = Message::response(query.metadata.id, query.metadata.op_code);
    message.metadata.recursion_desired = query.metadata.recursion_desired;
    message.metadata.recursion_available = true;
    message.add_queries(query.queries.iter().cloned());
    if query.edns.is_some() {
        let mut edns = Edns::new();
        edns.set_max_payload(MAX_PAYLOAD);
        message.set_edns(edns);
    }
    message
}

/// The SOA that lets resolvers keep "no such type" for [`TTL`] (RFC 2308 section 3).
fn nothing_at(name: &Name) -> Record {
    let seconds = i32::try_from(TTL).unwrap_or_default();
    let soa = SOA::new(
        Name::root(),
        Name::root(),
        1,
        seconds,
        seconds,
        seconds,
        TTL,
    );
    Record::from_rdata(name.clone(), TTL, RData::SOA(soa))
}
