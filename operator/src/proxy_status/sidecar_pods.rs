//! Pods with a sidecar, asked for `/readyz` where it is missing at edges: it alone knows at which step it fails.
//! Nobody is asked while all is well. What is not answered is told as such.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use futures::future::join_all;
use http_body_util::{BodyExt, Limited};
use hyper::Method;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use tokio::time::{Instant, timeout};

use super::border;
use crate::{
    runtime::{
        caches::Caches,
        http::{HttpError, HttpQuestion},
    },
    sidecar::parts::{ADMIN_PORT, LABEL},
};

/// Between two questions; what they say is to be in a status within 10 s.
pub const EVERY: Duration = Duration::from_secs(5);
/// A pod that takes longer does not answer.
const LONGEST: Duration = Duration::from_secs(2);
/// Pods that are asked at a time.
const MOST: usize = 8;
/// Octets of an answer that are read, and that are told on.
const MOST_READ: usize = 16 * 1024;
const MOST_TOLD: usize = 600;

/// Of one namespace.
#[derive(Debug, Default)]
pub struct SidecarPods {
    asked: Option<Instant>,
    told: BTreeMap<String, Vec<String>>,
}

impl SidecarPods {
    /// What the pods with sidecars of these gateways say, by gateway, a line each.
    pub async fn ask(
        &mut self,
        caches: &Caches,
        namespace: &str,
        gateways: &BTreeSet<String>,
    ) -> BTreeMap<String, Vec<String>> {
        if gateways.is_empty() {
            *self = Self::default();
            return BTreeMap::new();
        }
        if self.asked.is_some_and(|asked| asked.elapsed() < EVERY) {
            return self.told.clone();
        }
        let pods = caches.sidecar_pods.in_namespace(namespace);
        let of_gateway = |pod: &&Arc<Pod>| {
            let gateway = pod.labels().get(LABEL);
            gateway.is_some_and(|gateway| gateways.contains(gateway))
        };
        let questions = pods.iter().filter(of_gateway).take(MOST).map(|pod| async {
            let gateway = pod.labels().get(LABEL).cloned().unwrap_or_default();
            (
                gateway,
                format!("pod {}: {}", pod.name_any(), ask(pod).await),
            )
        });
        let mut told: BTreeMap<String, Vec<String>> = gateways
            .iter()
            .map(|gateway| (gateway.clone(), Vec::new()))
            .collect();
        for (gateway, words) in join_all(questions).await {
            told.entry(gateway).or_default().push(words);
        }
        self.asked = Some(Instant::now());
        self.told.clone_from(&told);
        told
    }
}

async fn ask(pod: &Pod) -> String {
    let status = pod.status.as_ref();
    let Some(ip) = status.and_then(|status| status.pod_ip.as_ref()) else {
        return "it does not run yet: `kubectl describe pod` says why".to_owned();
    };
    let address = if ip.contains(':') {
        format!("[{ip}]:{ADMIN_PORT}")
    } else {
        format!("{ip}:{ADMIN_PORT}")
    };
    let question = HttpQuestion {
        method: &Method::GET,
        host: &address,
        path: "/readyz",
        token: None,
    };
    let answer = question.send(&address, async |answer| {
        let body = Limited::new(answer.into_body(), MOST_READ).collect().await;
        let body = body.map(http_body_util::Collected::to_bytes);
        Ok::<_, HttpError>(body.unwrap_or_default())
    });
    match timeout(LONGEST, answer).await {
        Ok(Ok(body)) => words(&String::from_utf8_lossy(&body)),
        Ok(Err(error)) => format!("its sidecar does not answer on port {ADMIN_PORT}: {error}"),
        Err(_) => format!(
            "its sidecar does not answer on port {ADMIN_PORT} within {} s",
            LONGEST.as_secs()
        ),
    }
}

/// In one line, whatever a pod answers.
fn words(body: &str) -> String {
    let lines = body.lines().map(str::trim).filter(|line| !line.is_empty());
    let whole = lines.collect::<Vec<_>>().join("; ");
    let mut shown = border::line(&whole, MOST_TOLD);
    if whole.len() > MOST_TOLD {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_pod_answers_is_one_bounded_line() {
        let waits = "waiting for a trunk to 10.0.0.1:23456: step tcp\n\nits server: away\u{1b}[1m\u{202e}\u{200b}\n";
        assert_eq!(
            words(waits),
            "waiting for a trunk to 10.0.0.1:23456: step tcp; its server: away [1m  "
        );
        let long = words(&"x".repeat(10_000));
        assert!(long.ends_with('…') && long.chars().count() == MOST_TOLD + 1);
    }
}
