//! What the node of the test environment promises: pods under the restricted profile run, are found by
//! Services and load balancers, see their ConfigMaps change, and reach partners on the internet.
#![allow(clippy::unwrap_used)]

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use serde_json::json;
use xmpp_edge_tests::{
    cluster::{
        Kubectl,
        node::{BUSYBOX, Cluster, DNS, Site, on_the_internet},
    },
    dns::NameServer,
    wait,
};

const NAMESPACE: &str = "hello";

/// What may run in a namespace that enforces `restricted`.
fn deployment() -> serde_json::Value {
    let serve = "busybox httpd -f -p 8080 -h /pages";
    let container = json!({"name": "hello", "image": BUSYBOX, "command": ["/bin/busybox", "sh", "-c", serve],
        "readinessProbe": {"httpGet": {"path": "/page", "port": 8080}, "periodSeconds": 1},
        "securityContext": {"allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": {"drop": ["ALL"]}},
        "volumeMounts": [{"name": "pages", "mountPath": "/pages"}]});
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "hello"}, "spec": {
        "replicas": 2, "selector": {"matchLabels": {"app": "hello"}},
        "template": {"metadata": {"labels": {"app": "hello"}}, "spec": {
            "automountServiceAccountToken": false, "terminationGracePeriodSeconds": 1,
            "securityContext": {"runAsNonRoot": true, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [container],
            "volumes": [{"name": "pages", "configMap": {"name": "pages"}}]}}}})
}

fn pages(text: &str) -> serde_json::Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "pages"}, "data": {"page": text}})
}

fn apply(kubectl: &Kubectl, object: &serde_json::Value) -> Result<()> {
    let arguments = ["apply", "--namespace", NAMESPACE, "--filename=-"];
    kubectl.run_with(&arguments, &object.to_string())?;
    Ok(())
}

fn exec(kubectl: &Kubectl, command: &str) -> Result<String> {
    let place = ["exec", "--namespace", NAMESPACE, "deployment/hello", "--"];
    let shell = ["/bin/busybox", "sh", "-c", command];
    kubectl.run(&[&place[..], &shell].concat())
}

/// Two pods behind a load balancer's address.
async fn serve(cluster: &Cluster, page: &str) -> Result<()> {
    let kubectl = cluster.server().kubectl();
    let enforced = [("pod-security.kubernetes.io/enforce", "restricted")];
    cluster.server().namespace(NAMESPACE, &enforced).await?;
    apply(kubectl, &pages(page))?;
    apply(kubectl, &deployment())?;
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "hello"}, "spec": {
        "type": "LoadBalancer", "externalTrafficPolicy": "Local", "selector": {"app": "hello"},
        "ports": [{"port": 80, "targetPort": 8080}]}});
    apply(kubectl, &service)?;
    cluster.balance(NAMESPACE, "hello", 1).await?;
    let limit = ["--namespace", NAMESPACE, "--timeout=60s"];
    kubectl.run(&[&["rollout", "status", "deployment/hello"], &limit[..]].concat())?;
    Ok(())
}

#[test]
fn restricted_pods_run_and_are_found_and_see_their_config_change() {
    on_the_internet(Duration::from_secs(240), async |internet| {
        let cluster = Cluster::start(Site::First).await?;
        let kubectl = cluster.server().kubectl();
        serve(&cluster, "one").await?;

        // By the Service's name, from a pod, which may be led back to itself.
        let own = "for try in 1 2 3 4 5 6; do busybox wget -qO- http://hello.hello.svc.cluster.local/page; done";
        ensure!(exec(kubectl, own)? == "one".repeat(6));

        // A partner's name and address.
        let names = NameServer::start(internet.address(DNS.octets()[3])?).await?;
        let partner = internet.address(10)?;
        names.host("partner.example", partner);
        let listener = TcpListener::bind((partner, 80))?;
        let caller = std::thread::spawn(move || -> Result<_> {
            let (mut stream, caller) = listener.accept()?;
            // All of it: what is unread at the end would reset the connection, and the answer with it.
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                stream.read_exact(&mut byte)?;
                request.push(byte[0]);
            }
            stream.write_all(b"HTTP/1.0 200 OK\r\nConnection: close\r\n\r\nwelcome")?;
            Ok(caller)
        });
        ensure!(exec(kubectl, "busybox wget -qO- http://partner.example/")? == "welcome");
        let caller = caller.join().unwrap()?.ip().to_string();
        ensure!(
            caller.starts_with("198.18.0."),
            "the pod itself called: {caller}"
        );

        // From outside, by the load balancer's address.
        let balancer = cluster.site().balancer(1);
        let page = async || -> Option<String> {
            let address = (balancer, 80).into();
            let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1)).ok()?;
            stream.write_all(b"GET /page HTTP/1.0\r\n\r\n").ok()?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).ok()?;
            answer.split("\r\n\r\n").nth(1).map(str::to_owned)
        };
        let first = wait::until("the balancer leads to a pod", wait::GENEROUS, page).await?;
        ensure!(first == "one", "{first:?}");

        // A change reaches a pod soon where it is annotated.
        apply(kubectl, &pages("two"))?;
        let annotate = [
            "annotate",
            "pods",
            "--all",
            "--namespace",
            NAMESPACE,
            "changed=now",
        ];
        kubectl.run(&annotate)?;
        let start = std::time::Instant::now();
        let changed = async || page().await.filter(|page| page == "two");
        wait::until("the change arrives", wait::GENEROUS, changed).await?;
        eprintln!("the change arrived after {:?}", start.elapsed());

        let pods = kubectl.run(&["logs", "--namespace", NAMESPACE, "deployment/hello"]);
        pods.map(|_| ()).context("logs can be read")
    });
}

#[test]
fn two_clusters_reach_each_other_by_their_load_balancers() {
    on_the_internet(Duration::from_secs(240), async |_| {
        let (first, second) =
            tokio::try_join!(Cluster::start(Site::First), Cluster::start(Site::Second))?;
        tokio::try_join!(serve(&first, "first"), serve(&second, "second"))?;
        for (from, to, page) in [(&first, &second, "second"), (&second, &first, "first")] {
            let ask = format!("busybox wget -qO- http://{}/page", to.site().balancer(1));
            let told = async || exec(from.server().kubectl(), &ask).ok();
            let told = wait::until("the other answers", wait::GENEROUS, told).await?;
            ensure!(told == page, "{told}");
        }
        Ok(())
    });
}
