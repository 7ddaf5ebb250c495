//! One TCP connection to a primary: questions and updates, signed, one after the other.

use std::{
    collections::BTreeMap,
    io,
    sync::atomic::{AtomicU16, Ordering},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use hickory_proto::{
    op::{Message, ResponseCode},
    rr::{RData, RecordType, TSigner, rdata::tsig::TsigError},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use super::UpdateSettings;
use crate::dns::{
    authority::{Primary, UpdateOutcome},
    error::DnsError,
    key::FUDGE,
    plan::Update,
    rrset::{Name, RecordKind, RrSet},
    wire,
};

/// For a connection, and for each answer.
const LIMIT: Duration = Duration::from_secs(5);
/// RFC 1035.
const PORT: u16 = 53;

pub(super) struct Session<'a> {
    settings: &'a UpdateSettings,
    signer: TSigner,
    stream: Option<TcpStream>,
    zones: BTreeMap<Name, Name>,
}

impl<'a> Session<'a> {
    /// A session that connects with its first question.
    pub(super) fn new(settings: &'a UpdateSettings) -> Self {
        Self {
            settings,
            signer: settings.key.signer(),
            stream: None,
            zones: BTreeMap::new(),
        }
    }

    fn server(&self) -> String {
        self.settings.server.clone()
    }

    fn key(&self) -> Name {
        self.settings.key.name.clone()
    }

    async fn connect(&self) -> Result<TcpStream, DnsError> {
        let address = with_port(&self.settings.server);
        match timeout(LIMIT, TcpStream::connect(&address)).await {
            Err(_) => Err(self.too_late()),
            Ok(Err(error)) => Err(self.unreachable(&error)),
            Ok(Ok(stream)) => {
                // Small messages, each waiting for its answer.
                let _ = stream.set_nodelay(true);
                Ok(stream)
            }
        }
    }

    fn too_late(&self) -> DnsError {
        DnsError::Timeout {
            server: self.server(),
            limit: LIMIT,
        }
    }

    fn unreachable(&self, error: &io::Error) -> DnsError {
        DnsError::Unreachable {
            server: self.server(),
            fault: error.to_string(),
        }
    }

    fn malformed(&self, fault: impl ToString) -> DnsError {
        DnsError::Malformed {
            server: self.server(),
            fault: fault.to_string(),
        }
    }

    /// Sends a message, signed, and returns the answer, verified. A fault of TSIG is an error;
    /// other response codes are the caller's.
    async fn exchange(&mut self, mut message: Message) -> Result<Message, DnsError> {
        let now = unix_seconds();
        let verifier = message
            .finalize(&self.signer, now)
            .map_err(|error| self.malformed(error))?;
        let request = message.to_vec().map_err(|error| self.malformed(error))?;
        // A server may have closed a connection that was idle since the last answer: once more
        // then, on a new one. An update that had been applied fails by its prerequisites.
        let reused = self.stream.is_some();
        let bytes = match self.send(&request).await {
            Err(DnsError::Unreachable { .. }) if reused => self.send(&request).await?,
            other => other?,
        };
        let answer = Message::from_vec(&bytes).map_err(|error| self.malformed(error))?;
        if answer.metadata.id != message.metadata.id {
            return Err(self.malformed("the answer is to another question"));
        }
        let Some(signature) = answer.signature() else {
            // A refusal may come without: the server need not have looked at the key.
            return match answer.metadata.response_code {
                ResponseCode::NoError | ResponseCode::NXDomain => Err(self.unsigned()),
                _ => Ok(answer),
            };
        };
        match signature.data.error {
            None | Some(TsigError::Unknown(0)) => {}
            Some(TsigError::BadKey) => {
                return Err(DnsError::BadKey {
                    server: self.server(),
                    key: self.key().into(),
                });
            }
            Some(TsigError::BadSig | TsigError::BadTrunc) => {
                return Err(DnsError::BadSignature {
                    server: self.server(),
                    key: self.key().into(),
                    encoded_twice: self.settings.key.looks_encoded_twice(),
                });
            }
            Some(TsigError::BadTime) => {
                return Err(DnsError::BadTime {
                    server: self.server(),
                    skew: skew(&signature.data.other, now),
                });
            }
            Some(TsigError::Unknown(code)) => {
                return Err(DnsError::Response {
                    server: self.server(),
                    what: "the signature".to_owned(),
                    code: format!("TSIG error {code}"),
                });
            }
        }
        let time = signature.data.time;
        let verified = verifier.and_then(|mut verifier| verifier.verify(&bytes).ok());
        if verified.is_none() {
            return Err(if time.abs_diff(now) > u64::from(FUDGE) {
                DnsError::BadTime {
                    server: self.server(),
                    skew: time.checked_signed_diff(now),
                }
            } else {
                self.unsigned()
            });
        }
        Ok(answer)
    }

    fn unsigned(&self) -> DnsError {
        DnsError::Unsigned {
            server: self.server(),
            key: self.key().into(),
        }
    }

    async fn send(&mut self, request: &[u8]) -> Result<Vec<u8>, DnsError> {
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => self.connect().await?,
        };
        let answer = match timeout(LIMIT, round_trip(&mut stream, request)).await {
            Err(_) => return Err(self.too_late()),
            Ok(Err(error)) => return Err(self.unreachable(&error)),
            Ok(Ok(answer)) => answer,
        };
        self.stream = Some(stream);
        Ok(answer)
    }

    /// Asks for records of which the server is the authority.
    async fn ask(&mut self, name: &Name, record_type: RecordType) -> Result<Message, DnsError> {
        let answer = self
            .exchange(wire::question(id(), name, record_type))
            .await?;
        match answer.metadata.response_code {
            ResponseCode::NoError | ResponseCode::NXDomain => Ok(answer),
            ResponseCode::Refused => Err(DnsError::NotServed {
                server: self.server(),
                name: name.clone().into(),
            }),
            code => Err(self.refused(code, name, &format!("the question for {name}"))),
        }
    }

    fn refused(&self, code: ResponseCode, name: &Name, what: &str) -> DnsError {
        match code {
            ResponseCode::Refused => DnsError::Refused {
                server: self.server(),
                what: what.to_owned(),
                key: self.key().into(),
            },
            ResponseCode::NotAuth => DnsError::NotAuthoritative {
                server: self.server(),
                name: name.clone().into(),
            },
            code => DnsError::Response {
                server: self.server(),
                what: what.to_owned(),
                code: format!("{code} ({})", u16::from(code)),
            },
        }
    }
}

