//! The organisation's own Prosody in a cluster: `examples/cluster/prosody.yaml` as the tests run it.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::Path,
};

use anyhow::Result;

use super::{Kubectl, images::SERVERS};
use crate::{client::PASSWORD, servers::C2S_PORT};

/// Namespace that it runs in, as the examples have it.
pub const CHAT: &str = "chat";

/// Its objects, for a pod that asks these resolvers (one or two) and no others.
///
/// # Panics
/// Without the example, or with more resolvers.
#[must_use]
pub fn manifest(resolvers: &[String]) -> String {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/cluster/prosody.yaml");
    let example = fs::read_to_string(example).expect("the example is there");
    assert!((1..=2).contains(&resolvers.len()), "{resolvers:?}");
    // The tests' client knows no TLS.
    let plain = "c2s_require_encryption = false; allow_unencrypted_plain_auth = true";
    example
        .replace("10.96.0.53, 10.96.1.53", &resolvers.join(", "))
        .replace("image: prosody:0.12", &format!("image: {SERVERS}"))
        .replace("[prosody,", "[lua5.4, /usr/bin/prosody,")
        .replace(
            "authentication =",
            &format!("{plain}\n    authentication ="),
        )
}

/// Waits until the applied one is ready and gives it accounts; returns where clients connect.
///
/// # Errors
/// When it does not get ready within 90 s.
pub fn until_it_runs(kubectl: &Kubectl, users: &[&str]) -> Result<SocketAddr> {
    let place = ["--namespace", CHAT, "--timeout=90s"];
    let rollout = ["rollout", "status", "deployment/prosody"];
    kubectl.run(&[&rollout[..], &place].concat())?;
    let register = format!(
        "mkdir -p /var/lib/prosody/org%2eexample/accounts && cd /var/lib/prosody/org%2eexample/accounts \
        && for user in {}; do echo 'return {{ [\"password\"] = \"{PASSWORD}\"; }};' >$user.dat; done",
        users.join(" ")
    );
    let exec = ["exec", "--namespace", CHAT, "deployment/prosody", "--"];
    kubectl.run(&[&exec[..], &["sh", "-c", &register]].concat())?;
    let output = "--output=jsonpath={.spec.clusterIP}";
    let address = ["get", "service/prosody", "--namespace", CHAT, output];
    let address: Ipv4Addr = kubectl.run(&address)?.parse()?;
    Ok((address, C2S_PORT).into())
}
