//! What a station promises over edits, restarts and damage.

#![allow(clippy::unwrap_used)]
use super::*;
use crate::{
    compile::Severity,
    secrets::{
        database::DatabaseSecret,
        internal_ca,
        store::{ManagedSecret, MemoryStore, Store},
    },
};
use k8s_openapi::{ByteString, api::core::v1::Secret};
use xmpp_edge_proxy::tls::SpkiSha256;
use zeroize::Zeroizing;

pub(super) const POOL: &str = "apiVersion: xmpp-edge.dev/v1alpha1\nkind: EdgePool\nmetadata: {name: hq}\nspec: {site: hq, domains: [org.example], accessEdge: {fqdn: edge.org.example}, gateways: [{domains: [org.example], address: 'inside.example:5269'}], certificate: {selfSigned: {}}}\n";
pub(super) const PARTNER: &str = "---\napiVersion: xmpp-edge.dev/v1alpha1\nkind: XmppFederatedPartner\nmetadata: {name: p}\nspec: {domain: p.example}\n";

pub(super) struct Site {
    pub(super) folder: tempfile::TempDir,
}

impl Site {
    pub(super) fn new(yaml: &str) -> Self {
        let site = Self {
            folder: tempfile::tempdir().unwrap(),
        };
        fs::create_dir(site.folder.path().join("manifests")).unwrap();
        site.write(yaml);
        site
    }

    pub(super) fn write(&self, yaml: &str) {
        fs::write(self.folder.path().join("manifests/a.yaml"), yaml).unwrap();
    }

    pub(super) fn open(&self) -> Result<StandaloneReconciler, StandaloneReconcileError> {
        StandaloneReconciler::open(StandalonePaths {
            manifests: self.folder.path().join("manifests"),
            state: self.folder.path().join("state"),
            pool: None,
            inside: vec!["127.0.0.1".parse().unwrap()],
        })
    }

    pub(super) fn state(&self, file: &str) -> serde_json::Value {
        let text = fs::read(self.folder.path().join("state").join(file)).unwrap();
        serde_json::from_slice(&text).unwrap()
    }
}

pub(super) fn now() -> Timestamp {
    "2026-11-21T12:00:00Z".parse().unwrap()
}

/// Polls until an edit is taken: at most as often as fits into two seconds.
pub(super) fn edited(station: &mut StandaloneReconciler) -> Pass {
    for _ in 0..6 {
        if let Some(look) = station.poll(now()).unwrap() {
            return look;
        }
    }
    panic!("the edit was not taken in six polls");
}

fn names(look: &Pass) -> Vec<&str> {
    look.inputs
        .config
        .partners
        .iter()
        .map(|partner| partner.name.as_str())
        .collect()
}

#[test]
fn an_edit_is_in_force_and_a_broken_one_is_not_but_says_where() {
    let site = Site::new(&format!("{POOL}{PARTNER}"));
    let mut station = site.open().unwrap();
    let first = station.first(now()).unwrap();
    assert!(first.changed && first.inputs.materials.certificate.is_some());
    assert_eq!(
        (names(&first), first.inputs.config.generation),
        (vec!["p"], 1)
    );

    let second = PARTNER
        .replace("name: p", "name: q")
        .replace("p.example", "q.example");
    site.write(&format!("{POOL}{PARTNER}{second}"));
    let look = edited(&mut station);
    assert_eq!(
        (names(&look), look.inputs.config.generation),
        (vec!["p", "q"], 2)
    );
    assert!(
        Arc::ptr_eq(&look.inputs.materials, &first.inputs.materials),
        "certificates are as they were"
    );

    for (broken, says) in [
        (format!("{POOL}{PARTNER}{second}---\nspec: ["), "document 4"),
        (
            format!(
                "{POOL}{PARTNER}{}",
                second.replace("q.example", "q.example, tlsNegotiation: Perhaps")
            ),
            "tlsNegotiation",
        ),
        (
            format!(
                "{POOL}{PARTNER}{}",
                second.replace("q.example", "'q..example'")
            ),
            "spec.domain",
        ),
    ] {
        site.write(&broken);
        let look = edited(&mut station);
        assert!(!look.changed, "{broken}");
        assert_eq!(look.inputs.config.generation, 2);
        let note = &look.notes[0];
        assert_eq!(note.severity(), Severity::Error);
        let text = note.to_string();
        assert!(
            text.contains("a.yaml") && text.contains("line") && text.contains(says),
            "{text}"
        );
        assert_eq!(site.state("status.json")["notes"][0]["severity"], "Error");
    }

    site.write(&format!("{POOL}{second}"));
    let look = edited(&mut station);
    assert_eq!(
        (names(&look), look.changed),
        (vec!["q"], true),
        "a deletion takes effect"
    );
    assert!(station.poll(now()).unwrap().is_none());
}

