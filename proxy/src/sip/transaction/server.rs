//! Requests of a server that have not been answered finally.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    time::{Duration, Instant},
};

use super::LinkConnection;
use crate::sip::{
    method::SipMethod,
    share::{SharedRoom, SipShare},
    wire::{SipHeaders, SipRequest},
};

/// When who asked has to be told that it is in work: timer E at T2 (RFC 4320 section 4.1).
const TRYING_AFTER: Duration = Duration::from_millis(3_500);

/// Those that are in work, as many as it was made for.
#[derive(Debug)]
pub struct ServerTransactions {
    room: SharedRoom,
    open: HashMap<u64, OpenRequest>,
    keys: HashSet<TransactionKey>,
    merged: HashSet<MergeKey>,
    /// Those that have not been told yet.
    trying: BTreeSet<(Instant, u64)>,
    next: u64,
}

#[derive(Debug)]
struct OpenRequest {
    asked: AskedRequest,
    key: TransactionKey,
    merge: Option<MergeKey>,
    trying: Option<Instant>,
    share: SipShare,
}

/// Who has to be answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AskedRequest {
    pub method: SipMethod,
    /// What the answer gives back.
    pub headers: SipHeaders,
    pub connection: LinkConnection,
    /// When it came.
    pub since: Instant,
}

/// The same request, as one hop sent it (RFC 3261 section 17.2.3). The newest Via stands whole, so that a
/// hop without branches is told from another.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct TransactionKey {
    via: Box<str>,
    call_id: Box<str>,
    cseq: u32,
    method: SipMethod,
}

/// The same request on two ways (RFC 3261 section 8.2.2.2).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct MergeKey {
    tag: Box<str>,
    call_id: Box<str>,
    cseq: u32,
    method: SipMethod,
}

/// What a request is to those that are in work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// It is in work from here on, under this number.
    New(u64),
    /// One that came before, from the same hop: it is being answered.
    Again,
    /// One that came before, on another way: 482.
    Merged,
    /// There is no room for it, on its account or on any.
    Full,
}

impl ServerTransactions {
    /// For `most` requests in work, a quarter of them on one account.
    #[must_use]
    pub fn new(most: usize) -> Self {
        Self {
            room: SharedRoom::new(most),
            open: HashMap::new(),
            keys: HashSet::new(),
            merged: HashSet::new(),
            trying: BTreeSet::new(),
            next: 0,
        }
    }

    /// A request came, on this account.
    pub fn arrive(
        &mut self,
        request: &SipRequest,
        connection: LinkConnection,
        now: Instant,
        share: SipShare,
    ) -> Arrival {
        let call_id: Box<str> = request.call_id.as_str().into();
        let key = TransactionKey {
            via: request
                .vias
                .first()
                .map_or("", |via| via.text.as_str())
                .into(),
            call_id: call_id.clone(),
            cseq: request.cseq,
            method: request.method,
        };
        if self.keys.contains(&key) {
            return Arrival::Again;
        }
        let merge = request.to.tag().is_none().then(|| MergeKey {
            tag: request.from.tag().unwrap_or_default().into(),
            call_id,
            cseq: request.cseq,
            method: request.method,
        });
        if merge.as_ref().is_some_and(|it| self.merged.contains(it)) {
            return Arrival::Merged;
        }
        if !self.room.has_room(&share) {
            return Arrival::Full;
        }
        self.room.take(&share);
        let number = self.next;
        self.next += 1;
        // An INVITE is answered at once; none of the others may say more than 100.
        let trying = now + TRYING_AFTER;
        self.trying.insert((trying, number));
        self.keys.insert(key.clone());
        self.merged.extend(merge.clone());
        let asked = AskedRequest {
            method: request.method,
            headers: request.headers.clone(),
            connection,
            since: now,
        };
        let open = OpenRequest {
            asked,
            key,
            merge,
            trying: Some(trying),
            share,
        };
        self.open.insert(number, open);
        Arrival::New(number)
    }

    /// Whether nothing more is to be read.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.room.is_full()
    }

    /// Those of which the sender has to be told, by 100, that they are in work; each is named once.
    pub fn due(&mut self, now: Instant) -> Vec<AskedRequest> {
        let mut due = Vec::new();
        while let Some(&(at, number)) = self.trying.first() {
            if at > now {
                break;
            }
            self.trying.remove(&(at, number));
            if let Some(open) = self.open.get_mut(&number) {
                open.trying = None;
                due.push(open.asked.clone());
            }
        }
        due
    }

    /// When the next has to be told.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        self.trying.first().map(|(at, _)| *at)
    }

    /// It is being answered finally; `None` where it was, or where its connection died.
    pub fn finish(&mut self, number: u64) -> Option<AskedRequest> {
        let open = self.open.remove(&number)?;
        self.room.give_back(&open.share);
        self.keys.remove(&open.key);
        if let Some(merge) = &open.merge {
            self.merged.remove(merge);
        }
        if let Some(at) = open.trying {
            self.trying.remove(&(at, number));
        }
        Some(open.asked)
    }

    /// A connection died: nobody is there who could be answered. Says how many there were.
    pub fn lost(&mut self, connection: LinkConnection) -> usize {
        let on_it = self
            .open
            .iter()
            .filter(|(_, it)| it.asked.connection == connection);
        let numbers: Vec<u64> = on_it.map(|(number, _)| *number).collect();
        numbers
            .into_iter()
            .filter_map(|number| self.finish(number))
            .count()
    }

    /// Whether any came on this connection.
    #[must_use]
    pub fn are_on(&self, connection: LinkConnection) -> bool {
        self.open
            .values()
            .any(|open| open.asked.connection == connection)
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.open.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.open.is_empty()
    }
}
