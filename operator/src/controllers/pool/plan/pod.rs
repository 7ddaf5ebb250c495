//! The pod: the proxy, restricted as far as Pod Security goes, without a token of the API server.
//!
//! Nothing here changes with partners, policies or certificates: those arrive in mounted volumes
//! and are swapped live. Every source is optional, so that a pod starts, says on `/readyz` what it
//! waits for, and begins when it is there.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{
        Capabilities, ConfigMapProjection, Container, ContainerPort, EmptyDirVolumeSource, EnvVar,
        EnvVarSource, HTTPGetAction, KeyToPath, Lifecycle, LifecycleHandler, LocalObjectReference,
        ObjectFieldSelector, PersistentVolumeClaimVolumeSource, PodSecurityContext, PodSpec,
        PodTemplateSpec, Probe, ProjectedVolumeSource, ResourceRequirements, SeccompProfile,
        SecretProjection, SecurityContext, SleepAction, Sysctl, TopologySpreadConstraint, Volume,
        VolumeMount, VolumeProjection,
    },
    apimachinery::pkg::{
        api::resource::Quantity, apis::meta::v1::ObjectMeta, util::intstr::IntOrString,
    },
};
use kube::ResourceExt;
use xmpp_edge_crds::{
    edge_config::{
        EdgeConfig, GatewayMode, StartSettings,
        shards::{self, MAX_SHARDS, SHARD_KEY},
    },
    kinds::{
        EdgePool,
        pool::workload::{PodIdentity, PodTemplate},
    },
};

use super::{metadata, names, volume};
use crate::secrets::{egress, source::sip, store::ManagedSecret};

/// The proxy's container.
pub const CONTAINER: &str = "proxy";

/// Where the shards are mounted, `shard-0` to `shard-7`.
const CONFIG: &str = "/etc/xmpp-edge/config";
/// Where certificates and secrets are mounted.
const SECRETS: &str = "/etc/xmpp-edge/secrets";
/// Where embedded contacts live.
const STATE: &str = "/var/lib/xmpp-edge";

/// User and group of the image.
const UID: i64 = 65_532;
/// Ports from here on need no privilege anyway.
const FIRST_FREE_PORT: u16 = 1024;
/// A pod that ends goes on serving this long, until load balancers have noticed.
const PRE_STOP_SECONDS: i64 = 10;
/// Beside `queueTimeoutSeconds`: closing streams and ending what runs takes 15 s at most; margin.
const AFTER_QUEUE_SECONDS: i64 = 20;
/// Memory of a proxy with empty queues, in MiB: document, streams, code.
const BASE_MEMORY_MIB: u64 = 256;

/// The image of pools that name none, and the Secrets that its registry wants.
#[derive(Clone, Copy, Debug)]
pub struct ProxyImage<'a> {
    pub reference: &'a str,
    /// Names of Secrets in the pool's namespace.
    pub pull_secrets: &'a [String],
}

/// The template of a pool's pods.
#[must_use]
pub fn template(
    pool: &EdgePool,
    config: &EdgeConfig,
    proxy_image: ProxyImage<'_>,
) -> PodTemplateSpec {
    let name = pool.name_any();
    let more = pool.spec.pod_template.clone().unwrap_or_default();
    let mut labels = more.labels.clone();
    labels.extend(metadata::labels(&name));
    let spec = PodSpec {
        containers: vec![container(pool, config, proxy_image.reference, &more)],
        volumes: Some(volumes(pool)),
        security_context: Some(pod_security(config, more.security_context)),
        automount_service_account_token: Some(false),
        enable_service_links: Some(false),
        termination_grace_period_seconds: Some(grace_seconds(config)),
        topology_spread_constraints: Some(spread(&name, more.topology_spread_constraints)),
        node_selector: filled(more.node_selector),
        tolerations: (!more.tolerations.is_empty()).then_some(more.tolerations),
        affinity: more.affinity,
        priority_class_name: more.priority_class_name,
        runtime_class_name: more.runtime_class_name,
        dns_policy: more.dns_policy.map(|policy| format!("{policy:?}")),
        dns_config: more.dns_config,
        host_aliases: (!more.host_aliases.is_empty()).then_some(more.host_aliases),
        image_pull_secrets: pull_secrets(more.image_pull_secrets, proxy_image.pull_secrets),
        ..PodSpec::default()
    };
    PodTemplateSpec {
        metadata: Some(ObjectMeta {
            labels: Some(labels),
            annotations: filled(more.annotations),
            ..ObjectMeta::default()
        }),
        spec: Some(spec),
    }
}