#[test]
fn a_restart_knows_what_was_in_force() {
    let site = Site::new(&format!("{POOL}{PARTNER}"));
    let first = site.open().unwrap().first(now()).unwrap();
    site.write(&format!(
        "{POOL}{}",
        PARTNER.replace("p.example", "'p..example'")
    ));
    let again = site.open().unwrap().first(now()).unwrap();
    assert_eq!(again.inputs.config, first.inputs.config);
    assert!(materials::same(
        &again.inputs.materials,
        &first.inputs.materials
    ));
    assert_eq!(again.notes[0].severity(), Severity::Error);
}

#[test]
fn a_partners_domain_is_immutable_until_the_partner_is_deleted() {
    let site = Site::new(&format!("{POOL}{PARTNER}"));
    let mut station = site.open().unwrap();
    let first = station.first(now()).unwrap();
    let moved = PARTNER.replace("p.example", "other.example, enableKeepAlive: false");
    let refused = |look: &Pass| {
        assert_eq!(look.inputs.config, first.inputs.config);
        let text = look.notes[0].to_string();
        for says in [
            "error",
            "spec.domain",
            "cannot change",
            "last good form stays",
        ] {
            assert!(text.contains(says), "{says:?} is not in {text}");
        }
    };
    site.write(&format!("{POOL}{moved}"));
    refused(&edited(&mut station));
    drop(station);
    let mut station = site.open().unwrap();
    refused(&station.first(now()).unwrap());

    let edit = PARTNER.replace("p.example", "p.example, enableKeepAlive: false");
    site.write(&format!("{POOL}{edit}"));
    let look = edited(&mut station);
    assert!(look.notes.is_empty() && !look.inputs.config.partners[0].enable_keep_alive);
    site.write(POOL);
    edited(&mut station);
    site.write(&format!("{POOL}{moved}"));
    let look = edited(&mut station);
    let domain = look.inputs.config.partners[0].domains[0].to_string();
    assert_eq!((domain.as_str(), look.changed), ("other.example", true));
}

pub(super) fn known(look: &Pass) -> Vec<String> {
    look.inputs.config.partners[0]
        .trust
        .known_spki_sha256
        .clone()
}

