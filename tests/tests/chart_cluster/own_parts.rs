//! What a labelled pod has of its own is kept, on a real API server (B-43).

use anyhow::{Context, Result};
use serde_json::{Value, json};
use xmpp_edge_operator::sidecar::parts;

use super::injection::{SERVER, Scene, pod, pods};

/// What of `own` is not in `made` as it was: fields, and elements of lists; those that have names in their order.
fn missing(own: &Value, made: &Value, at: &str) -> Vec<String> {
    match (own, made) {
        (Value::Object(own), Value::Object(made)) => {
            let fields = own.iter();
            let missing = fields.flat_map(|(name, field)| {
                let at = format!("{at}/{name}");
                match made.get(name) {
                    None => vec![at],
                    Some(made) => missing(field, made, &at),
                }
            });
            missing.collect()
        }
        (Value::Array(own), Value::Array(made)) => {
            let mut rest = made.iter();
            let missing = own.iter().flat_map(|element| {
                if !element.is_object() && made.contains(element) {
                    return Vec::new();
                }
                let Some(found) = rest.find(|it| is_same(element, it)) else {
                    return vec![format!("{at}: {element}")];
                };
                missing(element, found, at)
            });
            missing.collect()
        }
        _ if own == made => Vec::new(),
        _ => vec![format!("{at}: {own}, now {made}")],
    }
}

/// Whether two elements of a list stand for the same thing.
fn is_same(one: &Value, other: &Value) -> bool {
    let keys = ["mountPath", "name", "containerPort"];
    match keys.iter().find(|key| one.get(*key).is_some()) {
        Some(key) => one.get(key) == other.get(key),
        None => one == other,
    }
}

/// The same pod, asking for nothing.
fn unlabelled(pod: &Value) -> Value {
    let mut pod = pod.clone();
    pod["metadata"]
        .as_object_mut()
        .map(|it| it.remove("labels"));
    pod
}

fn names(list: &Value) -> Vec<&str> {
    let all = list.as_array().into_iter().flatten();
    all.filter_map(|it| it["name"].as_str()).collect()
}

#[test]
fn b_43_what_a_labelled_pod_has_of_its_own_is_kept() {
    SERVER.test_in_turn(async |namespace| {
        let scene = Scene::new(namespace)?;
        scene.install().await?;
        let made = |pod: &Value| -> Result<Value> { Ok(scene.stored(pod)?["spec"].take()) };
        for (name, pod) in pods() {
            let (own, made) = (made(&unlabelled(&pod))?, made(&pod).context(name)?);
            let mut lost = missing(&own, &made, "");
            let args = made["initContainers"][0]["args"].as_array().unwrap();
            if args.iter().any(|it| it == parts::NO_VIEW) {
                // Nothing is added either where the pod's DNS is its own.
                for field in ["dnsPolicy", "dnsConfig", "securityContext"] {
                    assert_eq!(made[field], own[field], "{name}: {field}");
                }
            } else {
                // Its DNS is led to the sidecar: what it did not say itself is another.
                lost.retain(|it| !it.starts_with("/dnsPolicy"));
                assert_eq!(made["dnsPolicy"], "None", "{name}");
            }
            assert_eq!(lost, [""; 0], "{name}: {made:#}");
            assert_eq!(
                names(&made["initContainers"])[0],
                parts::CONTAINER,
                "{name}"
            );
        }
        // One that stands there already is nobody's to change, and no second one comes.
        let own = json!({ "name": parts::CONTAINER, "image": "own:1", "restartPolicy": "Always" });
        let has_one =
            pod(json!({ "initContainers": [{ "name": "first", "image": "first:1" }, own] }));
        assert_eq!(made(&has_one)?, made(&unlabelled(&has_one))?);
        scene.remove()
    });
}
