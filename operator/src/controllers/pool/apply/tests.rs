//! What is applied, and what is left as it is.

use super::*;

fn outcome(wanted: &str, held: &Value) -> Outcome {
    Outcome {
        pool: "hq".to_owned(),
        version: version(held),
        wanted: wanted.to_owned(),
        observed_hash: print_of(&settled(held.clone())),
    }
}

#[test]
fn what_another_operator_applied_is_told_from_what_people_change() {
    let object = |print: &str, version: &str| json!({"metadata": {"name": "a", "resourceVersion": version, "annotations": {APPLIED: print}}});
    let last = outcome("p", &object("p", "7"));
    let by = |wanted: &str, held: &Value| rewriter(wanted, Some(held), Some(&last));
    assert_eq!(by("p", &object("q", "8")), Some(Rewriter::Operator));
    assert_eq!(by("p", &object("p", "8")), Some(Rewriter::Somebody));
    assert_eq!(by("p", &object("q", "6")), None, "a form from before ours");
    assert_eq!(by("r", &object("q", "8")), None, "we want another form now");
    let never = rewriter("p", Some(&object("q", "8")), None);
    assert_eq!(never, None, "we never wrote it");
}

#[test]
fn who_changes_an_object_again_and_again_is_told_where_with_what_to_do() {
    let manifest = json!({"metadata": {"name": "hq"}, "spec": {"empty": {}, "replicas": 2, "ports": [{"port": 1}]}});
    for (held, kind, says) in [
        (
            json!({"metadata": {"name": "hq"}, "spec": {"replicas": 5, "ports": [{"port": 1}]}}),
            ChildKind::Deployment,
            [
                "sets spec.replicas again",
                "scale the EdgePool, not its Deployment",
            ],
        ),
        (
            json!({"metadata": {"name": "hq"}, "spec": {"replicas": 2}}),
            ChildKind::Service,
            ["sets spec.ports again", "set it in the EdgePool"],
        ),
    ] {
        let error = disputed(kind, format!("{kind:?} \"hq\""), &held, &manifest);
        let told = error.to_string();
        assert!(says.iter().all(|it| told.contains(it)), "{told}");
        assert!(error.is_refusal() && !error.lasts() && error.reason() == "Contended");
    }
}

#[test]
fn only_what_differs_is_applied() {
    let manifest = json!({"metadata": {"name": "a", "annotations": {APPLIED: "p"}},
        "spec": {"ports": [{"port": 1}], "empty": {}}});
    let held = json!({"metadata": {"name": "a", "uid": "u", "resourceVersion": "7", "annotations": {APPLIED: "p", "x": "y"}},
        "spec": {"ports": [{"port": 2}, {"port": 1, "nodePort": 9}], "defaulted": true}, "status": {"a": 1}});
    let needed =
        |held: Option<&Value>, last: Option<&Outcome>| is_needed(&manifest, "p", held, last, true);
    assert!(needed(None, None), "it is not there");
    assert!(
        !needed(Some(&held), None),
        "it is there, by whatever process"
    );
    let mut drifted = held.clone();
    drifted["spec"]["ports"] = json!([{"port": 2}]);
    assert!(needed(Some(&drifted), None), "somebody changed it");
    let mut earlier = held.clone();
    earlier["metadata"]["annotations"][APPLIED] = json!("before");
    assert!(needed(Some(&earlier), None), "a field less is wanted");
    // "1000m" became "1": it differs for ever, and was applied as it is.
    let last = outcome("p", &drifted);
    assert!(!needed(Some(&drifted), Some(&last)));
    let mut newer = drifted.clone();
    newer["metadata"]["resourceVersion"] = json!("8");
    newer["status"] = json!({"a": 2});
    assert!(
        !needed(Some(&newer), Some(&last)),
        "only its status changed"
    );
    assert!(needed(Some(&held), Some(&outcome("q", &held))) == needed(Some(&held), None));
}

#[test]
fn a_kind_that_is_not_watched_is_applied_once() {
    let manifest = json!({"metadata": {"name": "a"}});
    let last = outcome("p", &manifest);
    let needed = |wanted, last| is_needed(&manifest, wanted, None, last, false);
    assert!(needed("p", None));
    assert!(!needed("p", Some(&last)));
    assert!(needed("q", Some(&last)));
}

#[test]
fn what_is_mounted_is_told_apart_by_content_and_generation() {
    let material = |value: &str| {
        let mut material = SecretData::new();
        crate::secrets::store::set(&mut material, "key", value);
        material
    };
    let print = |generation, value| print_of_mounted(generation, &[material(value)]);
    assert_eq!(print(1, "a"), print(1, "a"));
    assert_ne!(print(1, "a"), print(2, "a"));
    assert_ne!(print(1, "a"), print(1, "b"));
}
