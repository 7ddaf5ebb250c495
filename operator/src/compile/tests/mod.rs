//! Meaning, as tables: manifests in, documents and diagnostics out.
#![allow(clippy::unwrap_used)]

mod gateways;
mod partners;
mod policies;
mod pools;

use std::collections::BTreeMap;

use xmpp_edge_crds::{
    edge_config::{AccessScope, EdgeConfig},
    kinds::conditions::{ConditionType, Reason},
};

use super::*;
use crate::standalone::{documents, manifests};

type Configs = BTreeMap<String, EdgeConfig>;

/// The world of namespace `default` that these manifests make; short forms as the helpers below
/// write them.
fn world(yaml: &str) -> NamespaceInputs {
    let documents = documents::read(yaml).unwrap();
    let mut gathered = manifests::gather(
        [("test.yaml", documents.as_slice())],
        &manifests::Stored::new(),
    );
    assert!(gathered.problems.is_empty(), "{:?}", gathered.problems);
    let mut world = gathered.worlds.remove("default").unwrap_or_default();
    world.namespace = "default".into();
    world.single_process = true;
    world
}

fn run(yaml: &str, last: &Configs) -> Compiled {
    compile(&world(yaml), last)
}

/// A pool for `domains`, with more of its spec in flow style.
fn pool(name: &str, domains: &str, more: &str) -> String {
    format!(
        "---\napiVersion: xmpp-edge.dev/v1alpha1\nkind: EdgePool\nmetadata: {{name: {name}}}\nspec: {{site: {name}-site, domains: [{domains}], accessEdge: {{fqdn: {name}.edge.example}}, gateways: [{{domains: [{domains}], address: 'inside.example:5269'}}], certificate: {{selfSigned: {{}}}}{more}}}\n"
    )
}

fn partner(name: &str, domain: &str, more: &str) -> String {
    format!(
        "---\napiVersion: xmpp-edge.dev/v1alpha1\nkind: XmppFederatedPartner\nmetadata: {{name: {name}}}\nspec: {{domain: {domain}{more}}}\n"
    )
}

fn policy(name: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: xmpp-edge.dev/v1alpha1\nkind: ExternalAccessPolicy\nmetadata: {{name: {name}}}\nspec: {{{spec}}}\n"
    )
}

fn config_map(name: &str, key: &str, lines: &str) -> String {
    format!(
        "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}}}\ndata: {{{key}: \"{lines}\"}}\n"
    )
}

/// `Accepted` of an object: the reason, and the message.
fn accepted(compiled: &Compiled, name: &str) -> (bool, Reason, String) {
    let mut found = compiled.diagnostics.iter().filter(|diagnostic| {
        diagnostic.object.name == name && diagnostic.condition == ConditionType::Accepted
    });
    let diagnostic = found
        .next()
        .unwrap_or_else(|| panic!("nothing is said of {name}"));
    assert!(
        found.next().is_none(),
        "{name} is accepted or rejected once"
    );
    assert_eq!(diagnostic.status, diagnostic.severity != Severity::Error);
    (
        diagnostic.status,
        diagnostic.reason,
        diagnostic.message.clone(),
    )
}

fn reason(compiled: &Compiled, name: &str) -> Reason {
    accepted(compiled, name).1
}

/// Partners of the one pool: name and domains.
fn partners(configs: &Configs) -> Vec<(String, String)> {
    let config = configs.values().next().unwrap();
    config
        .partners
        .iter()
        .map(|partner| {
            let domains: Vec<String> = partner.domains.iter().map(ToString::to_string).collect();
            (partner.name.clone(), domains.join(" "))
        })
        .collect()
}

/// Policies of the one pool: name and who is granted.
fn policies(configs: &Configs) -> Vec<(String, String)> {
    let config = configs.values().next().unwrap();
    config
        .access
        .policies
        .iter()
        .map(|policy| {
            let scope = match &policy.scope {
                AccessScope::Global => "*".to_owned(),
                AccessScope::Site(site) => format!("site {site}"),
                AccessScope::User(granted) => {
                    let users = granted.users.iter().map(ToString::to_string);
                    let domains = granted.domains.iter().map(|domain| format!("*@{domain}"));
                    users.chain(domains).collect::<Vec<_>>().join(" ")
                }
            };
            (policy.name.clone(), scope)
        })
        .collect()
}

fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
    list.iter()
        .map(|(a, b)| ((*a).to_owned(), (*b).to_owned()))
        .collect()
}

/// A case: manifests before, manifests after, what is in force then, and what is said of whom.
type Row = (
    &'static str,
    String,
    String,
    &'static [(&'static str, &'static str)],
    &'static [(&'static str, Reason)],
);

const HQ: &str = "org.example";
