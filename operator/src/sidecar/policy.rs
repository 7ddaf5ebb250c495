//! The template as CEL: the policies that the API server (1.36 and later) runs for labelled pods. No webhook,
//! so nothing that could be down or hold an expired certificate.
//!
//! A test compares what they make of a pod with what is printed, on a real API server.

use serde_json::{Value, json};

use super::{
    inject::{HOST_NETWORK_MESSAGE, NAME_MESSAGE},
    parameters::{RESOLVERS, SECURITY_CONTEXT, SidecarParameters, Slot},
    parts,
};

/// Name of both policies and their bindings.
pub const NAME: &str = "xmpp-edge-sidecar";

const WITHOUT_MESSAGE: &str = "this pod asks for a sidecar (label xmpp-edge.dev/sidecar) and has none: MutatingAdmissionPolicy xmpp-edge-sidecar is not installed, which needs Kubernetes 1.36: install the chart with sidecar.injection, or apply what `xmpp-edge-operator render --sidecar FILE` prints";

const NOT_ON_HOST: &str = "!has(object.spec.hostNetwork) || !object.spec.hostNetwork";

/// Both policies, without the parameters of the first ([`variables_of`]): as the chart has them.
#[must_use]
pub fn policies() -> [Value; 2] {
    [mutating(), validating()]
}

/// Both policies, whole.
#[must_use]
pub fn policies_with(parameters: &SidecarParameters) -> [Value; 2] {
    let [mut mutating, validating] = policies();
    let mut variables = variables_of(parameters);
    let own = mutating["spec"]["variables"].as_array_mut();
    variables.append(own.expect("the policy has variables of its own"));
    mutating["spec"]["variables"] = variables.into();
    [mutating, validating]
}

/// Their bindings: everywhere.
#[must_use]
pub fn bindings() -> [Value; 2] {
    let binding = |kind: &str, spec: Value| {
        json!({
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": kind,
            "metadata": { "name": NAME },
            "spec": spec,
        })
    };
    [
        binding(
            "MutatingAdmissionPolicyBinding",
            json!({ "policyName": NAME }),
        ),
        binding(
            "ValidatingAdmissionPolicyBinding",
            json!({ "policyName": NAME, "validationActions": ["Deny"] }),
        ),
    ]
}

/// The parameters as variables of the mutating policy, before its own. They are no ConfigMap that the policy
/// refers to: once such a policy was deleted, an API server (1.36) follows the ConfigMaps of its next one no more
/// before it is started again.
#[must_use]
pub fn variables_of(parameters: &SidecarParameters) -> Vec<Value> {
    let slots = Slot::ALL.iter().filter(|slot| slot.is_parameter());
    let mut variables: Vec<Value> = slots
        .map(|slot| json!({ "name": slot.name(), "expression": text(parameters.value(*slot)) }))
        .collect();
    let resolvers = parameters.resolvers.iter().map(ToString::to_string);
    let resolvers = text(&resolvers.collect::<Vec<_>>().join(" "));
    variables.push(json!({ "name": RESOLVERS, "expression": resolvers }));
    let context = literal(&parameters.security_context);
    variables.push(json!({ "name": SECURITY_CONTEXT, "expression": context }));
    variables
}

/// Pods that ask for a sidecar, as they are made. Others are none of the policies' business, whatever is wrong
/// with the policies.
fn constraints() -> Value {
    json!({
        "objectSelector": { "matchExpressions": [{ "key": parts::LABEL, "operator": "Exists" }] },
        "resourceRules": [{
            "apiGroups": [""],
            "apiVersions": ["v1"],
            "operations": ["CREATE"],
            "resources": ["pods"],
        }],
    })
}

fn has_sidecar() -> String {
    format!(
        "has(object.spec.initContainers) && object.spec.initContainers.exists(c, c.name == {})",
        text(parts::CONTAINER)
    )
}

