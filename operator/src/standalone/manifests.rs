//! From documents to worlds: which objects stand in the files, one world a namespace.
//!
//! It fills in what the API server would (the namespace `default`, each field's default) and checks
//! what the API server would (schema and CEL). What an object means among others is compiling's.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use base64::{Engine, prelude::BASE64_STANDARD};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use xmpp_edge_crds::kinds::{self, XmppFederatedPartner, conditions::Reason};
use zeroize::Zeroizing;

use super::documents::{self, Document, Whereabouts};
use crate::{
    compile::{Fault, Kind, NamespaceInputs, ObjectRef, Severity, Undecodable},
    secrets::store::SecretData,
};

/// What values begin with that SOPS encrypted.
const ENCRYPTED: &str = "ENC[AES256_GCM,";

/// Where something stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Place {
    pub file: String,
    pub document: usize,
    pub line: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: document {}, line {}",
            self.file, self.document, self.line
        )
    }
}

/// What is wrong with a document before it is an object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    pub place: Place,
    /// Field, as in `spec.gateways[0].address`; empty for the document.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub path: String,
    pub message: String,
    pub severity: Severity,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = if self.severity == Severity::Error {
            "error"
        } else {
            "warning"
        };
        write!(f, "{severity}: {}: ", self.place)?;
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.message)
    }
}

/// What is wrong with an object by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManifestFault {
    /// Field, as in `spec.gateways[0].address`; empty for the object.
    pub path: String,
    pub message: String,
}

/// All objects of all files.
#[derive(Clone, Debug, Default)]
pub struct Manifests {
    pub worlds: BTreeMap<String, NamespaceInputs>,
    /// Where each object stands, by namespace.
    pub places: BTreeMap<(String, ObjectRef), Place>,
    /// Where each field of these stands.
    pub whereabouts: BTreeMap<(String, ObjectRef), Whereabouts>,
    pub problems: Vec<Problem>,
    /// Each fault of an object that is not readable as it stands; compiling has them in one text.
    pub faults: BTreeMap<(String, ObjectRef), Vec<ManifestFault>>,
    /// The objects as an API server would hold them: of one that may not be as it stands in the
    /// files, the form before.
    pub stored: Stored,
}

/// Manifests by namespace and object, as they were last valid.
pub type Stored = BTreeMap<(String, ObjectRef), Value>;

/// Sorts the documents of all files (by name) into worlds. `before` holds what was stored: an edit
/// may not change what is immutable.
#[must_use]
pub fn gather<'a>(
    files: impl IntoIterator<Item = (&'a str, &'a [Document])>,
    before: &Stored,
) -> Manifests {
    let mut gathering = Gathering {
        before,
        manifests: Manifests::default(),
        seen: BTreeMap::new(),
    };
    for (file, documents) in files {
        for document in documents {
            gathering.take(file, document);
        }
    }
    gathering.manifests
}

struct Gathering<'s> {
    before: &'s Stored,
    manifests: Manifests,
    /// Kind, namespace and name of everything seen.
    seen: BTreeMap<(String, String, String), Place>,
}

/// The document in hand.
struct Here<'a> {
    file: &'a str,
    document: &'a Document,
    namespace: String,
    name: String,
}

