//! What DNS answers, asked of the zone's own servers, else of a resolver as partners ask theirs:
//! `DnsPublished` where someone else does the publishing (external-dns).

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use hickory_proto::rr::{RData, RecordType, rdata::NS};
use hickory_resolver::{
    TokioResolver,
    config::{ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts},
    net::{DnsError as WireError, NetError, runtime::TokioRuntimeProvider},
    system_conf::read_system_conf,
};

use super::{
    error::DnsError,
    report::{DnsReport, RecordGroupState},
    rrset::{Name, RecordData, RecordKind, name},
    wanted::{Availability, DesiredRecords, RecordGroup, Records},
    wire,
};

/// For one answer of a resolver, which may have to ask far; it is asked for twice.
const LIMIT: Duration = Duration::from_secs(4);
/// For one answer of a zone's own server, which has it at hand; it is asked for twice.
const ZONE_LIMIT: Duration = Duration::from_secs(2);
/// Servers of a zone that are asked.
const SERVERS: usize = 4;

/// Asks; what it is told is not cached.
#[derive(Clone, Debug)]
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
        Self::build(config, options, LIMIT)
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
            LIMIT,
        )
    }

    fn build(
        config: ResolverConfig,
        mut options: ResolverOpts,
        limit: Duration,
    ) -> Result<Self, NoResolver> {
        options.cache_size = 0;
        options.use_hosts_file = ResolveHosts::Never;
        options.timeout = limit;
        options.attempts = 2;
        let lookups = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
            .with_options(options)
            .build()
            .map_err(|error| NoResolver(error.to_string()))?;
        Ok(Self { lookups })
    }

    /// What the resolver answers for a name and the type that `record` (`TYPE DATA`) is of, each as such a
    /// text.
    ///
    /// # Errors
    /// [`DnsError::NoName`], and [`DnsError::Resolver`] where nothing is answered.
    pub async fn answered(&self, at: &str, record: &str) -> Result<BTreeSet<String>, DnsError> {
        let at = name(at).map_err(|_| DnsError::NoName(at.to_owned()))?;
        let kind = match record.split_ascii_whitespace().next() {
            Some("SRV") => RecordKind::Srv,
            Some("A") => RecordKind::A,
            Some("AAAA") => RecordKind::Aaaa,
            _ => return Err(DnsError::NoName(record.to_owned())),
        };
        match answered_by(&self.lookups, &at, kind).await? {
            ServerAnswer::Records(answered) => {
                Ok(answered.iter().map(RecordData::to_string).collect())
            }
            ServerAnswer::Referral => Ok(BTreeSet::new()),
        }
    }

    /// Compares what is answered with what is wanted. `published` says at which places the pool is
    /// meant to be published now ([`external_dns::published`](super::backend::external_dns::published)).
    pub async fn look(
        &self,
        wanted: &DesiredRecords,
        published: impl Fn(&RecordGroup) -> bool,
    ) -> DnsReport {
        let mut places = Vec::new();
        let mut silent = BTreeSet::new();
        for (place, records) in &wanted.places {
            let standing = wanted.standing_at(place);
            let zone = top_zone(place).filter(|zone| !silent.contains(zone));
            let servers = match &zone {
                Some(zone) => self.authoritative(place, zone).await,
                None => Ok(None),
            };
            let mut question = Question {
                silent: servers.is_err(),
                servers: servers.unwrap_or_default(),
                observer: self,
            };
            let outcome = question
                .at_place(place, records, standing, published(place))
                .await;
            // Whoever did not answer once is not waited for again, at this look.
            silent.extend(zone.filter(|_| question.silent));
            places.push((place.clone(), outcome));
        }
        DnsReport {
            standing: wanted.standing,
            address_pending: wanted.address_pending,
            places,
            key_fault: None,
            denied: Vec::new(),
            namesakes: BTreeSet::new(),
        }
    }

    /// The servers of the zone that a place is in, where they can be told. A resolver that is asked
    /// too early remembers the no for the zone's negative TTL, and with it all of its users do.
    ///
    /// A resolver is only asked for what is certain to be there: the zone of two labels. From there on
    /// the zones' own servers say which are below.
    async fn authoritative(
        &self,
        place: &RecordGroup,
        top: &Name,
    ) -> Result<Option<TokioResolver>, Silence> {
        let Ok(target) = name(place.text()) else {
            return Ok(None);
        };
        let Some(mut servers) = self.servers_of(&self.lookups, top).await? else {
            return Ok(None);
        };
        for depth in top.num_labels() + 1..=target.num_labels() {
            let below = target.trim_to(depth.into());
            if let Some(deeper) = self.servers_of(&servers, &below).await? {
                servers = deeper;
            }
        }
        Ok(Some(servers))
    }

    /// A resolver that asks the servers of `zone` alone, as `from` says which they are, if it does.
    async fn servers_of(
        &self,
        from: &TokioResolver,
        zone: &Name,
    ) -> Result<Option<TokioResolver>, Silence> {
        let (records, glue) = match from.lookup(zone.clone(), RecordType::NS).await {
            Ok(lookup) => (lookup.answers().to_vec(), Vec::new()),
            Err(NetError::Dns(WireError::NoRecordsFound(none))) => {
                let Some(referral) = none.ns else {
                    return Ok(None);
                };
                let glue = referral.iter().flat_map(|it| it.glue.to_vec()).collect();
                (referral.iter().map(|it| it.ns.clone()).collect(), glue)
            }
            Err(NetError::Dns(_)) => return Ok(None),
            Err(_) => return Err(Silence),
        };
        let servers = records.iter().filter_map(|record| match &record.data {
            RData::NS(NS(server)) => Some(server),
            _ => None,
        });
        let mut addresses: BTreeSet<IpAddr> = glue
            .iter()
            .filter_map(|record| record.data.ip_addr())
            .collect();
        for server in servers.take(SERVERS) {
            if addresses.is_empty()
                && let Ok(found) = self.lookups.lookup_ip(server.clone()).await
            {
                addresses.extend(found.iter());
            }
        }
        let configs: Vec<_> = addresses
            .into_iter()
            .take(SERVERS)
            .map(NameServerConfig::udp_and_tcp)
            .collect();
        if configs.is_empty() {
            return Ok(None);
        }
        let mut options = ResolverOpts::default();
        options.recursion_desired = false;
        let config = ResolverConfig::from_name_servers(configs);
        let built = Self::build(config, options, ZONE_LIMIT);
        Ok(built.ok().map(|built| built.lookups))
    }
}

