//! Memory under a flood, seen from outside: in a process of its own, so that no other test is measured.

#![allow(dead_code, unused_imports)] // The lab knows more than this needs.

#[path = "engine/peers/mod.rs"]
mod peers;

use peers::{Lab, Plan, message};

/// Memory of this process that is resident, in bytes (proc(5), `statm`).
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("Linux");
    let pages = statm.split(' ').nth(1).expect("the second field");
    pages.parse::<usize>().expect("a number") * 4096
}

/// S-03: each stanza of the flood cost 36 bytes and more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s_03_a_flood_that_is_settled_at_once_costs_no_memory_while_one_stanza_waits() {
    let plan = Plan {
        gateway_acks: true,
        ..Plan::default()
    };
    let lab = Lab::start(28, plan).await;
    let mut partner = lab.partner_stream().await;
    partner.say("<enable xmlns='urn:xmpp:sm:3'/>").await;
    partner.hears("<enabled").await;
    // The gateway never acknowledges it: it stays in custody.
    partner.say(&message(0)).await;
    lab.gateway.heard_stanzas(1).await;
    let dropped = "<presence from='rob@partner.example/x' to='alice@org.example' type='x'/>";
    let burst = dropped.repeat(1_000);
    partner.say(&burst).await;
    let before = resident();
    for _ in 0..1_000 {
        partner.say(&burst).await;
    }
    partner.say("<r xmlns='urn:xmpp:sm:3'/>").await;
    partner.hears("<a xmlns='urn:xmpp:sm:3' h='0'/>").await;
    let grown = resident().saturating_sub(before);
    assert!(grown < 16 << 20, "{grown} bytes for a million stanzas");
    lab.gateway.say(1, "<a xmlns='urn:xmpp:sm:3' h='1'/>").await;
    lab.stop().await;
}
