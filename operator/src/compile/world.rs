//! What is compiled: the objects of one namespace and what they refer to, as they stand now.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use jiff::Timestamp;
use kube::ResourceExt;
use xmpp_edge_crds::{
    kinds::{
        EdgePool, ExternalAccessPolicy, XmppFederatedPartner, conditions::Reason,
        fields::ConfigMapKeyRef,
    },
    pem::{self, PemError},
};

use super::diagnostic::{Fault, ObjectRef};
use crate::{secrets::store::SecretData, text::listed};

/// Bytes that are kept of a value that is no text: enough to say what it is.
pub const BINARY_BYTES: usize = 64;
/// U+FEFF, which editors of Windows put before a text.
const BYTE_ORDER_MARK: char = '\u{feff}';

/// One namespace.
#[derive(Clone, Debug, Default)]
pub struct NamespaceInputs {
    pub namespace: String,
    pub pools: Vec<EdgePool>,
    pub partners: Vec<XmppFederatedPartner>,
    pub policies: Vec<ExternalAccessPolicy>,
    /// Objects that are there but cannot be read as their kind: what was compiled of them stays.
    pub broken: BTreeMap<ObjectRef, Undecodable>,
    /// `data` of each ConfigMap that is referred to, or more.
    pub config_maps: BTreeMap<String, BTreeMap<String, String>>,
    /// Keys of each ConfigMap whose value is no text, with its first bytes (at most
    /// [`BINARY_BYTES`]): `kubectl` puts there what is not UTF-8.
    pub binary_data: BTreeMap<String, BTreeMap<String, Vec<u8>>>,
    /// `data` of each Secret that was read.
    pub secrets: BTreeMap<String, SecretData>,
    /// `data` of Secrets in other namespaces, by namespace and name: those of sidecars, as far as they could be
    /// read.
    pub secrets_elsewhere: BTreeMap<(String, String), SecretData>,
    /// Pools with pods that may not read documents of the version that they need yet, and which: what these pools have
    /// stays.
    pub pods_behind: BTreeMap<String, String>,
    /// What is referred to and there, but could not be read.
    pub unread: UnreadReferences,
    /// Where inside servers find each pool's internal listener.
    pub inside: BTreeMap<String, Vec<IpAddr>>,
    /// Pools to which nobody is led for want of a way inside, whatever `spec.route.enabled` says.
    pub withdrawn: BTreeSet<String>,
    /// Whether one process is all there is of a pool, whatever `spec.replicas` says (standalone).
    pub single_process: bool,
}

/// An object whose spec cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Undecodable {
    /// Its kill switch, where that alone can be read: it always takes effect, and is lifted by nothing unreadable.
    pub suspended: Option<bool>,
    pub fault: Fault,
}

/// Objects that are there but could not be read, by name, with why.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UnreadReferences {
    pub config_maps: BTreeMap<String, String>,
    pub secrets: BTreeMap<String, String>,
}

impl NamespaceInputs {
    /// The text that a reference means.
    ///
    /// # Errors
    /// [`Reason::ReferenceMissing`], naming map and key.
    pub fn config_map_text(&self, at: &str, reference: &ConfigMapKeyRef) -> Result<&str, Fault> {
        if let Some(why) = self.unread.config_maps.get(&reference.name) {
            return Err(Fault::new(Reason::ReferenceMissing, format!("{at}: {why}")));
        }
        let map = self.config_maps.get(&reference.name).ok_or_else(|| {
            Fault::new(
                Reason::ReferenceMissing,
                format!(
                    "{at}: there is no ConfigMap {:?}: create it in this namespace",
                    reference.name
                ),
            )
        })?;
        let text = map.get(&reference.key).ok_or_else(|| {
            if let Some(bytes) = self.binary(reference) {
                let is_utf16 = matches!(pem::certificates(bytes), Err(PemError::Utf16));
                let remedy = if is_utf16 {
                    "is UTF-16 text: save the file as UTF-8 (in PowerShell `-Encoding utf8`, or `iconv -f UTF-16 -t UTF-8`)"
                } else {
                    "is no text: save the file as UTF-8"
                };
                return Fault::new(
                    Reason::ReferenceMissing,
                    format!(
                        "{at}: key {:?} of ConfigMap {:?} is under binaryData, as it {remedy} and make the ConfigMap of it again",
                        reference.key, reference.name
                    ),
                );
            }
            Fault::new(
                Reason::ReferenceMissing,
                format!(
                    "{at}: ConfigMap {:?} has no key {:?}: correct the key, or add it; there is {}",
                    reference.name,
                    reference.key,
                    listed(map.keys())
                ),
            )
        })?;
        Ok(text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text))
    }

    fn binary(&self, reference: &ConfigMapKeyRef) -> Option<&[u8]> {
        let map = self.binary_data.get(&reference.name)?;
        map.get(&reference.key).map(Vec::as_slice)
    }

    /// Takes a ConfigMap's `binaryData`: a value that is UTF-8 counts as if it were under `data`.
    pub fn add_binary_data<'a>(
        &mut self,
        map: &str,
        entries: impl IntoIterator<Item = (&'a str, &'a [u8])>,
    ) {
        for (key, bytes) in entries {
            match std::str::from_utf8(bytes) {
                Ok(text) => {
                    let texts = self.config_maps.entry(map.to_owned()).or_default();
                    texts
                        .entry(key.to_owned())
                        .or_insert_with(|| text.to_owned());
                }
                Err(_) => {
                    let first = bytes[..bytes.len().min(BINARY_BYTES)].to_vec();
                    let binary = self.binary_data.entry(map.to_owned()).or_default();
                    binary.insert(key.to_owned(), first);
                }
            }
        }
    }

    /// The CA certificates that a reference means, as PEM.
    ///
    /// # Errors
    /// [`Reason::ReferenceMissing`], [`Reason::InvalidCertificate`].
    pub fn ca(&self, at: &str, reference: &ConfigMapKeyRef) -> Result<String, Fault> {
        let invalid = |fault: String| {
            Fault::new(
                Reason::InvalidCertificate,
                format!(
                    "{at}: key {:?} of ConfigMap {:?} {fault}",
                    reference.key, reference.name
                ),
            )
        };
        if let Some(Err(error)) = self.binary(reference).map(pem::certificates)
            && error != PemError::NoCertificate
        {
            return Err(invalid(error.to_string()));
        }
        let text = self.config_map_text(at, reference)?;
        pem::authorities(text).map_err(|error| invalid(error.to_string()))?;
        Ok(text.to_owned())
    }
}

/// When the API server made an object; files say nothing of that.
pub fn created<K: kube::Resource>(object: &K) -> Option<Timestamp> {
    object.creation_timestamp().map(|time| time.0)
}
