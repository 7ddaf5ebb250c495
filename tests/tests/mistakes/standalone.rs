//! What one process without a cluster cannot do.

use std::fs;

use jiff::Timestamp;
use xmpp_edge_operator::standalone::station::{StandalonePaths, StandaloneReconciler};
use xmpp_edge_tests::mistakes;

const MANIFESTS: &str = "apiVersion: xmpp-edge.dev/v1alpha1\nkind: EdgePool\nmetadata: {name: hq}\n\
    spec: {site: hq, domains: [org.example], accessEdge: {fqdn: edge.org.example}, listeners: {dns: 53}, \
    dns: {externalDns: {}}, gateways: [{domains: [org.example], address: '10.0.0.9:5269'}], certificate: {selfSigned: {}}}\n\
    ---\napiVersion: xmpp-edge.dev/v1alpha1\nkind: XmppFederatedPartner\n\
    metadata: {name: p, namespace: other}\nspec: {domain: p.example}\n";

#[test]
fn what_standalone_passes_over_is_listed() {
    let folder = tempfile::tempdir().unwrap();
    let manifests = folder.path().join("manifests");
    fs::create_dir(&manifests).unwrap();
    fs::write(manifests.join("all.yaml"), MANIFESTS).unwrap();
    let mut station = StandaloneReconciler::open(StandalonePaths {
        manifests,
        state: folder.path().join("state"),
        pool: None,
        inside: Vec::new(),
    })
    .unwrap();
    let look = station.first(Timestamp::now()).unwrap();
    let messages: Vec<String> = look.notes.iter().map(ToString::to_string).collect();
    mistakes::compare("Only in standalone", &messages);
}