/// Servers did not answer in time.
struct Silence;

/// The zone of two labels that a place is in.
fn top_zone(place: &RecordGroup) -> Option<Name> {
    let target = name(place.text()).ok()?;
    Some(target.trim_to(target.num_labels().min(2).into()))
}

/// Whom to ask for the records of one place.
struct Question<'a> {
    /// Of the zone, where these are known.
    servers: Option<TokioResolver>,
    /// They did not answer.
    silent: bool,
    observer: &'a Observer,
}

impl Question<'_> {
    async fn at_place(
        &mut self,
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

    /// The zone's own servers where they answer, else the resolver.
    async fn answered(
        &mut self,
        name: &Name,
        kind: RecordKind,
    ) -> Result<BTreeSet<RecordData>, DnsError> {
        if let Some(servers) = self.servers.as_ref().filter(|_| !self.silent) {
            match answered_by(servers, name, kind).await {
                Ok(ServerAnswer::Records(answered)) => return Ok(answered),
                Ok(ServerAnswer::Referral) => {}
                Err(_) => self.silent = true,
            }
        }
        match answered_by(&self.observer.lookups, name, kind).await? {
            ServerAnswer::Records(answered) => Ok(answered),
            ServerAnswer::Referral => Ok(BTreeSet::new()),
        }
    }
}

/// What a server says.
enum ServerAnswer {
    Records(BTreeSet<RecordData>),
    /// Others have the zone.
    Referral,
}

async fn answered_by(
    servers: &TokioResolver,
    name: &Name,
    kind: RecordKind,
) -> Result<ServerAnswer, DnsError> {
    match servers.lookup(name.clone(), wire::record_type(kind)).await {
        Ok(lookup) => {
            let records = lookup.answers().iter();
            let ours = records.filter_map(|record| wire::data(&record.data));
            Ok(ServerAnswer::Records(ours.collect()))
        }
        Err(NetError::Dns(WireError::NoRecordsFound(none))) => Ok(match none.ns {
            Some(_) => ServerAnswer::Referral,
            None => ServerAnswer::Records(BTreeSet::new()),
        }),
        Err(error) => Err(DnsError::Resolver {
            name: name.clone().into(),
            fault: error.to_string(),
        }),
    }
}
