//! What looks like an accident (a full disk, a volume that is not mounted, a broken edit) costs nothing that worked, and
//! holds up no kill switch.

#![allow(clippy::unwrap_used)]
use super::{
    tests::{PARTNER, POOL, Site, edited, known, now},
    *,
};
use xmpp_edge_proxy::tls::SpkiSha256;

fn secret(name: &str, data: &str) -> String {
    format!(
        "---\napiVersion: v1\nkind: Secret\nmetadata: {{name: {name}}}\nstringData: {{{data}}}\n"
    )
}

#[test]
fn manifests_that_are_gone_stop_nothing_and_forget_nothing_but_kill_switches_count() {
    let key = PeerKey {
        partner: "p".to_owned(),
        key: SpkiSha256([1; 32]),
    };
    let partner = PARTNER.replace("p.example", "p.example, trust: {onKeyChange: Refuse}");
    let all = format!("{POOL}{partner}");
    let site = Site::new(&all);
    let mut station = site.open().unwrap();
    station.first(now()).unwrap();
    let first = station.record(&[key], now()).unwrap().unwrap();
    let memory = site.folder.path().join("state/manifests/a.yaml");
    let file = site.folder.path().join("manifests/a.yaml");
    let stays = |look: &Pass| {
        assert!(!look.changed && look.inputs.config == first.inputs.config);
        assert!(look.dns.is_none(), "records stay");
        let told: Vec<String> = look.notes.iter().map(ToString::to_string).collect();
        let is_told = |note: &&String| {
            let says = ["EdgePool default/hq is gone", "spec.suspended: true"];
            says.iter().all(|says| note.contains(says))
        };
        assert!(told.iter().any(|note| is_told(&note)), "{told:?}");
        assert_eq!(fs::read_to_string(&memory).unwrap(), all);
    };
    // Unmounted: an empty directory.
    fs::remove_file(&file).unwrap();
    stays(&edited(&mut station));
    let later = now() + SignedDuration::from_hours(48);
    stays(&station.renew(later).unwrap());
    site.write("# nothing");
    stays(&edited(&mut station));
    site.write(&partner);
    stays(&edited(&mut station));
    site.write(&partner.replace("p.example,", "p.example, suspended: true,"));
    let look = edited(&mut station);
    assert!(look.changed && look.inputs.config.partners[0].suspended);
    assert!(!look.inputs.config.suspended);
    site.write(&all);
    let look = edited(&mut station);
    assert!(look.notes.is_empty(), "{:?}", look.notes);
    assert_eq!(known(&look), ["01".repeat(32)]);
    assert!(!look.inputs.config.partners[0].suspended);
    drop(station);
    // Nothing of it is lost to the next start either.
    assert_eq!(
        known(&site.open().unwrap().first(now()).unwrap()),
        ["01".repeat(32)]
    );
}

#[test]
fn an_edit_that_is_not_taken_lifts_no_kill_switch() {
    let killed = |yaml: &str| yaml.replace("accessEdge:", "suspended: true, accessEdge:");
    let partner = PARTNER.replace("p.example", "p.example, suspended: true");
    let site = Site::new(&format!("{}{partner}", killed(POOL)));
    let mut station = site.open().unwrap();
    let both = |look: &Pass| {
        let config = &look.inputs.config;
        (config.suspended, config.partners[0].suspended)
    };
    assert_eq!(both(&station.first(now()).unwrap()), (true, true));
    let pool = POOL.replace("site: hq", "site: 7");
    for broken in [
        "p.example, tlsNegotiation: Perhaps",
        "'p..example'",
        "p.example, suspended: 7",
    ] {
        site.write(&format!("{pool}{}", PARTNER.replace("p.example", broken)));
        let look = edited(&mut station);
        assert_eq!(both(&look), (true, true), "{broken}");
        assert_eq!(look.notes[0].severity(), Severity::Error);
    }
    site.write(&format!("{POOL}{PARTNER}"));
    assert_eq!(
        both(&edited(&mut station)),
        (false, false),
        "a good one does"
    );
    // One that is not taken throws it all the same.
    site.write(&format!(
        "{}{}",
        killed(&pool),
        partner.replace("p.example,", "'p..example',")
    ));
    assert_eq!(both(&edited(&mut station)), (true, true));
}

