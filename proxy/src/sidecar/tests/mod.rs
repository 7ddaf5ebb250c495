#![allow(clippy::unwrap_used)]

mod files;

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use jiff::{SignedDuration, Timestamp};
use tempfile::TempDir;
use xmpp_edge_crds::{
    domain::DomainName,
    sidecar_config::{OtherGatewayDocument, SidecarConfig, SidecarDocument},
};

use super::*;
use crate::tls::{Identity, LeafIssuer, Role, Roots, Trust};

struct Folder {
    directory: TempDir,
    state: StateDir,
}

impl Folder {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let state = StateDir::open(directory.path().join("state")).unwrap();
        Self { directory, state }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join("state").join(name)
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    }

    /// Everything in it, to see that nothing changed.
    fn contents(&self) -> Vec<(PathBuf, String)> {
        let mut found = Vec::new();
        gather(&self.path(""), &mut found);
        found.sort();
        found
    }

    fn authority(&self, config: &SidecarConfig) -> Result<LoopbackAuthority, StateError> {
        LoopbackAuthority::ensure(&self.state, config, Timestamp::now())
    }
}

fn gather(folder: &Path, found: &mut Vec<(PathBuf, String)>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            gather(&path, found);
        } else {
            let text = fs::read_to_string(&path).unwrap();
            found.push((path, text));
        }
    }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

fn config(own: &[&str], other: Option<&str>) -> SidecarConfig {
    let own = own.iter().map(|domain| (*domain).to_owned()).collect();
    let mut document = SidecarDocument::new("chat", "org.example", own);
    document.other_gateways = other
        .map(|domain| OtherGatewayDocument {
            domains: vec![domain.to_owned()],
            address: None,
        })
        .into_iter()
        .collect();
    SidecarConfig::parse(document.to_json().as_bytes(), "test").unwrap()
}

fn leaves(authority: &LoopbackAuthority) -> LeafIssuer {
    let pair = authority.pair();
    LeafIssuer::new(&pair.chain, &pair.key, "test").unwrap()
}

fn domain(text: &str) -> DomainName {
    DomainName::parse(text).unwrap()
}

#[test]
fn a_key_is_made_once_for_its_owner_alone_and_survives() {
    let folder = Folder::new();
    let first = SidecarIdentity::ensure(&folder.state).unwrap();
    assert_eq!(mode(&folder.path("tls.key")), 0o600);
    assert_eq!(mode(&folder.path("")), 0o711);
    let before = folder.contents();
    let again = SidecarIdentity::ensure(&folder.state).unwrap();
    assert_eq!(again.spki_sha256(), first.spki_sha256());
    assert_eq!(folder.contents(), before);
    // What edges see is that key, good for a client, and does not end.
    let pair = first.pair();
    let identity = Identity::from_pem(&pair.chain, pair.key.as_str(), "test").unwrap();
    assert_eq!(identity.spki_sha256(), first.spki_sha256());
    assert!(identity.for_client() && identity.dns_names().is_empty());
    let century = SignedDuration::from_hours(24 * 36_500);
    assert!(identity.not_after() > Timestamp::now() + century);
    let other = SidecarIdentity::ensure(&Folder::new().state).unwrap();
    assert_ne!(other.spki_sha256(), first.spki_sha256());
}

#[test]
fn of_many_that_start_at_once_all_have_the_same_key() {
    let folder = Folder::new();
    let hashes: Vec<_> = std::thread::scope(|scope| {
        let starts: Vec<_> = (0..8)
            .map(|_| {
                scope.spawn(|| {
                    SidecarIdentity::ensure(&folder.state)
                        .unwrap()
                        .spki_sha256()
                })
            })
            .collect();
        starts.into_iter().map(|it| it.join().unwrap()).collect()
    });
    assert!(
        hashes.windows(2).all(|pair| pair[0] == pair[1]),
        "{hashes:?}"
    );
}