/// Those of the pool, else those of the operator.
fn pull_secrets(
    own: Vec<LocalObjectReference>,
    given: &[String],
) -> Option<Vec<LocalObjectReference>> {
    let given = given
        .iter()
        .map(|name| LocalObjectReference { name: name.clone() });
    let all: Vec<_> = if own.is_empty() { given.collect() } else { own };
    (!all.is_empty()).then_some(all)
}

fn filled(map: BTreeMap<String, String>) -> Option<BTreeMap<String, String>> {
    (!map.is_empty()).then_some(map)
}

/// How long a pod may take to end: load balancers notice, queues empty, streams close.
fn grace_seconds(config: &EdgeConfig) -> i64 {
    PRE_STOP_SECONDS + i64::from(config.settings.queue_timeout_seconds) + AFTER_QUEUE_SECONDS
}

fn container(
    pool: &EdgePool,
    config: &EdgeConfig,
    proxy_image: &str,
    more: &PodTemplate,
) -> Container {
    let image = pool.spec.image.as_deref().unwrap_or(proxy_image);
    let mut env = vec![EnvVar {
        name: "XMPP_EDGE_POD".to_owned(),
        value_from: Some(EnvVarSource {
            field_ref: Some(ObjectFieldSelector {
                field_path: "metadata.name".to_owned(),
                ..ObjectFieldSelector::default()
            }),
            ..EnvVarSource::default()
        }),
        ..EnvVar::default()
    }];
    // Not an argument: a pool may keep an image of before.
    env.push(EnvVar {
        name: "XMPP_EDGE_MADE_FOR".to_owned(),
        value: Some(StartSettings::of(config).to_string()),
        ..EnvVar::default()
    });
    env.extend(more.env.iter().cloned());
    let admin = config.listeners.admin.to_string();
    let args = [
        "run",
        "--config",
        CONFIG,
        "--secrets",
        SECRETS,
        "--state",
        STATE,
        // Open before there is a document to say it.
        "--admin-port",
        &admin,
    ];
    Container {
        name: CONTAINER.to_owned(),
        image: Some(image.to_owned()),
        image_pull_policy: more.image_pull_policy.map(|policy| format!("{policy:?}")),
        command: Some(vec!["xmpp-edge-proxy".to_owned()]),
        args: Some(args.map(str::to_owned).to_vec()),
        env: Some(env),
        ports: Some(ports(config)),
        resources: Some(resources(config, more)),
        volume_mounts: Some(vec![
            mount("config", CONFIG, true),
            mount("secrets", SECRETS, true),
            mount("state", STATE, false),
        ]),
        startup_probe: Some(probe(config, "/healthz", 1, 60)),
        // Records of a pool without a ready pod are withdrawn within 10 s: the kubelet must have
        // noticed well before.
        readiness_probe: Some(probe(config, "/readyz", 2, 2)),
        liveness_probe: Some(probe(config, "/healthz", 10, 3)),
        lifecycle: Some(Lifecycle {
            pre_stop: Some(LifecycleHandler {
                sleep: Some(SleepAction {
                    seconds: PRE_STOP_SECONDS,
                }),
                ..LifecycleHandler::default()
            }),
            ..Lifecycle::default()
        }),
        security_context: Some(SecurityContext {
            allow_privilege_escalation: Some(false),
            read_only_root_filesystem: Some(true),
            run_as_non_root: Some(true),
            capabilities: Some(Capabilities {
                drop: Some(vec!["ALL".to_owned()]),
                ..Capabilities::default()
            }),
            ..SecurityContext::default()
        }),
        termination_message_policy: Some("FallbackToLogsOnError".to_owned()),
        ..Container::default()
    }
}

fn mount(name: &str, path: &str, read_only: bool) -> VolumeMount {
    VolumeMount {
        name: name.to_owned(),
        mount_path: path.to_owned(),
        read_only: read_only.then_some(true),
        ..VolumeMount::default()
    }
}

