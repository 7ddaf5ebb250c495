//! Shapes of fields that several kinds share: their schema, their bounds, their syntax.
//!
//! A syntax is a CEL rule with a message that says what to do; a length or a count is schema, so
//! that the cost of every rule stays bounded. What neither can say (IDNA, PEM) is left to
//! conditions: the structs hold plain strings, for an object that once was stored must always be
//! readable.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Most own domains, and most gateways, of one pool.
pub const MAX_DOMAINS: u32 = 100;
/// Most further edges and most keys of a gateway's sidecars.
pub const MAX_SIDECAR_ENTRIES: u32 = 20;
/// Most further domains of one partner.
pub const MAX_ADDITIONAL_DOMAINS: u32 = 256;
/// Most users named in one policy; more by `usersFrom`.
pub const MAX_USERS: u32 = 1000;
/// Most characters of a condition's message: 16 of them, whatever the script, stay far below what
/// etcd takes of an object.
pub const MAX_MESSAGE: usize = 4096;
/// Longest bare JID in octets: localpart, `@`, domain (RFC 7622 section 3.1).
const MAX_JID: u32 = 1023 + 1 + 253;

const LABEL: &str = "[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?";
/// A last label of digits alone would read as an IPv4 address.
const LAST_LABEL: &str =
    "([a-z_]([a-z0-9_-]{0,61}[a-z0-9_])?|[0-9]+[a-z_-]([a-z0-9_-]{0,60}[a-z0-9_])?)";
const PORT: &str =
    "([1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])";

fn domain_pattern() -> String {
    format!("({LABEL}[.])*{LAST_LABEL}")
}

/// One CEL rule of a schema written by hand.
fn rule(rule: String, message: &str) -> Value {
    json!({ "rule": rule, "message": message })
}

fn matching(max_length: u32, pattern: &str, message: &str) -> Schema {
    ruled(
        max_length,
        format!("self.matches('^({pattern})$')"),
        message,
    )
}

/// A text that a CEL expression judges.
fn ruled(max_length: u32, expression: String, message: &str) -> Schema {
    json_schema!({
        "type": "string",
        "minLength": 1,
        "maxLength": max_length,
        "x-kubernetes-validations": [rule(expression, message)],
    })
}

const DOMAIN_MESSAGE: &str = "write the domain in lower case, as A-labels (xn--...), without a trailing dot; an IP address is no domain";

/// A domain: lower-case A-labels.
pub fn domain(_: &mut SchemaGenerator) -> Schema {
    matching(253, &domain_pattern(), DOMAIN_MESSAGE)
}

/// A domain that can never change.
pub fn immutable_domain(generator: &mut SchemaGenerator) -> Schema {
    let mut schema = domain(generator);
    if let Some(Value::Array(rules)) = schema.get_mut("x-kubernetes-validations") {
        rules.push(rule(
            "self == oldSelf".into(),
            "the primary domain cannot change: create another XmppFederatedPartner, or use additionalDomains",
        ));
    }
    schema
}

/// A domain, or `*.` and two labels or more.
fn domain_or_wildcard(_: &mut SchemaGenerator) -> Schema {
    let domain = domain_pattern();
    matching(
        253,
        &format!("{domain}|[*][.]({LABEL}[.])+{LAST_LABEL}"),
        "write a domain in lower case, as A-labels, without a trailing dot, or a wildcard: \"*.\" and two labels or more, such as *.example.org",
    )
}

fn set(items: Schema, min: u32, max: u32) -> Schema {
    json_schema!({
        "type": "array",
        "items": items,
        "minItems": min,
        "maxItems": max,
        "x-kubernetes-list-type": "set",
    })
}

/// `additionalDomains`.
pub fn additional_domains(generator: &mut SchemaGenerator) -> Schema {
    set(domain_or_wildcard(generator), 0, MAX_ADDITIONAL_DOMAINS)
}

/// One own domain or more.
pub fn domains(generator: &mut SchemaGenerator) -> Schema {
    set(domain(generator), 1, MAX_DOMAINS)
}

/// Own domains of a gateway. Each must be one of the pool's, which a rule of the pool says: the
/// syntax is not checked a second time, for 100 times 100 entries cost too much.
pub fn gateway_domains(_: &mut SchemaGenerator) -> Schema {
    set(
        json_schema!({ "type": "string", "minLength": 1, "maxLength": 253 }),
        1,
        MAX_DOMAINS,
    )
}

const HOST_MESSAGE: &str =
    "a host name is lower case, an IPv6 address stands in brackets, the port is 1 to 65535";

/// A host that ends as `port` says: a domain name, or an IP address, IPv6 in brackets.
fn host(port: &str, message: &str) -> Schema {
    let domain = domain_pattern();
    // Twice escaped: once for CEL, once for the expression.
    ruled(
        260,
        format!(
            "self.startsWith('[') ? self.matches('^\\\\[[0-9a-f:.]+\\\\]{port}$') && isIP(self.split(']')[0].replace('[', '')) : self.matches('^[0-9.]+{port}$') ? isIP(self.split(':')[0]) : self.matches('^({domain}){port}$')"
        ),
        message,
    )
}

