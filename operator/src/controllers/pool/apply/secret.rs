//! Secrets: written whole, on exactly the form that was read.

use std::collections::BTreeMap;

use k8s_openapi::{
    ByteString, api::core::v1::Secret, apimachinery::pkg::apis::meta::v1::OwnerReference,
};
use kube::{Api, ResourceExt, api::PostParams};

use super::{Applier, ApplyError, MANAGER, OF_CERTIFICATE, call, fingerprint, is_ours, owns};
use crate::{
    controllers::{
        namespace::inputs,
        pool::{
            plan::{
                metadata,
                secrets::{self, Ownership},
            },
            read,
            sidecar_secrets::POOLS_IN,
        },
    },
    runtime::caches::{SecretElsewhere, SecretPlace},
    secrets::store::{ManagedSecret, SecretData},
};

impl Applier<'_> {
    /// Writes an entry's Secret where it differs; says whether it did.
    ///
    /// # Errors
    /// [`ApplyError::Overtaken`] where another operator was first: what was made here is void.
    pub async fn secret(
        &self,
        entry: &ManagedSecret,
        material: &SecretData,
    ) -> Result<bool, ApplyError> {
        let name = entry.to_string();
        let what = || format!("Secret {name:?}");
        let held = self.context.caches.secrets.get(self.namespace, &name)?;
        let api: Api<Secret> = Api::namespaced(self.context.client.clone(), self.namespace);
        let parameters = PostParams {
            field_manager: Some(MANAGER.to_owned()),
            ..PostParams::default()
        };
        let mut object = match held.as_deref() {
            Some(held) => {
                let same = inputs::material(held) == *material;
                let wanted = self.owned(entry, held.owner_references());
                if same && wanted == held.owner_references() {
                    return Ok(false);
                }
                let ours = is_ours(held.labels(), held.owner_references(), self.pool);
                if !ours && !secrets::may_be_given(entry) {
                    return Err(ApplyError::Foreign { what: what() });
                }
                let mut object = held.clone();
                object.metadata.owner_references = Some(wanted);
                object.annotations_mut().remove(OF_CERTIFICATE);
                object
            }
            None => {
                let mut object = Secret {
                    type_: Some(secrets::secret_type(material).to_owned()),
                    ..Secret::default()
                };
                object.metadata.name = Some(name.clone());
                object.metadata.namespace = Some(self.namespace.to_owned());
                object.metadata.owner_references = Some(self.owned(entry, &[]));
                object
            }
        };
        object
            .labels_mut()
            .extend(secrets::labels(entry, &self.pool.name_any()));
        object.metadata.managed_fields = None;
        object.string_data = None;
        object.data = Some(bytes_of(material));
        // A new one is created, never applied: of two leaders one is refused. An old one is
        // replaced on the uid and resourceVersion that were read.
        let since = self.context.caches.secrets.epoch();
        // By the form that it is to replace, not by what is to be in it: keys that could not be kept are
        // made anew at each look.
        let over = held.as_deref().and_then(ResourceExt::resource_version);
        let this = fingerprint(&["secret", over.as_deref().unwrap_or_default()]);
        let write = async {
            match held {
                None => call(what, None, api.create(&parameters, &object)).await,
                Some(_) => call(what, None, api.replace(&name, &parameters, &object)).await,
            }
        };
        let written = self.attempt(&what(), this, write).await?;
        self.context.caches.secrets.created(written, since);
        tracing::info!(namespace = self.namespace, name, "Secret written");
        if matches!(entry, ManagedSecret::Sidecar(_)) {
            // The document tells from when on its certificates count: our own write is no event that would
            // have it compiled anew.
            self.context.caches.triggers.enqueue(self.namespace);
        }
        Ok(true)
    }

    /// Has a Secret that somebody else keeps now outlive the pool, which made it or took it over once. Of its form
    /// as it was read nothing but the owner changes.
    ///
    /// # Errors
    /// [`ApplyError`].
    pub async fn release(&self, entry: &ManagedSecret) -> Result<(), ApplyError> {
        let name = entry.to_string();
        let what = || format!("Secret {name:?}");
        let held = self.context.caches.secrets.get(self.namespace, &name)?;
        let Some(held) = held.filter(|held| owns(self.pool, held.owner_references())) else {
            return Ok(());
        };
        let uid = self.pool.uid();
        let mut object = (*held).clone();
        let owners = object.owner_references_mut();
        owners.retain(|owner| Some(&owner.uid) != uid.as_ref());
        object.metadata.managed_fields = None;
        let api: Api<Secret> = Api::namespaced(self.context.client.clone(), self.namespace);
        let parameters = PostParams {
            field_manager: Some(MANAGER.to_owned()),
            ..PostParams::default()
        };
        let since = self.context.caches.secrets.epoch();
        let over = held.resource_version();
        let this = fingerprint(&["release", over.as_deref().unwrap_or_default()]);
        let write = call(what, None, api.replace(&name, &parameters, &object));
        let written = self.attempt(&what(), this, write).await?;
        self.context.caches.secrets.created(written, since);
        tracing::info!(
            namespace = self.namespace,
            name,
            "no longer owned by the pool"
        );
        Ok(())
    }

    /// Writes the Secret of sidecars in another namespace where it differs. It has no owner, which would have to
    /// be there too: an annotation says whose it is. The caller has looked that what is there may be written over.
    ///
    /// # Errors
    /// [`ApplyError`].
    pub async fn secret_elsewhere(
        &self,
        place: &SecretPlace,
        material: &SecretData,
    ) -> Result<(), ApplyError> {
        let SecretPlace { namespace, name } = place;
        let elsewhere = &self.context.caches.elsewhere;
        let what = || format!("Secret {name:?} in namespace {namespace:?}");
        let held = match elsewhere.get(place) {
            SecretElsewhere::Held(held) if inputs::material(&held) == *material => return Ok(()),
            SecretElsewhere::Held(held) => Some(held),
            _ => None,
        };
        let mut object = held.as_deref().cloned().unwrap_or_else(|| Secret {
            type_: Some(secrets::secret_type(material).to_owned()),
            ..Secret::default()
        });
        object.metadata.name = Some(name.clone());
        object.metadata.namespace = Some(namespace.clone());
        object.metadata.managed_fields = None;
        object.labels_mut().extend(metadata::shared_labels());
        let whose = (POOLS_IN.to_owned(), self.namespace.to_owned());
        object.annotations_mut().extend([whose]);
        object.string_data = None;
        object.data = Some(bytes_of(material));
        let api: Api<Secret> = Api::namespaced(self.context.client.clone(), namespace);
        let parameters = PostParams {
            field_manager: Some(MANAGER.to_owned()),
            ..PostParams::default()
        };
        let over = held.as_deref().and_then(ResourceExt::resource_version);
        let this = fingerprint(&["elsewhere", over.as_deref().unwrap_or_default()]);
        let write = async {
            match &held {
                None => call(what, None, api.create(&parameters, &object)).await,
                Some(_) => call(what, None, api.replace(name, &parameters, &object)).await,
            }
        };
        let written = self.attempt(&what(), this, write).await?;
        elsewhere.written(place, written);
        tracing::info!(namespace, name, "Secret written");
        // The document tells from when on its certificates count.
        self.context.caches.triggers.enqueue(self.namespace);
        Ok(())
    }

    /// Owners of an entry's Secret, from those that it has.
    fn owned(&self, entry: &ManagedSecret, held: &[OwnerReference]) -> Vec<OwnerReference> {
        let uid = self.pool.uid().unwrap_or_default();
        let mut owners = held.to_vec();
        let mine = metadata::owner(self.pool);
        let certificate = read::certificate(self.pool);
        match secrets::ownership(entry, certificate.as_deref()) {
            Ownership::Nobody => owners.retain(|owner| owner.uid != uid),
            Ownership::Pool | Ownership::Shared if owns(self.pool, held) => {}
            Ownership::Pool => owners.extend(mine),
            Ownership::Shared => owners.extend(mine.map(|owner| OwnerReference {
                controller: None,
                ..owner
            })),
        }
        owners
    }
}

fn bytes_of(material: &SecretData) -> BTreeMap<String, ByteString> {
    let data = material.iter();
    data.map(|(key, value)| (key.clone(), ByteString(value.to_vec())))
        .collect()
}
