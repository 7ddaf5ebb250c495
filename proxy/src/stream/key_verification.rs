//! Asking a domain's authoritative server about a dialback key (XEP-0220 section 2.1.2), on a
//! stream of its own that does nothing else.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use xmpp_edge_crds::domain::DomainName;

use super::{Command, connect, handle::StreamHandle};
use crate::{
    edge::Edge,
    negotiation::{Purpose, Side, Unavailable, Verdict, VerifyRequest},
};

/// KeyVerificationLimiter towards one domain at the same time.
const AT_ONCE: u32 = 8;
/// And within a minute: a peer that names a victim must not turn the edge into an amplifier.
const A_MINUTE: u32 = 60;
/// How long the authoritative server may take, all in.
const LIMIT: Duration = Duration::from_secs(30);

/// UnauthenticatedLimiter the questions by the domain that is asked.
#[derive(Debug, Default)]
pub struct KeyVerificationLimiter {
    domains: Mutex<HashMap<DomainName, Asked>>,
}

#[derive(Debug)]
struct Asked {
    running: u32,
    since: Instant,
    count: u32,
}

impl KeyVerificationLimiter {
    fn enter(&self, domain: &DomainName) -> bool {
        let now = Instant::now();
        let mut domains = self.domains.lock();
        if domains.len() > 10_000 {
            domains.retain(|_, asked| {
                asked.running > 0 || now.duration_since(asked.since) < Duration::from_secs(60)
            });
        }
        let asked = domains.entry(domain.clone()).or_insert(Asked {
            running: 0,
            since: now,
            count: 0,
        });
        if now.duration_since(asked.since) >= Duration::from_secs(60) {
            asked.since = now;
            asked.count = 0;
        }
        let room = asked.running < AT_ONCE && asked.count < A_MINUTE;
        if room {
            asked.running += 1;
            asked.count += 1;
        }
        room
    }

    fn leave(&self, domain: &DomainName) {
        if let Some(asked) = self.domains.lock().get_mut(domain) {
            asked.running -= 1;
        }
    }
}

/// Asks, in a task of its own; the stream behind `handle` gets the verdict in any case.
pub fn start(
    edge: &Arc<Edge>,
    side: Side,
    question: VerifyRequest,
    request: u32,
    handle: Arc<StreamHandle>,
) {
    let domain = question.pair.from.clone();
    if !edge.verifications.enter(&domain) {
        handle.tell(Command::Verdict {
            request,
            verdict: Verdict::Unavailable(Unavailable::Busy),
        });
        return;
    }
    let edge = Arc::clone(edge);
    edge.clone().tasks.spawn(async move {
        let asked =
            tokio::time::timeout(LIMIT, connect::ask(&edge, side, Purpose::Verify(question)));
        let verdict = asked
            .await
            .unwrap_or(Verdict::Unavailable(Unavailable::TimedOut));
        edge.verifications.leave(&domain);
        handle.tell(Command::Verdict { request, verdict });
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_victim_is_asked_a_bounded_number_of_times() {
        let verifications = KeyVerificationLimiter::default();
        let victim = DomainName::parse("victim.example").expect("valid");
        let other = DomainName::parse("other.example").expect("valid");
        let mut asked = 0;
        for _ in 0..1000 {
            if verifications.enter(&victim) {
                asked += 1;
                verifications.leave(&victim);
            }
        }
        assert_eq!(asked, A_MINUTE);
        assert!(verifications.enter(&other));
    }
}
