//! What pairs that need a stream know of each other: who dials which server at the moment, and which pair
//! a peer did not take on a stream that stood.

use std::{collections::HashMap, sync::Arc, time::Duration};

use moka::{policy::EvictionPolicy, sync::Cache};
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use crate::negotiation::Pair;

/// So long a pair that a peer did not take on a shared stream is not asked for again.
const REMEMBERED: Duration = Duration::from_secs(600);
/// Refusals remembered; where there are more, the oldest go.
const MOST: u64 = 10_000;

/// Who dials at the moment, and what was refused.
#[derive(Debug)]
pub struct StreamPool {
    dialling: Dialling,
    declined: Cache<Pair, ()>,
}

impl Default for StreamPool {
    fn default() -> Self {
        Self {
            dialling: Arc::default(),
            declined: Cache::builder()
                .time_to_live(REMEMBERED)
                .max_capacity(MOST)
                .eviction_policy(EvictionPolicy::lru())
                .build(),
        }
    }
}

impl StreamPool {
    /// The right to dial this server.
    ///
    /// # Errors
    /// Another pair dials it: what tells when that is over.
    pub(super) fn take_turn(&self, server: ServerTargets) -> Result<Turn, CancellationToken> {
        let mut dialling = self.dialling.lock();
        if let Some(over) = dialling.get(&server) {
            return Err(over.clone());
        }
        let over = CancellationToken::new();
        dialling.insert(server.clone(), over.clone());
        drop(dialling);
        Ok(Turn {
            dialling: Arc::clone(&self.dialling),
            server,
            over,
        })
    }

    /// Whether a peer did not take this pair on a shared stream a while ago.
    pub(super) fn has_declined(&self, pair: &Pair) -> bool {
        self.declined.contains_key(pair)
    }

    /// The peer does not take this pair on a shared stream.
    pub(super) fn note_declined(&self, pair: &Pair) {
        self.declined.insert(pair.clone(), ());
    }
}

/// A partner object by name, and the targets that it prefers.
type ServerTargets = (String, Vec<(String, u16)>);

/// Who is dialled, with what tells those who wait that it is over.
type Dialling = Arc<Mutex<HashMap<ServerTargets, CancellationToken>>>;

/// The right to dial a server while others wait for the outcome; ends with the value.
#[derive(Debug)]
pub struct Turn {
    dialling: Dialling,
    server: ServerTargets,
    over: CancellationToken,
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.dialling.lock().remove(&self.server);
        self.over.cancel();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use xmpp_edge_crds::domain::DomainName;

    #[test]
    fn a_refusal_is_remembered_for_a_while_and_for_that_pair() {
        let domain = |name: &str| DomainName::parse(name).expect("valid");
        let pair = |from: &str| Pair {
            from: domain(from),
            to: domain("partner.example"),
        };
        let declined = StreamPool::default().declined;
        declined.insert(pair("org.example"), ());
        assert!(declined.contains_key(&pair("org.example")));
        assert!(!declined.contains_key(&pair("org2.example")));
        assert_eq!(declined.policy().time_to_live(), Some(REMEMBERED));
        for number in 0..2 * MOST {
            declined.insert(pair(&format!("org{number}.example")), ());
        }
        declined.run_pending_tasks();
        assert!(declined.entry_count() <= MOST);
    }
}
