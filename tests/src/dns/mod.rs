//! A small DNS server in the process: "the internet" of one test.
//!
//! It answers over UDP and TCP with the records that the test sets, follows CNAMEs, tells NXDOMAIN
//! from no data, and can be told to fail or to stay silent for a name. Every question is kept, so
//! that a test can assert that none was asked. What signs is a real server, in [`signed`].

pub mod external;
pub mod interfering;
pub mod meddling;
pub mod signed;
pub mod unbound;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    str::FromStr,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result};
use hickory_proto::{
    op::{Edns, Message, OpCode, Query, ResponseCode},
    rr::{
        Name, RData, Record, RecordType,
        rdata::{
            A, AAAA, CNAME, SOA, SRV, TLSA,
            tlsa::{CertUsage, Matching, Selector},
        },
    },
};
use parking_lot::Mutex;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UdpSocket},
    task::JoinHandle,
    time::timeout,
};

/// TTL of records, in seconds: short, so that edits are seen by servers that cache.
const TTL: u32 = 1;

/// How long another server is waited for.
const PATIENCE: Duration = Duration::from_secs(3);

/// How a name misbehaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// SERVFAIL.
    Fails,
    /// No answer at all.
    Silent,
}

#[derive(Default)]
struct ServedZone {
    records: BTreeMap<Name, Vec<RData>>,
    faults: BTreeMap<Name, Fault>,
    /// Names whose answers are marked as validated (AD).
    secure: BTreeSet<Name>,
    /// In place of [`TTL`].
    ttls: BTreeMap<Name, u32>,
    asked: Vec<(String, RecordType)>,
    /// Zones that other servers have.
    delegated: BTreeMap<Name, SocketAddr>,
}

/// The running server; it stops with the value.
pub struct NameServer {
    address: SocketAddr,
    zone: Arc<Mutex<ServedZone>>,
    tasks: Vec<JoinHandle<()>>,
}