#[test]
fn a_kill_switch_waits_for_nothing_that_cannot_be_written_or_had() {
    let site = Site::new(&format!("{POOL}{PARTNER}"));
    let mut station = site.open().unwrap();
    let first = station.first(now()).unwrap();
    let state = |file: &str| site.folder.path().join("state").join(file);
    // Directories and a file are in the way: not even root writes there.
    for file in ["status.json", "config.json", "gateways/org.example/tls.crt"] {
        fs::remove_file(state(file)).unwrap();
        fs::create_dir(state(file)).unwrap();
    }
    fs::remove_dir_all(state("manifests")).unwrap();
    fs::write(state("manifests"), "").unwrap();
    site.write(&format!(
        "{POOL}{}",
        PARTNER.replace("p.example", "p.example, suspended: true")
    ));
    let look = edited(&mut station);
    assert!(look.changed && look.inputs.config.partners[0].suspended);
    assert!(Arc::ptr_eq(&look.inputs.materials, &first.inputs.materials));
    let told: Vec<String> = look.notes.iter().map(ToString::to_string).collect();
    for says in ["status.json", "config.json", "manifests", "tls.crt"] {
        assert!(
            told.iter().any(|note| note.contains(says)),
            "{says:?} is not in {told:?}"
        );
    }
    // It is tried again, without a word each time, until all is written.
    assert!(station.poll(now()).unwrap().is_none());
    let later = now() + RETRY;
    assert!(station.poll(later).unwrap().is_none());
    for file in ["status.json", "config.json", "gateways/org.example/tls.crt"] {
        fs::remove_dir(state(file)).unwrap();
    }
    fs::remove_file(state("manifests")).unwrap();
    let mended = station.poll(later + RETRY).unwrap().expect("news");
    assert!(mended.notes.is_empty() && !mended.inputs.config.partners.is_empty());
    assert!(state("manifests/a.yaml").is_file() && state("status.json").is_file());
    assert_eq!(
        site.state("config.json")["hq"]["partners"][0]["suspended"],
        true
    );
    assert!(state("gateways/org.example/tls.crt").is_file());
}

#[test]
fn a_second_pool_is_told_of_before_the_next_start_fails_of_it() {
    let site = Site::new(POOL);
    let mut station = site.open().unwrap();
    station.first(now()).unwrap();
    let second = POOL
        .replace("name: hq", "name: dr")
        .replace("org.example", "other.example");
    site.write(&format!("{POOL}---\n{second}"));
    let look = edited(&mut station);
    let told: Vec<String> = look.notes.iter().map(ToString::to_string).collect();
    assert!(
        told.iter().any(|note| note.contains("--pool default/hq")),
        "{told:?}"
    );
}

#[test]
fn a_secret_that_breaks_stays_as_it_was_given_over_a_restart_too() {
    let pool = POOL.replace(
        "certificate:",
        "settings: {dialbackSecretRef: {name: of-dialback}, egressProxy: {address: 'proxy.example:1080', secretRef: {name: way-out}}}, \
         contacts: {postgres: {secretRef: {name: of-contacts}}}, certificate:",
    );
    let good = [
        secret("of-dialback", "secret: 0123456789abcdef0123456789abcdef"),
        secret("way-out", "username: edge, password: hunter2"),
        secret("of-contacts", "url: 'postgres://u:p@db.example/contacts'"),
    ]
    .concat();
    let site = Site::new(&format!("{pool}{good}"));
    let first = site.open().unwrap().first(now()).unwrap();
    assert!(first.notes.is_empty(), "{:?}", first.notes);
    for broken in [
        String::new(),
        secret("of-dialback", "secret: short")
            + &secret("way-out", "user: x")
            + &secret("of-contacts", "url: x"),
    ] {
        site.write(&format!("{pool}{broken}"));
        // The process is a new one.
        let again = site.open().unwrap().first(now()).unwrap();
        assert!(materials::same(
            &again.inputs.materials,
            &first.inputs.materials
        ));
        let told: Vec<String> = again.notes.iter().map(ToString::to_string).collect();
        for name in ["of-dialback", "way-out", "of-contacts"] {
            let note = told.iter().find(|note| note.contains(name)).expect(name);
            assert!(note.contains("stays in use"), "{note}");
        }
    }
    // What is wanted no more is kept no more.
    site.write(POOL);
    site.open().unwrap().first(now()).unwrap();
    let kept = site.folder.path().join("state/secrets/hq-last-given");
    assert_eq!(fs::read_dir(kept).unwrap().count(), 0);
}

