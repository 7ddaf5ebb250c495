//! The guide of two hosts as it is written, each host in a network of its own, with a firewall inside that drops
//! and counts what the DMZ opens inwards (B-02, B-47).

use std::{
    fs::{self, Permissions},
    net::{Ipv4Addr, SocketAddr},
    os::unix::fs::{PermissionsExt, chown},
    path::Path,
    sync::Arc,
};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use xmpp_edge_tests::{
    conversation,
    edge::{Edge, Place},
    lab::Lab,
    network::{Network, apart},
    process::Daemon,
    servers::{Kind, S2S_PORT, Security, Server},
    sidecar, wait,
};

use crate::scene::{OWN, PARTNER, SceneNetworks, manifests};

const GUIDE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/guide/sidecar.md");
const FQDN: &str = "edge.example";
/// Whom systemd would have made.
const USER: u32 = 65_533;

/// What a manager of services makes of the unit: its paths, its user, its rights.
const UNIT: &str = r#"
set -e
mount -t tmpfs tmpfs "$SCRATCH"
mkdir "$SCRATCH/upper" "$SCRATCH/work"
mount -t overlay -o "lowerdir=/etc,upperdir=$SCRATCH/upper,workdir=$SCRATCH/work" overlay /etc
mkdir /etc/xmpp-edge
mount --bind "$GIVEN" /etc/xmpp-edge
mount -t tmpfs tmpfs /usr/local/bin
touch /usr/local/bin/xmpp-edge-proxy
mount --bind "$PROGRAM" /usr/local/bin/xmpp-edge-proxy
mount -t tmpfs tmpfs /var/lib
mkdir /var/lib/xmpp-edge-sidecar
mount --bind "$STATE" /var/lib/xmpp-edge-sidecar
exec setpriv --reuid "$OWNER" --regid "$OWNER" --clear-groups --no-new-privs \
    --bounding-set "$RIGHTS" --inh-caps "$RIGHTS" --ambient-caps "$RIGHTS" $COMMAND
"#;

/// The value of a setting of the guide's unit.
fn unit(setting: &str) -> Result<String> {
    let guide = fs::read_to_string(GUIDE)?;
    let unit = guide.split("```ini\n").nth(1).context("a unit")?;
    let mut lines = unit.lines().take_while(|line| !line.starts_with("```"));
    let value = lines.find_map(|line| line.strip_prefix(&format!("{setting}=")));
    Ok(value.with_context(|| format!("no {setting}="))?.to_owned())
}

/// Starts the guide's unit on the inner host.
fn start(lab: &Lab) -> Result<Daemon> {
    let rights = unit("AmbientCapabilities")?;
    ensure!(rights == "CAP_NET_BIND_SERVICE", "{rights}");
    ensure!(unit("StateDirectoryMode")? == "0711");
    let path = |name: &str| lab.path(name).display().to_string();
    fs::create_dir_all(lab.path("scratch"))?;
    let environment = [
        ("SCRATCH", path("scratch")),
        ("GIVEN", path("given")),
        ("STATE", path("state")),
        ("PROGRAM", sidecar::program()?.display().to_string()),
        ("OWNER", USER.to_string()),
        ("RIGHTS", "-all,+net_bind_service".to_owned()),
        ("COMMAND", unit("ExecStart")?),
        ("RUST_LOG", "info".to_owned()),
    ];
    let arguments = ["--mount", "sh", "-c", UNIT].map(str::to_owned);
    Daemon::start(
        "the sidecar",
        Path::new("unshare"),
        &arguments,
        &environment,
        &lab.path("sidecar.txt"),
    )
}

/// What `sidecar key` prints goes into the pool.
fn list_key(lab: &Lab, edge: &Place) -> Result<()> {
    let output = std::process::Command::new(sidecar::program()?)
        .args(["sidecar", "key", "--state"])
        .arg(lab.path("state"))
        .output()?;
    let key = String::from_utf8(output.stdout)?;
    let path = edge.directory.join("manifests/EdgePool-edge.yaml");
    let mut pool: Value = serde_json::from_str(&fs::read_to_string(&path)?)?;
    let keys = json!([{ "name": "prosody-1", "spkiSha256": key.trim() }]);
    pool["spec"]["gateways"][0]["sidecar"] = json!({ "keys": keys });
    let next = edge.directory.join("next");
    fs::write(&next, pool.to_string())?;
    Ok(fs::rename(next, path)?)
}

