//! Streams at either end of a trunk that each hold the answer which the other one waits for.

use super::{
    engines::{Engine, at, edge, sidecar},
    pki::Pki,
};
use crate::{
    peers::{Confirms, server_that},
    unread::Circle,
};

#[tokio::test]
async fn streams_at_either_end_of_a_trunk_that_wait_for_each_other_s_answers_are_read_on() {
    const SECONDS: u32 = 3;
    let number = 72;
    let pki = Pki::new();
    let shown = pki.sidecar(&["org.example"]);
    let partner = server_that(at(number, 2, 5269), Confirms::Nothing);
    let gateway = server_that(at(number, 3, 5269), Confirms::Nothing);
    let document = edge(number, &pki, |document| {
        document["partners"][0]["confirmByPing"] = true.into();
        document["settings"]["queueTimeoutSeconds"] = SECONDS.into();
    });
    let edge = Engine::start(at(number, 1, 0), document);
    let mut settings = sidecar(number, &pki, &shown, &[edge.address]);
    settings.settings.queue_timeout_seconds = SECONDS;
    let sidecar = Engine::start(at(number, 4, 0), settings.into_inputs());
    let circle = Circle {
        theirs: edge.partner_stream("partner.example", "org.example").await,
        inside: sidecar
            .inside_stream("org.example", "partner.example")
            .await,
        partner,
        gateway,
    };
    circle.comes_round().await;
}
