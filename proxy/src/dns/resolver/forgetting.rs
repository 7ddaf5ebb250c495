//! What is believed no longer: who could not be reached may have mended its records.

use hickory_proto::rr::RecordType;
use xmpp_edge_crds::{domain::DomainName, edge_config::SipServers};

use super::{Resolver, absolute};

const ADDRESSES: &[RecordType] = &[RecordType::A, RecordType::AAAA];

impl Resolver {
    /// A domain that could not be reached is asked anew: its records and those of the targets that were tried, with
    /// what vouches for them. Answers that came within the last seconds are believed until then, so that who fails
    /// again and again costs no more questions.
    pub fn forget(&self, domain: &DomainName, targets: &[(DomainName, u16)]) {
        for service in ["_xmpps-server", "_xmpp-server"] {
            self.forget_name(&format!("{service}._tcp.{domain}"), &[RecordType::SRV]);
        }
        self.forget_name(domain.as_str(), ADDRESSES);
        self.forget_targets(targets);
    }

    /// As [`Self::forget`], of SIP servers.
    pub fn forget_sip(&self, servers: &SipServers, targets: &[(DomainName, u16)]) {
        if let Some(service) = servers.service() {
            self.forget_name(&service.to_string(), &[RecordType::SRV]);
        }
        self.forget_targets(targets);
    }

    fn forget_targets(&self, targets: &[(DomainName, u16)]) {
        for (host, port) in targets {
            self.forget_name(host.as_str(), ADDRESSES);
            self.forget_name(&format!("_{port}._tcp.{host}"), &[RecordType::TLSA]);
        }
    }

    fn forget_name(&self, name: &str, kinds: &[RecordType]) {
        let servers = self.servers.load();
        let Ok(name) = absolute(name) else { return };
        for kind in kinds {
            servers.answers.forget(&name, *kind);
            servers.validator.forget(&name, *kind);
        }
    }

    /// Everything is asked anew: the configuration says other things of partners.
    pub fn forget_all(&self) {
        let servers = self.servers.load();
        servers.answers.forget_all();
        servers.validator.forget_all();
    }

    /// Forgets answers from another age on.
    #[cfg(test)]
    #[must_use]
    pub(crate) fn forgetting_after(self, least_age: std::time::Duration) -> Self {
        let servers = self.servers.load().afresh(&self.anchors, least_age);
        Self {
            servers: std::sync::Arc::new(arc_swap::ArcSwap::from_pointee(servers)),
            least_age,
            ..self
        }
    }

    /// Bytes of all that is kept.
    #[cfg(test)]
    pub(crate) fn weight(&self) -> u64 {
        let servers = self.servers.load();
        servers.answers.weight() + servers.validator.weight()
    }
}
