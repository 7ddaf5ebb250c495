//! Compiling a namespace only when what it is compiled from changed: what pods say, what is written
//! of it and whose pods roll is none of that.
//!
//! Compiling stays the pure function that it is; here its last result is kept beside a print of its
//! inputs. The print names forms of objects, never their content.

use std::{
    collections::{BTreeMap, BTreeSet},
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{Resource, ResourceExt};
use xmpp_edge_crds::edge_config::{EdgeConfig, shards};

use super::inputs::{self, internal_service_name};
use crate::{
    compile::{self, Compiled, NamespaceInputs, References},
    runtime::{
        caches::{Caches, SecretElsewhere, SecretPlace},
        decoded::Decoded,
        store::ObjectStore,
    },
};

/// A namespace and what it compiles to.
#[derive(Clone, Debug, Default)]
pub struct Compilation {
    pub world: Arc<NamespaceInputs>,
    pub compiled: Arc<Compiled>,
}

/// The newest compilation of one namespace.
#[derive(Debug, Default)]
pub struct CompileCache {
    newest: Option<(InputFingerprint, Compilation)>,
}

/// What compiling has to know of pods.
#[derive(Debug, Default)]
pub struct SeenOfPods {
    /// Generations that were in use before of pools whose last document cannot be had.
    pub used: BTreeMap<String, u64>,
    /// As [`NamespaceInputs::pods_behind`].
    pub pods_behind: BTreeMap<String, String>,
}

/// Equal while nothing changed that compiling reads.
#[derive(Clone, Debug, PartialEq, Eq)]
struct InputFingerprint {
    objects: u64,
    /// The last documents, which are an input too: of each pool its generation.
    last: BTreeMap<String, u64>,
    withdrawn: BTreeSet<String>,
    pods_behind: BTreeMap<String, String>,
}

/// What a namespace is compiled from beside what the watches hold.
#[derive(Clone, Copy, Debug)]
pub struct CompileInputs<'a> {
    /// The last documents.
    pub last: &'a BTreeMap<String, EdgeConfig>,
    pub pods: &'a SeenOfPods,
    /// Pools to which nobody is led for want of a way inside.
    pub withdrawn: &'a BTreeSet<&'a str>,
    pub references: &'a References,
}

impl CompileCache {
    /// The namespace as it stands, compiled; says whether it had to be.
    pub fn compile(
        &mut self,
        caches: &Caches,
        namespace: &str,
        given: &CompileInputs<'_>,
    ) -> (Compilation, bool) {
        let CompileInputs {
            last,
            pods,
            withdrawn,
            references,
        } = *given;
        // Before anything is read: what changes meanwhile makes another print next time.
        let generations = last.iter();
        let print = InputFingerprint {
            objects: objects(caches, namespace, references),
            last: generations
                .map(|(pool, config)| (pool.clone(), config.generation))
                .collect(),
            withdrawn: withdrawn.iter().map(|pool| (*pool).to_owned()).collect(),
            pods_behind: pods.pods_behind.clone(),
        };
        if let Some((of, compilation)) = &self.newest
            && *of == print
        {
            return (compilation.clone(), false);
        }
        // Of thousands of objects two compilations are not held at a time.
        self.newest = None;
        let mut world = inputs::world(caches, namespace, references);
        world.withdrawn.clone_from(&print.withdrawn);
        world.pods_behind.clone_from(&pods.pods_behind);
        let mut compiled = compile::compile(&world, last);
        for (pool, used) in &pods.used {
            if let Some(config) = compiled.configs.get_mut(pool) {
                // What pods loaded before is never taken for it.
                config.generation = config.generation.max(used + 1);
            }
        }
        let compilation = Compilation {
            world: Arc::new(world),
            compiled: Arc::new(compiled),
        };
        self.newest = Some((print, compilation.clone()));
        (compilation, true)
    }
}

/// A print of the forms of all that [`inputs::world`] reads.
fn objects(caches: &Caches, namespace: &str, references: &References) -> u64 {
    let mut print = DefaultHasher::new();
    specs(&caches.partners, namespace, &mut print);
    specs(&caches.policies, namespace, &mut print);
    // Those of other namespaces may have a domain.
    for pool in caches.pools.all() {
        spec(pool.meta(), &mut print);
        // What is remembered of records is one, and pools are provisioned from the world.
        pool.annotations().hash(&mut print);
        let service = internal_service_name(&pool.name_any());
        let service = caches.services.get(namespace, &service);
        service.map(|it| it.resource_version()).hash(&mut print);
    }
    let pools = caches.pools.in_namespace(namespace);
    let documents = pools.iter().map(|pool| pool.name_any());
    let documents: BTreeSet<String> = documents
        .flat_map(|pool| shards::shard_names(&pool).collect::<Vec<_>>())
        .collect();
    // The documents themselves are given as such.
    for name in references.config_maps.difference(&documents) {
        name.hash(&mut print);
        caches.config_maps.form(namespace, name).hash(&mut print);
    }
    for pool in pools.iter().filter_map(|pool| pool.read()) {
        for (namespace, name) in compile::sidecar_secrets_elsewhere(pool) {
            let place = SecretPlace { namespace, name };
            let held = match caches.elsewhere.get(&place) {
                SecretElsewhere::Held(secret) => secret.resource_version(),
                _ => None,
            };
            (place, held).hash(&mut print);
        }
    }
    for name in compile::secrets_read(pools.iter().filter_map(|pool| pool.read())) {
        name.hash(&mut print);
        caches.secrets.form(namespace, &name).hash(&mut print);
    }
    print.finish()
}

