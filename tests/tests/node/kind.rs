//! The demonstration in a cluster, as `make kind-demo` runs it where kind is.

use anyhow::{Result, ensure};

use crate::stage::{CHART, STAGE, SYSTEM};

/// Below the chart's folder.
const DEMO: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/kind/demo");

#[test]
fn from_an_empty_cluster_to_a_message_both_ways_by_what_examples_kind_says() {
    STAGE.test(async |stage| {
        let helm = stage.helm()?;
        // The organisation of the other tests is there too.
        let watched = [("NAMESPACES", "demo-org,edge")];
        let said = helm.script(stage.kubectl(), &[DEMO, "--here"], &watched);
        let upgrade = ["upgrade", "xmpp-edge", CHART, "--namespace", SYSTEM];
        let watches = ["--set", "watchNamespaces={edge}", "--wait"];
        let again = helm.run(&[&upgrade[..], &watches].concat());
        let namespaces = ["delete", "namespace", "demo-org", "demo-partner"];
        let deleted = stage.kubectl().run(&namespaces);
        let said = said?;
        again?;
        deleted?;
        eprintln!("{said}");
        for step in ["alice reads it", "bob reads it", "in all"] {
            ensure!(said.contains(step), "{step}: {said}");
        }
        Result::Ok(())
    });
}
