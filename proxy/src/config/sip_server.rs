//! Which SIP server a certificate is of.

use rustls_pki_types::CertificateDer;
use xmpp_edge_crds::{
    domain::DomainName,
    edge_config::{Host, SipTransport},
};

use super::{ActiveConfig, ActiveGateway};
use crate::tls::{CertificateFault, SipUris};

impl ActiveConfig {
    /// The one gateway that is reached so and whose SIP server has shown this chain; `None` where there is none, or
    /// several: nobody could say who vouches for a sender then.
    #[must_use]
    pub fn sip_server(&self, chain: &[CertificateDer<'_>]) -> Option<&ActiveGateway> {
        let mut shown = self.gateways().iter().filter(|gateway| {
            let sip = gateway.config.sip.as_ref();
            sip.is_some_and(|sip| sip.transport == SipTransport::Tls)
                && gateway.judge_sip_server(chain).is_ok()
        });
        let first = shown.next()?;
        shown.next().is_none().then_some(first)
    }
}

impl ActiveGateway {
    /// Whether the chain is one of this gateway's SIP server, whichever part it had in the handshake: it is of the host of
    /// `address`, one of `serverNames` or one of the domains, and comes from the internal CA or the gateway's own (RFC 5922
    /// section 7; *departs*: what a certificate is for is looked at as everywhere else here).
    ///
    /// # Errors
    /// What is wrong for the first of these names.
    pub fn judge_sip_server(&self, chain: &[CertificateDer<'_>]) -> Result<(), CertificateFault> {
        let mut first = Err(CertificateFault::NotPresented);
        for (index, name) in self.sip_server_names().enumerate() {
            let internal = self.internal.judge_sip(name, chain, SipUris::Nothing);
            let judged = match (&internal, &self.own) {
                (Err(_), Some(own)) => own.judge_sip(name, chain, SipUris::Domain),
                _ => internal,
            };
            match judged {
                Ok(_) => return Ok(()),
                Err(fault) if index == 0 => first = Err(fault),
                Err(_) => {}
            }
        }
        first
    }

    fn sip_server_names(&self) -> impl Iterator<Item = &DomainName> {
        let host = self.config.address.as_ref().map(|address| &address.host);
        let host = host.and_then(|host| match host {
            Host::Name(name) => Some(name),
            Host::Ip(_) => None,
        });
        let sip = self.config.sip.as_ref();
        let further = sip.map_or(&[][..], |sip| &sip.server_names);
        host.into_iter().chain(further).chain(&self.config.domains)
    }
}