#[test]
fn keys_told_are_known_as_on_key_change_says_also_over_a_restart() {
    let key = |byte: u8| PeerKey {
        partner: "p".to_owned(),
        key: SpkiSha256([byte; 32]),
    };
    let hex = |byte: u8| format!("{byte:02x}").repeat(32);
    for (setting, then_known) in [
        ("Ignore", vec![]),
        ("Warn", vec![hex(1), hex(2)]),
        ("Refuse", vec![hex(1)]),
    ] {
        let partner = PARTNER.replace(
            "p.example",
            &format!("p.example, trust: {{onKeyChange: {setting}}}"),
        );
        let site = Site::new(&format!("{POOL}{partner}"));
        let mut station = site.open().unwrap();
        let first = station.first(now()).unwrap();
        assert_eq!(known(&first), Vec::<String>::new());
        let stranger = PeerKey {
            partner: "stranger".to_owned(),
            ..key(9)
        };
        assert!(station.record(&[stranger], now()).unwrap().is_none());
        let told = station.record(&[key(1), key(1), key(2)], now()).unwrap();
        let generation = if then_known.is_empty() {
            assert!(told.is_none(), "{setting}");
            1
        } else {
            let look = told.expect("something new");
            assert!(look.changed, "{setting}");
            assert_eq!(known(&look), then_known, "{setting}");
            2
        };
        let again = station.record(&[key(1), key(2)], now()).unwrap();
        assert!(again.is_none(), "{setting}: nothing is new any more");
        drop(station);
        let mut station = site.open().unwrap();
        let look = station.first(now()).unwrap();
        assert_eq!(known(&look), then_known, "{setting}, after a restart");
        assert_eq!(look.inputs.config.generation, generation, "{setting}");
        let told = station.record(&[key(3)], now()).unwrap();
        assert_eq!(told.is_some(), setting == "Warn", "{setting}");

        // A check-out takes the file away and brings it back.
        let known_by_now = known(&station.renew(now()).unwrap());
        let gone_and_back = |station: &mut StandaloneReconciler, back: &str, after: i64| {
            site.write(POOL);
            edited(station);
            station
                .renew(now() + SignedDuration::from_secs(after))
                .unwrap();
            site.write(&format!("{POOL}{back}"));
            edited(station)
        };
        let look = gone_and_back(&mut station, &partner, 59);
        assert_eq!(known(&look), known_by_now, "{setting}");
        let look = gone_and_back(&mut station, &partner, 60);
        assert_eq!(known(&look), Vec::<String>::new(), "a partner made anew");
        station.record(&[key(4)], now()).unwrap();
        let another = partner.replace("p.example", "q.example");
        let look = gone_and_back(&mut station, &another, 0);
        assert_eq!(
            known(&look),
            Vec::<String>::new(),
            "another domain: another partner"
        );
    }
}

#[test]
fn keys_given_in_the_manifests_count_beside_those_seen() {
    let partner = PARTNER.replace("p.example", "p.example, trust: {onKeyChange: Refuse}");
    let hex = "ab".repeat(32);
    let given = format!(
        "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {{name: hq-peer-keys}}\ndata: {{p: {hex}}}\n"
    );
    let site = Site::new(&format!("{POOL}{partner}{given}"));
    let mut station = site.open().unwrap();
    assert_eq!(known(&station.first(now()).unwrap()), [hex.as_str()]);
    let other = PeerKey {
        partner: "p".to_owned(),
        key: SpkiSha256([1; 32]),
    };
    let told = station.record(std::slice::from_ref(&other), now()).unwrap();
    assert!(told.is_none(), "not the first key");
    site.write(&format!(
        "{POOL}{}{given}",
        partner.replace("Refuse", "Warn")
    ));
    edited(&mut station);
    let look = station.record(&[other], now()).unwrap().expect("new");
    assert_eq!(known(&look), ["01".repeat(32), hex]);
}

#[test]
fn a_damaged_memory_of_keys_is_not_taken_for_none() {
    let site = Site::new(POOL);
    fs::create_dir(site.folder.path().join("state")).unwrap();
    fs::write(site.folder.path().join("state/peer-keys.json"), "{").unwrap();
    let error = site.open().expect_err("damaged").to_string();
    assert!(error.contains("peer-keys.json"), "{error}");
}

#[test]
fn a_state_directory_serves_one_process() {
    let site = Site::new(POOL);
    let _station = site.open().unwrap();
    let error = site.open().expect_err("locked").to_string();
    assert!(error.contains("--state"), "{error}");
}

#[test]
fn a_missing_dialback_secret_is_an_error_at_first_and_a_note_later() {
    let with = POOL.replace(
        "certificate:",
        "settings: {dialbackSecretRef: {name: shared}}, certificate:",
    );
    let secret = "---\napiVersion: v1\nkind: Secret\nmetadata: {name: shared}\nstringData: {secret: 0123456789abcdef0123456789abcdef}\n";
    let site = Site::new(&with);
    let error = site
        .open()
        .unwrap()
        .first(now())
        .expect_err("no secret")
        .to_string();
    assert!(error.contains("shared"), "{error}");
    site.write(&format!("{with}{secret}"));
    let mut station = site.open().unwrap();
    let first = station.first(now()).unwrap();
    assert_eq!(
        &**first.inputs.materials.dialback_secret,
        b"0123456789abcdef0123456789abcdef"
    );
    site.write(&with);
    let look = edited(&mut station);
    assert!(
        !look.changed
            && look
                .notes
                .iter()
                .any(|note| note.to_string().contains("stays in use"))
    );
}