impl Gathering<'_> {
    fn problem(
        &mut self,
        file: &str,
        document: &Document,
        path: &str,
        message: String,
        severity: Severity,
    ) {
        let line = if path.is_empty() {
            document.line_of("kind")
        } else {
            document.line_of(path)
        };
        let place = Place {
            file: file.to_owned(),
            document: document.number,
            line,
        };
        self.manifests.problems.push(Problem {
            place,
            path: path.to_owned(),
            message,
            severity,
        });
    }

    fn take(&mut self, file: &str, document: &Document) {
        let value = &document.value;
        let text = |pointer: &str| value.pointer(pointer).and_then(Value::as_str);
        let (Some(version), Some(kind)) = (text("/apiVersion"), text("/kind")) else {
            let message = "a manifest needs apiVersion and kind".to_owned();
            return self.problem(file, document, "", message, Severity::Error);
        };
        if version.starts_with(ENCRYPTED) || kind.starts_with(ENCRYPTED) {
            return self.encrypted(file, document, "");
        }
        let ours = version.split('/').next() == Some(kinds::GROUP);
        let of_kubernetes = version == "v1" && matches!(kind, "Secret" | "ConfigMap");
        if !ours && !of_kubernetes {
            let message = format!("{kind} ({version}) is passed over: it means nothing here");
            return self.problem(file, document, "", message, Severity::Warning);
        }
        let Some(name) = text("/metadata/name").filter(|name| !name.is_empty()) else {
            let message = "an object needs a name: set metadata.name".to_owned();
            return self.problem(file, document, "metadata", message, Severity::Error);
        };
        let namespace = text("/metadata/namespace").unwrap_or("default").to_owned();
        let place = Place {
            file: file.to_owned(),
            document: document.number,
            line: document.line_of("kind"),
        };
        let key = (kind.to_owned(), namespace.clone(), name.to_owned());
        if let Some(first) = self.seen.get(&key) {
            let message = format!(
                "{kind} {name:?} stands in {first} already, and that one counts: remove one of the two"
            );
            return self.problem(file, document, "", message, Severity::Error);
        }
        self.seen.insert(key, place.clone());
        let here = Here {
            file,
            document,
            namespace,
            name: name.to_owned(),
        };
        match (version, kind) {
            ("v1", "Secret") => self.secret(&here),
            ("v1", "ConfigMap") => self.config_map(&here),
            _ => match Kind::parse(kind) {
                Some(kind) if version == format!("{}/{}", kinds::GROUP, kinds::VERSION) => {
                    let key = (here.namespace.clone(), ObjectRef::new(kind, name));
                    let whereabouts = document.whereabouts().clone();
                    let manifests = &mut self.manifests;
                    manifests.whereabouts.insert(key.clone(), whereabouts);
                    manifests.places.insert(key, place);
                    self.object(kind, &here);
                }
                _ => {
                    let message = format!(
                        "there is no {kind} in {version}: {}/{} has EdgePool, XmppFederatedPartner and ExternalAccessPolicy",
                        kinds::GROUP,
                        kinds::VERSION
                    );
                    self.problem(file, document, "apiVersion", message, Severity::Error);
                }
            },
        }
    }

    fn world(&mut self, namespace: &str) -> &mut NamespaceInputs {
        self.manifests
            .worlds
            .entry(namespace.to_owned())
            .or_insert_with(|| NamespaceInputs {
                namespace: namespace.to_owned(),
                ..NamespaceInputs::default()
            })
    }

    fn object(&mut self, kind: Kind, here: &Here<'_>) {
        let id = (here.namespace.clone(), ObjectRef::new(kind, &here.name));
        let before = self.before.get(&id);
        let manifest = without_status(&here.document.value);
        let fault = |(path, message): &documents::DocumentFault| ManifestFault {
            path: path.clone(),
            message: message.clone(),
        };
        let checked = here.document.checked(violations).iter();
        let mut faults: Vec<ManifestFault> = checked.map(fault).collect();
        // Rules cost more than comparing: only an edit is held against what was there.
        if let Some(before) = before
            && faults.is_empty()
            && before.get("spec") != manifest.get("spec")
        {
            let changes = kinds::validate_change(&manifest, before);
            faults.extend(changes.into_iter().map(|it| fault(&(it.path, it.message))));
        }
        let stored = if faults.is_empty() {
            Some(manifest)
        } else {
            before.cloned()
        };
        if let Some(stored) = stored {
            self.manifests.stored.insert(id, stored);
        }
        if faults.is_empty() {
            let mut value = kinds::with_defaults(&without_status(&here.document.value));
            if let Some(metadata) = value.get_mut("metadata").and_then(Value::as_object_mut) {
                let namespace = Value::String(here.namespace.clone());
                metadata.insert("namespace".to_owned(), namespace);
            }
            let read = match kind {
                Kind::EdgePool => {
                    parse(value).map(|pool| self.world(&here.namespace).pools.push(pool))
                }
                Kind::XmppFederatedPartner => {
                    parse(value).map(|partner| self.world(&here.namespace).partners.push(partner))
                }
                Kind::ExternalAccessPolicy => {
                    parse(value).map(|policy| self.world(&here.namespace).policies.push(policy))
                }
            };
            match read {
                Ok(()) => return,
                Err(message) => faults.push(ManifestFault {
                    path: String::new(),
                    message,
                }),
            }
        }
        let told = faults.iter().map(|fault| match fault.path.as_str() {
            "" => fault.message.clone(),
            path if !here.document.is_in_file() => format!("{path}: {}", fault.message),
            path => {
                let line = here.document.line_of(path);
                format!("line {line}: {path}: {}", fault.message)
            }
        });
        let text = told.collect::<Vec<_>>().join("; ");
        let suspended = here.document.value.pointer("/spec/suspended");
        let broken = Undecodable {
            suspended: suspended.map_or(Some(false), Value::as_bool),
            fault: Fault::new(reason(kind, &here.document.value), text),
        };
        let object = ObjectRef::new(kind, &here.name);
        let key = (here.namespace.clone(), object.clone());
        self.manifests.faults.insert(key, faults);
        self.world(&here.namespace).broken.insert(object, broken);
    }

    fn encrypted(&mut self, file: &str, document: &Document, path: &str) {
        let message =
            "is encrypted by SOPS: decrypt the file (sops -d) into this directory".to_owned();
        self.problem(file, document, path, message, Severity::Error);
    }

    /// The texts of a map of a Secret or ConfigMap. What is none, or still encrypted, is told and left out.
    fn texts(&mut self, here: &Here<'_>, field: &str, of: &str) -> Vec<(String, String)> {
        let Some(given) = here.document.value.get(field).and_then(Value::as_object) else {
            return Vec::new();
        };
        let mut texts = Vec::new();
        for (key, value) in given {
            match value.as_str() {
                Some(text) if text.starts_with(ENCRYPTED) => {
                    self.encrypted(here.file, here.document, &format!("{field}.{key}"));
                }
                Some(text) => texts.push((key.clone(), text.to_owned())),
                None => {}
            }
        }
        if given.values().any(|value| !value.is_string()) {
            let message =
                format!("every value of a {of} is a text: put numbers and truth values in quotes");
            self.problem(here.file, here.document, field, message, Severity::Error);
        }
        texts
    }

    fn secret(&mut self, here: &Here<'_>) {
        let mut material = SecretData::new();
        for (key, text) in self.texts(here, "data", "Secret") {
            let compact: String = text.split_whitespace().collect();
            match BASE64_STANDARD.decode(compact) {
                Ok(bytes) => {
                    material.insert(key, Zeroizing::new(bytes));
                }
                Err(_) => {
                    let message =
                        "not base64: encode the value, or put it under stringData as it is"
                            .to_owned();
                    self.problem(
                        here.file,
                        here.document,
                        &format!("data.{key}"),
                        message,
                        Severity::Error,
                    );
                }
            }
        }
        for (key, text) in self.texts(here, "stringData", "Secret") {
            material.insert(key, Zeroizing::new(text.into_bytes()));
        }
        self.world(&here.namespace)
            .secrets
            .insert(here.name.clone(), material);
    }

    fn config_map(&mut self, here: &Here<'_>) {
        let data = self.texts(here, "data", "ConfigMap");
        let data: BTreeMap<String, String> = data.into_iter().collect();
        let mut binary = Vec::new();
        for (key, text) in self.texts(here, "binaryData", "ConfigMap") {
            let compact: String = text.split_whitespace().collect();
            match BASE64_STANDARD.decode(compact) {
                Ok(bytes) => binary.push((key, bytes)),
                Err(_) => {
                    let message =
                        "not base64: encode the value, or put it under data as it is".to_owned();
                    let at = format!("binaryData.{key}");
                    self.problem(here.file, here.document, &at, message, Severity::Error);
                }
            }
        }
        let world = self.world(&here.namespace);
        world.config_maps.insert(here.name.clone(), data);
        world.add_binary_data(
            &here.name,
            binary.iter().map(|(key, bytes)| (key.as_str(), &**bytes)),
        );
    }
}

