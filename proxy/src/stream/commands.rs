//! What other tasks tell a stream, and what it does about it.

use std::time::Instant;

use tokio::sync::oneshot;

use super::Stream;
use crate::{
    negotiation::{Fault, Input, KeyVerification, MAX_PAIRS, Pair, PeerRole, Side},
    routing::dial_ticket::DialTicket,
    tls::TlsaSet,
    trunk::nonza::Nonza,
};

/// What other tasks tell a stream.
#[derive(Debug)]
pub enum Command {
    /// The verdict that the machine asked for; a stranger hears of a failure when it is `due`.
    Verdict {
        request: u32,
        verdict: KeyVerification,
        due: Instant,
    },
    /// The peer answered the ping of this number.
    PingAnswered { number: u64 },
    /// The configuration changed.
    ConfigChanged,
    /// Carry this pair too, where the peer takes it. `tlsa` are the records that count for its
    /// target at this server.
    Carry {
        pair: Pair,
        tlsa: Option<TlsaSet>,
        answer: oneshot::Sender<Result<(), Fault>>,
    },
    /// Only a trunk has something to do about it.
    Trunk(TrunkCommand),
    /// End in order: what is queued goes out first.
    Drain,
    /// End now.
    End(Fault),
}

/// What other tasks tell a trunk.
#[derive(Debug)]
pub enum TrunkCommand {
    /// Carry this route; dropped, the ticket gives the route back.
    Carry(DialTicket),
    /// Other trunks came or went: some routes may have a better one.
    Reconsider,
    /// Tell the other end.
    Say(Nonza),
}

impl Stream {
    pub(super) fn command(&mut self, command: Command) {
        match command {
            Command::Verdict {
                request,
                verdict,
                due,
            } => self.verdict(request, verdict, due),
            Command::ConfigChanged => {
                // The stream may end by it: what takes back what the peer was told goes out before.
                self.fill();
                self.config = self.context.config();
                self.apply_settings();
                self.receiver.relabel(&self.context, &self.config);
                self.input(Input::ConfigChanged);
                if self.mixes_partners() {
                    self.input(Input::End(Fault::Done));
                }
            }
            Command::PingAnswered { number } => self.ping_answered(number),
            Command::Carry { pair, tlsa, answer } => self.carry_too(pair, tlsa, answer),
            Command::Drain => {
                self.intake.drain();
                self.entry.set_open(false);
                // Who has not said who he is can go to another replica.
                if self.peer == PeerRole::Client && !self.state.is_established() {
                    self.input(Input::End(Fault::Shutdown));
                }
            }
            Command::Trunk(_) => {}
            Command::End(fault) => self.input(Input::End(fault)),
        }
    }

    /// Asks the machine for a further pair of a stream that the edge opened.
    fn carry_too(
        &mut self,
        pair: Pair,
        tlsa: Option<TlsaSet>,
        answer: oneshot::Sender<Result<(), Fault>>,
    ) {
        if self.intake.is_draining() || !self.state.is_established() {
            let _ = answer.send(Err(Fault::Shutdown));
            return;
        }
        if self.tlsa.len() >= MAX_PAIRS {
            let _ = answer.send(Err(Fault::TooManyPairs));
            return;
        }
        if let Some(records) = tlsa {
            self.tlsa.retain(|(domain, _)| *domain != pair.to);
            self.proofs.forget(&pair.to);
            self.tlsa.push((pair.to.clone(), records));
        }
        self.joining.retain(|(_, waits)| !waits.is_closed());
        self.joining.push((pair.clone(), answer));
        self.input(Input::AddPair(pair));
    }

    /// Whether the pairs of a stream of ours belong to several partner objects by now.
    pub(super) fn mixes_partners(&self) -> bool {
        if self.side == Side::Gateway || self.peer == PeerRole::Client {
            return false;
        }
        let mut names = self
            .sender
            .routes
            .iter()
            .filter_map(|route| self.config.partner(&route.pair.to))
            .map(|partner| partner.name.as_str());
        let first = names.next();
        names.any(|name| Some(name) != first)
    }
}
