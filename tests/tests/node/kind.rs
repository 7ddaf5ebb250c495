//! The demonstration in a cluster, as `make kind-demo` runs it where kind is; and what its pod with a sidecar does
//! afterwards.

use anyhow::{Result, ensure};

use crate::{
    sidecar,
    stage::{CHART, STAGE, SYSTEM},
};

/// Below the chart's folder.
const DEMO: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/kind/demo");

#[test]
fn from_an_empty_cluster_to_a_message_both_ways_by_what_examples_kind_says() {
    demonstration(Inside::Dialled);
}

/// The API server adds the sidecar, and the edge dials nobody inside (B-01). Then, in the same pods, what
/// [`sidecar::goes_on`] says.
#[test]
fn b_01_b_29_b_36_b_38_a_labelled_pod_federates_by_its_sidecar_and_goes_on_whoever_is_away() {
    demonstration(Inside::Sidecar);
}

/// How the organisation's server is reached.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Inside {
    Dialled,
    Sidecar,
}

fn demonstration(inside: Inside) {
    STAGE.test(async |stage| {
        let helm = stage.helm()?;
        // No Service leads to this cluster's DNS.
        let resolver = stage.cluster.site().node();
        let resolvers = format!("--set sidecar.resolvers={{{resolver}:53}}");
        let sidecar = [("SIDECAR", "1"), ("HELM_OPTIONS", &*resolvers)];
        let more = match inside {
            Inside::Dialled => &[][..],
            Inside::Sidecar => &sidecar,
        };
        // The organisation of the other tests is there too.
        let watched = [("NAMESPACES", "demo-org,edge")];
        let environment = [&watched[..], more].concat();
        let said = helm.script(stage.kubectl(), &[DEMO, "--here"], &environment);
        let went_on = match (&said, inside) {
            (Ok(_), Inside::Sidecar) => sidecar::goes_on(stage).await,
            _ => Ok(()),
        };
        let upgrade = ["upgrade", "xmpp-edge", CHART, "--namespace", SYSTEM];
        let watches = ["--set", "watchNamespaces={edge}", "--wait"];
        let again = helm.run(&[&upgrade[..], &watches].concat());
        let namespaces = ["delete", "namespace", "demo-org", "demo-partner"];
        let deleted = stage.kubectl().run(&namespaces);
        let said = said?;
        eprintln!("{said}");
        went_on?;
        again?;
        deleted?;
        for step in ["alice reads it", "bob reads it", "in all"] {
            ensure!(said.contains(step), "{step}: {said}");
        }
        Result::Ok(())
    });
}