#[test]
fn what_holds_secrets_shows_none_of_them() {
    const SECRET: &str = "a-value-that-nobody-may-see";
    let database = "contacts: {postgres: {secretRef: {name: given}}}, certificate:";
    let manifests = POOL.replace("certificate:", database);
    let secret = format!(
        "---\napiVersion: v1\nkind: Secret\nmetadata: {{name: given}}\nstringData: {{url: 'postgres://u:{SECRET}@h/d', other: {SECRET}}}\n"
    );
    let site = Site::new(&format!("{manifests}{secret}"));
    let mut station = site.open().unwrap();
    let look = station.first(now()).unwrap();
    assert!(look.inputs.materials.contacts_url.is_some(), "it was read");
    let world = &station.manifests.worlds["default"];
    let held = world.secrets["given"].clone();
    let data = BTreeMap::from([("k".to_owned(), ByteString(SECRET.into()))]);
    let object = Secret {
        data: Some(data),
        ..Secret::default()
    };
    let database = DatabaseSecret::read("given", Some(&held)).unwrap();
    let mut store = MemoryStore::default();
    let admin = ManagedSecret::AdminToken("hq".into());
    store.write(&admin, &held).unwrap();
    let ca = internal_ca::ensure_ca(&mut store, "default", now()).unwrap();
    let mut dialback = held.clone();
    dialback.insert("secret".into(), Zeroizing::new(SECRET.into()));
    let dialback = internal_ca::dialback_of(&dialback, "given").unwrap();
    let caches = crate::runtime::caches::Caches::new().0;
    caches.secrets.created(object, caches.secrets.epoch());
    let shown = [
        format!("{:?}", station.reader),
        format!("{:?}", station.manifests),
        format!("{world:?}"),
        format!("{held:?}"),
        format!("{database:?}"),
        format!("{store:?}"),
        format!("{dialback:?}"),
        format!("{caches:?}"),
        format!("{look:?}"),
        format!("{ca:?}"),
        format!("{station:?}"),
    ];
    let key = ca.signer.key.lines().nth(1).unwrap();
    let bytes = format!("{:?}", SECRET.as_bytes());
    let bytes = bytes.trim_matches(['[', ']']);
    for text in shown {
        for secret in [SECRET, key, bytes] {
            assert!(!text.contains(secret), "{text}");
        }
    }
}

#[test]
fn what_a_sidecar_s_host_needs_lies_in_the_state_and_follows_edits() {
    let gateway = "mode: Sidecar";
    let behind = POOL.replace("address: 'inside.example:5269'", gateway);
    let site = Site::new(&behind);
    let mut station = site.open().unwrap();
    let pass = station.first(now()).unwrap();
    let folder = site.folder.path().join("state/sidecars/org.example");
    let read = || fs::read(folder.join("sidecar.json")).unwrap();
    let parse = |json: &[u8]| {
        xmpp_edge_crds::sidecar_config::SidecarConfig::parse(json, "sidecar.json").unwrap()
    };
    let config = parse(&read());
    assert_eq!(config.edges[0].to_string(), "127.0.0.1:23456");
    assert_eq!(config.server.address.to_string(), "127.0.0.1:5269");
    let ca = fs::read_to_string(folder.join("ca.crt")).unwrap();
    assert_eq!(ca, pass.inputs.materials.internal_ca);
    site.write(&behind.replace(
        gateway,
        "mode: Sidecar, sidecar: {serverAddress: '[::1]:5299'}",
    ));
    edited(&mut station);
    assert_eq!(parse(&read()).server.address.to_string(), "[::1]:5299");
}
