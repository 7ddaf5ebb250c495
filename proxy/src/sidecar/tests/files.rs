//! What a sidecar makes of its files, and keeps when they break.

use std::fs;

use xmpp_edge_crds::edge_config::{GatewayMode, HostPort};
use zeroize::Zeroizing;

use super::*;
use crate::{
    config::{ConfigUpdate, follow::FollowedSource},
    tls::pki::authority,
};

/// Paths, and the follower of them.
struct Watched {
    folder: Folder,
    files: SidecarFiles,
}

impl Watched {
    fn new(edges: &[&str], server: Option<&str>) -> Self {
        Self::mounted_from(None, edges, server)
    }

    fn mounted_from(secret: Option<&str>, edges: &[&str], server: Option<&str>) -> Self {
        let folder = Folder::new();
        fs::create_dir(folder.path("given")).unwrap();
        let constants = SidecarConstants {
            instance: "prosody-0".parse().unwrap(),
            version: "1.1.0".parse().unwrap(),
            server: server.map(host_port),
            edges: edges.iter().map(|it| host_port(it)).collect(),
            port: 23456,
            dialback_secret: Zeroizing::new(vec![7; 32]),
        };
        let paths = SidecarPaths {
            config: folder.path("given/sidecar.json"),
            secrets: folder.path("given"),
            secret: secret.map(str::to_owned),
        };
        let own = SidecarIdentity::ensure(&folder.state).unwrap();
        let files = SidecarFiles::new(paths, constants, folder.state.clone(), own, None);
        Self { folder, files }
    }

    /// Two looks: what is read in one alone may be the middle of a write.
    fn look(&mut self) -> ConfigUpdate {
        self.files.look();
        self.files.look();
        self.files.offer()
    }

    fn put(&self, name: &str, text: &str) {
        self.folder.write(&format!("given/{name}"), text);
    }

    fn put_all(&self) {
        self.put("sidecar.json", &document(&["org.example"]));
        self.put("ca.crt", &authority("internal CA").pem());
    }
}

fn host_port(text: &str) -> HostPort {
    HostPort::parse(text, None).unwrap()
}

fn document(own: &[&str]) -> String {
    let own = own.iter().map(|domain| (*domain).to_owned()).collect();
    let mut document = SidecarDocument::new("chat", "org.example", own);
    document.edges = vec!["hq-trunk.chat.svc:23456".to_owned()];
    document.limits.queue_timeout_seconds = 7;
    document.to_json()
}

#[test]
fn b_41_while_the_secret_is_not_there_it_is_named() {
    let mut watched = Watched::mounted_from(Some("xmpp-edge-sidecar-org"), &[], None);
    let names_it = |waits: ConfigUpdate| waits.missing.join(" ").contains("xmpp-edge-sidecar-org");
    assert!(names_it(watched.look()));
    watched.put("ca.crt", &authority("internal CA").pem());
    assert!(!names_it(watched.look()), "what lacks is one file of it");
    watched.put_all();
    assert!(!names_it(watched.look()));
}

#[test]
fn what_is_waited_for_is_named_until_all_is_there() {
    let mut watched = Watched::new(&[], None);
    let waits = watched.look();
    assert!(waits.inputs.is_none() && waits.unreadable.is_none());
    let [config, ca] = waits.missing.as_slice() else {
        panic!("{waits:?}");
    };
    assert!(
        config.ends_with("given/sidecar.json is not there"),
        "{config}"
    );
    assert!(ca.ends_with("given/ca.crt is not there"), "{ca}");
    watched.put("sidecar.json", "{");
    let waits = watched.look();
    let said = &waits.missing[0];
    assert!(said.contains("is not a sidecar's configuration"), "{said}");
    watched.put_all();
    let whole = watched.look();
    assert!(whole.inputs.is_some(), "{whole:?}");
    assert!(whole.missing.is_empty() && whole.stale.is_empty());
}

