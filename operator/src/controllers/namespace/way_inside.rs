//! Which pools have no way inside: at no pod of a pool anybody gets what comes in, and somebody does at another pool
//! of the same domain, to which partners are led then. Pure: the time is given.
//!
//! What was found once stays until a trunk is there, so that the other pool's troubles do not move records to
//! and fro; it ends where no other pool may be led to at all.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use xmpp_edge_crds::{
    domain::DomainName,
    edge_config::{EdgeConfig, GatewayMode, SidecarServers},
};

use super::snapshot::NamespaceSnapshot;
use crate::proxy_status::{PoolFacts, SidecarFacts};

/// So long a pool may be without a way inside while another one has one: sidecars dial every 10 s at least.
const PATIENCE: Duration = Duration::from_secs(60);

/// How a pool reaches the server of an own domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WayInside {
    /// A pod has somebody who gets what comes in, or dials the server itself.
    Open,
    /// No pod has.
    Missing,
    /// No pod has said.
    Unknown,
}

/// What one look found of a pool.
#[derive(Clone, Debug)]
pub struct SeenPool {
    pub name: String,
    /// Whether partners may be led there at all: neither suspended nor disabled.
    pub may_be_led_to: bool,
    pub ways: BTreeMap<DomainName, WayInside>,
}

impl SeenPool {
    /// Of the pool of `config`.
    #[must_use]
    pub fn new(config: &EdgeConfig, facts: Option<&PoolFacts>, may_be_led_to: bool) -> Self {
        let gateways = config.gateways.iter();
        let ways = gateways.flat_map(|gateway| {
            let domains = gateway.domains.iter();
            domains.map(move |domain| {
                let way = match gateway.mode {
                    GatewayMode::Direct | GatewayMode::Sip => WayInside::Open,
                    GatewayMode::Sidecar => facts.map_or(WayInside::Unknown, |it| said(it, domain)),
                };
                (domain.clone(), way)
            })
        });
        Self {
            name: config.pool.clone(),
            may_be_led_to,
            ways: ways.collect(),
        }
    }

    /// All pools of a look.
    #[must_use]
    pub fn all(scene: &NamespaceSnapshot) -> Vec<Self> {
        let configs = scene.compiled.configs.iter();
        configs
            .map(|(name, config)| {
                let spec = scene.spec(name);
                let may_be_led_to = spec.is_some_and(|it| it.route.enabled && !it.suspended);
                Self::new(config, scene.facts.get(name), may_be_led_to)
            })
            .collect()
    }
}

fn said(facts: &PoolFacts, domain: &DomainName) -> WayInside {
    let mut gateways = facts.gateways.iter();
    let gateway = gateways.find(|it| it.domains.iter().any(|own| own == domain.as_str()));
    let known = gateway.and_then(|it| Some((it.servers, it.sidecars.as_ref()?)));
    known.map_or(WayInside::Unknown, |(servers, sidecars)| {
        by_sidecars(servers, sidecars)
    })
}

/// A trunk alone is no way inside: at a pod where all sidecars stand by, what partners send waits until it is answered
/// with an error, for whoever gets it is connected elsewhere. That is as good as no trunk, and the pool where the
/// active one is connected does better.
///
/// A server that is away is another matter with `Single`: no other one serves in its place, so that no pool leads
/// anywhere else, and moving partners would cost their streams and mend nothing. `Clustered` servers are one: the
/// pool whose sidecars all have lost theirs is of no use, another pool's is.
fn by_sidecars(servers: SidecarServers, facts: &SidecarFacts) -> WayInside {
    let serving = match servers {
        SidecarServers::Single => facts.active_at,
        SidecarServers::Clustered => facts.active_at.saturating_sub(facts.away_at.len()),
    };
    let has_said = facts.active_at + facts.inactive_at.len() + facts.missing_at.len();
    match (serving, has_said) {
        (1.., _) => WayInside::Open,
        (0, 1..) => WayInside::Missing,
        (0, 0) => WayInside::Unknown,
    }
}

