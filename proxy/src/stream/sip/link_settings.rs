//! What a link goes by: its gateway, what is in force, and the time.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use xmpp_edge_crds::{
    domain::DomainName,
    edge_config::{Gateway, GatewaySip, SipTransport},
    jid::BareJid,
    verdict::{Direction, Reason},
};

use crate::{
    config::ActiveConfig,
    negotiation::Side,
    sip::{
        code::Audience,
        compose::{self, RequestStart, SentBy},
        dialog::CallKey,
        method::SipMethod,
        wire::WriteFault,
    },
    stream::{context::StreamContext, relay::Relay},
    telemetry::attempt::{AttemptStep, Step},
};

/// The settings of one link; fixed for its life.
#[derive(Debug)]
pub(super) struct LinkSettings {
    pub(super) gateway: Gateway,
    pub(super) sip: GatewaySip,
    /// `SIP/2.0/TLS host:port`, as Via has it.
    sent_by: String,
    /// Contact of the edge: it serves all dialogs (*departs* from RFC 6665 section 4.5.1, which wants a GRUU).
    pub(super) contact: String,
}

/// What is the same for all that is done at once.
#[derive(Clone, Copy)]
pub(super) struct LinkMoment<'a> {
    pub(super) context: &'a Arc<StreamContext>,
    pub(super) config: &'a ActiveConfig,
    pub(super) settings: &'a LinkSettings,
    pub(super) now: Instant,
}

impl LinkSettings {
    /// `None` for a gateway whose server does not speak SIP.
    pub(super) fn of(gateway: &Gateway, config: &ActiveConfig) -> Option<Self> {
        let sip = gateway.sip.clone()?;
        let listeners = &config.document.listeners;
        let (transport, port) = match sip.transport {
            SipTransport::Tls => ("TLS", listeners.sip),
            SipTransport::Tcp => ("TCP", listeners.sip_tcp),
        };
        let parameter = transport.to_ascii_lowercase();
        Some(Self {
            sent_by: format!("SIP/2.0/{transport} {}:{port}", sip.edge_name),
            contact: format!("<sip:{}:{port};transport={parameter}>", sip.edge_name),
            gateway: gateway.clone(),
            sip,
        })
    }

    /// The domain under whose name the server is asked whether it is there.
    pub(super) fn first_domain(&self) -> &DomainName {
        // A gateway without domains is refused in compiling; its document would not be one.
        self.gateway.domains.first().unwrap_or(&self.sip.edge_name)
    }

    /// `SIP/2.0/TLS host:port`, as Via has it.
    pub(super) fn sent_by(&self) -> &str {
        &self.sent_by
    }

    pub(super) fn name(&self) -> &str {
        self.gateway.effective_name()
    }
}

/// A request of ours that waits to be written.
pub(super) struct OwnRequest {
    pub(super) branch: Box<str>,
    pub(super) bytes: Vec<u8>,
    /// What it is known by, beside its branch; none where its dialog says that.
    pub(super) call: Option<CallKey>,
}

impl<'a> LinkMoment<'a> {
    /// A request from `from` to `uri`, of which `write` makes the bytes. Branch, tag and Call-ID are fresh, and those
    /// that any replica knows for its own.
    pub(super) fn request(
        &self,
        method: SipMethod,
        from: &str,
        uri: &str,
        write: impl FnOnce(RequestStart<'_>) -> Result<Vec<u8>, WriteFault>,
    ) -> Result<OwnRequest, WriteFault> {
        self.request_of(self.fresh_call(), method, (from, uri), write)
    }

    /// As [`Self::request`], of this call: a request that goes once more is the same one, with another branch (RFC 3263
    /// section 4.3).
    pub(super) fn request_of(
        &self,
        call: CallKey,
        method: SipMethod,
        (from, uri): (&str, &str),
        write: impl FnOnce(RequestStart<'_>) -> Result<Vec<u8>, WriteFault>,
    ) -> Result<OwnRequest, WriteFault> {
        let branch = compose::branch(&self.config.dialback.new_stream_id());
        let bytes = write(RequestStart {
            method,
            uri,
            from,
            by: self.sent_by(&branch),
            tag: &call.tag,
            call_id: &call.call_id,
        })?;
        Ok(OwnRequest {
            branch: branch.into(),
            bytes,
            call: Some(call),
        })
    }

    /// What no request is known by yet.
    pub(super) fn fresh_call(&self) -> CallKey {
        let fresh = || self.config.dialback.new_stream_id().into();
        CallKey {
            call_id: fresh(),
            tag: fresh(),
        }
    }

    /// Via of a request with this branch.
    pub(super) fn sent_by<'b>(&self, branch: &'b str) -> SentBy<'b>
    where
        'a: 'b,
    {
        SentBy {
            sent_by: &self.settings.sent_by,
            branch,
        }
    }

    /// Who of a partner's domain reads an error from inside.
    pub(super) fn audience(&self, domain: &DomainName) -> Audience {
        match self.config.partner(domain) {
            Some(partner) if !partner.partner_type.is_public() => Audience::Partner,
            _ => Audience::Stranger,
        }
    }

    /// Whether rules 1 and 2 let this user and this domain see each other.
    ///
    /// # Errors
    /// The first that does not.
    pub(super) fn admits(&self, user: &BareJid, domain: &DomainName) -> Result<(), Reason> {
        let policy = &self.config.policy;
        policy.allows(user.local(), user.domain().as_str(), domain.as_str())
    }

    /// As [`Self::admits`].
    pub(super) fn allows(&self, user: &BareJid, domain: &DomainName) -> bool {
        self.admits(user, domain).is_ok()
    }

    /// Name of the partner object that has this domain.
    pub(super) fn partner(&self, domain: &DomainName) -> Option<&'a str> {
        let partner = self.config.partner(domain);
        partner.map(|partner| partner.name.as_str())
    }

    /// What became of asking the server at `address`, for who looks at the gateway.
    pub(super) fn note(&self, outcome: &'static str, text: String, address: Option<SocketAddr>) {
        let domain = self.settings.first_domain();
        let step = AttemptStep {
            step: Step::Sip,
            direction: Direction::Inbound,
            domain: domain.clone(),
            outcome,
            address,
            text,
            took: Duration::ZERO,
        };
        let whose = self.config.attempt_peer(Side::Gateway, domain);
        self.context.attempts.note(whose, step);
    }

    /// The server of all domains is reached, for who looks at the gateway.
    pub(super) fn connected(&self) {
        for domain in &self.settings.gateway.domains {
            let peer = self.config.attempt_peer(Side::Gateway, domain);
            self.context.attempts.connected(peer, domain);
        }
    }

    /// What came by SIP is judged as what comes from any server inside.
    pub(super) fn relay(&self) -> Relay<'_> {
        Relay {
            context: self.context,
            config: self.config,
            side: Side::Gateway,
            now: self.now,
        }
    }
}

/// A server of SIP in the place of the one of [`crate::config::fixture`].
#[cfg(test)]
pub(super) mod fixture {
    use super::*;
    use crate::config::fixture;

    pub(in crate::stream::sip) fn sip_config() -> ActiveConfig {
        fixture::active_config(|document| {
            document["gateways"][0]["mode"] = "Sip".into();
            document["gateways"][0]["sip"] = serde_json::json!({
                "transport": "Tcp", "edgeName": "edge.org.example",
                "maxMessageBytes": 65_536, "typing": true,
            });
        })
    }

    pub(in crate::stream::sip) fn sip_settings(config: &ActiveConfig) -> LinkSettings {
        LinkSettings::of(&config.document.gateways[0], config).expect("of mode Sip")
    }
}