fn ports(config: &EdgeConfig) -> Vec<ContainerPort> {
    let listeners = &config.listeners;
    [
        ("s2s", listeners.s2s, "TCP"),
        ("direct-tls", listeners.direct_tls, "TCP"),
        ("internal", listeners.internal, "TCP"),
        ("admin", listeners.admin, "TCP"),
        ("dns", listeners.dns, "UDP"),
        ("dns-tcp", listeners.dns, "TCP"),
        ("sip", listeners.sip, "TCP"),
        ("sip-tcp", listeners.sip_tcp, "TCP"),
    ]
    .into_iter()
    .filter(|(_, port, _)| *port != 0)
    .map(|(name, port, protocol)| ContainerPort {
        name: Some(name.to_owned()),
        container_port: port.into(),
        protocol: Some(protocol.to_owned()),
        ..ContainerPort::default()
    })
    .collect()
}

fn probe(config: &EdgeConfig, path: &str, period: i32, failures: i32) -> Probe {
    Probe {
        http_get: Some(HTTPGetAction {
            path: Some(path.to_owned()),
            port: IntOrString::Int(config.listeners.admin.into()),
            ..HTTPGetAction::default()
        }),
        period_seconds: Some(period),
        timeout_seconds: Some(period.clamp(1, 5)),
        failure_threshold: Some(failures),
        ..Probe::default()
    }
}

/// What the pool says, else: memory for full queues, and no limit of CPU.
fn resources(config: &EdgeConfig, more: &PodTemplate) -> ResourceRequirements {
    if let Some(resources) = &more.resources {
        return resources.clone();
    }
    let queues = config.settings.queue_total_bytes.div_ceil(1024 * 1024);
    let quantity = |name: &str, text: String| (name.to_owned(), Quantity(text));
    ResourceRequirements {
        requests: Some(BTreeMap::from([
            quantity("cpu", "100m".to_owned()),
            quantity("memory", "128Mi".to_owned()),
        ])),
        limits: Some(BTreeMap::from([quantity(
            "memory",
            format!("{}Mi", BASE_MEMORY_MIB + queues),
        )])),
        ..ResourceRequirements::default()
    }
}

/// The restricted Pod Security standard; low ports by the sysctl that it calls safe.
fn pod_security(config: &EdgeConfig, given: Option<PodIdentity>) -> PodSecurityContext {
    let identity = given.unwrap_or(PodIdentity {
        run_as_user: Some(UID),
        run_as_group: Some(UID),
        fs_group: Some(UID),
    });
    let listeners = &config.listeners;
    let lowest = [
        listeners.s2s,
        listeners.direct_tls,
        listeners.internal,
        listeners.admin,
        listeners.dns,
        listeners.sip,
        listeners.sip_tcp,
    ]
    .into_iter()
    .filter(|port| *port != 0 && *port < FIRST_FREE_PORT)
    .min();
    PodSecurityContext {
        run_as_non_root: Some(true),
        run_as_user: identity.run_as_user,
        run_as_group: identity.run_as_group,
        fs_group: identity.fs_group,
        fs_group_change_policy: Some("OnRootMismatch".to_owned()),
        seccomp_profile: Some(SeccompProfile {
            type_: "RuntimeDefault".to_owned(),
            ..SeccompProfile::default()
        }),
        sysctls: lowest.map(|port| {
            vec![Sysctl {
                name: "net.ipv4.ip_unprivileged_port_start".to_owned(),
                value: port.to_string(),
            }]
        }),
        ..PodSecurityContext::default()
    }
}

/// Over zones, then over nodes, as far as it goes; a constraint of the pool for the same topology
/// takes the place of ours.
fn spread(pool: &str, mut given: Vec<TopologySpreadConstraint>) -> Vec<TopologySpreadConstraint> {
    for constraint in &mut given {
        constraint
            .label_selector
            .get_or_insert_with(|| metadata::label_selector(pool));
    }
    let ours = ["topology.kubernetes.io/zone", "kubernetes.io/hostname"]
        .into_iter()
        .filter(|key| {
            !given
                .iter()
                .any(|constraint| constraint.topology_key == *key)
        })
        .map(|key| TopologySpreadConstraint {
            max_skew: 1,
            topology_key: key.to_owned(),
            when_unsatisfiable: "ScheduleAnyway".to_owned(),
            label_selector: Some(metadata::label_selector(pool)),
            // Else the old pods of a rollout would push the new ones together.
            match_label_keys: Some(vec!["pod-template-hash".to_owned()]),
            ..TopologySpreadConstraint::default()
        })
        .collect::<Vec<_>>();
    given.extend(ours);
    given
}

