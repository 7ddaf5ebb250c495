//! What lies in the folder of certificates, keys and secrets. Each part is taken by itself, once it
//! is whole and good; one that goes or breaks stays as last read, so that nothing that works is
//! taken down by what broke.

use std::{
    io,
    path::{Path, PathBuf},
};

use xmpp_edge_crds::{
    egress::EgressCredentials,
    pem::{self, PemError},
    sip_pairs::SipPairs,
};
use zeroize::Zeroizing;

use super::{ConfigSecrets, PemPair};
use crate::{
    contacts::Database,
    tls::{Identity, LeafIssuer, Roots},
};

/// Shortest dialback secret in octets.
const SECRET_OCTETS: usize = 16;
const ABSENT: &str = "it is not there";
/// A folder that is swapped while it is read is read again, so often at most.
const ATTEMPTS: usize = 3;

/// The folder with what was last good of it.
pub(super) struct Secrets {
    directory: PathBuf,
    certificate: SecretPart<PemPair>,
    issuer: SecretPart<PemPair>,
    internal_ca: SecretPart<String>,
    dialback: SecretPart<Dialback>,
    admin_token: SecretPart<Zeroizing<String>>,
    contacts: SecretPart<ContactsAccess>,
    egress: SecretPart<EgressCredentials>,
    sip: SecretPart<SipPairs>,
}

#[derive(Clone, PartialEq, Eq)]
struct Dialback {
    secret: Zeroizing<Vec<u8>>,
    previous: Option<Zeroizing<Vec<u8>>>,
}

#[derive(Clone, PartialEq, Eq)]
struct ContactsAccess {
    url: Zeroizing<String>,
    ca: Option<String>,
}

/// What no proxy of this configuration can do without, beside what none can.
#[derive(Clone, Copy)]
pub(super) struct Needed {
    pub(super) certificates: bool,
    /// The contacts' database.
    pub(super) contacts: bool,
    /// The egress proxy's credentials.
    pub(super) egress: bool,
}

/// The bytes of one file; none where there is no file.
type File = Option<Zeroizing<Vec<u8>>>;

/// What belongs together and comes as one file or two.
struct SecretPart<T> {
    /// For people: `the pool's certificate`.
    name: &'static str,
    /// The second may be optional.
    files: &'static [&'static str],
    seen: Option<Vec<File>>,
    last: Option<T>,
    trouble: Option<SecretTrouble>,
}

struct SecretTrouble {
    text: String,
    /// Seen in two looks: not the middle of a write.
    settled: bool,
}

impl Secrets {
    pub(super) fn new(directory: PathBuf) -> Self {
        Self {
            directory,
            certificate: SecretPart::new("the pool's certificate", &["tls.crt", "tls.key"]),
            issuer: SecretPart::new("the internal issuer", &["issuer.crt", "issuer.key"]),
            internal_ca: SecretPart::new("the internal CA", &["internal-ca.crt"]),
            dialback: SecretPart::new(
                "the dialback secret",
                &["dialback-secret", "dialback-previous"],
            ),
            admin_token: SecretPart::new("the admin token", &["admin-token"]),
            contacts: SecretPart::new(
                "the contacts' database",
                &["contacts-url", "contacts-uri", "contacts-ca.crt"],
            ),
            egress: SecretPart::new(
                "the egress proxy's credentials",
                &["egress-username", "egress-password"],
            ),
            sip: SecretPart::new("what SIP servers are shown", &["sip-pairs.json"]),
        }
    }