/// The reason that says most: settings without a method have one of their own.
fn reason(kind: Kind, manifest: &Value) -> Reason {
    if kind == Kind::XmppFederatedPartner
        && let Ok(partner) = parse::<XmppFederatedPartner>(kinds::with_defaults(manifest))
        && partner.spec.methods().is_err()
    {
        return Reason::InvalidNegotiation;
    }
    Reason::Invalid
}

/// Status is never read as a store.
fn without_status(manifest: &Value) -> Value {
    let mut manifest = manifest.clone();
    if let Some(object) = manifest.as_object_mut() {
        object.remove("status");
    }
    manifest
}

fn violations(manifest: &Value) -> Vec<documents::DocumentFault> {
    kinds::validate_manifest(&without_status(manifest))
        .into_iter()
        .map(|violation| (violation.path, violation.message))
        .collect()
}

fn parse<T: DeserializeOwned>(value: Value) -> Result<T, String> {
    serde_json::from_value(value).map_err(|error| error.to_string())
}

impl Manifests {
    /// Names of all pools, broken ones included, with their namespaces.
    #[must_use]
    pub fn pools(&self) -> BTreeSet<(String, String)> {
        self.places
            .keys()
            .filter(|(_, object)| object.kind == Kind::EdgePool)
            .map(|(namespace, object)| (namespace.clone(), object.name.clone()))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn gathered(text: &str) -> Manifests {
        let read = documents::read(text).unwrap();
        gather([("a.yaml", read.as_slice())], &Stored::new())
    }

    #[test]
    fn a_value_of_a_secret_that_is_no_text_is_told_and_not_lost_in_silence() {
        for (kind, field) in [
            ("Secret", "data"),
            ("Secret", "stringData"),
            ("ConfigMap", "data"),
        ] {
            let text = format!(
                "apiVersion: v1\nkind: {kind}\nmetadata: {{name: s}}\n{field}:\n  name: edge\n  secret: 4711\n"
            );
            let told = &gathered(&text).problems;
            assert_eq!(told.len(), 1, "{told:?}");
            let text = format!("{field}: every value of a {kind} is a text: put numbers");
            assert!(told[0].to_string().contains(&text), "{}", told[0]);
        }
    }

    #[test]
    fn what_sops_encrypted_is_told_and_not_taken_for_what_it_stands_for() {
        const ENCRYPTED: &str = "ENC[AES256_GCM,data:p673w==,iv:YY=,tag:UQ=,type:str]";
        let secret = gathered(&format!(
            "apiVersion: v1\nkind: Secret\nmetadata: {{name: s}}\nstringData:\n  name: edge\n  secret: \"{ENCRYPTED}\"\n"
        ));
        let material = &secret.worlds["default"].secrets["s"];
        assert_eq!(material.keys().collect::<Vec<_>>(), ["name"]);
        let whole = gathered(&format!(
            "apiVersion: \"{ENCRYPTED}\"\nkind: \"{ENCRYPTED}\"\nmetadata: {{name: s}}\n"
        ));
        for (manifests, at) in [(&secret, "stringData.secret: is"), (&whole, ": is")] {
            let told = manifests.problems[0].to_string();
            let remedy = format!("{at} encrypted by SOPS: decrypt the file (sops -d)");
            assert!(told.contains(&remedy), "{told}");
            assert_eq!(manifests.problems.len(), 1);
        }
    }
}
