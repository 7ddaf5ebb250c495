//! The pods of a pool: which they are, what they serve, and their violent end.

use std::{collections::BTreeMap, fs, net::Ipv4Addr, process::Command};

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::stage::{EDGE, Stage};

/// How the processes of proxy and sidecar begin.
pub const PROXY: &str = "xmpp-edge";

/// One pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    pub name: String,
    pub uid: String,
    pub restarts: i64,
    pub ready: bool,
    pub ending: bool,
    pub image: String,
    /// Of the pod template.
    pub print: String,
}

impl Stage {
    /// The pods of a pool, sorted by name.
    pub fn pods(&self, pool: &str) -> Result<Vec<Pod>> {
        let selector = format!("--selector=xmpp-edge.dev/pool={pool}");
        let arguments = [
            "get",
            "pods",
            "--namespace",
            EDGE,
            &selector,
            "--output=json",
        ];
        let all: Value = serde_json::from_str(&self.kubectl().run(&arguments)?)?;
        let pods = all["items"].as_array().context("items")?;
        let mut pods: Vec<Pod> = pods.iter().map(Pod::of).collect();
        pods.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(pods)
    }

    /// What stays the same as long as no pod of any pool is replaced or restarted.
    pub fn lives(&self) -> Result<BTreeMap<String, i64>> {
        let pods = [self.pods("hq")?, self.pods("branch")?].concat();
        Ok(pods
            .into_iter()
            .map(|pod| (pod.uid, pod.restarts))
            .collect())
    }

    /// SIGKILL to the proxy in a pod.
    pub fn kill(&self, pod: &Pod) -> Result<()> {
        self.kill_called(&pod.uid, PROXY)
    }

    /// SIGKILL to the processes that are called so in the pod of this uid.
    pub fn kill_called(&self, uid: &str, name: &str) -> Result<()> {
        let mine = self.processes_called(uid, name)?;
        ensure!(!mine.is_empty(), "no process {name} of pod {uid}");
        for id in mine {
            kill_process(id, Signal::KILL)?;
        }
        Ok(())
    }

    /// The proxy's processes in a pod.
    pub fn processes(&self, pod: &Pod) -> Result<Vec<Pid>> {
        self.processes_called(&pod.uid, PROXY)
    }

    /// The processes whose names begin so in the pod of this uid.
    pub fn processes_called(&self, uid: &str, name: &str) -> Result<Vec<Pid>> {
        let group = format!("pod{uid}");
        let entries = fs::read_dir("/proc")?.flatten();
        let ids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
        let mine = ids.filter(|id| {
            let read = |file: &str| fs::read_to_string(format!("/proc/{id}/{file}"));
            let named = read("comm").is_ok_and(|comm| comm.starts_with(name));
            named && read("cgroup").is_ok_and(|groups| groups.contains(&group))
        });
        Ok(mine.filter_map(Pid::from_raw).collect())
    }

    /// The certificate that a pool's load balancer leads partners to, in base64.
    pub fn served(&self, host: u8) -> Result<String> {
        let address: Ipv4Addr = self.cluster.site().balancer(host);
        let dialled = Command::new("openssl")
            .args([
                "s_client",
                "-starttls",
                "xmpp-server",
                "-xmpphost",
                crate::stage::OWN,
            ])
            .args(["-connect", &format!("{address}:5269")])
            .stdin(std::process::Stdio::null())
            .output()?;
        let text = String::from_utf8_lossy(&dialled.stdout).into_owned();
        let (_, rest) = text
            .split_once("-----BEGIN CERTIFICATE-----")
            .context("a certificate")?;
        let (body, _) = rest.split_once("-----END").context("a certificate's end")?;
        Ok(body.split_whitespace().collect())
    }
}

impl Pod {
    fn of(pod: &Value) -> Self {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let (metadata, status) = (&pod["metadata"], &pod["status"]["containerStatuses"][0]);
        Self {
            name: text(&metadata["name"]),
            uid: text(&metadata["uid"]),
            restarts: status["restartCount"].as_i64().unwrap_or_default(),
            ready: status["ready"] == true,
            image: text(&pod["spec"]["containers"][0]["image"]),
            ending: metadata["deletionTimestamp"].is_string(),
            print: text(&metadata["labels"]["pod-template-hash"]),
        }
    }
}