    /// Reads the folder. True where anything that counts is another than before.
    pub(super) fn look(&mut self) -> bool {
        let mut contents = Contents::read(&self.directory);
        [
            self.certificate.take(&mut contents, |files| {
                let pair = pair(files)?;
                if let Some(pair) = &pair {
                    Identity::from_pem(&pair.chain, &pair.key, "the chain and its key")
                        .map_err(|error| error.to_string())?;
                }
                Ok(pair)
            }),
            self.issuer.take(&mut contents, |files| {
                let pair = pair(files)?;
                if let Some(pair) = &pair {
                    LeafIssuer::new(&pair.chain, &pair.key, "the chain and its key")
                        .map_err(|error| error.to_string())?;
                }
                Ok(pair)
            }),
            self.internal_ca.take(&mut contents, |files| {
                let pem = pem_text(&files[0], no_certificates)?;
                if let Some(pem) = &pem {
                    Roots::from_pem(pem, "it").map_err(|error| error.to_string())?;
                }
                Ok(pem)
            }),
            self.dialback.take(&mut contents, dialback),
            self.admin_token.take(&mut contents, |files| {
                Ok(line(&files[0])?.filter(|token| !token.is_empty()))
            }),
            self.contacts.take(&mut contents, |files| {
                // Operators of PostgreSQL hand it out under `uri`.
                let url = line(&files[0])?.map_or_else(|| line(&files[1]), |url| Ok(Some(url)))?;
                let (Some(url), ca) = (url, pem_text(&files[2], no_certificates)?) else {
                    return Ok(None);
                };
                Database::parse(&url, ca.as_deref()).map_err(|error| error.to_string())?;
                Ok(Some(ContactsAccess { url, ca }))
            }),
            self.egress.take(&mut contents, |files| {
                let given = |file: &File| file.as_ref().map(|octets| octets.to_vec());
                match (given(&files[0]), given(&files[1])) {
                    (None, None) => Ok(None),
                    (username, password) => {
                        let (username, password) = (username.as_deref(), password.as_deref());
                        EgressCredentials::parse(username, password)
                            .map(Some)
                            .map_err(|error| error.to_string())
                    }
                }
            }),
            self.sip.take(&mut contents, |files| {
                let Some(file) = &files[0] else {
                    return Ok(None);
                };
                let pairs = SipPairs::parse(file).map_err(|error| error.to_string())?;
                for (gateway, pair) in &pairs.0 {
                    Identity::from_pem(&pair.chain, &pair.key, &format!("that of {gateway}"))
                        .map_err(|error| error.to_string())?;
                }
                Ok(Some(pairs))
            }),
        ]
        .contains(&true)
    }

    /// All that is there; none while what no proxy can do without is missing.
    pub(super) fn materials(&self) -> Option<ConfigSecrets> {
        let dialback = self.dialback.last.clone()?;
        let contacts = self.contacts.last.clone();
        Some(ConfigSecrets {
            certificate: self.certificate.last.clone(),
            internal_ca: self.internal_ca.last.clone()?,
            issuer: self.issuer.last.clone(),
            dialback_secret: dialback.secret,
            dialback_previous: dialback.previous,
            admin_token: self.admin_token.last.clone(),
            contacts_url: contacts.as_ref().map(|contacts| contacts.url.clone()),
            contacts_ca: contacts.and_then(|contacts| contacts.ca),
            egress_credentials: self.egress.last.clone(),
            sip_pairs: self.sip.last.clone().unwrap_or_default(),
        })
    }