/// `host` or `host:port`; the host is a domain name or an IP address, IPv6 in brackets.
pub fn host_optional_port(_: &mut SchemaGenerator) -> Schema {
    host(
        &format!("(:{PORT})?"),
        &format!("write host or host:port: {HOST_MESSAGE}"),
    )
}

/// `host:port`.
pub fn host_port(_: &mut SchemaGenerator) -> Schema {
    host(
        &format!(":{PORT}"),
        &format!("write host:port: {HOST_MESSAGE}"),
    )
}

/// `host:port`; whether `host` alone will do, the gateway's mode says.
pub fn gateway_address(_: &mut SchemaGenerator) -> Schema {
    host(
        &format!("(:{PORT})?"),
        &format!("write host:port, or with mode Sip host alone: {HOST_MESSAGE}"),
    )
}

/// `mode` of a gateway. Values may be added at any time, and are there once they are served.
pub fn gateway_mode(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "enum": ["Direct", "Sidecar", "Sip"] })
}

/// What carries SIP.
pub fn sip_transport(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "enum": ["Tls", "Tcp"] })
}

/// How clients of a SIP server write.
pub fn sip_dialect(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "enum": ["Simple", "Lync"] })
}

/// What the end of a SIP user's subscriptions does to a contact.
pub fn end_of_subscription(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "enum": ["Keep", "Unsubscribe"] })
}

/// Names in the certificate of a SIP server. Their syntax is looked at in compiling, as that of
/// [`sidecar_edges`].
pub fn sip_server_names(_: &mut SchemaGenerator) -> Schema {
    set(
        json_schema!({ "type": "string", "minLength": 1, "maxLength": 253 }),
        0,
        16,
    )
}

/// What several servers with a sidecar each are to each other.
pub fn sidecar_servers(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "enum": ["Single", "Clustered"] })
}

/// Addresses of edges. Their syntax is looked at in compiling: for 100 times 20 entries the API server finds
/// that too costly.
pub fn sidecar_edges(_: &mut SchemaGenerator) -> Schema {
    set(
        json_schema!({ "type": "string", "minLength": 3, "maxLength": 260 }),
        0,
        MAX_SIDECAR_ENTRIES,
    )
}

/// The name of a gateway: key of its list, later part of object names and label values. Empty, the
/// default, stands for its first domain: the schema cannot say that default, and a key needs one.
pub fn gateway_name(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string",
        "maxLength": 63,
        "default": "",
        "x-kubernetes-validations": [rule(
            "self == '' || self.matches('^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$')".into(),
            "name the gateway in lower-case letters, digits, \"-\" and \".\", such as its first domain",
        )],
    })
}

/// Bare JIDs, or `*@domain`. The domain's labels are not looked at one by one: for 1,000 JIDs of
/// full length the API server finds that too costly. Compiling does.
pub fn users(_: &mut SchemaGenerator) -> Schema {
    // The apostrophe is escaped for CEL.
    let user = matching(
        MAX_JID,
        "[^@/\"&\\'<>: ]+@[a-z0-9_.-]*[a-z_-][a-z0-9_-]*",
        "write a bare JID such as alice@example.org, or *@example.org for a whole domain: no resource, the domain in lower case as A-labels",
    );
    set(user, 0, MAX_USERS)
}

/// The name of a site: what a label value may be.
fn site_schema() -> Schema {
    matching(
        63,
        "[A-Za-z0-9]([A-Za-z0-9_.-]*[A-Za-z0-9])?",
        "a site name is made of letters, digits, \"-\", \"_\" and \".\", and begins and ends with a letter or digit",
    )
}

/// The name of a site: what a label value may be.
pub fn site(_: &mut SchemaGenerator) -> Schema {
    site_schema()
}

fn object_name_schema() -> Schema {
    ruled(
        253,
        "!format.dns1123Subdomain().validate(self).hasValue()".into(),
        "write the name of an object: lower-case letters, digits, \"-\" and \".\"",
    )
}

/// The name of an object in the same namespace.
pub fn object_name(_: &mut SchemaGenerator) -> Schema {
    object_name_schema()
}

/// Names of objects; absence means all, so it may not be empty.
pub fn object_names_or_all(_: &mut SchemaGenerator) -> Schema {
    set(object_name_schema(), 1, MAX_USERS)
}

/// A key of a ConfigMap or Secret.
pub fn data_key(_: &mut SchemaGenerator) -> Schema {
    matching(
        253,
        "[-._a-zA-Z0-9]+",
        "a key is made of letters, digits, \"-\", \"_\" and \".\"",
    )
}

