//! A signed tree of zones, from a root of its own downwards: a real Knot signs and serves it.
//!
//! Keys are made before the server starts, so that the root can vouch for its children at once.

use std::{
    fs,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, ensure};

use crate::process::Daemon;

const KNOTD: &str = "/usr/sbin/knotd";
const KEYMGR: &str = "/usr/sbin/keymgr";
const ALGORITHM: &str = "ECDSAP256SHA256";
/// What a start may take.
const START: Duration = Duration::from_secs(20);

/// How a zone is signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signing {
    /// Not at all, and the root proves that.
    Unsigned,
    /// With NSEC.
    Nsec,
    /// With NSEC3.
    Nsec3,
    /// With NSEC, by BIND's tools, before Knot serves it.
    Offline,
    /// Well, but by keys that the root does not vouch for: as a forger would.
    Forged,
    /// As [`Self::Offline`], with signatures that ended long ago.
    Expired,
    /// With NSEC, but the root does not vouch for it and proves that: a roll-out that has just begun.
    Island,
    /// As [`Self::Island`], and the zone shows signatures but no keys.
    Keyless,
    /// With NSEC, and the root vouches for it by an algorithm that nobody knows alone.
    UnknownAlgorithm,
    /// As [`Self::Offline`], with RSA and SHA-1.
    Sha1,
    /// As [`Self::Offline`], with NSEC3 of more iterations than validators like (RFC 9276 section 3.2).
    Iterated,
}

/// One zone of the tree, a child of the root.
#[derive(Clone, Debug)]
pub struct Zone {
    pub name: String,
    pub signing: Signing,
    /// Lines of a zone file, relative to the name; SOA and NS are added.
    pub records: String,
}

/// The running server.
pub struct SignedTree {
    ip: Ipv4Addr,
    anchors: PathBuf,
    hints: PathBuf,
    _daemon: Daemon,
}

impl SignedTree {
    /// Signs and serves `zones` on port 53 of `ip`; files go to `directory`, which is made.
    ///
    /// # Errors
    /// When a tool is missing or the server does not get ready; carries the end of its log.
    pub async fn start(ip: Ipv4Addr, directory: &Path, zones: &[Zone]) -> Result<Self> {
        fs::create_dir_all(directory.join("keys"))?;
        let site = SignedSite { ip, directory };
        site.write("knot.conf", &site.configuration(zones))?;
        site.make_keys(".")?;
        let mut delegations = String::new();
        for zone in zones {
            let name = &zone.name;
            let text = site.zone(name, &zone.records);
            site.write(&file(name), &text)?;
            delegations += &format!("{name}. NS ns.{name}.\nns.{name}. A {ip}\n");
            delegations += &match zone.signing {
                Signing::Unsigned => String::new(),
                Signing::Island => {
                    site.make_keys(name)?;
                    String::new()
                }
                Signing::Keyless => {
                    site.sign_offline(name, ALGORITHM, &["-O", "full", "-e", "+86400"])?;
                    site.take_keys_away(name)?;
                    String::new()
                }
                Signing::Nsec | Signing::Nsec3 => {
                    site.make_keys(name)?;
                    site.keymgr(name, &["ds"])?
                }
                Signing::Forged => {
                    // The root vouches for keys that the zone does not have.
                    site.make_keys(name)?;
                    flipped(&site.keymgr(name, &["ds"])?)
                }
                Signing::UnknownAlgorithm => {
                    site.make_keys(name)?;
                    let known = site.keymgr(name, &["ds"])?;
                    let unknown = known.replace(" 13 ", " 200 ");
                    ensure!(known != unknown, "{ALGORITHM} is not 13 in {known}");
                    unknown
                }
                Signing::Offline => site.sign_offline(name, ALGORITHM, &["-e", "+86400"])?,
                Signing::Sha1 => site.sign_offline(name, "RSASHA1", &["-e", "+86400"])?,
                Signing::Iterated => {
                    let many = ["-e", "+86400", "-3", "-", "-H", "150"];
                    site.sign_offline(name, ALGORITHM, &many)?
                }
                Signing::Expired => {
                    let past = ["-s", "20200101000000", "-e", "20200201000000"];
                    site.sign_offline(name, ALGORITHM, &past)?
                }
            };
        }
        let root = format!(
            "$ORIGIN .\n$TTL 60\n@ SOA ns.root. admin.root. 1 3600 60 600000 60\n@ NS ns.root.\n\
             ns.root. A {ip}\n{delegations}"
        );
        site.write("root.zone", &root)?;
        let anchor = site.keymgr(".", &["dnskey"])?;
        site.write("anchors", &anchor.replace(" DNSKEY ", " IN DNSKEY "))?;
        site.write(
            "hints",
            &format!(". 3600 IN NS ns.root.\nns.root. 3600 IN A {ip}\n"),
        )?;
        let mut daemon = Daemon::start(
            &format!("knotd at {ip}"),
            Path::new(KNOTD),
            &["-c".to_owned(), site.path("knot.conf")],
            &[],
            &directory.join("knot.log"),
        )?;
        daemon.await_line("server started", START).await?;
        Ok(Self {
            ip,
            anchors: directory.join("anchors"),
            hints: directory.join("hints"),
            _daemon: daemon,
        })
    }

    /// Where it answers, without recursion.
    pub fn ip(&self) -> Ipv4Addr {
        self.ip
    }

    /// The root's key-signing key, a DNSKEY record a line.
    pub fn anchors(&self) -> &Path {
        &self.anchors
    }

    /// Where the root is, for resolvers.
    pub fn hints(&self) -> &Path {
        &self.hints
    }
}

