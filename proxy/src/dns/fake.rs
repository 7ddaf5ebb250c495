//! A DNS server for tests: answers from a table, by UDP and TCP, and writes down what was asked.
#![allow(clippy::unwrap_used)]

use std::{collections::HashMap, net::SocketAddr, sync::Arc};

use hickory_proto::{
    op::{Message, ResponseCode},
    rr::{
        Name, RData, Record, RecordType,
        rdata::{A, CNAME, SRV, TLSA},
    },
};
use parking_lot::Mutex;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, UdpSocket},
};

#[derive(Clone)]
pub enum FakeReply {
    Records(Vec<RData>),
    /// With the AD bit.
    Secure(Vec<RData>),
    /// As it stands, whatever the owners are.
    Chain(Vec<Record>),
    Code(ResponseCode),
    /// Over UDP truncated.
    TcpOnly(Vec<RData>),
    /// No answer at all over UDP.
    SilentUdp(Vec<RData>),
    /// As [`Self::Chain`], but FORMERR to questions with EDNS.
    WithoutEdns(Vec<Record>),
}

pub type Asked = Arc<Mutex<Vec<(String, RecordType)>>>;

pub struct Fake {
    pub address: SocketAddr,
    pub asked: Asked,
}

type Table = HashMap<(String, RecordType), FakeReply>;

impl Fake {
    /// What is not in the table does not exist.
    pub async fn start(table: Vec<(&str, RecordType, FakeReply)>) -> Self {
        let table: Arc<Table> = Arc::new(
            table
                .into_iter()
                .map(|(name, kind, reply)| ((name.to_owned(), kind), reply))
                .collect(),
        );
        let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = tcp.local_addr().unwrap();
        let udp = UdpSocket::bind(address).await.unwrap();
        let asked = Asked::default();
        let (log, zone) = (Arc::clone(&asked), Arc::clone(&table));
        tokio::spawn(async move {
            let mut buffer = [0; 4096];
            loop {
                let (length, client) = udp.recv_from(&mut buffer).await.unwrap();
                let answer = answer(&buffer[..length], &zone, &log, true);
                if !answer.is_empty() {
                    udp.send_to(&answer, client).await.unwrap();
                }
            }
        });
        let log = Arc::clone(&asked);
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = tcp.accept().await.unwrap();
                let (log, table) = (Arc::clone(&log), Arc::clone(&table));
                tokio::spawn(async move {
                    while let Ok(length) = stream.read_u16().await {
                        let mut query = vec![0; usize::from(length)];
                        stream.read_exact(&mut query).await.unwrap();
                        let answer = answer(&query, &table, &log, false);
                        stream
                            .write_u16(u16::try_from(answer.len()).unwrap())
                            .await
                            .unwrap();
                        stream.write_all(&answer).await.unwrap();
                    }
                });
            }
        });
        Self { address, asked }
    }

    pub fn was_asked(&self, name: &str, kind: RecordType) -> bool {
        self.asked
            .lock()
            .iter()
            .any(|asked| asked.0 == name && asked.1 == kind)
    }
}

fn answer(query: &[u8], table: &Table, asked: &Asked, udp: bool) -> Vec<u8> {
    let query = Message::from_vec(query).unwrap();
    let question = query.queries[0].clone();
    let name = question
        .name
        .to_ascii()
        .trim_end_matches('.')
        .to_ascii_lowercase();
    asked.lock().push((name.clone(), question.query_type));
    let mut message = Message::response(query.metadata.id, query.metadata.op_code);
    message.metadata.recursion_available = true;
    message.add_query(question.clone());
    let records = match table.get(&(name.clone(), question.query_type)) {
        Some(FakeReply::SilentUdp(_)) if udp => return Vec::new(),
        Some(FakeReply::TcpOnly(_)) if udp => {
            message.metadata.truncation = true;
            Vec::new()
        }
        Some(
            FakeReply::Records(records)
            | FakeReply::TcpOnly(records)
            | FakeReply::SilentUdp(records),
        ) => records.clone(),
        Some(FakeReply::Secure(records)) => {
            message.metadata.authentic_data = true;
            records.clone()
        }
        Some(FakeReply::WithoutEdns(_)) if query.edns.is_some() => {
            message.metadata.response_code = ResponseCode::FormErr;
            Vec::new()
        }
        Some(FakeReply::Chain(records) | FakeReply::WithoutEdns(records)) => {
            message.add_answers(records.clone());
            Vec::new()
        }
        Some(FakeReply::Code(code)) => {
            message.metadata.response_code = *code;
            Vec::new()
        }
        None => {
            if !table.keys().any(|(known, _)| *known == name) {
                message.metadata.response_code = ResponseCode::NXDomain;
            }
            Vec::new()
        }
    };
    message.add_answers(
        records
            .into_iter()
            .map(|data| Record::from_rdata(question.name.clone(), 60, data)),
    );
    message.to_vec().unwrap()
}

pub fn srv(priority: u16, weight: u16, port: u16, target: &str) -> RData {
    RData::SRV(SRV::new(
        priority,
        weight,
        port,
        Name::from_ascii(target).unwrap(),
    ))
}

pub fn a(address: &str) -> RData {
    RData::A(A(address.parse().unwrap()))
}

/// 3 1 1: the end entity by its key.
pub fn tlsa_311(hash: [u8; 32]) -> RData {
    RData::TLSA(TLSA::new(3.into(), 1.into(), 1.into(), hash.to_vec()))
}

/// An alias, or any record of another owner, for [`FakeReply::Chain`].
pub fn record(owner: &str, data: RData) -> Record {
    Record::from_rdata(Name::from_ascii(owner).unwrap(), 60, data)
}

pub fn cname(target: &str) -> RData {
    RData::CNAME(CNAME(Name::from_ascii(target).unwrap()))
}