/// The pools of a namespace.
#[derive(Clone, Debug, Default)]
pub struct WaysInside {
    /// Since when a pool is without a way inside for a domain, and another one may have one. Where none has, as
    /// while the server's pod is made anew, the pools that get theirs back a moment later have lost nothing by it.
    missing: BTreeMap<(String, DomainName), Instant>,
    stranded: BTreeMap<String, BTreeSet<DomainName>>,
}

impl WaysInside {
    /// What the last document of a pool says: it was withdrawn. Where that is by its spec, it makes no
    /// difference.
    pub fn recall(&mut self, config: &EdgeConfig) {
        let own = config.edges.iter().find(|edge| edge.pool == config.pool);
        if !own.is_some_and(|edge| edge.withdrawn) {
            return;
        }
        let gateways = config.gateways.iter();
        let behind = gateways.filter(|it| it.mode == GatewayMode::Sidecar);
        let domains: BTreeSet<_> = behind.flat_map(|it| it.domains.clone()).collect();
        if !domains.is_empty() {
            self.stranded.insert(config.pool.clone(), domains);
        }
    }

    /// Takes in what was seen. When that may mean something else although nothing changes: at once, where
    /// what is compiled of it is another now.
    pub fn observe(&mut self, pools: &[SeenPool], now: Instant) -> Option<Duration> {
        let before = self.stranded.clone();
        self.missing.retain(|(pool, domain), _| {
            way(pools, pool, domain) != WayInside::Open
                && ways_of_others(pools, pool, domain).any(|way| way != WayInside::Missing)
        });
        self.stranded.clear();
        let mut next: Option<Duration> = None;
        for pool in pools {
            for (domain, way) in &pool.ways {
                let had = before.get(&pool.name);
                let was_stranded = had.is_some_and(|domains| domains.contains(domain));
                let left = match way {
                    WayInside::Open => continue,
                    WayInside::Unknown if was_stranded => Duration::ZERO,
                    WayInside::Unknown => continue,
                    WayInside::Missing => {
                        let key = (pool.name.clone(), domain.clone());
                        let is_open = |way| way == WayInside::Open;
                        let since = match self.missing.get(&key) {
                            Some(since) => *since,
                            None if ways_of_others(pools, &pool.name, domain).any(is_open) => {
                                *self.missing.entry(key).or_insert(now)
                            }
                            None => now,
                        };
                        (since + PATIENCE).saturating_duration_since(now)
                    }
                };
                let mut others = pools.iter().filter(|other| {
                    other.name != pool.name
                        && other.may_be_led_to
                        && other.ways.contains_key(domain)
                        && !is_in(&self.stranded, &other.name, domain)
                });
                if was_stranded {
                    // Of two that lost their way the first that is asked is the one that partners are led to.
                    if others.any(|other| {
                        other.ways[domain] == WayInside::Open
                            || !is_in(&before, &other.name, domain)
                    }) {
                        self.strand(&pool.name, domain);
                    }
                    continue;
                }
                if !others.any(|other| other.ways[domain] == WayInside::Open) {
                    continue;
                }
                if left.is_zero() {
                    self.strand(&pool.name, domain);
                } else {
                    next = next.into_iter().chain([left]).min();
                }
            }
        }
        if self.stranded == before {
            next
        } else {
            Some(Duration::ZERO)
        }
    }

    fn strand(&mut self, pool: &str, domain: &DomainName) {
        let domains = self.stranded.entry(pool.to_owned()).or_default();
        domains.insert(domain.clone());
    }

    /// By pool, the domains for which it has no way inside, and another pool has.
    #[must_use]
    pub fn stranded(&self) -> &BTreeMap<String, BTreeSet<DomainName>> {
        &self.stranded
    }

