//! One address behind which are several pods.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::net::{TcpListener, TcpStream};

use super::{
    engines::{BareSidecar, at, sidecar, until},
    pki::Pki,
    scripted::{ENABLED, End, ScriptedEdge},
};

const TRUNK: &str = "<trunk xmlns='urn:xmpp-edge:trunk:0'/>";

/// Hands each connection to the pod whose turn it is.
struct Balancer {
    address: SocketAddr,
    turn: Arc<AtomicUsize>,
}

impl Balancer {
    async fn open(address: SocketAddr, pods: Vec<SocketAddr>) -> Self {
        let listener = TcpListener::bind(address).await.expect("a free address");
        let turn = Arc::new(AtomicUsize::new(0));
        let own = Arc::clone(&turn);
        tokio::spawn(async move {
            while let Ok((mut from, _)) = listener.accept().await {
                let pod = pods[own.fetch_add(1, Ordering::SeqCst)];
                tokio::spawn(async move {
                    if let Ok(mut to) = TcpStream::connect(pod).await {
                        let _ = tokio::io::copy_bidirectional(&mut from, &mut to).await;
                    }
                });
            }
        });
        Self { address, turn }
    }

    fn turn_is(&self, pod: usize) {
        self.turn.store(pod, Ordering::SeqCst);
    }
}

/// The next trunk to this pod, of so many of its pool.
async fn welcome(edges: &[ScriptedEdge], pod: usize, replicas: u16) -> End {
    let mut end = edges[pod].next_with(TRUNK).await;
    end.hears("<enable ").await;
    let enabled = ENABLED.replace("hq-0", &format!("hq-{pod}"));
    let replicas = format!("replicas='{replicas}'");
    end.say(&enabled.replace("replicas='1'", &replicas)).await;
    end
}

#[tokio::test]
async fn b32_behind_one_address_each_pod_gets_a_trunk_and_one_that_comes_later_too() {
    let pki = Pki::new();
    let mut edges = Vec::new();
    for last in 11..15 {
        edges.push(ScriptedEdge::open(at(45, last, 23456), &pki).await);
    }
    let pods = edges.iter().map(|edge| edge.address).collect();
    let balancer = Balancer::open(at(45, 1, 23456), pods).await;
    let shown = pki.sidecar(&["org.example"]);
    let own = BareSidecar::start(sidecar(45, &pki, &shown, &[balancer.address]));
    let mut trunks = Vec::new();
    for pod in 0..3 {
        trunks.push(welcome(&edges, pod, 3).await);
    }
    let has_all = || !own.context.trunks.behind(balancer.address).lacks_pods;
    until("it has all that there are", has_all).await;
    // One pod more, and the balancer leads to one that it has before.
    balancer.turn_is(0);
    trunks[0]
        .say("<edge xmlns='urn:xmpp-edge:trunk:0' replicas='4'/>")
        .await;
    let again = welcome(&edges, 0, 4).await;
    balancer.turn_is(3);
    again.hears("<drain ").await;
    let _fourth = welcome(&edges, 3, 4).await;
    until("it has the fourth", has_all).await;
    assert_eq!(trunks[0].heard_times("<drain "), 0, "the first stays");
}