fn mutating() -> Value {
    json!({
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "MutatingAdmissionPolicy",
        "metadata": { "name": NAME },
        "spec": {
            "failurePolicy": "Fail",
            "reinvocationPolicy": "Never",
            "matchConstraints": constraints(),
            "matchConditions": [
                { "name": "without-sidecar", "expression": format!("!({})", has_sidecar()) },
                // The other policy says why; with a sysctl the API server would say something else before.
                { "name": "without-host-network", "expression": NOT_ON_HOST },
            ],
            "variables": variables(),
            "mutations": [
                { "patchType": "JSONPatch", "jsonPatch": { "expression": patches() } },
                {
                    "patchType": "ApplyConfiguration",
                    "applyConfiguration": { "expression": applied() },
                },
            ],
        },
    })
}

fn validating() -> Value {
    json!({
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingAdmissionPolicy",
        "metadata": { "name": NAME },
        "spec": {
            "failurePolicy": "Fail",
            "matchConstraints": constraints(),
            "validations": [
                {
                    "expression": format!(
                        "object.metadata.labels[{}].matches('^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$')",
                        text(parts::LABEL)
                    ),
                    "message": NAME_MESSAGE,
                },
                {
                    "expression": NOT_ON_HOST,
                    "message": HOST_NETWORK_MESSAGE,
                },
                { "expression": has_sidecar(), "message": WITHOUT_MESSAGE },
            ],
        },
    })
}

fn variables() -> Value {
    let labels = "object.metadata.labels";
    let (label, dns) = (text(parts::LABEL), text(parts::DNS_LABEL));
    let variable =
        |name: &str, expression: String| json!({ "name": name, "expression": expression });
    json!([
        variable(Slot::Gateway.name(), format!("{labels}[{label}]")),
        variable(
            "dns",
            format!(
                "!({dns} in {labels} && {labels}[{dns}] == {off}) && !(has(object.spec.dnsPolicy) && object.spec.dnsPolicy == 'None')",
                off = text(parts::OFF)
            ),
        ),
        variable("searches", {
            let cluster = parts::searches().map(|name| format!("dyn({})", concatenated(name)));
            let cluster = cluster.join(", ");
            let own = "has(object.spec.dnsConfig) && has(object.spec.dnsConfig.searches) ? object.spec.dnsConfig.searches : []";
            format!("[{cluster}] + ({own}).filter(s, !(s in [{cluster}]))")
        }),
        variable("options", {
            let own = "(has(object.spec.dnsConfig) && has(object.spec.dnsConfig.options) ? object.spec.dnsConfig.options : [])";
            let ours = parts::dns_options().map(|option| {
                let name = literal(&option["name"]);
                let absent = format!("{own}.exists(o, has(o.name) && o.name == {name})");
                format!("({absent} ? [] : [{}])", literal(&option))
            });
            let kept = format!(
                "{own}.map(o, has(o.value) ? {{'name': o.name, 'value': o.value}} : {{'name': o.name}})"
            );
            format!("{kept} + {}", ours.join(" + "))
        }),
    ])
}

/// The container at the first place, which `ApplyConfiguration` cannot give it, and DNS: atomic lists, which it
/// may not touch.
fn patches() -> String {
    let add =
        |path: &str, value: &str| format!("JSONPatch{{op: 'add', path: '{path}', value: {value}}}");
    let absent = |field: &str| format!("!has(object.spec.{field})");
    let init = add("/spec/initContainers", "[]");
    let container = add("/spec/initContainers/0", &literal(&parts::container()));
    let dns = [
        add("/spec/dnsPolicy", "'None'"),
        add(
            "/spec/dnsConfig",
            &format!(
                "dyn({{'nameservers': dyn([{}]), 'searches': dyn(variables.searches), 'options': dyn(variables.options)}})",
                text(parts::NAMESERVER)
            ),
        ),
    ]
    .join(", ");
    let sysctl = literal(&parts::sysctl());
    let sysctls = format!(
        "(has(object.spec.securityContext) && has(object.spec.securityContext.sysctls) ? (object.spec.securityContext.sysctls.exists(s, s.name == {name}) ? [] : [{append}]) : [{make}])",
        name = text(parts::SYSCTL),
        append = add("/spec/securityContext/sysctls/-", &sysctl),
        make = add("/spec/securityContext/sysctls", &format!("[{sysctl}]")),
    );
    let context = format!(
        "({} ? [{}] : [])",
        absent("securityContext"),
        add("/spec/securityContext", "{}")
    );
    format!(
        "({no_init} ? [{init}] : []) + [{container}] + (variables.dns ? [{dns}] + {context} + {sysctls} : [])",
        no_init = absent("initContainers"),
    )
}

