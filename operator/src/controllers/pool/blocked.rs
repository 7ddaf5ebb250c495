//! Why pods of a pool are not there or not running, in the words of those who know: the Deployment's
//! controller, the scheduler, the kubelet. Pure.

use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{ContainerStatus, Pod},
};

/// Longest text of somebody else's in a condition, in characters.
const MAX_WORDS: usize = 512;
/// What every pod goes through at its start.
const STARTING: [&str; 2] = ["ContainerCreating", "PodInitializing"];

/// What keeps pods from running, where it is known: refused by a quota or admission, not scheduled
/// (no node, a volume that is not bound), an image that cannot be pulled, a process that ends.
#[must_use]
pub fn blocked<'a>(
    deployment: Option<&Deployment>,
    pods: impl IntoIterator<Item = &'a Pod>,
) -> Option<String> {
    refused(deployment).or_else(|| {
        let mut told: Vec<_> = pods.into_iter().filter_map(of_pod).collect();
        // The same text at each look, whatever the order of the store.
        told.sort();
        told.into_iter().next()
    })
}

/// Pods that the API server did not take.
fn refused(deployment: Option<&Deployment>) -> Option<String> {
    let conditions = deployment?.status.as_ref()?.conditions.as_ref()?;
    let failure = conditions
        .iter()
        .find(|it| it.type_ == "ReplicaFailure" && it.status == "True")?;
    let words = failure.message.as_deref().unwrap_or_default();
    Some(format!("its pods cannot be created: {}", cut(words)))
}

fn of_pod(pod: &Pod) -> Option<String> {
    if pod.metadata.deletion_timestamp.is_some() {
        return None;
    }
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let status = pod.status.as_ref()?;
    let unscheduled = status
        .conditions
        .iter()
        .flatten()
        .find(|it| it.type_ == "PodScheduled" && it.status == "False");
    if let Some(condition) = unscheduled {
        let words = condition.message.as_deref().unwrap_or_default();
        return Some(format!("pod {name} is not scheduled: {}", cut(words)));
    }
    let containers = status.init_container_statuses.iter().flatten();
    containers
        .chain(status.container_statuses.iter().flatten())
        .find_map(waiting)
        .map(|why| format!("pod {name} does not start: {why}"))
}

fn waiting(container: &ContainerStatus) -> Option<String> {
    let waiting = container.state.as_ref()?.waiting.as_ref()?;
    let reason = waiting.reason.as_deref()?;
    if STARTING.contains(&reason) {
        return None;
    }
    let mut text = format!("container {} waits with {reason}", container.name);
    for words in [waiting.message.as_deref(), ended(container)] {
        if let Some(words) = words.filter(|words| !words.trim().is_empty()) {
            text.push_str(": ");
            text.push_str(&cut(words));
        }
    }
    Some(text)
}

/// The last words of a process that ended.
fn ended(container: &ContainerStatus) -> Option<&str> {
    let last = container.last_state.as_ref()?.terminated.as_ref()?;
    last.message.as_deref()
}

fn cut(words: &str) -> String {
    words.trim().chars().take(MAX_WORDS).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::{Value, json};

    use super::*;

    fn pod(name: &str, status: Value) -> Pod {
        serde_json::from_value(json!({"metadata": {"name": name}, "status": status})).unwrap()
    }

    fn container(state: Value) -> Value {
        json!({"name": "proxy", "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": state})
    }

    #[test]
    fn what_keeps_pods_from_running_is_told_in_the_words_of_who_knows() {
        let quota = json!({"status": {"conditions": [{"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate",
            "message": "pods \"hq-1\" is forbidden: exceeded quota: q, requested: pods=1"}]}});
        let quota: Deployment = serde_json::from_value(quota).unwrap();
        let unbound = pod(
            "hq-1",
            json!({"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable",
                "message": "0/1 nodes are available: pod has unbound immediate PersistentVolumeClaims."}]}),
        );
        let waiting = |reason: &str, message: &str| {
            container(json!({"waiting": {"reason": reason, "message": message}}))
        };
        let image = pod(
            "hq-2",
            json!({"containerStatuses": [waiting("ImagePullBackOff", "Back-off pulling image \"x:1\"")]}),
        );
        let mut crash = waiting("CrashLoopBackOff", "back-off 10s");
        crash["lastState"] =
            json!({"terminated": {"exitCode": 1, "message": "error: cannot listen on [::]:9090"}});
        let crash = pod("hq-3", json!({"containerStatuses": [crash]}));
        for (deployment, pods, words) in [
            (Some(&quota), vec![&image], "exceeded quota: q"),
            (
                None,
                vec![&unbound],
                "pod hq-1 is not scheduled: 0/1 nodes are available: pod has unbound immediate PersistentVolumeClaims",
            ),
            (
                None,
                vec![&image],
                "pod hq-2 does not start: container proxy waits with ImagePullBackOff: Back-off pulling image \"x:1\"",
            ),
            (
                None,
                vec![&crash],
                "CrashLoopBackOff: back-off 10s: error: cannot listen on [::]:9090",
            ),
            // The same whatever the order.
            (None, vec![&crash, &image], "pod hq-2"),
            (None, vec![&image, &crash], "pod hq-2"),
        ] {
            let said = blocked(deployment, pods).unwrap();
            assert!(said.contains(words), "{words:?} in {said:?}");
        }
    }

    #[test]
    fn a_pod_that_starts_or_ends_or_runs_is_no_news() {
        let creating = pod(
            "a",
            json!({"containerStatuses": [container(json!({"waiting": {"reason": "ContainerCreating"}}))]}),
        );
        let mut going = pod(
            "b",
            json!({"containerStatuses": [container(json!({"waiting": {"reason": "CrashLoopBackOff"}}))]}),
        );
        going.metadata.deletion_timestamp =
            Some(serde_json::from_value(json!("2026-01-01T00:00:00Z")).unwrap());
        let runs = pod(
            "c",
            json!({"conditions": [{"type": "PodScheduled", "status": "True"}],
                "containerStatuses": [container(json!({"running": {}}))]}),
        );
        assert_eq!(blocked(None, [&creating, &going, &runs]), None);
        assert_eq!(blocked(Some(&Deployment::default()), []), None);
    }

    #[test]
    fn somebody_elses_words_are_bounded() {
        let long = "x".repeat(100_000);
        let pod = pod(
            "a",
            json!({"containerStatuses": [container(json!({"waiting": {"reason": "ErrImagePull", "message": long}}))]}),
        );
        let said = blocked(None, [&pod]).unwrap();
        assert!(said.len() < 1024, "{}", said.len());
    }
}
