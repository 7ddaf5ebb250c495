//! What is compiled: the objects of one namespace and what they refer to, as they stand now.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use jiff::Timestamp;
use kube::ResourceExt;
use rustls_pki_types::{CertificateDer, pem::PemObject};
use xmpp_edge_crds::kinds::{
    EdgePool, ExternalAccessPolicy, XmppFederatedPartner, conditions::Reason,
    fields::ConfigMapKeyRef,
};

use super::diagnostic::{Fault, ObjectRef};
use crate::secrets::store::SecretData;

/// One namespace.
#[derive(Clone, Default)]
pub struct NamespaceInputs {
    pub namespace: String,
    pub pools: Vec<EdgePool>,
    pub partners: Vec<XmppFederatedPartner>,
    pub policies: Vec<ExternalAccessPolicy>,
    /// Objects that are there but cannot be read as their kind: what was compiled of them stays.
    pub broken: BTreeMap<ObjectRef, Undecodable>,
    /// `data` of each ConfigMap.
    pub config_maps: BTreeMap<String, BTreeMap<String, String>>,
    /// `data` of each Secret that was read.
    pub secrets: BTreeMap<String, SecretData>,
    /// Where inside servers find each pool's internal listener.
    pub inside: BTreeMap<String, Vec<IpAddr>>,
    /// Whether one process is all there is of a pool, whatever `spec.replicas` says (standalone).
    pub single_process: bool,
}

/// An object whose spec cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Undecodable {
    /// Its kill switch, where that alone can be read: it always takes effect.
    pub suspended: Option<bool>,
    pub fault: Fault,
}

impl NamespaceInputs {
    /// The text that a reference means.
    ///
    /// # Errors
    /// [`Reason::ReferenceMissing`], naming map and key.
    pub fn config_map_text(&self, at: &str, reference: &ConfigMapKeyRef) -> Result<&str, Fault> {
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
        Ok(text)
    }

    /// The CA certificates that a reference means, as PEM.
    ///
    /// # Errors
    /// [`Reason::ReferenceMissing`], [`Reason::InvalidCertificate`].
    pub fn ca(&self, at: &str, reference: &ConfigMapKeyRef) -> Result<String, Fault> {
        let text = self.config_map_text(at, reference)?;
        let parsed: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text.as_bytes()).collect();
        let sound = parsed.is_ok_and(|certificates| {
            !certificates.is_empty()
                && certificates
                    .iter()
                    .all(|der| x509_parser::parse_x509_certificate(der).is_ok())
        });
        if !sound {
            return Err(Fault::new(
                Reason::InvalidCertificate,
                format!(
                    "{at}: key {:?} of ConfigMap {:?} holds no CA certificate in PEM that can be read: put it there from -----BEGIN CERTIFICATE----- on",
                    reference.key, reference.name
                ),
            ));
        }
        Ok(text.to_owned())
    }
}

/// Some of a list, readable however long it is.
pub fn listed<T: AsRef<str>>(items: impl IntoIterator<Item = T>) -> String {
    let items: BTreeSet<String> = items
        .into_iter()
        .map(|item| item.as_ref().to_owned())
        .collect();
    let shown: Vec<&str> = items.iter().take(5).map(String::as_str).collect();
    match items.len() {
        0 => "none".to_owned(),
        count if count > 5 => format!("{} and {} more", shown.join(", "), count - 5),
        _ => shown.join(", "),
    }
}

/// When the API server made an object; files say nothing of that.
pub fn created<K: kube::Resource>(object: &K) -> Option<Timestamp> {
    object.creation_timestamp().map(|time| time.0)
}