    /// What is missing: without the certificates a proxy can start, and wait for them then.
    pub(super) fn missing(&self, needed: Needed) -> Vec<String> {
        [
            self.certificate.missing().filter(|_| needed.certificates),
            self.issuer.missing().filter(|_| needed.certificates),
            self.internal_ca.missing(),
            self.dialback.missing(),
            self.contacts.missing().filter(|_| needed.contacts),
            self.egress.missing().filter(|_| needed.egress),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    /// What stays as last read although it is gone or broken.
    pub(super) fn stale(&self) -> Vec<String> {
        [
            self.certificate.stale(),
            self.issuer.stale(),
            self.internal_ca.stale(),
            self.dialback.stale(),
            self.admin_token.stale(),
            self.contacts.stale(),
            self.egress.stale(),
            self.sip.stale(),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}

impl<T: PartialEq> SecretPart<T> {
    fn new(name: &'static str, files: &'static [&'static str]) -> Self {
        Self {
            name,
            files,
            seen: None,
            last: None,
            trouble: None,
        }
    }

    /// Takes what `read` makes of the files, where they changed. True where it is another.
    fn take(
        &mut self,
        contents: &mut Contents,
        read: impl Fn(&[File]) -> Result<Option<T>, String>,
    ) -> bool {
        let files = match contents.of(self.files) {
            Ok(files) => files,
            Err(text) => {
                self.seen = None;
                self.trouble(text);
                return false;
            }
        };
        if self.seen.as_ref() == Some(&files) {
            if let Some(trouble) = &mut self.trouble {
                trouble.settled = true;
            }
            return false;
        }
        let read = read(&files);
        self.seen = Some(files);
        match read {
            Ok(Some(value)) => {
                self.trouble = None;
                let changed = self.last.as_ref() != Some(&value);
                self.last = Some(value);
                changed
            }
            Ok(None) => {
                self.trouble(ABSENT.to_owned());
                false
            }
            Err(text) => {
                self.trouble(text);
                false
            }
        }
    }

    fn trouble(&mut self, text: String) {
        let settled = self.trouble.as_ref().is_some_and(|last| last.text == text);
        self.trouble = Some(SecretTrouble { text, settled });
    }

    fn missing(&self) -> Option<String> {
        if self.last.is_some() {
            return None;
        }
        let files = self.files[0];
        Some(match &self.trouble {
            Some(trouble) if trouble.text != ABSENT => {
                format!("{} ({files}: {})", self.name, trouble.text)
            }
            _ => format!("{} ({files})", self.name),
        })
    }

    fn stale(&self) -> Option<String> {
        let trouble = self.trouble.as_ref().filter(|trouble| trouble.settled)?;
        self.last.as_ref()?;
        Some(format!(
            "{} stays as last read: {}: {}",
            self.name,
            self.files.join(", "),
            trouble.text
        ))
    }
}

/// Every file of the folder that any part wants, of one moment.
struct Contents {
    files: Vec<(&'static str, Result<File, String>)>,
}

const FILES: [&str; 14] = [
    "tls.crt",
    "tls.key",
    "issuer.crt",
    "issuer.key",
    "internal-ca.crt",
    "dialback-secret",
    "dialback-previous",
    "admin-token",
    "contacts-url",
    "contacts-uri",
    "contacts-ca.crt",
    "egress-username",
    "egress-password",
    "sip-pairs.json",
];

impl Contents {
    fn read(directory: &Path) -> Self {
        // A mounted volume is a link that is swapped; what was read across that is of two moments.
        let link = directory.join("..data");
        for _ in 1..ATTEMPTS {
            let before = std::fs::read_link(&link).ok();
            let contents = Self::read_once(directory);
            if std::fs::read_link(&link).ok() == before {
                return contents;
            }
        }
        Self::read_once(directory)
    }

    fn read_once(directory: &Path) -> Self {
        let read = |name: &'static str| match std::fs::read(directory.join(name)) {
            Ok(bytes) => Ok(Some(Zeroizing::new(bytes))),
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(cause) => Err(format!("{name} cannot be read: {cause}")),
        };
        Self {
            files: FILES.into_iter().map(|name| (name, read(name))).collect(),
        }
    }

    fn of(&mut self, names: &[&str]) -> Result<Vec<File>, String> {
        names
            .iter()
            .map(|name| {
                let found = self.files.iter().find(|(own, _)| own == name);
                found.expect("every part's files are in FILES").1.clone()
            })
            .collect()
    }
}

fn text(file: &File) -> Result<Option<String>, String> {
    file.as_ref()
        .map(|bytes| String::from_utf8(bytes.to_vec()).map_err(|_| "it is no text".to_owned()))
        .transpose()
}

/// White space at either end is not meant: editors and `echo` leave it.
fn line(file: &File) -> Result<Option<Zeroizing<String>>, String> {
    let text = text(file)?.map(Zeroizing::new);
    Ok(text.map(|text| Zeroizing::new(text.trim().to_owned())))
}

/// PEM, whose comments may be in any encoding: what is no text at all is refused for what it is.
fn pem_text(
    file: &File,
    check: impl Fn(&[u8]) -> Option<PemError>,
) -> Result<Option<String>, String> {
    let Some(bytes) = file else { return Ok(None) };
    if std::str::from_utf8(bytes).is_err()
        && let Some(error) = check(bytes)
    {
        return Err(error.to_string());
    }
    Ok(Some(String::from_utf8_lossy(bytes).into_owned()))
}

fn no_certificates(bytes: &[u8]) -> Option<PemError> {
    pem::certificates(bytes).err()
}

fn pair(files: &[File]) -> Result<Option<PemPair>, String> {
    let chain = pem_text(&files[0], no_certificates)?;
    let key = pem_text(&files[1], |bytes| pem::private_key(bytes).err())?.map(Zeroizing::new);
    match (chain, key) {
        (Some(chain), Some(key)) => Ok(Some(PemPair { chain, key })),
        (None, None) => Ok(None),
        _ => Err("one of the two is there, both are needed".to_owned()),
    }
}

fn dialback(files: &[File]) -> Result<Option<Dialback>, String> {
    let octets = |file| Ok::<_, String>(line(file)?.map(|text| text.as_bytes().to_vec().into()));
    let Some(secret) = octets(&files[0])? else {
        return Ok(None);
    };
    let secret: Zeroizing<Vec<u8>> = secret;
    if secret.len() < SECRET_OCTETS {
        return Err(format!("{SECRET_OCTETS} octets at least are needed"));
    }
    let previous = octets(&files[1])?;
    Ok(Some(Dialback { secret, previous }))
}

#[cfg(test)]
mod tests;