/// SHA-256 digests over SubjectPublicKeyInfos, in lower-case hex.
pub fn spki_pins(_: &mut SchemaGenerator) -> Schema {
    let pin = matching(
        64,
        "[0-9a-f]{64}",
        "a pin is the SHA-256 of the key's SubjectPublicKeyInfo: 64 lower-case hexadecimal digits",
    );
    set(pin, 0, 32)
}

fn ip_address() -> Schema {
    ruled(
        45,
        "isIP(self)".into(),
        "write an IPv4 or IPv6 address, without brackets, zone or length",
    )
}

/// IP addresses; absence means "the Service's own", so the list may not be empty.
pub fn ip_addresses(_: &mut SchemaGenerator) -> Schema {
    set(ip_address(), 1, 32)
}

fn cidr() -> Schema {
    ruled(
        49,
        "isCIDR(self)".into(),
        "write a network as address/length, such as 192.0.2.0/24 or 2001:db8::/32",
    )
}

/// Networks; an empty list is an answer of its own.
pub fn cidrs(_: &mut SchemaGenerator) -> Schema {
    set(cidr(), 0, 64)
}

/// One network or more.
pub fn cidrs_some(_: &mut SchemaGenerator) -> Schema {
    set(cidr(), 1, 64)
}

/// `loadBalancerClass` of a Service: a label key.
pub fn load_balancer_class(_: &mut SchemaGenerator) -> Schema {
    matching(
        317,
        "([a-z0-9]([a-z0-9.-]*[a-z0-9])?/)?[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?",
        "write the class as its controller names it, such as service.k8s.aws/nlb",
    )
}

/// Namespace names, PEP nodes.
pub fn uris(_: &mut SchemaGenerator) -> Schema {
    set(
        json_schema!({ "type": "string", "minLength": 1, "maxLength": 256 }),
        0,
        64,
    )
}

/// Values of a message's `type`.
pub fn message_types(_: &mut SchemaGenerator) -> Schema {
    let item = matching(32, "[a-z]+", "a message type is one word in lower case");
    set(item, 0, 16)
}

/// Annotations of an object that is made.
pub fn annotations(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "maxProperties": 64,
        "additionalProperties": { "type": "string", "maxLength": 4096 },
    })
}

/// The pattern of a label's value, the only one in our definitions: it belongs to entries of maps,
/// where a rule would cost more than it tells.
pub(super) const LABEL_VALUE: &str = "^([A-Za-z0-9]([A-Za-z0-9_.-]*[A-Za-z0-9])?)?$";

/// Labels of an object that is made, or that a node has.
pub fn labels(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "maxProperties": 64,
        "additionalProperties": {
            "type": "string",
            "maxLength": 63,
            "pattern": LABEL_VALUE,
        },
    })
}

/// A country of a distinguished name (ISO 3166).
pub fn country(_: &mut SchemaGenerator) -> Schema {
    matching(
        2,
        "[A-Z]{2}",
        "write the country as two capital letters, such as DE",
    )
}

/// A duration as Go writes it: cert-manager's own format.
pub fn go_duration(_: &mut SchemaGenerator) -> Schema {
    matching(
        32,
        "([0-9]+([.][0-9]+)?(ms|s|m|h))+",
        "write a duration with its units, such as 2160h or 36h30m",
    )
}

/// A size of storage, as Kubernetes writes it.
pub fn storage_size(_: &mut SchemaGenerator) -> Schema {
    matching(
        20,
        "[1-9][0-9]*([.][0-9]+)?(k|Ki|M|Mi|G|Gi|T|Ti)?",
        "write a size such as 1Gi or 500Mi",
    )
}

/// `status.conditions`.
pub fn conditions(generator: &mut SchemaGenerator) -> Schema {
    let mut condition = generator.subschema_for::<Condition>();
    if let Some(Value::Object(fields)) = condition.get_mut("properties") {
        for (name, field) in fields {
            let (key, value) = match name.as_str() {
                "type" => ("maxLength", json!(316)),
                "status" => ("enum", json!(["True", "False", "Unknown"])),
                "reason" => ("maxLength", json!(128)),
                "message" => ("maxLength", json!(MAX_MESSAGE)),
                _ => continue,
            };
            field[key] = value;
        }
    }
    json_schema!({
        "type": "array",
        "items": condition,
        "maxItems": 10,
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["type"],
    })
}

/// A key of a ConfigMap in the same namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ConfigMapKeyRef {
    /// Name of a ConfigMap in the namespace of this object.
    #[schemars(schema_with = "object_name")]
    pub name: String,
    /// Key within the ConfigMap.
    #[schemars(schema_with = "data_key")]
    pub key: String,
}

/// A Secret in the same namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SecretRef {
    /// Name of a Secret in the namespace of this object.
    #[schemars(schema_with = "object_name")]
    pub name: String,
}

/// For `#[serde(default = "…")]`.
pub(super) fn yes() -> bool {
    true
}
