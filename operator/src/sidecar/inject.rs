//! Puts the template into a pod template of a manifest. What is the pod's own stays: its sysctls, init
//! containers, options, `dnsPolicy: None`, mounts.

use serde_json::{Map, Value, json};

use super::{
    parameters::{SidecarParameters, Slot},
    parts,
};

/// A pod template that was looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Injection {
    /// It has no label: it was left as it is.
    NotAsked,
    /// It has the container already: it was left as it is.
    Present,
    Injected,
}

/// Why a labelled template cannot have a sidecar; in the words of the policy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InjectError {
    #[error("{}", NAME_MESSAGE)]
    Name,
    #[error("{}", HOST_NETWORK_MESSAGE)]
    HostNetwork,
    #[error("{0} is no object or list: correct the manifest")]
    Shape(&'static str),
    #[error(
        "there is no resolver to ask what the sidecar does not answer: give --resolver IP:PORT, the address of the cluster's DNS Service"
    )]
    NoResolver,
}

/// Said of a label's value that names no gateway.
pub const NAME_MESSAGE: &str = "label xmpp-edge.dev/sidecar is no gateway's name: write spec.gateways[].name of the EdgePool, by default the gateway's first domain";
/// Said of a pod in the network of its node.
pub const HOST_NETWORK_MESSAGE: &str = "a sidecar shares its loopback with the server alone, which hostNetwork: true gives to the whole node: take hostNetwork away, or run the sidecar as a service of the host (spec.gateways[].sidecar.keys)";

/// Injects into `template`, an object with `metadata` and `spec` of a pod in `namespace`.
///
/// # Errors
/// [`InjectError`]; the template is as it was then.
pub fn inject(
    template: &mut Value,
    namespace: &str,
    parameters: &SidecarParameters,
) -> Result<Injection, InjectError> {
    let label = |name: &str| {
        let labels = &template["metadata"]["labels"];
        labels[name].as_str().map(str::to_owned)
    };
    let Some(gateway) = label(parts::LABEL) else {
        return Ok(Injection::NotAsked);
    };
    let off = label(parts::DNS_LABEL).as_deref() == Some(parts::OFF);
    if !is_name(&gateway) {
        return Err(InjectError::Name);
    }
    let spec = template
        .get_mut("spec")
        .and_then(Value::as_object_mut)
        .ok_or(InjectError::Shape("spec"))?;
    if spec.get("hostNetwork") == Some(&Value::Bool(true)) {
        return Err(InjectError::HostNetwork);
    }
    let mut made = spec.clone();
    let init = list(&mut made, "initContainers")?;
    if init.iter().any(|it| it["name"] == parts::CONTAINER) {
        return Ok(Injection::Present);
    }
    let filling = Filling {
        gateway: &gateway,
        namespace,
        parameters,
        dns: !off && made.get("dnsPolicy").and_then(Value::as_str) != Some("None"),
    };
    if filling.dns && parameters.resolvers.is_empty() {
        return Err(InjectError::NoResolver);
    }
    for kind in ["initContainers", "containers"] {
        for container in list(&mut made, kind)? {
            let container = container
                .as_object_mut()
                .ok_or(InjectError::Shape("a container"))?;
            let mounts = list(container, "volumeMounts")?;
            if !mounts
                .iter()
                .any(|it| it["mountPath"] == parts::PUBLIC_MOUNT)
            {
                mounts.push(parts::public_mount());
            }
        }
    }
    let container = filling.fill(&parts::container());
    list(&mut made, "initContainers")?.insert(0, container);
    let volumes = parts::volumes();
    let volumes = volumes.iter().map(|volume| filling.fill(volume));
    list(&mut made, "volumes")?.extend(volumes);
    if filling.dns {
        filling.lead_dns(&mut made)?;
    }
    *spec = made;
    Ok(Injection::Injected)
}

/// What a Secret's name and a label's value may be, as `spec.gateways[].name` is.
fn is_name(text: &str) -> bool {
    let alphanumeric = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    text.starts_with(alphanumeric)
        && text.ends_with(alphanumeric)
        && text.chars().all(|c| alphanumeric(c) || "-.".contains(c))
}

/// A list of an object, which is made where there is none.
fn list<'v>(
    of: &'v mut Map<String, Value>,
    name: &'static str,
) -> Result<&'v mut Vec<Value>, InjectError> {
    let value = of.entry(name).or_insert(Value::Null);
    if value.is_null() {
        *value = json!([]);
    }
    value.as_array_mut().ok_or(InjectError::Shape(name))
}

fn object<'v>(
    of: &'v mut Map<String, Value>,
    name: &'static str,
) -> Result<&'v mut Map<String, Value>, InjectError> {
    let value = of.entry(name).or_insert(Value::Null);
    if value.is_null() {
        *value = json!({});
    }
    value.as_object_mut().ok_or(InjectError::Shape(name))
}

/// The slots of one pod.
struct Filling<'a> {
    gateway: &'a str,
    namespace: &'a str,
    parameters: &'a SidecarParameters,
    /// Whether the pod's DNS is led to the sidecar.
    dns: bool,
}

impl Filling<'_> {
    fn fill(&self, template: &Value) -> Value {
        match template {
            Value::String(text) if text == parts::SECURITY_CONTEXT => {
                self.parameters.security_context.clone()
            }
            Value::String(text) => Value::String(self.text(text)),
            Value::Array(items) => {
                let mut filled = Vec::with_capacity(items.len());
                for item in items {
                    if item == parts::DNS_ARGUMENTS {
                        filled.extend(self.dns_arguments());
                    } else {
                        filled.push(self.fill(item));
                    }
                }
                Value::Array(filled)
            }
            Value::Object(fields) => {
                let fields = fields.iter();
                fields
                    .map(|(name, field)| (name.clone(), self.fill(field)))
                    .collect()
            }
            other => other.clone(),
        }
    }

    fn text(&self, template: &str) -> String {
        Slot::ALL.iter().fold(template.to_owned(), |text, slot| {
            let value = match slot {
                Slot::Gateway => self.gateway,
                Slot::Namespace => self.namespace,
                other => self.parameters.value(*other),
            };
            text.replace(&format!("{{{}}}", slot.name()), value)
        })
    }

    fn dns_arguments(&self) -> Vec<Value> {
        if !self.dns {
            return vec![parts::NO_VIEW.into()];
        }
        let resolvers = self.parameters.resolvers.iter();
        resolvers
            .map(|resolver| format!("{}{resolver}", parts::RESOLVER).into())
            .collect()
    }

    /// The pod asks the sidecar alone.
    fn lead_dns(&self, spec: &mut Map<String, Value>) -> Result<(), InjectError> {
        spec.insert("dnsPolicy".to_owned(), json!("None"));
        let config = object(spec, "dnsConfig")?;
        config.insert("nameservers".to_owned(), json!([parts::NAMESERVER]));
        let searches = list(config, "searches")?;
        let mut all: Vec<Value> = parts::searches()
            .iter()
            .map(|text| self.text(text).into())
            .collect();
        searches.retain(|own| !all.contains(own));
        all.append(searches);
        *searches = all;
        let options = list(config, "options")?;
        for option in parts::dns_options() {
            if !options.iter().any(|own| own["name"] == option["name"]) {
                options.push(option);
            }
        }
        let context = object(spec, "securityContext")?;
        let sysctls = list(context, "sysctls")?;
        if !sysctls.iter().any(|own| own["name"] == parts::SYSCTL) {
            sysctls.push(parts::sysctl());
        }
        Ok(())
    }
}