/// Volumes, and the mount of every other container.
fn applied() -> String {
    let volumes = parts::volumes().map(|volume| typed(&volume, "Object.spec.volumes"));
    let mount = parts::public_mount();
    let mounts = |kind: &str| {
        let of = format!("Object.spec.{kind}");
        let mount = typed(&mount, &format!("{of}.volumeMounts"));
        let others = format!(
            "object.spec.{kind}.filter(c, c.name != {container} && !(has(c.volumeMounts) && c.volumeMounts.exists(m, m.mountPath == {path})))",
            container = text(parts::CONTAINER),
            path = text(parts::PUBLIC_MOUNT),
        );
        format!("{kind}: {others}.map(c, {of}{{name: c.name, volumeMounts: [{mount}]}})")
    };
    // Mutations see what those before them made: there is an init container by now.
    format!(
        "Object{{spec: Object.spec{{volumes: [{}], {}, {}}}}}",
        volumes.join(", "),
        mounts("containers"),
        mounts("initContainers"),
    )
}

/// A string of CEL.
fn text(said: &str) -> String {
    format!("'{}'", said.replace('\\', "\\\\").replace('\'', "\\'"))
}

/// A text with slots, as CEL.
fn concatenated(template: &str) -> String {
    let mut parts = Vec::new();
    let mut rest = template;
    while let Some(begin) = rest.find('{') {
        let Some(length) = rest[begin..].find('}') else {
            break;
        };
        let name = &rest[begin + 1..begin + length];
        let slot = Slot::ALL.iter().find(|slot| slot.name() == name);
        let Some(slot) = slot else { break };
        if begin > 0 {
            parts.push(text(&rest[..begin]));
        }
        parts.push(match slot {
            Slot::Gateway => "variables.gateway".to_owned(),
            Slot::Namespace => "request.namespace".to_owned(),
            parameter => format!("variables.{}", parameter.name()),
        });
        rest = &rest[begin + length + 1..];
    }
    if !rest.is_empty() || parts.is_empty() {
        parts.push(text(rest));
    }
    parts.join(" + ")
}

/// A value of the template as CEL; in lists and maps each is `dyn`, for they are of several types.
fn literal(template: &Value) -> String {
    match template {
        Value::String(said) if said == parts::SECURITY_CONTEXT => {
            format!("variables.{SECURITY_CONTEXT}")
        }
        Value::String(said) => concatenated(said),
        Value::Array(items) => {
            let several = items.iter().any(|item| item == parts::DNS_ARGUMENTS);
            let said = items.iter().filter(|item| *item != parts::DNS_ARGUMENTS);
            let said: Vec<_> = said.map(|item| format!("dyn({})", literal(item))).collect();
            let said = format!("[{}]", said.join(", "));
            if !several {
                return said;
            }
            format!(
                "{said} + (variables.dns ? variables.{RESOLVERS}.split(' ').map(r, dyn({} + r)) : [dyn({})])",
                text(parts::RESOLVER),
                text(parts::NO_VIEW)
            )
        }
        Value::Object(fields) => {
            let fields = fields.iter();
            let fields: Vec<_> = fields
                .map(|(name, field)| format!("{}: dyn({})", text(name), literal(field)))
                .collect();
            format!("dyn({{{}}})", fields.join(", "))
        }
        other => other.to_string(),
    }
}

/// A value of the template as an object of the apply configuration of type `of`.
fn typed(template: &Value, of: &str) -> String {
    match template {
        Value::Object(fields) => {
            let fields = fields.iter();
            let fields: Vec<_> = fields
                .map(|(name, field)| format!("{name}: {}", typed(field, &format!("{of}.{name}"))))
                .collect();
            format!("{of}{{{}}}", fields.join(", "))
        }
        other => literal(other),
    }
}