#[test]
fn a_certificate_that_a_power_cut_left_out_is_made_from_the_key() {
    let folder = Folder::new();
    let first = SidecarIdentity::ensure(&folder.state).unwrap();
    fs::remove_file(folder.path("tls.crt")).unwrap();
    fs::write(folder.path("tls.key.new"), "half a k").unwrap();
    let again = SidecarIdentity::ensure(&folder.state).unwrap();
    assert_eq!(again.spki_sha256(), first.spki_sha256());
}

#[test]
fn a_broken_state_is_told_with_a_remedy_and_not_overwritten() {
    let whole = Folder::new();
    SidecarIdentity::ensure(&whole.state).unwrap();
    whole.authority(&config(&["org.example"], None)).unwrap();
    let key = whole.read("tls.key");
    let other = Folder::new();
    SidecarIdentity::ensure(&other.state).unwrap();
    let cut = &key[..key.len() / 2];
    let cases: &[(&str, Option<&str>, &str)] = &[
        ("tls.key", Some(""), "no private key found"),
        ("tls.key", Some("hello"), "no private key found"),
        ("tls.key", Some(cut), "the file is cut short"),
        ("tls.key", None, "tls.key is gone"),
        ("tls.key", Some(&other.read("tls.key")), "does not belong"),
        ("tls.crt", Some("hello"), "holds no certificate"),
        ("tls.crt", Some(&other.read("tls.crt")), "does not belong"),
        ("loopback-ca.key", Some("hello"), "no private key found"),
        ("loopback-ca.key", None, "loopback-ca.key is gone"),
        ("loopback-ca.key", Some(&key), "does not belong"),
        ("public/ca.crt", Some(""), "holds no certificate"),
    ];
    for (name, text, expected) in cases {
        let folder = Folder::new();
        fs::create_dir(folder.path("public")).unwrap();
        for kept in ["tls.key", "tls.crt", "loopback-ca.key", "public/ca.crt"] {
            folder.write(kept, &whole.read(kept));
        }
        match text {
            Some(text) => folder.write(name, text),
            None => fs::remove_file(folder.path(name)).unwrap(),
        }
        fs::write(folder.path("lock"), "").unwrap();
        let before = folder.contents();
        let said = match name.starts_with("tls") {
            true => SidecarIdentity::ensure(&folder.state).map(drop),
            false => folder.authority(&config(&["org.example"], None)).map(drop),
        };
        let said = said.unwrap_err().to_string();
        let place = folder.path(name.split('.').next().unwrap());
        assert!(said.contains(expected), "{name}: {said}");
        assert!(
            said.contains(&place.parent().unwrap().display().to_string()),
            "{said}"
        );
        assert!(said.contains("Restore it, or move "), "{name}: {said}");
        assert_eq!(folder.contents(), before, "{name}");
    }
}

#[test]
fn a_key_that_every_user_may_read_is_refused() {
    let folder = Folder::new();
    SidecarIdentity::ensure(&folder.state).unwrap();
    let set = |mode| {
        let permissions = fs::Permissions::from_mode(mode);
        fs::set_permissions(folder.path("tls.key"), permissions).unwrap();
    };
    set(0o644);
    let said = SidecarIdentity::ensure(&folder.state)
        .unwrap_err()
        .to_string();
    assert!(
        said.contains("mode 644") && said.contains("chmod 600"),
        "{said}"
    );
    // A volume that was given to a group stays usable.
    set(0o660);
    SidecarIdentity::ensure(&folder.state).unwrap();
}

#[test]
fn a_folder_that_cannot_be_one_is_told() {
    let folder = Folder::new();
    folder.write("file", "");
    let error = StateDir::open(folder.path("file/state")).unwrap_err();
    let said = error.to_string();
    assert!(said.contains("file/state cannot be written: "), "{said}");
    assert!(said.contains("--state names a folder"), "{said}");
    // A folder where a file belongs, and what is no text.
    fs::create_dir(folder.path("tls.key")).unwrap();
    let said = SidecarIdentity::ensure(&folder.state)
        .unwrap_err()
        .to_string();
    assert!(
        said.contains("tls.key cannot be read: it is no file"),
        "{said}"
    );
}

