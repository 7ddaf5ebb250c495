//! Our records as DNS messages hold them, and back.

use std::collections::BTreeSet;

use hickory_proto::{
    op::{Message, MessageType, OpCode, Query},
    rr::{
        DNSClass, RData, Record, RecordType,
        rdata::{A, AAAA, SRV, TXT},
    },
};

use super::{
    plan::Update,
    rrset::{Name, RecordData, RecordKind, RrSet},
};

pub(super) fn record_type(kind: RecordKind) -> RecordType {
    match kind {
        RecordKind::Srv => RecordType::SRV,
        RecordKind::Txt => RecordType::TXT,
        RecordKind::A => RecordType::A,
        RecordKind::Aaaa => RecordType::AAAA,
    }
}

fn rdata(data: &RecordData) -> RData {
    match data {
        RecordData::Srv {
            priority,
            weight,
            port,
            target,
        } => RData::SRV(SRV::new(*priority, *weight, *port, target.clone())),
        RecordData::Txt(strings) => {
            RData::TXT(TXT::from_bytes(strings.iter().map(Vec::as_slice).collect()))
        }
        RecordData::A(ip) => RData::A(A(*ip)),
        RecordData::Aaaa(ip) => RData::AAAA(AAAA(*ip)),
    }
}

/// `None` for types that are not ours.
pub(super) fn data(rdata: &RData) -> Option<RecordData> {
    match rdata {
        RData::SRV(srv) => Some(RecordData::Srv {
            priority: srv.priority,
            weight: srv.weight,
            port: srv.port,
            target: srv.target.clone(),
        }),
        RData::TXT(txt) => Some(RecordData::Txt(
            txt.txt_data.iter().map(|string| string.to_vec()).collect(),
        )),
        RData::A(A(ip)) => Some(RecordData::A(*ip)),
        RData::AAAA(AAAA(ip)) => Some(RecordData::Aaaa(*ip)),
        _ => None,
    }
}

/// A question to an authoritative server.
pub(super) fn question(id: u16, name: &Name, record_type: RecordType) -> Message {
    let mut message = Message::new(id, MessageType::Query, OpCode::Query);
    message.add_query(Query::query(name.clone(), record_type));
    message
}

/// The RRset of `name` and `kind` among the answers.
pub(super) fn rrset(answer: &Message, name: &Name, kind: RecordKind) -> Option<RrSet> {
    let mut set = RrSet::default();
    for record in &answer.answers {
        if record.name == *name
            && let Some(data) = data(&record.data)
            && data.kind() == kind
        {
            set.ttl = record.ttl;
            set.data.insert(data);
        }
    }
    (!set.data.is_empty()).then_some(set)
}

/// An update of `zone` (RFC 2136 section 2).
pub(super) fn update(id: u16, zone: &Name, update: &Update) -> Message {
    let mut message = empty_update(id, zone);
    for ((name, kind), seen) in &update.prerequisites {
        match seen {
            None => {
                let mut record = Record::update0(name.clone(), 0, record_type(*kind));
                record.dns_class = DNSClass::NONE;
                message.add_answer(record);
            }
            Some(seen) => prerequisite(&mut message, name, seen),
        }
    }
    // Deletions first: an RRset takes the TTL of what is added last.
    for (name, data) in &update.delete {
        let mut record = Record::from_rdata(name.clone(), 0, rdata(data));
        record.dns_class = DNSClass::NONE;
        message.add_authority(record);
    }
    for ((name, data), ttl) in &update.add {
        message.add_authority(Record::from_rdata(name.clone(), *ttl, rdata(data)));
    }
    message
}

/// Asks, by changing nothing, whether any record is at `name` (section 2.4.4).
pub(super) fn name_exists(id: u16, zone: &Name, name: &Name) -> Message {
    let mut message = empty_update(id, zone);
    let mut record = Record::update0(name.clone(), 0, RecordType::ANY);
    record.dns_class = DNSClass::ANY;
    message.add_answer(record);
    message
}

fn prerequisite(message: &mut Message, name: &Name, seen: &BTreeSet<RecordData>) {
    for data in seen {
        message.add_answer(Record::from_rdata(name.clone(), 0, rdata(data)));
    }
}

fn empty_update(id: u16, zone: &Name) -> Message {
    let mut message = Message::new(id, MessageType::Query, OpCode::Update);
    message.add_query(Query::query(zone.clone(), RecordType::SOA));
    message
}
