//! A CA that signs requests by hand, as an organisation's would: openssl, with an intermediate below
//! its root.

use std::{fs, path::Path, process::Command};

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use super::{VALID_DAYS, Validity};

/// `openssl ca` for requests: a database, any subject, names from the request or from the call.
const CONFIGURATION: &str = "
[ca]
default_ca = by_hand
[by_hand]
database = index
serial = serial
new_certs_dir = .
default_md = sha256
unique_subject = no
policy = anything
copy_extensions = copy
[anything]
countryName = optional
stateOrProvinceName = optional
localityName = optional
organizationName = optional
organizationalUnitName = optional
commonName = optional
";

/// Days that a right certificate is valid: more than its issuer, as happens by hand.
const SIGNED_DAYS: i64 = 1500;

/// What becomes of a request.
#[derive(Clone, Copy, Debug)]
pub struct SigningRules<'a> {
    pub validity: Validity,
    /// In place of those asked for.
    pub names: Option<&'a [&'a str]>,
    /// By mistake a CA's certificate.
    pub ca: bool,
}

impl SigningRules<'_> {
    /// As it was asked for.
    pub const RIGHT: Self = Self {
        validity: Validity::Now,
        names: None,
        ca: false,
    };
}

/// A root, and an intermediate that signs.
pub struct Signer {
    folder: TempDir,
    /// PEM.
    pub root: String,
    /// PEM.
    pub intermediate: String,
}

impl Signer {
    /// New keys and certificates.
    ///
    /// # Errors
    /// When openssl is not here or fails.
    pub fn new() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let at = folder.path();
        for (file, content) in [
            ("configuration", CONFIGURATION),
            ("index", ""),
            ("index.attr", "unique_subject = no\n"),
            ("serial", "1000\n"),
            (
                "authority",
                "basicConstraints=critical,CA:TRUE\nkeyUsage=keyCertSign,cRLSign\n",
            ),
        ] {
            fs::write(at.join(file), content)?;
        }
        let key = [
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
        ];
        let root = ["req", "-x509", "-subj", "/CN=By Hand Root", "-days", "3650"];
        openssl(
            at,
            &[
                &root[..],
                &key,
                &["-keyout", "root.key", "-out", "root.pem"],
            ]
            .concat(),
        )?;
        let request = ["req", "-new", "-subj", "/CN=By Hand Issuing CA"];
        openssl(
            at,
            &[
                &request[..],
                &key,
                &["-keyout", "issuing.key", "-out", "issuing.csr"],
            ]
            .concat(),
        )?;
        openssl(
            at,
            &[
                "x509",
                "-req",
                "-in",
                "issuing.csr",
                "-CA",
                "root.pem",
                "-CAkey",
                "root.key",
                "-set_serial",
                "2",
                "-days",
                "1000",
                "-extfile",
                "authority",
                "-out",
                "issuing.pem",
            ],
        )?;
        let read = |file: &str| fs::read_to_string(at.join(file));
        let (root, intermediate) = (read("root.pem")?, read("issuing.pem")?);
        Ok(Self {
            folder,
            root,
            intermediate,
        })
    }

    /// The certificate for a request, PEM, without its issuers.
    ///
    /// # Errors
    /// When openssl refuses the request.
    pub fn sign(&self, request: &str, how: SigningRules<'_>) -> Result<String> {
        let at = self.folder.path();
        fs::write(at.join("request"), request)?;
        let ca = if how.ca { "TRUE" } else { "FALSE" };
        let mut extensions =
            format!("basicConstraints=critical,CA:{ca}\nextendedKeyUsage=serverAuth,clientAuth\n");
        if let Some(names) = how.names {
            let names: Vec<String> = names.iter().map(|name| format!("DNS:{name}")).collect();
            // What is written here is not copied from the request.
            extensions.push_str(&format!("subjectAltName={}\n", names.join(",")));
        }
        fs::write(at.join("extensions"), extensions)?;
        let second = |from_now: i64| {
            let at = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(from_now);
            at.strftime("%Y%m%d%H%M%SZ").to_string()
        };
        let day = |days: i64| second(24 * 3600 * days);
        let (from, to) = match how.validity {
            Validity::Now => (day(-1), day(SIGNED_DAYS)),
            Validity::EndsSoon => (day(-VALID_DAYS), day(5)),
            Validity::Expired => (day(-VALID_DAYS), day(-1)),
            Validity::NotYet => (day(2), day(SIGNED_DAYS)),
            Validity::Seconds(seconds) => (day(-1), second(seconds.into())),
        };
        openssl(
            at,
            &[
                "ca",
                "-batch",
                "-notext",
                "-config",
                "configuration",
                "-cert",
                "issuing.pem",
                "-keyfile",
                "issuing.key",
                "-extfile",
                "extensions",
                "-startdate",
                &from,
                "-enddate",
                &to,
                "-in",
                "request",
                "-out",
                "signed.pem",
            ],
        )?;
        Ok(fs::read_to_string(at.join("signed.pem"))?)
    }
}

/// What a request says, as openssl prints it.
///
/// # Errors
/// When it is none, or is not signed with its own key.
pub fn describe_request(request: &str) -> Result<String> {
    let folder = tempfile::tempdir()?;
    fs::write(folder.path().join("request"), request)?;
    openssl(
        folder.path(),
        &["req", "-in", "request", "-noout", "-verify", "-text"],
    )
}

fn openssl(at: &Path, arguments: &[&str]) -> Result<String> {
    let mut command = Command::new("openssl");
    let output = command
        .args(arguments)
        .current_dir(at)
        .output()
        .context("openssl")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "openssl {arguments:?}: {said}");
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
