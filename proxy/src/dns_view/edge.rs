//! Whom an edge leads where: partners to the edges, own domains to their gateways, nobody else anywhere.

use std::collections::{HashMap, HashSet};

use hickory_proto::rr::{RData, RecordType};
use xmpp_edge_crds::{
    domain::{DomainName, DomainPattern},
    edge_config::{EdgeConfig, GatewayAddress},
};

use super::{
    records::{ViewHosts, ViewServer, absolute},
    sip::{SipQuestion, SipServices},
};

/// Services as an edge knows them.
#[derive(Clone, Debug, Default)]
pub(super) struct EdgeServices {
    partners: HashSet<DomainName>,
    /// Suffixes of wildcards.
    partners_below: HashSet<DomainName>,
    gateways: HashMap<DomainName, ViewServer>,
    /// Own domains of the namespace: wildcards pass them by.
    own: HashSet<DomainName>,
    edges: Vec<ViewServer>,
    sip: SipServices,
}

impl EdgeServices {
    /// From the configuration in force. Partners that are left out are unknown; suspended ones are
    /// known, so that servers inside still ask the edge, which refuses with a reason.
    pub(super) fn new(config: &EdgeConfig, hosts: &mut ViewHosts) -> Self {
        let mut services = Self {
            sip: SipServices::new(config),
            ..Self::default()
        };
        services.own.extend(
            config
                .domains
                .iter()
                .chain(&config.namespace_domains)
                .cloned(),
        );
        for pattern in config
            .partners
            .iter()
            .filter(|partner| !partner.left_out)
            .flat_map(|partner| &partner.domains)
        {
            match pattern {
                DomainPattern::Exact(domain) => services.partners.insert(domain.clone()),
                DomainPattern::Below(suffix) => services.partners_below.insert(suffix.clone()),
            };
        }
        // A server that speaks SIP offers no XMPP: nobody is led to it.
        for gateway in config.gateways.iter().filter(|it| it.sip.is_none()) {
            let address = gateway.address.as_ref();
            let address = address.and_then(GatewayAddress::server);
            let Some(server) = address.and_then(|address| hosts.server_at(address)) else {
                continue;
            };
            for domain in &gateway.domains {
                services.gateways.insert(domain.clone(), server.clone());
            }
        }
        let all_are_withdrawn = config.edges.iter().all(|edge| edge.withdrawn);
        for edge in &config.edges {
            let Some(target) = absolute(edge.target.as_str()) else {
                continue;
            };
            hosts.insert(edge.target.clone(), edge.addresses.clone());
            // Its name still leads there: a server may have been told it a moment ago.
            if edge.withdrawn && !all_are_withdrawn {
                continue;
            }
            let server = ViewServer {
                priority: edge.priority,
                weight: edge.weight,
                port: edge.port,
                target,
            };
            services.sip.add(&server, edge.sip, edge.sip_tcp);
            services.edges.push(server);
        }
        services
    }

    /// Who is to be asked for `domain`; nobody where the service is not offered.
    pub(super) fn servers(&self, domain: &DomainName) -> &[ViewServer] {
        if let Some(gateway) = self.gateways.get(domain) {
            return std::slice::from_ref(gateway);
        }
        if self.is_behind_edges(domain) {
            &self.edges
        } else {
            &[]
        }
    }

    /// What a SIP server inside is told of a partner's domain; none: it is not ours to say.
    pub(super) fn sip_records(
        &self,
        question: &SipQuestion,
        kind: RecordType,
    ) -> Option<Vec<RData>> {
        let is_ours = self.sip.is_asked() && self.is_behind_edges(&question.domain);
        is_ours.then(|| self.sip.records(question, kind))
    }

    fn is_behind_edges(&self, domain: &DomainName) -> bool {
        !self.own.contains(domain) && self.is_partner(domain)
    }

    fn is_partner(&self, domain: &DomainName) -> bool {
        if self.partners.contains(domain) {
            return true;
        }
        let mut rest = domain.parent();
        while let Some(suffix) = rest {
            if self.partners_below.contains(suffix) {
                return true;
            }
            rest = suffix.split_once('.').map(|(_, rest)| rest);
        }
        false
    }
}