/// Section "The edge" and "The sidecar": copy two files, start it, add the line that it asks for.
async fn sidecar_of(lab: &Lab, edge: &Place, inside: &Network) -> Result<Daemon> {
    let from = edge.directory.join("state/sidecars").join(OWN);
    let (given, state) = (lab.path("given"), lab.path("state"));
    for folder in [&given, &state] {
        fs::create_dir_all(folder)?;
    }
    chown(&state, Some(USER), Some(USER))?;
    fs::set_permissions(&state, Permissions::from_mode(0o711))?;
    wait::until("the edge has what is copied", wait::GENEROUS, async || {
        for file in ["sidecar.json", "ca.crt"] {
            fs::copy(from.join(file), given.join(file)).ok()?;
        }
        Some(())
    })
    .await?;
    let mut daemon = inside.within(async { start(lab) }).await?;
    let asks = "add it to spec.gateways[].sidecar.keys";
    daemon.await_line(asks, wait::GENEROUS).await?;
    list_key(lab, edge)?;
    Ok(daemon)
}

async fn guided(world: Arc<Network>) -> Result<()> {
    let networks = SceneNetworks::in_world(&world, 1)?;
    let lab = Lab::within(xmpp_edge_tests::address::Block::apart()).await?;
    let outer = lab.spec(PARTNER, 10, "bob", Security::Certificates);
    lab.publish(&outer);
    let place = Place::in_lab(&lab, 20, 21);
    lab.dns().host(FQDN, place.bind);
    lab.dns().xmpp_server(OWN, 0, 0, S2S_PORT, FQDN);
    let gateway = json!({ "domains": [OWN], "mode": "Sidecar" });
    let manifests = manifests(&lab, ("edge", 10), FQDN, gateway, &json!({}));
    let (edge, sidecar, partner) = tokio::try_join!(
        // Ready once the trunk stands.
        networks.dmz.within(Edge::start(place.clone(), &manifests)),
        sidecar_of(&lab, &place, &networks.inside),
        Server::start(Kind::Prosody, outer, lab.directory()),
    )?;
    let done = talked(&lab, &networks, &partner).await;
    done.with_context(|| format!("{}\n{}\n{}", edge.log(), sidecar.log(), partner.log()))
}

/// Section "The server", then a message each way; nothing was opened inwards, and would have been counted.
async fn talked(lab: &Lab, networks: &SceneNetworks, partner: &Server) -> Result<()> {
    let mut inner = lab.spec(OWN, 30, "alice", Security::TlsDialback);
    inner.ip = Ipv4Addr::LOCALHOST;
    inner.resolver = Ipv4Addr::LOCALHOST;
    inner.trust = fs::read_to_string(lab.path("state/public/ca.crt"))?;
    let public = fs::metadata(lab.path("state/public/ca.crt"))?;
    ensure!(
        public.permissions().mode() & 0o004 != 0,
        "the server reads it"
    );
    let server = Server::start(Kind::Prosody, inner, lab.directory());
    let server = networks.inside.within(server).await?;
    let alice = networks.inside.within(server.login("alice")).await?;
    let bob = partner.login("bob").await?;
    conversation::messages(&alice, &bob).await?;
    let counted = networks.inside.opened()?;
    ensure!(counted == 0, "the DMZ opened {counted} connections inwards");
    // The firewall is one: what the edge would dial is dropped and counted.
    let inwards = SocketAddr::from((lab.ip(30), S2S_PORT));
    let dialled = tokio::time::timeout(
        std::time::Duration::from_millis(500),
        networks.dmz.within(TcpStream::connect(inwards)),
    );
    ensure!(dialled.await.is_err(), "it is let in");
    ensure!(networks.inside.opened()? > 0, "it is not counted");
    Ok(())
}

#[test]
fn b_02_b_47_the_guide_of_two_hosts_leads_to_messages_and_nothing_is_opened_inwards() {
    apart(guided);
}