/// Where the files are made.
struct SignedSite<'a> {
    ip: Ipv4Addr,
    directory: &'a Path,
}

impl SignedSite<'_> {
    fn path(&self, name: &str) -> String {
        self.directory.join(name).display().to_string()
    }

    fn write(&self, name: &str, text: &str) -> Result<()> {
        let path = self.path(name);
        fs::write(&path, text).with_context(|| path)
    }

    fn zone(&self, name: &str, records: &str) -> String {
        format!(
            "$ORIGIN {name}.\n$TTL 60\n@ SOA ns admin 1 3600 60 600000 60\n@ NS ns\nns A {}\n{records}",
            self.ip
        )
    }

    fn configuration(&self, zones: &[Zone]) -> String {
        let policy = |id: &str, nsec3: &str| {
            format!(
                "  - id: {id}\n    algorithm: {ALGORITHM}\n    ksk-lifetime: 0\n    \
                 zsk-lifetime: 0\n    nsec3: {nsec3}\n"
            )
        };
        let mut text = format!(
            "server:\n    rundir: \"{directory}\"\n    listen: {ip}@53\n    udp-workers: 1\n    \
             tcp-workers: 1\n    background-workers: 1\ndatabase:\n    storage: \"{keys}\"\nlog:\n  \
             - target: stderr\n    any: info\npolicy:\n{nsec}{nsec3}zone:\n",
            directory = self.directory.display(),
            ip = self.ip,
            keys = self.path("keys"),
            nsec = policy("nsec", "off"),
            nsec3 = policy("nsec3", "on"),
        );
        let mut zone = |name: &str, file: &str, policy: Option<&str>| {
            text += &format!(
                "  - domain: {name}\n    file: \"{}\"\n    zonefile-sync: -1\n",
                self.path(file)
            );
            if let Some(policy) = policy {
                text += &format!("    dnssec-signing: on\n    dnssec-policy: {policy}\n");
            }
        };
        zone(".", "root.zone", Some("nsec"));
        for child in zones {
            let policy = match child.signing {
                Signing::Unsigned
                | Signing::Offline
                | Signing::Expired
                | Signing::Keyless
                | Signing::Sha1
                | Signing::Iterated => None,
                Signing::Nsec | Signing::Forged | Signing::Island | Signing::UnknownAlgorithm => {
                    Some("nsec")
                }
                Signing::Nsec3 => Some("nsec3"),
            };
            zone(&child.name, &file(&child.name), policy);
        }
        text
    }

    /// A key-signing key and a zone-signing key.
    fn make_keys(&self, zone: &str) -> Result<()> {
        let algorithm = format!("algorithm={ALGORITHM}");
        self.keymgr(zone, &["generate", &algorithm, "ksk=yes", "zsk=no"])?;
        self.keymgr(zone, &["generate", &algorithm, "ksk=no", "zsk=yes"])?;
        Ok(())
    }

    fn keymgr(&self, zone: &str, arguments: &[&str]) -> Result<String> {
        let configuration = self.path("knot.conf");
        let all = [&["-c", &configuration, zone], arguments].concat();
        self.run(KEYMGR, &all)
    }

    /// Signs the zone's file in place, for a time and in a way in the tool's own words; the DS records.
    fn sign_offline(&self, name: &str, algorithm: &str, how: &[&str]) -> Result<String> {
        let bits: &[&str] = if algorithm.starts_with("RSA") {
            &["-b", "2048"]
        } else {
            &[]
        };
        let key = |more: &[&str]| {
            let folder = self.path("");
            let all = [
                &["-q", "-a", algorithm, "-K", folder.as_str()],
                bits,
                more,
                &[name],
            ]
            .concat();
            self.run("dnssec-keygen", &all)
        };
        let ksk = key(&["-f", "KSK"])?;
        key(&[])?;
        let signed = self.path("signed");
        let (folder, zone) = (self.path(""), self.path(&file(name)));
        let arguments = [
            &["-q", "-P", "-S", "-K", folder.as_str()],
            how,
            &["-o", name, "-f", signed.as_str(), zone.as_str()],
        ]
        .concat();
        self.run("dnssec-signzone", &arguments)?;
        fs::rename(&signed, &zone)?;
        let public = self.path(&format!("{}.key", ksk.trim()));
        self.run("dnssec-dsfromkey", &["-2", &public])
    }

    /// Leaves out the keys of a signed zone; signatures stay. Each record is a line.
    fn take_keys_away(&self, name: &str) -> Result<()> {
        let signed = fs::read_to_string(self.path(&file(name)))?;
        let without: Vec<_> = signed
            .lines()
            .filter(|line| line.split_whitespace().nth(3) != Some("DNSKEY"))
            .collect();
        ensure!(without.len() < signed.lines().count(), "no keys in {name}");
        self.write(&file(name), &(without.join("\n") + "\n"))
    }

    fn run(&self, program: &str, arguments: &[&str]) -> Result<String> {
        let done = Command::new(program)
            .args(arguments)
            .current_dir(self.directory)
            .output()
            .with_context(|| format!("{program}: is it installed? tests/install does that"))?;
        ensure!(
            done.status.success(),
            "{program} {arguments:?}: {}",
            String::from_utf8_lossy(&done.stderr)
        );
        Ok(String::from_utf8(done.stdout)?)
    }
}

fn file(zone: &str) -> String {
    format!("{zone}.zone")
}

/// DS records whose digests are of other keys.
fn flipped(records: &str) -> String {
    records
        .lines()
        .map(|line| {
            let last = match line.chars().last() {
                Some('0') => '1',
                _ => '0',
            };
            let cut = line.len().saturating_sub(1);
            format!("{}{last}\n", &line[..cut])
        })
        .collect()
}