impl Primary for Session<'_> {
    async fn zone_of(&mut self, name: &Name) -> Result<Name, DnsError> {
        // Whether the name is in it the server says, as the one who knows.
        if let Some(zone) = &self.settings.zone {
            return Ok(zone.clone());
        }
        if let Some(zone) = self.zones.get(name) {
            return Ok(zone.clone());
        }
        let mut at = name.clone();
        while !at.is_root() {
            let answer = self.ask(&at, RecordType::SOA).await?;
            // Either the apex itself, or the zone that says that there is no such apex.
            let soa = answer
                .answers
                .iter()
                .chain(&answer.authorities)
                .find(|record| record.record_type() == RecordType::SOA);
            if let Some(soa) = soa.filter(|soa| soa.name.zone_of(name)) {
                if !answer.metadata.authoritative {
                    return Err(DnsError::NotAuthoritative {
                        server: self.server(),
                        name: name.clone().into(),
                    });
                }
                let zone = soa.name.to_lowercase();
                self.zones.insert(name.clone(), zone.clone());
                return Ok(zone);
            }
            at = at.base_name();
        }
        Err(DnsError::ZoneNotFound {
            server: self.server(),
            name: name.clone().into(),
        })
    }

    async fn read(&mut self, name: &Name, kind: RecordKind) -> Result<Option<RrSet>, DnsError> {
        let answer = self.ask(name, wire::record_type(kind)).await?;
        if !answer.metadata.authoritative {
            return Err(DnsError::NotAuthoritative {
                server: self.server(),
                name: name.clone().into(),
            });
        }
        let alias = answer.answers.iter().find_map(|record| match &record.data {
            RData::CNAME(target) if record.name == *name => Some(target.0.clone()),
            _ => None,
        });
        match alias {
            Some(target) => Err(DnsError::Alias {
                name: name.clone().into(),
                target: target.into(),
            }),
            None => Ok(wire::rrset(&answer, name, kind)),
        }
    }

    async fn name_exists(&mut self, zone: &Name, name: &Name) -> Result<bool, DnsError> {
        let answer = self.exchange(wire::name_exists(id(), zone, name)).await?;
        match answer.metadata.response_code {
            ResponseCode::NoError => Ok(true),
            ResponseCode::NXDomain => Ok(false),
            ResponseCode::NotZone => Err(not_in_zone(name, zone)),
            code => Err(self.refused(code, name, &format!("the update of {name}"))),
        }
    }

    async fn update(&mut self, zone: &Name, update: &Update) -> Result<UpdateOutcome, DnsError> {
        let answer = self.exchange(wire::update(id(), zone, update)).await?;
        let name = update
            .prerequisites
            .keys()
            .next()
            .map_or(zone, |(name, _)| name);
        match answer.metadata.response_code {
            ResponseCode::NoError => Ok(UpdateOutcome::Done),
            ResponseCode::NXRRSet | ResponseCode::YXRRSet => Ok(UpdateOutcome::Changed),
            ResponseCode::NotZone => Err(not_in_zone(name, zone)),
            code => Err(self.refused(code, name, &format!("the update of {name} in zone {zone}"))),
        }
    }

    fn not_answered(&self, name: &Name) -> DnsError {
        DnsError::NotAnswered {
            server: self.server(),
            name: name.clone().into(),
        }
    }
}

fn not_in_zone(name: &Name, zone: &Name) -> DnsError {
    DnsError::NotInZone {
        name: name.clone().into(),
        zone: zone.clone().into(),
    }
}

async fn round_trip(stream: &mut TcpStream, request: &[u8]) -> io::Result<Vec<u8>> {
    let length = u16::try_from(request.len())
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "the message is too long"))?;
    let mut framed = Vec::with_capacity(2 + request.len());
    framed.extend(length.to_be_bytes());
    framed.extend(request);
    stream.write_all(&framed).await?;
    let length = stream.read_u16().await?;
    let mut answer = vec![0; length.into()];
    stream.read_exact(&mut answer).await?;
    Ok(answer)
}

/// Ids tell answers apart on one connection, nothing more: TSIG is what cannot be guessed.
fn id() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

fn unix_seconds() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

/// The server's clock ahead of ours, in seconds: BADTIME carries it (RFC 8945 section 5.2.3).
fn skew(other: &[u8], now: u64) -> Option<i64> {
    let bytes: [u8; 6] = other.try_into().ok()?;
    let server = bytes
        .iter()
        .fold(0_u64, |sum, byte| (sum << 8) | u64::from(*byte));
    server.checked_signed_diff(now)
}

/// `host`, `host:port`, `[v6]`, `[v6]:port`.
fn with_port(server: &str) -> String {
    let after_host = server.rfind(']').map_or(0, |end| end + 1);
    if server[after_host..].contains(':') {
        server.to_owned()
    } else {
        format!("{server}:{PORT}")
    }
}