#[test]
fn leaves_are_good_for_partners_and_for_no_own_domain() {
    let folder = Folder::new();
    let config = config(&["org.example"], Some("lab.example"));
    let authority = folder.authority(&config).unwrap();
    let ca = folder.read("public/ca.crt");
    assert_eq!(ca, authority.pair().chain);
    assert_eq!(mode(&folder.path("public/ca.crt")), 0o644);
    assert_eq!(mode(&folder.path("public")), 0o755);
    assert_eq!(mode(&folder.path("loopback-ca.key")), 0o600);
    let trust = Trust::new(Roots::from_pem(ca, "ca.crt").unwrap());
    let leaves = leaves(&authority);
    for (name, good) in [
        ("partner.example", true),
        ("notorg.example", true),
        ("org.example", false),
        ("below.org.example", false),
        ("lab.example", false),
    ] {
        let name = domain(name);
        let leaf = leaves.leaf(&name).unwrap();
        let judged = trust.judge(&name, leaf.chain(), Role::Server, None);
        assert_eq!(judged.is_ok(), good, "{name}");
    }
}

/// What servers use: Prosody and ejabberd judge by OpenSSL.
#[test]
fn openssl_judges_leaves_as_we_do() {
    use base64::Engine as _;
    let folder = Folder::new();
    let config = config(&["org.example"], None);
    let leaves = leaves(&folder.authority(&config).unwrap());
    for (name, good) in [("partner.example", true), ("below.org.example", false)] {
        let leaf = leaves.leaf(&domain(name)).unwrap();
        let der = base64::engine::general_purpose::STANDARD.encode(&leaf.chain()[0]);
        let lines: Vec<_> = der
            .as_bytes()
            .chunks(64)
            .map(String::from_utf8_lossy)
            .collect();
        let pem = format!(
            "-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n",
            lines.join("\n")
        );
        folder.write("leaf.pem", &pem);
        let output = std::process::Command::new("openssl")
            .args([
                "verify",
                "-x509_strict",
                "-verify_hostname",
                name,
                "-CAfile",
            ])
            .args([folder.path("public/ca.crt"), folder.path("leaf.pem")])
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.success(), good, "{name}: {said}");
        assert!(
            good || said.contains("excluded subtree violation"),
            "{said}"
        );
    }
}

#[test]
fn an_authority_stays_until_own_domains_change_and_keeps_its_key_then() {
    let folder = Folder::new();
    let one = config(&["org.example"], None);
    folder.authority(&one).unwrap();
    let (first, key) = (folder.read("public/ca.crt"), folder.read("loopback-ca.key"));
    folder.authority(&one).unwrap();
    assert_eq!(folder.read("public/ca.crt"), first);
    let more = folder
        .authority(&config(&["org.example"], Some("new.example")))
        .unwrap();
    assert_ne!(folder.read("public/ca.crt"), first);
    assert_eq!(folder.read("loopback-ca.key"), key);
    // A server that has read the first one alone takes leaves of the second.
    let trust = Trust::new(Roots::from_pem(first, "ca.crt").unwrap());
    let partner = domain("partner.example");
    let leaf = leaves(&more).leaf(&partner).unwrap();
    trust
        .judge(&partner, leaf.chain(), Role::Server, None)
        .unwrap();
    let trust = Trust::new(Roots::from_pem(folder.read("public/ca.crt"), "ca.crt").unwrap());
    let own = domain("new.example");
    let leaf = leaves(&more).leaf(&own).unwrap();
    assert!(trust.judge(&own, leaf.chain(), Role::Server, None).is_err());
}

#[test]
fn an_authority_is_signed_anew_with_a_third_of_its_life_left() {
    let folder = Folder::new();
    let config = config(&["org.example"], None);
    let now = Timestamp::now();
    let at = |time| {
        LoopbackAuthority::ensure(&folder.state, &config, time).unwrap();
        folder.read("public/ca.crt")
    };
    let first = at(now);
    assert_eq!(at(now + SignedDuration::from_hours(24 * 365 * 6)), first);
    assert_ne!(at(now + SignedDuration::from_hours(24 * 365 * 7)), first);
}
