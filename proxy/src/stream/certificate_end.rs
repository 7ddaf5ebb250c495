//! A stream that stands on a certificate ends with it (RFC 6120 section 13.7.2.3), in order: what it carries
//! goes on with the next, for which the peer shows what it has by then.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use xmpp_edge_crds::domain::DomainName;

use super::{Stream, environment::ConfigEnvironment};
use crate::{
    negotiation::{Environment, Fault, Input},
    tls::Transport,
};

/// Between two looks at the clock, which may be set.
const LOOK: Duration = Duration::from_secs(3600);

impl Stream {
    /// A pair stands: by what certificate, if by any, is known from here on.
    pub(super) fn watch_certificate(&mut self) {
        let today = Timestamp::now();
        self.certificate_due = self.proofs.next_end(today).map(|end| {
            let left = Duration::try_from(end.duration_since(today)).unwrap_or_default();
            Instant::now() + left.min(LOOK)
        });
    }

    /// Where a certificate has ended by which a pair stands, and is trusted no more by that, the stream ends.
    /// A pinned one may go on.
    pub(super) fn on_certificate(&mut self, now: Instant) {
        if self.certificate_due.is_none_or(|due| now < due) {
            return;
        }
        if let Some(fault) = self.ended_certificate() {
            self.input(Input::End(fault));
        } else {
            self.watch_certificate();
        }
    }

    fn ended_certificate(&self) -> Option<Fault> {
        let environment = ConfigEnvironment {
            config: &self.config,
            tlsa: &self.tlsa,
            chain: self.transport.as_ref().map_or(&[], Transport::peer_chain),
            proofs: &self.proofs,
            given_up: &self.context.given_up,
        };
        let ended: Vec<DomainName> = self.proofs.ended(Timestamp::now());
        ended.iter().find_map(|domain| {
            let judged = environment.verify_certificate(self.side, self.peer, domain);
            judged.err().map(|now| Fault::CertificateEnded(now.text))
        })
    }
}
