//! The three Services: for partners, for servers inside, and each pod by itself.

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
    let outside = wanted.service_type != ServiceType::ClusterIP;
    let mut service = service(
        pool,
        names::external_service(&pool.name_any()),
        ServiceSpec {
            type_: Some(type_of(wanted.service_type)),
            ports: Some(ports),
            // The API server refuses it where nothing comes from outside.
            external_traffic_policy: outside.then(|| {
                match wanted.external_traffic_policy {
                    ExternalTrafficPolicy::Local => "Local",
                    ExternalTrafficPolicy::Cluster => "Cluster",
                }
                .to_owned()
            }),
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
    if !wanted.annotations.is_empty() {
        service.metadata.annotations = Some(wanted.annotations.clone());
    }
    service
}

fn internal(pool: &EdgePool, config: &EdgeConfig) -> Service {
    let wanted = &pool.spec.internal_service;
    let mut ports = vec![tcp("internal", config.listeners.internal)];
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
            ..ServiceSpec::default()
        },
    );
    if !wanted.annotations.is_empty() {
        service.metadata.annotations = Some(wanted.annotations.clone());
    }
    service
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

fn type_of(wanted: ServiceType) -> String {
    match wanted {
        ServiceType::LoadBalancer => "LoadBalancer",
        ServiceType::NodePort => "NodePort",
        ServiceType::ClusterIP => "ClusterIP",
    }
    .to_owned()
}
