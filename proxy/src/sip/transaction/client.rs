//! Requests of ours that have no final answer.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::Instant,
};

use super::LinkConnection;
use crate::sip::{code::StatusCode, method::SipMethod, wire::SipResponse};

/// Those that are in work. `T` is what the caller has to know when one ends. Their number is the caller's
/// to bound.
#[derive(Debug)]
pub struct ClientTransactions<T> {
    open: HashMap<ClientKey, u64>,
    /// In the order in which they were begun.
    begun: BTreeMap<u64, Begun<T>>,
    deadlines: BTreeSet<(Instant, u64)>,
    next: u64,
}

/// Which answer is whose (RFC 3261 section 17.1.3).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct ClientKey {
    branch: Box<str>,
    method: SipMethod,
}

#[derive(Debug)]
struct Begun<T> {
    key: ClientKey,
    connection: LinkConnection,
    at: Instant,
    expires: Instant,
    ticket: T,
}

/// A request that was written.
#[derive(Clone, Debug)]
pub struct Started<T> {
    /// Of its Via: never used before.
    pub branch: Box<str>,
    pub method: SipMethod,
    pub connection: LinkConnection,
    /// When it was.
    pub at: Instant,
    /// When nobody waits for its answer any more.
    pub expires: Instant,
    pub ticket: T,
}

/// What an answer was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answered<T> {
    /// More will follow; the time does not begin anew, for its sender's does not.
    Provisional,
    Final {
        code: StatusCode,
        /// When the request was written.
        since: Instant,
        ticket: T,
    },
    /// Of no request that is in work: late, or never asked for.
    Stray,
}

impl<T> Default for ClientTransactions<T> {
    fn default() -> Self {
        Self {
            open: HashMap::new(),
            begun: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            next: 0,
        }
    }
}

impl<T> ClientTransactions<T> {
    /// One more. `Err` gives back one whose branch is in work: its answers could not be told apart.
    pub fn begin(&mut self, started: Started<T>) -> Result<(), Started<T>> {
        let key = ClientKey {
            branch: started.branch.clone(),
            method: started.method,
        };
        if self.open.contains_key(&key) {
            return Err(started);
        }
        let number = self.next;
        self.next += 1;
        self.open.insert(key.clone(), number);
        self.deadlines.insert((started.expires, number));
        let begun = Begun {
            key,
            connection: started.connection,
            at: started.at,
            expires: started.expires,
            ticket: started.ticket,
        };
        self.begun.insert(number, begun);
        Ok(())
    }

    /// An answer came, over whichever connection.
    pub fn answer(&mut self, response: &SipResponse) -> Answered<T> {
        let key = ClientKey {
            branch: response.branch.as_str().into(),
            method: response.method,
        };
        let Some(number) = self.open.get(&key).copied() else {
            return Answered::Stray;
        };
        if response.code.is_provisional() {
            return Answered::Provisional;
        }
        let since = self.begun.get(&number).map(|begun| begun.at);
        match (since, self.end(number)) {
            (Some(since), Some(ticket)) => Answered::Final {
                code: response.code,
                since,
                ticket,
            },
            _ => Answered::Stray,
        }
    }

    /// The request that an answer is of, without ending it.
    pub fn ticket_mut(&mut self, response: &SipResponse) -> Option<&mut T> {
        let key = ClientKey {
            branch: response.branch.as_str().into(),
            method: response.method,
        };
        let number = self.open.get(&key)?;
        self.begun.get_mut(number).map(|begun| &mut begun.ticket)
    }

    /// Those that nobody waits for any more, in the order of their times: timer F (RFC 3261 section
    /// 17.1.2.2), with the sender's time in place of 64·T1.
    pub fn expired(&mut self, now: Instant) -> Vec<T> {
        let mut ended = Vec::new();
        while let Some(&(at, number)) = self.deadlines.first() {
            if at > now {
                break;
            }
            ended.extend(self.end(number));
        }
        ended
    }

    /// When the next of them expires.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        self.deadlines.first().map(|(at, _)| *at)
    }

    /// A connection died: what was sent on it and has no answer, in the order in which it was sent, so that it
    /// can go once more (RFC 3263 section 4.3).
    pub fn lost(&mut self, connection: LinkConnection) -> Vec<T> {
        let on_it = self
            .begun
            .iter()
            .filter(|(_, it)| it.connection == connection);
        let numbers: Vec<u64> = on_it.map(|(number, _)| *number).collect();
        numbers
            .into_iter()
            .filter_map(|number| self.end(number))
            .collect()
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.begun.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.begun.is_empty()
    }

    fn end(&mut self, number: u64) -> Option<T> {
        let begun = self.begun.remove(&number)?;
        self.open.remove(&begun.key);
        self.deadlines.remove(&(begun.expires, number));
        Some(begun.ticket)
    }
}
