//! The SIP servers of a host (RFC 3263 section 4.2).

use std::net::IpAddr;

use futures::future::join_all;
use xmpp_edge_crds::edge_config::{Host, SipServers, SipService, SipTransport};

use super::{Dnssec, Resolver, Services, SrvAnswer};
use crate::dns::{DnsError, Service, cache::MAX_RECORDS};

impl Resolver {
    /// The servers by SRV; without any record the host itself on the transport's port.
    ///
    /// # Errors
    /// [`DnsError`]; [`DnsError::NoSipServer`] where the record says `.` and nothing else is.
    pub async fn sip_servers(&self, service: &SipService) -> Result<Services, DnsError> {
        let by_tls = service.transport == SipTransport::Tls;
        match self.srv(&service.to_string(), by_tls).await? {
            SrvAnswer::Records { records, dnssec } => Ok(Services {
                records,
                fallback: false,
                dnssec,
            }),
            SrvAnswer::NotOffered => Err(DnsError::NoSipServer {
                service: service.clone(),
            }),
            SrvAnswer::Nothing => Ok(Services {
                records: vec![Service {
                    priority: 0,
                    weight: 0,
                    port: service.transport.default_port(),
                    target: service.host.clone(),
                    direct_tls: by_tls,
                }],
                fallback: true,
                dnssec: Dnssec::Unsigned,
            }),
        }
    }

    /// Where any of these servers is, as far as is known: one whose address is not found is left out.
    ///
    /// # Errors
    /// As [`Self::sip_servers`], and [`Self::addresses`] of the one that is configured.
    pub async fn sip_addresses(&self, servers: &SipServers) -> Result<Vec<IpAddr>, DnsError> {
        let service = match servers {
            SipServers::At(server, _) => match &server.host {
                Host::Ip(ip) => return Ok(vec![*ip]),
                Host::Name(host) => return self.addresses(host).await,
            },
            SipServers::Named(service) => service,
        };
        let mut records = self.sip_servers(service).await?.records;
        records.truncate(MAX_RECORDS);
        let found = join_all(records.iter().map(|server| self.addresses(&server.target))).await;
        Ok(found.into_iter().flatten().flatten().collect())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use hickory_proto::rr::RecordType;
    use xmpp_edge_crds::{domain::DomainName, edge_config::HostPort};

    use super::*;
    use crate::dns::fake::{Fake, FakeReply, a, srv};

    /// Whose connections count as the server's where nothing else tells: every target's, and no other.
    #[tokio::test]
    async fn the_addresses_of_sip_servers_are_those_of_all_targets() {
        let records = FakeReply::Records;
        let fake = Fake::start(vec![
            (
                "_sip._tcp.sip.example",
                RecordType::SRV,
                records(vec![
                    srv(1, 0, 7001, "one.example."),
                    srv(2, 0, 7002, "two.example."),
                    srv(3, 0, 7003, "missing.example."),
                ]),
            ),
            (
                "_sip._tcp.none.example",
                RecordType::SRV,
                records(vec![srv(0, 0, 0, ".")]),
            ),
            (
                "one.example",
                RecordType::A,
                records(vec![a("192.0.2.1"), a("192.0.2.11")]),
            ),
            ("two.example", RecordType::A, records(vec![a("192.0.2.2")])),
            ("sip.example", RecordType::A, records(vec![a("192.0.2.9")])),
            ("none.example", RecordType::A, records(vec![a("192.0.2.8")])),
            (
                "alone.example",
                RecordType::A,
                records(vec![a("192.0.2.7")]),
            ),
        ])
        .await;
        let resolver = Resolver::at(fake.address).unwrap();
        let named = |host: &str| {
            SipServers::Named(SipService {
                host: DomainName::parse(host).unwrap(),
                transport: SipTransport::Tcp,
            })
        };
        let at =
            |text: &str| SipServers::At(HostPort::parse(text, None).unwrap(), SipTransport::Tcp);
        for (servers, expected) in [
            (
                named("sip.example"),
                &["192.0.2.1", "192.0.2.11", "192.0.2.2"][..],
            ),
            (named("alone.example"), &["192.0.2.7"]),
            (named("none.example"), &[]),
            (named("nowhere.example"), &[]),
            (at("sip.example:5060"), &["192.0.2.9"]),
            (at("192.0.2.5:5060"), &["192.0.2.5"]),
        ] {
            let found = resolver.sip_addresses(&servers).await.unwrap_or_default();
            let mut found: Vec<_> = found.iter().map(ToString::to_string).collect();
            found.sort();
            assert_eq!(found, expected, "{servers:?}");
        }
    }
}