#[test]
fn a_pool_that_cannot_be_read_keeps_its_secrets_and_the_documents_of_its_sidecars() {
    let pool = POOL
        .replace(
            "certificate:",
            "settings: {dialbackSecretRef: {name: of-dialback}, egressProxy: {address: 'proxy.example:1080', secretRef: {name: way-out}}}, \
             contacts: {postgres: {secretRef: {name: of-contacts}}}, certificate:",
        )
        .replace(
            "address: 'inside.example:5269'",
            "mode: Sidecar, sidecar: {serverAddress: '[::1]:5299', edges: ['far.example:1']}",
        );
    let secrets = [
        secret("of-dialback", "secret: 0123456789abcdef0123456789abcdef"),
        secret("way-out", "username: edge, password: hunter2"),
        secret("of-contacts", "url: 'postgres://u:p@db.example/contacts'"),
    ]
    .concat();
    let site = Site::new(&format!("{pool}{secrets}"));
    let mut station = site.open().unwrap();
    let first = station.first(now()).unwrap();
    let document = || {
        let file = "state/sidecars/org.example/sidecar.json";
        fs::read_to_string(site.folder.path().join(file)).unwrap()
    };
    let before = document();
    assert!(before.contains("[::1]:5299") && before.contains("far.example:1"));
    for other in [secrets.clone(), pool.replace("site: hq", "site: 7")] {
        site.write(&other);
        let look = edited(&mut station);
        assert_eq!(document(), before, "{other}");
        assert!(materials::same(
            &look.inputs.materials,
            &first.inputs.materials
        ));
    }
    drop(station);
    // The process is a new one.
    let mut station = site.open().unwrap();
    let again = station.first(now()).unwrap();
    assert_eq!(document(), before);
    assert!(materials::same(
        &again.inputs.materials,
        &first.inputs.materials
    ));
    let moved = pool.replace("[::1]:5299", "[::1]:5300");
    site.write(&format!("{moved}{secrets}"));
    edited(&mut station);
    assert!(document().contains("[::1]:5300"), "a good one is written");
}

#[test]
fn credentials_of_one_egress_proxy_are_sent_to_no_other() {
    let pool = |proxy: &str, name: &str| {
        let settings = format!(
            "settings: {{egressProxy: {{address: '{proxy}', secretRef: {{name: {name}}}}}}}, certificate:"
        );
        POOL.replace("certificate:", &settings)
    };
    let mine = secret("mine", "username: edge, password: hunter2");
    let theirs = secret("theirs", "username: other, password: swordfish");
    let of = |look: &Pass| {
        let materials = &look.inputs.materials;
        let credentials = materials.egress_credentials.as_ref();
        credentials.map(|it| it.username().to_owned())
    };
    let good = pool("one.example:1080", "mine");
    let site = Site::new(&format!("{good}{mine}"));
    let first = site.open().unwrap().first(now()).unwrap();
    assert_eq!(of(&first).as_deref(), Some("edge"));
    // What is not taken changes neither the proxy nor what it is sent.
    let refused = pool("two.example:1080", "theirs").replace("edge.org.example", "'edge..example'");
    site.write(&format!("{refused}{theirs}"));
    let look = site.open().unwrap().first(now()).unwrap();
    let proxy = look.inputs.config.settings.egress_proxy.as_ref().unwrap();
    assert_eq!(proxy.address.to_string(), "one.example:1080");
    assert_eq!(of(&look).as_deref(), Some("edge"));
    site.write(&pool("one.example:1080", "gone"));
    let look = site.open().unwrap().first(now()).unwrap();
    assert_eq!(of(&look).as_deref(), Some("edge"), "it is the same proxy");
    site.write(&pool("two.example:1080", "gone"));
    let look = site.open().unwrap().first(now()).unwrap();
    let proxy = look.inputs.config.settings.egress_proxy.as_ref().unwrap();
    assert_eq!(proxy.address.to_string(), "two.example:1080");
    assert_eq!(of(&look), None);
    let told: Vec<String> = look.notes.iter().map(ToString::to_string).collect();
    let note = told.iter().find(|note| note.contains("\"gone\""));
    assert!(!note.unwrap().contains("stays in use"), "{told:?}");
}

#[test]
fn secrets_that_cannot_be_remembered_are_used_all_the_same() {
    let pool = POOL.replace(
        "certificate:",
        "settings: {dialbackSecretRef: {name: of-dialback}}, certificate:",
    );
    let secret = "---\napiVersion: v1\nkind: Secret\nmetadata: {name: of-dialback}\nstringData: {secret: 0123456789abcdef}\n";
    let site = Site::new(&format!("{pool}{secret}"));
    let taken = "state/secrets/hq-last-given/dialback-secret";
    fs::create_dir_all(site.folder.path().join(taken)).unwrap();
    let first = site.open().unwrap().first(now()).unwrap();
    assert_eq!(
        &**first.inputs.materials.dialback_secret,
        b"0123456789abcdef"
    );
    let told: Vec<String> = first.notes.iter().map(ToString::to_string).collect();
    assert!(
        told.iter().any(|note| note.contains("hq-last-given")),
        "{told:?}"
    );
}