impl NameServer {
    /// Serves on port 53 of `ip`, UDP and TCP.
    ///
    /// # Errors
    /// When the port cannot be bound.
    pub async fn start(ip: impl Into<IpAddr>) -> Result<Self> {
        let address = SocketAddr::new(ip.into(), 53);
        let zone = Arc::new(Mutex::new(ServedZone::default()));
        let udp = UdpSocket::bind(address)
            .await
            .context("bind DNS over UDP")?;
        let tcp = TcpListener::bind(address)
            .await
            .context("bind DNS over TCP")?;
        let tasks = vec![
            tokio::spawn(serve_udp(udp, Arc::clone(&zone))),
            tokio::spawn(serve_tcp(tcp, Arc::clone(&zone))),
        ];
        Ok(Self {
            address,
            zone,
            tasks,
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    fn add(&self, owner: &str, data: RData) -> &Self {
        self.zone
            .lock()
            .records
            .entry(name(owner))
            .or_default()
            .push(data);
        self
    }

    /// Adds an A or AAAA record.
    pub fn host(&self, owner: &str, ip: impl Into<IpAddr>) -> &Self {
        self.add(
            owner,
            match ip.into() {
                IpAddr::V4(ip) => RData::A(A(ip)),
                IpAddr::V6(ip) => RData::AAAA(AAAA(ip)),
            },
        )
    }

    /// Adds `_xmpp-server._tcp` of `domain`: target, port, with priority and weight.
    pub fn xmpp_server(
        &self,
        domain: &str,
        priority: u16,
        weight: u16,
        port: u16,
        target: &str,
    ) -> &Self {
        self.srv(
            &format!("_xmpp-server._tcp.{domain}"),
            priority,
            weight,
            port,
            target,
        )
    }

    /// Adds `_xmpps-server._tcp` of `domain` (direct TLS).
    pub fn xmpps_server(
        &self,
        domain: &str,
        priority: u16,
        weight: u16,
        port: u16,
        target: &str,
    ) -> &Self {
        self.srv(
            &format!("_xmpps-server._tcp.{domain}"),
            priority,
            weight,
            port,
            target,
        )
    }

    /// Adds an SRV record under any owner name; target `.` says that there is no service.
    pub fn srv(&self, owner: &str, priority: u16, weight: u16, port: u16, target: &str) -> &Self {
        self.add(
            owner,
            RData::SRV(SRV::new(priority, weight, port, name(target))),
        )
    }

    /// Adds a CNAME.
    pub fn alias(&self, owner: &str, target: &str) -> &Self {
        self.add(owner, RData::CNAME(CNAME(name(target))))
    }

    /// Adds a TLSA record of usage 3 (DANE-EE), selector 1, matching 1.
    pub fn tlsa(&self, owner: &str, spki_sha256: &[u8]) -> &Self {
        self.add(
            owner,
            RData::TLSA(TLSA::new(
                CertUsage::DaneEe,
                Selector::Spki,
                Matching::Sha256,
                spki_sha256.to_vec(),
            )),
        )
    }

    /// Marks every answer for `owner` as validated (AD), as a validating resolver on loopback.
    pub fn secure(&self, owner: &str) -> &Self {
        self.zone.lock().secure.insert(name(owner));
        self
    }

    /// Answers for `owner` hold so many seconds.
    pub fn holds(&self, owner: &str, seconds: u32) -> &Self {
        self.zone.lock().ttls.insert(name(owner), seconds);
        self
    }

    /// Makes a name misbehave.
    pub fn fault(&self, owner: &str, fault: Fault) -> &Self {
        self.zone.lock().faults.insert(name(owner), fault);
        self
    }

    /// From now on this server is asked for all that is at or below `zone`.
    pub fn delegate(&self, zone: &str, server: SocketAddr) -> &Self {
        self.zone.lock().delegated.insert(name(zone), server);
        self
    }

    /// Removes all records and faults of a name.
    pub fn remove(&self, owner: &str) -> &Self {
        let mut zone = self.zone.lock();
        zone.records.remove(&name(owner));
        zone.faults.remove(&name(owner));
        drop(zone);
        self
    }

    /// An SRV record in place of all records of its owner: whoever asks meanwhile finds one or the other.
    pub fn replace_srv(
        &self,
        owner: &str,
        priority: u16,
        weight: u16,
        port: u16,
        target: &str,
    ) -> &Self {
        let data = RData::SRV(SRV::new(priority, weight, port, name(target)));
        self.zone.lock().records.insert(name(owner), vec![data]);
        self
    }

    /// Every question so far: name without the last dot, in lower case, and type.
    pub fn asked(&self) -> Vec<(String, RecordType)> {
        self.zone.lock().asked.clone()
    }
}

impl Drop for NameServer {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

fn name(text: &str) -> Name {
    let mut name = Name::from_str(text).expect("tests name DNS names");
    name.set_fqdn(true);
    name.to_lowercase()
}

async fn serve_udp(socket: UdpSocket, zone: Arc<Mutex<ServedZone>>) {
    let socket = Arc::new(socket);
    let mut buffer = vec![0; 4096];
    loop {
        let Ok((length, peer)) = socket.recv_from(&mut buffer).await else {
            continue;
        };
        let request = buffer[..length].to_vec();
        let (socket, zone) = (Arc::clone(&socket), Arc::clone(&zone));
        // Another server may take its time, or never answer.
        tokio::spawn(async move {
            if let Some(reply) = answer(&request, &zone).await {
                let _ = socket.send_to(&reply, peer).await;
            }
        });
    }
}

async fn serve_tcp(listener: TcpListener, zone: Arc<Mutex<ServedZone>>) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            continue;
        };
        let zone = Arc::clone(&zone);
        tokio::spawn(async move {
            let _ = serve_connection(stream, &zone).await;
        });
    }
}

async fn serve_connection(mut stream: TcpStream, zone: &Mutex<ServedZone>) -> std::io::Result<()> {
    loop {
        let length = stream.read_u16().await?;
        let mut request = vec![0; length.into()];
        stream.read_exact(&mut request).await?;
        if let Some(reply) = answer(&request, zone).await {
            let length = u16::try_from(reply.len()).expect("test answers are short");
            stream.write_u16(length).await?;
            stream.write_all(&reply).await?;
        }
    }
}

async fn answer(bytes: &[u8], zone: &Mutex<ServedZone>) -> Option<Vec<u8>> {
    let request = Message::from_vec(bytes).ok()?;
    let query = request.queries.first()?.clone();
    let elsewhere = delegated(&query, &zone.lock());
    if let Some(server) = elsewhere {
        return asked_of(server, bytes).await.ok();
    }
    let mut reply = Message::response(request.metadata.id, OpCode::Query);
    reply.metadata.recursion_desired = request.metadata.recursion_desired;
    reply.metadata.recursion_available = true;
    reply.metadata.checking_disabled = request.metadata.checking_disabled;
    reply.add_query(query.clone());
    if let Some(edns) = &request.edns {
        let mut ours = Edns::new();
        ours.set_max_payload(4096);
        ours.set_dnssec_ok(edns.flags().dnssec_ok);
        reply.set_edns(ours);
    }
    fill(&mut reply, &query, &mut zone.lock())?;
    reply.to_vec().ok()
}

/// Who has the zone of the question, where it is not this server.
fn delegated(query: &Query, zone: &ServedZone) -> Option<SocketAddr> {
    let mut zones = zone.delegated.iter();
    let found = zones.find(|(apex, _)| apex.zone_of(&query.name));
    found.map(|(_, server)| *server)
}

/// Another server's answer, as a resolver hands it on.
async fn asked_of(server: SocketAddr, request: &[u8]) -> Result<Vec<u8>> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    socket.connect(server).await?;
    socket.send(request).await?;
    let mut reply = vec![0; 4096];
    let length = timeout(PATIENCE, socket.recv(&mut reply)).await??;
    reply.truncate(length);
    // RA: recursion is available (RFC 1035 section 4.1.1).
    if let Some(flags) = reply.get_mut(3) {
        *flags |= 0x80;
    }
    Ok(reply)
}