#[test]
fn the_engine_is_told_what_document_command_line_and_state_say() {
    let mut watched = Watched::new(&["10.0.0.7:23456"], Some("127.0.0.1:5299"));
    watched.put_all();
    let inputs = watched.look().inputs.unwrap();
    let config = &inputs.config;
    let gateway = &config.gateways[0];
    assert_eq!(gateway.mode, GatewayMode::Direct);
    assert_eq!(gateway.address, Some(host_port("127.0.0.1:5299").into()));
    assert_eq!(config.settings.queue_timeout_seconds, 7);
    assert_eq!(config.settings.queue_total_bytes, 64 << 20);
    assert_eq!(config.listeners.internal, 23456);
    assert_eq!((config.listeners.s2s, config.listeners.dns), (0, 0));
    let dials = inputs.edge_dials.unwrap();
    let edges = ["hq-trunk.chat.svc:23456", "10.0.0.7:23456"].map(host_port);
    assert_eq!(dials.edges, edges);
    let shown = inputs.materials.certificate.clone().unwrap();
    assert_eq!(shown.chain, watched.folder.read("tls.crt"));
    let leaves = inputs.materials.issuer.clone().unwrap();
    assert_eq!(leaves.chain, watched.folder.read("public/ca.crt"));
}

#[test]
fn what_breaks_or_goes_stays_as_it_was_and_is_told() {
    let mut watched = Watched::new(&[], None);
    watched.put_all();
    let first = watched.look().inputs.unwrap();
    for (name, broken, expected) in [
        (
            "sidecar.json",
            Some("{}"),
            "sidecar.json: is not a sidecar's configuration",
        ),
        ("sidecar.json", None, "sidecar.json is not there"),
        ("ca.crt", Some("hello"), "holds no certificate"),
        ("ca.crt", None, "ca.crt is not there"),
    ] {
        let path = watched.folder.path(&format!("given/{name}"));
        let good = fs::read_to_string(&path).unwrap();
        match broken {
            Some(text) => watched.put(name, text),
            None => fs::remove_file(&path).unwrap(),
        }
        let told = watched.look();
        assert!(told.inputs.unwrap().are(&first), "{name}");
        let [said] = told.stale.as_slice() else {
            panic!("{name}: {:?}", told.stale);
        };
        assert!(said.starts_with("what was read before stays: "), "{said}");
        assert!(said.contains(expected), "{said}");
        watched.put(name, &good);
        assert!(watched.look().stale.is_empty(), "{name}");
    }
}

#[test]
fn a_changed_document_is_taken_whole_with_the_authority_that_goes_with_it() {
    let mut watched = Watched::new(&[], None);
    watched.put_all();
    let first = watched.look().inputs.unwrap();
    assert!(watched.look().inputs.unwrap().are(&first));
    watched.put("sidecar.json", &document(&["org.example", "new.example"]));
    let next = watched.look().inputs.unwrap();
    assert_eq!(next.config.generation, first.config.generation + 1);
    assert_eq!(next.config.domains.len(), 2);
    let issuer = |inputs: &crate::config::ConfigInputs| inputs.materials.issuer.clone().unwrap();
    assert_ne!(issuer(&next).chain, issuer(&first).chain);
    assert!(issuer(&next).key == issuer(&first).key);
}

#[test]
fn a_certificate_that_is_mounted_goes_before_the_own_key_once_it_is_good() {
    let mut watched = Watched::new(&[], None);
    watched.put_all();
    let shown = |told: &ConfigUpdate| {
        let materials = &told.inputs.as_ref().unwrap().materials;
        materials.certificate.clone().unwrap().chain
    };
    let own = watched.folder.read("tls.crt");
    assert_eq!(shown(&watched.look()), own);
    let mounted = authority("org.example");
    watched.put("tls.crt", &mounted.pem());
    let half = watched.look();
    assert_eq!(shown(&half), own);
    assert!(
        half.stale[0].ends_with("tls.key is not there"),
        "{:?}",
        half.stale
    );
    watched.put("tls.key", &mounted.key().serialize_pem());
    assert_eq!(shown(&watched.look()), mounted.pem());
    // Deleted by whoever: edges decide what it is still good for.
    fs::remove_file(watched.folder.path("given/tls.key")).unwrap();
    let gone = watched.look();
    assert_eq!(shown(&gone), mounted.pem());
    assert_eq!(gone.stale.len(), 1);
}

#[test]
fn a_state_that_cannot_be_used_is_told_and_looked_at_again() {
    let mut watched = Watched::new(&[], None);
    watched.folder.write("loopback-ca.key", "hello");
    watched.put_all();
    let told = watched.look();
    assert!(told.inputs.is_none());
    assert!(
        told.missing[0].contains("loopback-ca.key cannot be used"),
        "{told:?}"
    );
    fs::remove_file(watched.folder.path("loopback-ca.key")).unwrap();
    assert!(watched.look().inputs.is_some());
}