    /// Those of which that holds for every domain: nobody is led there.
    #[must_use]
    pub fn withdrawn<'a>(&self, last: &'a BTreeMap<String, EdgeConfig>) -> BTreeSet<&'a str> {
        let pools = last.iter().filter(|(pool, config)| {
            let stranded = self.stranded.get(*pool);
            stranded.is_some_and(|own| config.domains.iter().all(|domain| own.contains(domain)))
        });
        pools.map(|(pool, _)| pool.as_str()).collect()
    }
}

fn way(pools: &[SeenPool], pool: &str, domain: &DomainName) -> WayInside {
    let pool = pools.iter().find(|own| own.name == pool);
    let way = pool.and_then(|own| own.ways.get(domain));
    // A pool that is not there is not without a way.
    way.copied().unwrap_or(WayInside::Open)
}

/// How the other pools that partners may be led to reach the domain's server.
fn ways_of_others<'p>(
    pools: &'p [SeenPool],
    pool: &'p str,
    domain: &'p DomainName,
) -> impl Iterator<Item = WayInside> + 'p {
    let others = pools
        .iter()
        .filter(move |other| other.name != pool && other.may_be_led_to);
    others.filter_map(|other| other.ways.get(domain).copied())
}

fn is_in(
    stranded: &BTreeMap<String, BTreeSet<DomainName>>,
    pool: &str,
    domain: &DomainName,
) -> bool {
    let domains = stranded.get(pool);
    domains.is_some_and(|domains| domains.contains(domain))
}

#[cfg(test)]
mod tests {
    use super::*;
    use WayInside::{Missing, Open, Unknown};

    fn domain(name: &str) -> DomainName {
        DomainName::parse(name).expect("valid")
    }

    fn pool(name: &str, way: WayInside) -> SeenPool {
        SeenPool {
            name: name.to_owned(),
            may_be_led_to: true,
            ways: [(domain("org.example"), way)].into(),
        }
    }

    fn two(hq: WayInside, dr: WayInside) -> [SeenPool; 2] {
        [pool("hq", hq), pool("dr", dr)]
    }

    fn stranded(ways: &WaysInside) -> Vec<&str> {
        ways.stranded().keys().map(String::as_str).collect()
    }

    fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    #[test]
    fn b_31_a_site_without_a_way_inside_is_withdrawn_after_a_minute_and_back_with_the_trunks() {
        let start = Instant::now();
        let mut ways = WaysInside::default();
        assert_eq!(ways.observe(&two(Open, Open), start), None);
        assert_eq!(ways.observe(&two(Missing, Open), start), Some(seconds(60)));
        let before = start + seconds(59);
        assert_eq!(ways.observe(&two(Missing, Open), before), Some(seconds(1)));
        assert!(stranded(&ways).is_empty());
        let after = start + seconds(60);
        assert_eq!(
            ways.observe(&two(Missing, Open), after),
            Some(Duration::ZERO)
        );
        assert_eq!(stranded(&ways), ["hq"]);
        assert_eq!(ways.observe(&two(Missing, Open), after), None);
        assert_eq!(ways.observe(&two(Open, Open), after), Some(Duration::ZERO));
        assert!(stranded(&ways).is_empty());
        let again = ways.observe(&two(Missing, Open), after);
        assert_eq!(again, Some(seconds(60)), "it counts anew");
    }

    #[test]
    fn b_31_without_another_pool_that_has_a_way_nothing_is_withdrawn() {
        let start = Instant::now();
        let later = start + seconds(600);
        let mut disabled = pool("dr", Open);
        disabled.may_be_led_to = false;
        let mut elsewhere = pool("dr", Open);
        elsewhere.ways = [(domain("org2.example"), Open)].into();
        for other in [
            pool("dr", Missing),
            pool("dr", Unknown),
            disabled,
            elsewhere,
        ] {
            let mut ways = WaysInside::default();
            let pools = [pool("hq", Missing), other];
            ways.observe(&pools, start);
            ways.observe(&pools, later);
            assert!(stranded(&ways).is_empty(), "{pools:?}");
        }
    }

