//! The Services: for partners, for servers inside, each pod by itself, and for sidecars.

use k8s_openapi::{
    api::core::v1::{Service, ServicePort, ServiceSpec},
    apimachinery::pkg::util::intstr::IntOrString,
};
use kube::ResourceExt;
use xmpp_edge_crds::{
    edge_config::EdgeConfig,
    kinds::{
        EdgePool,
        pool::workload::{ExternalTrafficPolicy, IpFamilyPolicy, ServiceType},
    },
};

use super::{Child, metadata, names};

/// Where the internal Service answers DNS: resolvers know no other port.
const DNS_PORT: u16 = 53;

/// The Services of a pool.
#[must_use]
pub fn plan(pool: &EdgePool, config: &EdgeConfig) -> [Child; 3] {
    [
        external(pool, config),
        internal(pool, config),
        headless(pool, config),
    ]
    .map(|service| Child::Service(Box::new(service)))
}

fn external(pool: &EdgePool, config: &EdgeConfig) -> Service {
    let wanted = &pool.spec.service;
    let mut ports = vec![tcp("s2s", config.listeners.s2s)];
    if config.listeners.direct_tls != 0 {
        ports.push(tcp("direct-tls", config.listeners.direct_tls));
    }
    let mut service = service(
        pool,
        names::external_service(&pool.name_any()),
        ServiceSpec {
            type_: Some(type_of(wanted.service_type)),
            ports: Some(ports),
            external_traffic_policy: traffic_policy(
                wanted.service_type,
                wanted.external_traffic_policy,
            ),
            load_balancer_class: wanted.load_balancer_class.clone(),
            load_balancer_source_ranges: wanted.load_balancer_source_ranges.clone(),
            allocate_load_balancer_node_ports: wanted.allocate_load_balancer_node_ports,
            ip_family_policy: Some(
                match wanted.ip_family_policy {
                    IpFamilyPolicy::SingleStack => "SingleStack",
                    IpFamilyPolicy::PreferDualStack => "PreferDualStack",
                    IpFamilyPolicy::RequireDualStack => "RequireDualStack",
                }
                .to_owned(),
            ),
            ..ServiceSpec::default()
        },
    );
    metadata::add(&mut service.metadata, &wanted.labels, &wanted.annotations);
    service
}

fn internal(pool: &EdgePool, config: &EdgeConfig) -> Service {
    let wanted = &pool.spec.internal_service;
    let mut ports = vec![tcp("internal", config.listeners.internal)];
    let of_sip = [
        ("sip", config.listeners.sip),
        ("sip-tcp", config.listeners.sip_tcp),
    ];
    ports.extend(
        of_sip
            .into_iter()
            .filter(|(_, port)| *port != 0)
            .map(|(name, port)| tcp(name, port)),
    );
    if config.listeners.dns != 0 {
        for (name, protocol) in [("dns", "UDP"), ("dns-tcp", "TCP")] {
            ports.push(ServicePort {
                protocol: Some(protocol.to_owned()),
                target_port: Some(IntOrString::Int(config.listeners.dns.into())),
                ..tcp(name, DNS_PORT)
            });
        }
    }
    let mut service = service(
        pool,
        names::internal_service(&pool.name_any()),
        ServiceSpec {
            type_: Some(type_of(wanted.service_type)),
            ports: Some(ports),
            ip_family_policy: Some("PreferDualStack".to_owned()),
            external_traffic_policy: traffic_policy(
                wanted.service_type,
                wanted.external_traffic_policy,
            ),
            load_balancer_class: wanted.load_balancer_class.clone(),
            load_balancer_source_ranges: wanted.load_balancer_source_ranges.clone(),
            allocate_load_balancer_node_ports: wanted.allocate_load_balancer_node_ports,
            ..ServiceSpec::default()
        },
    );
    metadata::add(&mut service.metadata, &wanted.labels, &wanted.annotations);
    service
}

/// The Service of sidecars, where a gateway takes trunks. Each of its addresses is a pod, ready or not: a pod
/// that waits for its first trunks has to be found.
#[must_use]
pub fn trunks(pool: &EdgePool, config: &EdgeConfig) -> Option<Child> {
    let taken = config.gateways.iter().any(|it| it.sidecar.is_some());
    taken.then(|| {
        Child::Service(Box::new(service(
            pool,
            names::trunk_service(&pool.name_any()),
            ServiceSpec {
                type_: Some("ClusterIP".to_owned()),
                cluster_ip: Some("None".to_owned()),
                publish_not_ready_addresses: Some(true),
                ports: Some(vec![tcp("internal", config.listeners.internal)]),
                ip_family_policy: Some("PreferDualStack".to_owned()),
                ..ServiceSpec::default()
            },
        )))
    })
}

fn headless(pool: &EdgePool, config: &EdgeConfig) -> Service {
    service(
        pool,
        names::headless_service(&pool.name_any()),
        ServiceSpec {
            type_: Some("ClusterIP".to_owned()),
            cluster_ip: Some("None".to_owned()),
            ports: Some(vec![
                tcp("internal", config.listeners.internal),
                tcp("admin", config.listeners.admin),
            ]),
            ip_family_policy: Some("PreferDualStack".to_owned()),
            ..ServiceSpec::default()
        },
    )
}

fn service(pool: &EdgePool, name: String, spec: ServiceSpec) -> Service {
    Service {
        metadata: metadata::owned(pool, name),
        spec: Some(ServiceSpec {
            selector: Some(metadata::selector(&pool.name_any())),
            ..spec
        }),
        ..Service::default()
    }
}

fn tcp(name: &str, port: u16) -> ServicePort {
    ServicePort {
        name: Some(name.to_owned()),
        port: port.into(),
        protocol: Some("TCP".to_owned()),
        target_port: Some(IntOrString::Int(port.into())),
        ..ServicePort::default()
    }
}

/// The API server refuses it where nothing comes from outside.
fn traffic_policy(service: ServiceType, wanted: ExternalTrafficPolicy) -> Option<String> {
    (service != ServiceType::ClusterIP).then(|| {
        match wanted {
            ExternalTrafficPolicy::Local => "Local",
            ExternalTrafficPolicy::Cluster => "Cluster",
        }
        .to_owned()
    })
}

fn type_of(wanted: ServiceType) -> String {
    match wanted {
        ServiceType::LoadBalancer => "LoadBalancer",
        ServiceType::NodePort => "NodePort",
        ServiceType::ClusterIP => "ClusterIP",
    }
    .to_owned()
}
