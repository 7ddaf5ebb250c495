//! Where an edge leads SIP servers inside: partners' domains to the edges that listen for SIP, whatever the world has for
//! them. Other domains' records are not ours: a SIP server may federate elsewhere by itself.

use hickory_proto::rr::{Name, RData, RecordType, rdata::NAPTR};
use xmpp_edge_crds::{domain::DomainName, edge_config::EdgeConfig};

use super::records::{ViewServer, absolute, not_offered};

/// A service of a domain: its prefix (RFC 3263 section 4), and what NAPTR calls it.
const BY_TLS: (&str, &str) = ("_sips._tcp.", "SIPS+D2T");
const BY_TCP: (&str, &str) = ("_sip._tcp.", "SIP+D2T");
/// No edge speaks it: nothing holds a sender back there.
const BY_UDP: &str = "_sip._udp.";

/// The edges as SIP servers find them.
#[derive(Clone, Debug, Default)]
pub(super) struct SipServices {
    by_tls: Vec<ViewServer>,
    by_tcp: Vec<ViewServer>,
    /// Whether a server inside speaks SIP: else nobody is answered here.
    is_asked: bool,
}

/// What may be asked of SIP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SipQuestion {
    pub(super) domain: DomainName,
    service: SipService,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SipService {
    Tls,
    Tcp,
    Udp,
    /// Which of them there are.
    Naptr,
}

impl SipQuestion {
    /// `name`: in lower case, without the last dot.
    pub(super) fn of(name: &str, kind: RecordType) -> Option<Self> {
        let services = [
            (BY_TLS.0, SipService::Tls),
            (BY_TCP.0, SipService::Tcp),
            (BY_UDP, SipService::Udp),
        ];
        let mut found = services
            .into_iter()
            .filter_map(|(prefix, service)| Some((name.strip_prefix(prefix)?, service)));
        let naptr = (kind == RecordType::NAPTR).then_some((name, SipService::Naptr));
        let (domain, service) = found.next().or(naptr)?;
        Some(Self {
            domain: DomainName::parse(domain).ok()?,
            service,
        })
    }
}

impl SipServices {
    pub(super) fn new(config: &EdgeConfig) -> Self {
        Self {
            is_asked: config.gateways.iter().any(|it| it.sip.is_some()),
            ..Self::default()
        }
    }

    /// One more edge. Each listens for SIP where its pool has such a server.
    pub(super) fn add(&mut self, edge: &ViewServer, by_tls: u16, by_tcp: u16) {
        for (port, all) in [(by_tls, &mut self.by_tls), (by_tcp, &mut self.by_tcp)] {
            if port > 0 {
                all.push(ViewServer {
                    port,
                    ..edge.clone()
                });
            }
        }
    }

    /// Whether questions of SIP are answered here at all.
    pub(super) fn is_asked(&self) -> bool {
        self.is_asked
    }

    /// The records of a partner's domain.
    pub(super) fn records(&self, question: &SipQuestion, kind: RecordType) -> Vec<RData> {
        let servers = match question.service {
            SipService::Naptr => return self.naptr(&question.domain),
            SipService::Tls => &self.by_tls[..],
            SipService::Tcp => &self.by_tcp,
            SipService::Udp => &[],
        };
        if !matches!(kind, RecordType::SRV | RecordType::ANY) {
            return Vec::new();
        }
        if servers.is_empty() {
            // Without it a server would try the domain's own address, past the edge.
            return vec![not_offered()];
        }
        servers.iter().map(ViewServer::record).collect()
    }

    /// Without them a `sip:` URI without transport asks for `_sip` alone (RFC 3263 section 4.1).
    fn naptr(&self, domain: &DomainName) -> Vec<RData> {
        let services = [(10, BY_TLS, &self.by_tls), (20, BY_TCP, &self.by_tcp)];
        let offered = services
            .iter()
            .filter(|(_, _, servers)| !servers.is_empty());
        let record = |order: u16, (prefix, service): (&str, &str)| {
            let replacement: Name = absolute(&format!("{prefix}{domain}"))?;
            let bytes = |text: &str| Box::from(text.as_bytes());
            let (flags, service) = (bytes("s"), bytes(service));
            let naptr = NAPTR::new(order, 0, flags, service, bytes(""), replacement);
            Some(RData::NAPTR(naptr))
        };
        offered
            .filter_map(|(order, service, _)| record(*order, *service))
            .collect()
    }
}