fn specs<K: Resource>(table: &ObjectStore<Decoded<K>>, namespace: &str, print: &mut impl Hasher) {
    for object in table.in_namespace(namespace) {
        spec(object.meta(), print);
    }
}

/// A generation is a form of the spec; a status has none.
fn spec(metadata: &ObjectMeta, print: &mut impl Hasher) {
    metadata.namespace.hash(print);
    metadata.name.hash(print);
    metadata.uid.hash(print);
    metadata.generation.hash(print);
    metadata.deletion_timestamp.is_some().hash(print);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::{controllers::namespace::references, runtime::store::AnswerStore};
    use base64::{Engine, prelude::BASE64_STANDARD};
    use serde_json::{Value, json};

    /// A namespace with a pool, a partner that trusts what a ConfigMap says, and a Secret.
    struct CompiledInputs {
        caches: Arc<Caches>,
        inputs: CompileCache,
        last: BTreeMap<String, EdgeConfig>,
        withdrawn: Vec<&'static str>,
        version: u64,
    }

    impl CompiledInputs {
        fn new() -> Self {
            let mut held = Self {
                caches: Caches::new().0,
                inputs: CompileCache::default(),
                last: BTreeMap::new(),
                withdrawn: Vec::new(),
                version: 0,
            };
            held.put(&pool(), |caches| &caches.pools);
            held.put(&partner(), |caches| &caches.partners);
            let last = held.compile().0.compiled.configs.clone();
            held.last = last;
            held.compile();
            assert!(!held.compile().1, "nothing changed");
            held
        }

        fn put<S: AnswerStore>(&mut self, object: &Value, table: fn(&Caches) -> &S) {
            self.version += 1;
            let mut object = object.clone();
            object["metadata"]["namespace"] = json!("n");
            object["metadata"]["resourceVersion"] = json!(self.version.to_string());
            let store = table(&self.caches);
            store.created_json(object, store.epoch());
        }

        fn compile(&mut self) -> (Compilation, bool) {
            let references = references::of(&self.caches, "n", &self.last);
            let withdrawn = self.withdrawn.iter().copied().collect();
            let given = CompileInputs {
                last: &self.last,
                pods: &SeenOfPods::default(),
                withdrawn: &withdrawn,
                references: &references,
            };
            self.inputs.compile(&self.caches, "n", &given)
        }
    }

    fn pool() -> Value {
        json!({
            "apiVersion": "xmpp-edge.dev/v1alpha1", "kind": "EdgePool",
            "metadata": {"name": "hq", "uid": "hq", "generation": 1},
            "spec": {"site": "hq", "domains": ["org.example"], "accessEdge": {"fqdn": "edge.org.example"},
                "gateways": [{"domains": ["org.example"], "address": "inside.example:5269"}],
                "certificate": {"selfSigned": {}}},
        })
    }

    fn partner() -> Value {
        json!({
            "apiVersion": "xmpp-edge.dev/v1alpha1", "kind": "XmppFederatedPartner",
            "metadata": {"name": "p", "uid": "p", "generation": 1},
            "spec": {"domain": "p.example", "trust": {"caConfigMapRef": {"name": "m", "key": "k"}}},
        })
    }

    fn with(mut object: Value, pointer: &str, value: Value) -> Value {
        let (parent, field) = pointer.rsplit_once('/').unwrap();
        object.pointer_mut(parent).unwrap()[field] = value;
        object
    }

    fn map(data: Value) -> Value {
        let mut map =
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m", "uid": "m"}});
        map.as_object_mut()
            .unwrap()
            .extend(data.as_object().unwrap().clone());
        map
    }

    #[test]
    fn what_compiling_reads_is_compiled_anew_and_nothing_else_is() {
        let named = |name: &str, kind: &str| json!({"apiVersion": "v1", "kind": kind, "metadata": {"name": name, "uid": name}});
        type Change<'a> = Box<dyn Fn(&mut CompiledInputs) + 'a>;
        let table: Vec<(&str, bool, Change<'_>)> = vec![
            (
                "a partner's spec",
                true,
                Box::new(|held| {
                    let edited = with(partner(), "/spec/suspended", json!(true));
                    held.put(&with(edited, "/metadata/generation", json!(2)), |it| {
                        &it.partners
                    });
                }),
            ),
            (
                "a partner's status",
                false,
                Box::new(|held| {
                    held.put(
                        &with(partner(), "/status", json!({"observedGeneration": 1})),
                        |it| &it.partners,
                    );
                }),
            ),
            (
                "a partner on its way out",
                true,
                Box::new(|held| {
                    let going = json!("2026-01-01T00:00:00Z");
                    held.put(
                        &with(partner(), "/metadata/deletionTimestamp", going),
                        |it| &it.partners,
                    );
                }),
            ),
            (
                "a partner that is gone",
                true,
                Box::new(|held| held.caches.partners.deleted("n", "p", "p")),
            ),
            (
                "a pool's status",
                false,
                Box::new(|held| {
                    held.put(
                        &with(pool(), "/status", json!({"observedGeneration": 1})),
                        |it| &it.pools,
                    );
                }),
            ),
            (
                "a pool's memory of records",
                true,
                Box::new(|held| {
                    held.put(
                        &with(pool(), "/metadata/annotations", json!({"a": "b"})),
                        |it| &it.pools,
                    );
                }),
            ),
            (
                "a ConfigMap",
                true,
                Box::new(|held| {
                    held.put(&map(json!({"data": {"k": "v"}})), |it| &it.config_maps);
                }),
            ),
            (
                "a Secret that is read",
                true,
                Box::new(|held| {
                    held.put(&named("xmpp-edge-dialback", "Secret"), |it| &it.secrets);
                }),
            ),
            (
                "another Secret",
                false,
                Box::new(|held| held.put(&named("s", "Secret"), |it| &it.secrets)),
            ),
            (
                "where inside servers find the pool",
                true,
                Box::new(|held| {
                    held.put(&named("hq-internal", "Service"), |it| &it.services);
                }),
            ),
            (
                "the Service for partners",
                false,
                Box::new(|held| {
                    held.put(&named("hq", "Service"), |it| &it.services);
                }),
            ),
            (
                "a pod",
                false,
                Box::new(|held| held.put(&named("hq-1", "Pod"), |it| &it.pods)),
            ),
            (
                "a way inside that is lost",
                true,
                Box::new(|held| held.withdrawn.push("hq")),
            ),
            (
                "a last document",
                true,
                Box::new(|held| {
                    held.last.get_mut("hq").unwrap().generation += 1;
                }),
            ),
        ];
        for (case, expected, change) in table {
            let mut held = CompiledInputs::new();
            change(&mut held);
            assert_eq!(held.compile().1, expected, "{case}");
            assert!(!held.compile().1, "{case}: once");
        }
    }

    #[test]
    fn a_document_that_was_written_is_not_compiled_for_its_own_sake() {
        let mut held = CompiledInputs::new();
        let put = |shard: &str, held: &mut CompiledInputs| {
            let mut document = map(json!({"binaryData": {"shard": shard}}));
            document["metadata"]["name"] = json!("hq-config-0");
            held.put(&document, |it| &it.config_maps);
        };
        put("AA==", &mut held);
        held.compile();
        put("AQ==", &mut held);
        assert!(!held.compile().1);
    }

    #[test]
    fn what_follows_a_document_that_is_not_whole_is_newer_than_its_shards() {
        let mut held = CompiledInputs::new();
        held.last.clear();
        let shard = "{\"version\":{\"major\":1,\"minor\":0},\"generation\":41,\"number\":1,\"count\":2,\"sha256\":\"\"}\nx";
        let mut map = map(json!({"binaryData": {"shard": BASE64_STANDARD.encode(shard)}}));
        map["metadata"]["name"] = json!("hq-config-1");
        held.put(&map, |it| &it.config_maps);
        assert_eq!(inputs::last_document(&held.caches, "n", "hq"), None);
        let written = inputs::highest_generation(&held.caches, "n", "hq");
        assert_eq!(written, Some(41));
        let seen = SeenOfPods {
            used: [("hq".to_owned(), 41)].into(),
            ..SeenOfPods::default()
        };
        let given = CompileInputs {
            last: &held.last,
            pods: &seen,
            withdrawn: &BTreeSet::new(),
            references: &References::default(),
        };
        let compiled = held.inputs.compile(&held.caches, "n", &given);
        assert_eq!(compiled.0.compiled.configs["hq"].generation, 42);
    }

    #[test]
    fn a_pool_of_another_namespace_may_take_a_domain() {
        let mut held = CompiledInputs::new();
        let mut other = with(pool(), "/metadata/namespace", json!("other"));
        other["metadata"]["uid"] = json!("other");
        let pools = &held.caches.pools;
        pools.created(serde_json::from_value(other).unwrap(), pools.epoch());
        assert!(held.compile().1);
    }
}