/// Puts answers and codes into `reply`; `None` when the name stays silent.
fn fill(reply: &mut Message, query: &Query, zone: &mut ServedZone) -> Option<()> {
    let mut owner = query.name.to_lowercase();
    zone.asked.push((
        owner.to_string().trim_end_matches('.').to_owned(),
        query.query_type,
    ));
    let mut secure = true;
    // A chain longer than this is a loop.
    for _ in 0..8 {
        match zone.faults.get(&owner) {
            Some(Fault::Silent) => return None,
            Some(Fault::Fails) => {
                reply.metadata.response_code = ResponseCode::ServFail;
                return Some(());
            }
            None => {}
        }
        secure &= zone.secure.contains(&owner);
        reply.metadata.authentic_data = secure;
        let Some(records) = zone.records.get(&owner) else {
            if !zone.records.keys().any(|known| owner.zone_of(known)) {
                reply.metadata.response_code = ResponseCode::NXDomain;
            }
            break;
        };
        let ttl = zone.ttls.get(&owner).copied().unwrap_or(TTL);
        let mut alias = None;
        for data in records {
            if data.record_type() == query.query_type {
                reply.add_answer(Record::from_rdata(owner.clone(), ttl, data.clone()));
            } else if let RData::CNAME(CNAME(target)) = data {
                reply.add_answer(Record::from_rdata(owner.clone(), ttl, data.clone()));
                alias = Some(target.clone());
            }
        }
        match alias {
            Some(target) => owner = target,
            None => break,
        }
    }
    if reply.answers.is_empty() {
        // Negative answers need an SOA to be cacheable (RFC 2308), and resolvers to accept them.
        let apex = Name::root();
        let soa = SOA::new(apex.clone(), apex.clone(), 1, 60, 60, 60, TTL);
        reply.add_authority(Record::from_rdata(apex, TTL, RData::SOA(soa)));
    }
    Some(())
}
