//! A task that the proxy cannot do without ends: so does the process, with an exit code and a line that
//! say so.

use std::net::{SocketAddr, SocketAddrV4};

use xmpp_edge_tests::{foreign_socket, servers::S2S_PORT};

use crate::scene::Scene;

#[tokio::test]
async fn a_listener_that_can_accept_no_more_ends_the_process_with_its_reason_and_exit_code_1() {
    const REASON: &str = "a listener for streams ended before its time";
    let mut s = Scene::started().await.unwrap();
    for listener in [s.pod.public(S2S_PORT), s.pod.internal()] {
        s.delivers(&format!("before {listener}")).await.unwrap();
        let before = s.pod.log().len();
        let process = s.pod.process().unwrap();
        foreign_socket::stop_listening(process, v4(listener)).unwrap();
        let status = s.pod.ends().await.unwrap();
        let log = s.pod.log().split_off(before);
        assert_eq!(status.code(), Some(1), "{log}");
        let line = log.lines().find(|line| line.contains("the process ends"));
        let line = line.unwrap_or_else(|| panic!("no line says why: {log}"));
        assert!(line.contains("ERROR") && line.contains(REASON), "{line}");
        // For whoever has no log: the last that is written.
        assert!(
            log.trim_end().ends_with(&format!("error: {REASON}")),
            "{log}"
        );
        s.pod.launch().await.unwrap();
        s.pod.readiness(200, &["ready"], &[]).await.unwrap();
    }
    s.delivers("after").await.unwrap();
    s.pod.stop().await.unwrap();
}

fn v4(address: SocketAddr) -> SocketAddrV4 {
    match address {
        SocketAddr::V4(address) => address,
        SocketAddr::V6(_) => panic!("the lab is IPv4"),
    }
}
