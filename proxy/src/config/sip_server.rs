//! Which SIP server a certificate is of, and which certificate a SIP server is shown.

use std::sync::Arc;

use rustls_pki_types::CertificateDer;
use xmpp_edge_crds::{
    domain::DomainName,
    edge_config::{Gateway, GatewayAddress, SipTransport},
};

use super::{ActiveConfig, ActiveGateway};
use crate::{
    negotiation::Side,
    tls::{CertificateFault, Identity, SipUris},
};

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

    /// Certificates in use that somebody gave for SIP servers, by the gateway's effective name.
    pub fn sip_certificates(&self) -> impl Iterator<Item = (&str, &Identity)> {
        let gateways = self.gateways().iter().map(|own| &own.config);
        let wanted = gateways.filter(|own| own.sip.as_ref().is_some_and(|sip| sip.own_certificate));
        wanted.filter_map(|own| {
            let name = own.effective_name();
            Some((name, self.sip_identities.get(name)?.as_ref()))
        })
    }

    /// What the edge shows the SIP server of `gateway`: the certificate that somebody gave, or a leaf of the pod's.
    #[must_use]
    pub fn sip_identity(&self, gateway: &Gateway) -> Option<Arc<Identity>> {
        let sip = gateway.sip.as_ref()?;
        if sip.own_certificate {
            // Another one would be of no use to its server.
            return self.sip_identities.get(gateway.effective_name()).cloned();
        }
        self.identity_of(Side::Gateway, &sip.edge_name)
    }

    /// What the edge shows a SIP server that connected and asked for `asked` by SNI: one that was given and has that
    /// name, or, to a server that looked a partner's domain up and compares names (RFC 5922 section 7.3), a leaf for
    /// that domain; else what the gateway of that name shows, or the first.
    #[must_use]
    pub fn sip_identity_for(&self, asked: Option<&DomainName>) -> Option<Arc<Identity>> {
        let servers = || {
            let gateways = self.gateways().iter().map(|own| &own.config);
            gateways.filter(|own| {
                let sip = own.sip.as_ref();
                sip.is_some_and(|sip| sip.transport == SipTransport::Tls)
            })
        };
        if let Some(asked) = asked {
            let mut given =
                servers().filter(|own| own.sip.as_ref().is_some_and(|it| it.own_certificate));
            let given = given.find_map(|own| {
                let identity = self.sip_identities.get(own.effective_name())?;
                identity.covers(asked).then(|| Arc::clone(identity))
            });
            if given.is_some() {
                return given;
            }
            let called = servers().find(|own| {
                let sip = own.sip.as_ref();
                sip.is_some_and(|sip| sip.edge_name == *asked)
            });
            if let Some(called) = called {
                return self.sip_identity(called);
            }
            let mut leaves = servers().filter_map(|own| own.sip.as_ref());
            if !self.is_namespace_domain(asked) && leaves.any(|sip| !sip.own_certificate) {
                return self.identity_of(Side::Gateway, asked);
            }
        }
        self.sip_identity(servers().next()?)
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
        // What DNS leads to proves nothing: without a port the host stays whom the certificate is for.
        let host = self.config.address.as_ref().and_then(GatewayAddress::name);
        let sip = self.config.sip.as_ref();
        let further = sip.map_or(&[][..], |sip| &sip.server_names);
        host.into_iter().chain(further).chain(&self.config.domains)
    }
}