    #[test]
    fn b_31_a_pool_that_was_withdrawn_stays_so_while_the_other_one_comes_and_goes() {
        let start = Instant::now();
        let mut ways = WaysInside::default();
        ways.observe(&two(Missing, Open), start);
        let mut now = start + seconds(60);
        ways.observe(&two(Missing, Open), now);
        for other in [Missing, Unknown, Open, Missing] {
            now += seconds(100);
            assert_eq!(ways.observe(&two(Missing, other), now), None);
            assert_eq!(stranded(&ways), ["hq"], "{other:?}");
        }
        now += seconds(1);
        ways.observe(&two(Unknown, Open), now);
        assert_eq!(stranded(&ways), ["hq"], "its pods do not answer just now");
        let alone = [pool("hq", Missing)];
        ways.observe(&alone, now);
        assert!(stranded(&ways).is_empty(), "nobody else is left");
    }

    #[test]
    fn b_31_pools_that_all_lost_their_way_have_the_time_anew_once_one_has_it_back() {
        let start = Instant::now();
        let mut ways = WaysInside::default();
        ways.observe(&two(Missing, Open), start);
        let mut now = start + seconds(1);
        assert_eq!(ways.observe(&two(Missing, Missing), now), None);
        now += seconds(600);
        assert_eq!(ways.observe(&two(Missing, Missing), now), None);
        // The first trunk after the server's restart is dr's; hq's is a moment later.
        assert_eq!(ways.observe(&two(Missing, Open), now), Some(seconds(60)));
        now += seconds(59);
        ways.observe(&two(Missing, Unknown), now);
        assert!(stranded(&ways).is_empty());
        now += seconds(1);
        ways.observe(&two(Missing, Open), now);
        assert_eq!(
            stranded(&ways),
            ["hq"],
            "one that does not answer just now starts nothing anew"
        );
    }

    /// Facts of a pool with so many pods of each kind.
    fn facts(missing: usize, inactive: usize, active: usize, away: usize) -> SidecarFacts {
        let pods = |count: usize| (0..count).map(|it| format!("pod-{it}")).collect();
        SidecarFacts {
            missing_at: pods(missing),
            inactive_at: pods(inactive),
            active_at: active,
            away_at: pods(away),
            ..SidecarFacts::default()
        }
    }

    #[test]
    fn b_31_a_pool_whose_sidecars_all_stand_by_has_no_way_inside() {
        use SidecarServers::{Clustered, Single};
        for (servers, facts, expected) in [
            (Single, facts(0, 0, 0, 0), Unknown),
            (Single, facts(2, 0, 0, 0), Missing),
            (Single, facts(1, 0, 1, 0), Open),
            (Single, facts(0, 2, 0, 0), Missing),
            (Single, facts(1, 1, 0, 0), Missing),
            (Single, facts(0, 1, 1, 0), Open),
            (Single, facts(0, 0, 2, 2), Open),
            (Clustered, facts(0, 0, 2, 0), Open),
            (Clustered, facts(0, 0, 2, 1), Open),
            (Clustered, facts(1, 0, 1, 1), Missing),
            (Clustered, facts(0, 0, 2, 2), Missing),
        ] {
            assert_eq!(
                by_sidecars(servers, &facts),
                expected,
                "{servers:?} {facts:?}"
            );
        }
    }

    #[test]
    fn b_31_what_does_not_say_how_it_is_starts_no_clock() {
        let start = Instant::now();
        let mut ways = WaysInside::default();
        assert_eq!(ways.observe(&two(Unknown, Open), start), None);
        let later = start + seconds(600);
        assert_eq!(ways.observe(&two(Missing, Open), later), Some(seconds(60)));
    }
}
