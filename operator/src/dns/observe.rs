//! What DNS answers, asked of a resolver as partners ask theirs: `DnsPublished` where someone else
//! does the publishing (external-dns).

use std::{collections::BTreeSet, net::SocketAddr, time::Duration};

use hickory_resolver::{
    TokioResolver,
    config::{ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts},
    net::{DnsError as WireError, NetError, runtime::TokioRuntimeProvider},
    system_conf::read_system_conf,
};

use super::{
    error::DnsError,
    report::{DnsReport, RecordGroupState},
    rrset::{Name, RecordData},
    wanted::{Availability, DesiredRecords, RecordGroup, Records},
    wire,
};

/// For one answer; it is asked for twice.
const LIMIT: Duration = Duration::from_secs(4);

/// Asks; what it is told is not cached.
#[derive(Clone)]
pub struct Observer {
    lookups: TokioResolver,
}

/// The system's resolver cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("no resolver can be used ({0}): see /etc/resolv.conf")]
pub struct NoResolver(String);

impl Observer {
    /// Asks the system's resolver.
    ///
    /// # Errors
    /// [`NoResolver`].
    pub fn system() -> Result<Self, NoResolver> {
        let (config, options) =
            read_system_conf().map_err(|error| NoResolver(error.to_string()))?;
        Self::build(config, options)
    }

    /// Asks this one.
    ///
    /// # Errors
    /// [`NoResolver`].
    pub fn at(address: SocketAddr) -> Result<Self, NoResolver> {
        let port = |mut connection: ConnectionConfig| {
            connection.port = address.port();
            connection
        };
        let mut server = NameServerConfig::udp_and_tcp(address.ip());
        server.connections = vec![port(ConnectionConfig::udp()), port(ConnectionConfig::tcp())];
        Self::build(
            ResolverConfig::from_name_servers(vec![server]),
            ResolverOpts::default(),
        )
    }

    fn build(config: ResolverConfig, mut options: ResolverOpts) -> Result<Self, NoResolver> {
        options.cache_size = 0;
        options.use_hosts_file = ResolveHosts::Never;
        options.timeout = LIMIT;
        options.attempts = 2;
        let lookups = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
            .with_options(options)
            .build()
            .map_err(|error| NoResolver(error.to_string()))?;
        Ok(Self { lookups })
    }

    /// Compares what is answered with what is wanted. `published` says which places the pool is
    /// meant to be published at now ([`external_dns::published`](super::external_dns::published)).
    pub async fn look(&self, wanted: &DesiredRecords, published: bool) -> DnsReport {
        let mut places = Vec::new();
        for (place, records) in &wanted.places {
            let outcome = self
                .at_place(place, records, wanted.standing, published)
                .await;
            places.push((place.clone(), outcome));
        }
        DnsReport {
            standing: wanted.standing,
            address_pending: wanted.address_pending,
            places,
            key_fault: None,
        }
    }

    async fn at_place(
        &self,
        place: &RecordGroup,
        records: &Records,
        standing: Availability,
        published: bool,
    ) -> Result<RecordGroupState, DnsError> {
        let mut there = false;
        for (name, wanted) in records {
            let kinds: BTreeSet<_> = wanted.iter().map(RecordData::kind).collect();
            for kind in kinds {
                let answered = self.answered(name, kind).await?;
                for data in wanted.iter().filter(|data| data.kind() == kind) {
                    if answered.contains(data) {
                        there = true;
                    } else if published {
                        return Err(DnsError::NotPublished {
                            name: name.clone().into(),
                            record: data.to_string(),
                        });
                    }
                }
            }
        }
        Ok(match (there, standing) {
            (false, _) => RecordGroupState::Withdrawn,
            (true, Availability::Unready) if matches!(place, RecordGroup::Domain(_)) => {
                RecordGroupState::KeptAsLast
            }
            (true, _) => RecordGroupState::Published,
        })
    }

    async fn answered(
        &self,
        name: &Name,
        kind: super::rrset::RecordKind,
    ) -> Result<BTreeSet<RecordData>, DnsError> {
        match self
            .lookups
            .lookup(name.clone(), wire::record_type(kind))
            .await
        {
            Ok(lookup) => Ok(lookup
                .answers()
                .iter()
                .filter_map(|record| wire::data(&record.data))
                .collect()),
            Err(NetError::Dns(WireError::NoRecordsFound(_))) => Ok(BTreeSet::new()),
            Err(error) => Err(DnsError::Resolver {
                name: name.clone().into(),
                fault: error.to_string(),
            }),
        }
    }
}