fn volumes(pool: &EdgePool) -> Vec<Volume> {
    let name = pool.name_any();
    let projected = |volume: &str, sources, mode| Volume {
        name: volume.to_owned(),
        projected: Some(ProjectedVolumeSource {
            sources: Some(sources),
            default_mode: Some(mode),
        }),
        ..Volume::default()
    };
    let state = if volume::wanted(pool) {
        Volume {
            name: "state".to_owned(),
            persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
                claim_name: names::contacts_volume(&name),
                ..PersistentVolumeClaimVolumeSource::default()
            }),
            ..Volume::default()
        }
    } else {
        Volume {
            name: "state".to_owned(),
            empty_dir: Some(EmptyDirVolumeSource {
                size_limit: Some(Quantity("1Gi".to_owned())),
                ..EmptyDirVolumeSource::default()
            }),
            ..Volume::default()
        }
    };
    let shards = (0..MAX_SHARDS)
        .map(|number| {
            let file = format!("shard-{number}");
            config_map(&shards::shard_name(&name, number), SHARD_KEY, &file)
        })
        .collect();
    vec![
        projected("config", shards, 0o444),
        projected("secrets", secrets(pool, &name), 0o440),
        state,
    ]
}

/// All that `--secrets` holds, from where it lies.
fn secrets(pool: &EdgePool, name: &str) -> Vec<VolumeProjection> {
    let dialback = pool.spec.settings.dialback_secret_ref.as_ref();
    let dialback =
        dialback.map_or_else(|| ManagedSecret::Dialback.to_string(), |it| it.name.clone());
    let postgres = pool
        .spec
        .contacts
        .as_ref()
        .and_then(|contacts| contacts.postgres.as_ref());
    let mut sources = vec![
        // Always the operator's own copy: another certificate mode, or another Secret in
        // secretRef, must restart no pod, and what was not checked must not reach one.
        secret(
            &names::pair(name),
            &[("tls.crt", "tls.crt"), ("tls.key", "tls.key")],
        ),
        secret(
            &names::internal_issuer(name),
            &[("tls.crt", "issuer.crt"), ("tls.key", "issuer.key")],
        ),
        config_map(names::INTERNAL_CA, "ca.crt", "internal-ca.crt"),
        secret(
            &dialback,
            &[
                ("secret", "dialback-secret"),
                ("previous", "dialback-previous"),
            ],
        ),
        secret(&names::admin_token(name), &[("token", "admin-token")]),
    ];
    if let Some(postgres) = postgres {
        sources.push(secret(
            &postgres.secret_ref.name,
            &[
                ("url", "contacts-url"),
                ("uri", "contacts-uri"),
                ("ca.crt", "contacts-ca.crt"),
            ],
        ));
    }
    if let Some(secret_name) = egress::secret_of(pool) {
        let [username, password] = egress::KEYS;
        sources.push(secret(
            secret_name,
            &[(username, "egress-username"), (password, "egress-password")],
        ));
    }
    // Whether or not there is a certificate of another PKI: one that comes restarts no pod.
    let mut modes = pool.spec.gateways.iter().map(|gateway| gateway.mode);
    if modes.any(|mode| mode == GatewayMode::Sip) {
        sources.push(secret(
            &names::sip_pairs(name),
            &[(sip::KEY, "sip-pairs.json")],
        ));
    }
    sources
}

fn items(pairs: &[(&str, &str)]) -> Vec<KeyToPath> {
    pairs
        .iter()
        .map(|(key, path)| KeyToPath {
            key: (*key).to_owned(),
            path: (*path).to_owned(),
            ..KeyToPath::default()
        })
        .collect()
}

fn secret(name: &str, pairs: &[(&str, &str)]) -> VolumeProjection {
    VolumeProjection {
        secret: Some(SecretProjection {
            name: name.to_owned(),
            items: Some(items(pairs)),
            optional: Some(true),
        }),
        ..VolumeProjection::default()
    }
}

fn config_map(name: &str, key: &str, path: &str) -> VolumeProjection {
    VolumeProjection {
        config_map: Some(ConfigMapProjection {
            name: name.to_owned(),
            items: Some(items(&[(key, path)])),
            optional: Some(true),
        }),
        ..VolumeProjection::default()
    }
}
