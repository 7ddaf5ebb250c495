//! A line when a stream stands and one when it ends, for who looks for a partner or an address in the log.
//! Their fields are documented in `docs/logs.md`. A peer causes them at will: a few a minute for each cause.

use super::{Stream, registry::AuthInfo};
use crate::{
    negotiation::{Fault, Pair, Side},
    telemetry::{
        log_limiter::limited,
        metrics::{OTHER, direction_label},
    },
};

impl Stream {
    /// Its first pair stands.
    pub(super) fn log_start(&self, facts: &AuthInfo) {
        let entry = &self.entry;
        let partner = facts.partner(self.side, &self.config);
        let method = facts.method.map_or("none", |method| method.as_str());
        let lines = self
            .context
            .log
            .lines("stream started", partner, entry.direction(), method);
        let (peer_domain, local_domain) = self.domains(facts);
        limited!(
            info,
            lines,
            stream = entry.id,
            side = self.side_label(),
            partner = partner.unwrap_or(OTHER),
            direction = self.direction_label(),
            peer_domain,
            local_domain,
            address = entry.address.map(tracing::field::display),
            method,
            tls = facts.tls_version.unwrap_or("none"),
            cipher = facts.tls_cipher.unwrap_or("none"),
            "stream started"
        );
    }

    /// It is over. Of one that never had a pair the attempt's steps tell.
    pub(super) fn log_end(&self) {
        let entry = &self.entry;
        let facts = entry.facts();
        let Some(method) = facts.method else { return };
        let partner = facts.partner(self.side, &self.config);
        let fault = self.state.end().unwrap_or(&Fault::Done);
        let reason = reason(fault);
        let lines = self
            .context
            .log
            .lines("stream ended", partner, entry.direction(), reason);
        let (peer_domain, local_domain) = self.domains(&facts);
        let count = std::sync::atomic::Ordering::Relaxed;
        limited!(
            info, lines,
            stream = entry.id, side = self.side_label(), partner = partner.unwrap_or(OTHER),
            direction = self.direction_label(), peer_domain, local_domain,
            address = entry.address.map(tracing::field::display), method = method.as_str(),
            tls = facts.tls_version.unwrap_or("none"), reason,
            text = %fault.to_string().escape_debug(),
            seconds = entry.opened.elapsed().as_secs(),
            stanzas_in = entry.stanzas_in.load(count), stanzas_out = entry.stanzas_out.load(count),
            bytes_in = entry.bytes_in.load(count), bytes_out = entry.bytes_out.load(count),
            "stream ended"
        );
    }

    /// Of the first pair: the peer's, and ours.
    fn domains<'a>(&self, facts: &'a AuthInfo) -> (&'a str, &'a str) {
        let received = |pair: &'a Pair| (pair.from.as_str(), pair.to.as_str());
        let sent = |pair: &'a Pair| (pair.to.as_str(), pair.from.as_str());
        let first = facts.receives.first().map(received);
        first
            .or_else(|| facts.sends.first().map(sent))
            .unwrap_or_default()
    }

    fn side_label(&self) -> &'static str {
        match self.side {
            Side::Partner => "partner",
            Side::Gateway => "gateway",
        }
    }

    fn direction_label(&self) -> &'static str {
        if self.entry.is_bidirectional() {
            "both"
        } else {
            direction_label(self.entry.direction())
        }
    }
}

/// The word of an end, as outcomes have it; an end in order is one, too.
fn reason(fault: &Fault) -> &'static str {
    match fault {
        Fault::Done => "Done",
        other => other.label(),
    }
}
