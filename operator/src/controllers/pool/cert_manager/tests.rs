//! What cert-manager's objects say, as one answer.
#![allow(clippy::unwrap_used)]

use serde_json::json;

use super::*;

fn object(value: Value) -> DynamicObject {
    serde_json::from_value(value).unwrap()
}

fn certificate(conditions: Value) -> DynamicObject {
    object(
        json!({"apiVersion": "cert-manager.io/v1", "kind": "Certificate",
        "metadata": {"name": "hq", "generation": 2}, "spec": {},
        "status": {"revision": 1, "conditions": conditions}}),
    )
}

fn request(of: &str, revision: u64, conditions: Value) -> Arc<DynamicObject> {
    Arc::new(object(
        json!({"apiVersion": "cert-manager.io/v1", "kind": "CertificateRequest",
        "metadata": {"name": format!("{of}-{revision}"), "generation": 1,
            "annotations": {OF_CERTIFICATE: of, REVISION: revision.to_string()}},
        "spec": {}, "status": {"conditions": conditions}}),
    ))
}

fn said(kind: &str, status: &str, reason: &str, generation: i64) -> Value {
    json!({"type": kind, "status": status, "reason": reason, "message": "words", "observedGeneration": generation})
}

#[test]
fn the_newest_request_tells_why_nothing_is_issued_and_old_words_do_not_count() {
    let waiting = |reason: &str| {
        Some(Progress::Waiting {
            reason: reason.to_owned(),
            message: "words".to_owned(),
        })
    };
    let ready = || said("Ready", "True", "Ready", 2);
    let renewing = || said("Issuing", "True", "Renewing", 2);
    let pending = || {
        json!([
            said("Approved", "True", "ok", 1),
            said("Ready", "False", "Pending", 1)
        ])
    };
    let cases = [
        ("in order", json!([ready()]), vec![], None),
        ("nothing said", json!([]), vec![], Some(Progress::Unseen)),
        (
            "said of an older form",
            json!([said("Ready", "True", "Ready", 1)]),
            vec![],
            Some(Progress::Unseen),
        ),
        (
            "under way",
            json!([said("Ready", "False", "DoesNotExist", 2), renewing()]),
            vec![],
            waiting("DoesNotExist"),
        ),
        (
            "the request waits",
            json!([said("Ready", "False", "DoesNotExist", 2), renewing()]),
            vec![request("hq", 2, pending())],
            waiting("Pending"),
        ),
        (
            "a request of the revision in use, and one of another Certificate",
            json!([said("Ready", "False", "DoesNotExist", 2)]),
            vec![request("hq", 1, pending()), request("other", 3, pending())],
            waiting("DoesNotExist"),
        ),
        (
            "a renewal beside a good one",
            json!([ready(), renewing()]),
            vec![request("hq", 2, pending())],
            waiting("Pending"),
        ),
        (
            "given up",
            json!([ready(), said("Issuing", "False", "Denied", 2)]),
            vec![request("hq", 2, pending())],
            Some(Progress::Failed {
                reason: "Denied".to_owned(),
                message: "words".to_owned(),
            }),
        ),
    ];
    for (case, conditions, requests, expected) in cases {
        assert_eq!(
            progress(&certificate(conditions), &requests),
            expected,
            "{case}"
        );
    }
}

#[test]
fn a_request_that_nobody_approved_is_told() {
    let certificate = certificate(json!([said("Ready", "False", "DoesNotExist", 2)]));
    let told = progress(&certificate, &[request("hq", 2, json!([]))]).unwrap();
    assert!(!told.goes_on());
    let text = told.to_string();
    assert!(
        text.contains("\"hq-2\"") && text.contains("approve it"),
        "{text}"
    );
}
