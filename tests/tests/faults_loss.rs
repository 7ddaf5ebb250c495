//! What is lost when something dies at 500 messages a second: each server and the edge in turn,
//! restarted in order, killed, and frozen for 3 s and then killed; and beside it, what the same two
//! servers lose without the edge.
//!
//! Prints a table. The promise is asserted where the chain can keep it: whatever way the next hop
//! confirms by, XEP-0198, `db:verify` or pings.

#![allow(clippy::unwrap_used)]

use std::{fmt, time::Duration};

use anyhow::{Context, Result};
use serde_json::json;
use tokio::time::{Instant, sleep_until};
use xmpp_edge_tests::{
    federation::{Federation, FederationPlan, Method, OWN, PARTNER},
    lab::Lab,
    servers::{
        Acknowledge,
        Kind::{self, Ejabberd, Ejabberd24, Prosody, Prosody13},
        Security, Server,
    },
    traffic::{Account, End, RATE, Traffic},
};

/// Messages of one run.
const COUNT: u32 = 4000;
/// How many have arrived when the fault strikes.
const BEFORE: usize = 1000;
/// Names more runs: every server as next hop, every method.
const ALL: &str = "FAULTS_ALL";
/// Prints all logs of a run that lost something or broke the order.
const LOGS: &str = "FAULTS_LOGS";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Restart,
    Kill,
    /// SIGSTOP for 3 s, then SIGKILL.
    Freeze,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Victim {
    Sender,
    Edge,
    Receiver,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Restart => "restart",
            Self::Kill => "kill -9",
            Self::Freeze => "freeze, kill",
        })
    }
}

/// What can be hurt, whichever process it is.
trait Mortal {
    async fn restart(&mut self) -> Result<()>;
    fn freeze(&self);
    fn kill(&mut self);
    async fn launch(&mut self) -> Result<()>;
}

macro_rules! mortal {
    ($type:ty) => {
        impl Mortal for $type {
            async fn restart(&mut self) -> Result<()> {
                self.restart().await
            }
            fn freeze(&self) {
                self.freeze();
            }
            fn kill(&mut self) {
                self.kill();
            }
            async fn launch(&mut self) -> Result<()> {
                self.launch().await
            }
        }
    };
}
mortal!(Server);
mortal!(xmpp_edge_tests::edge::Edge);

async fn strike(fault: Fault, victim: &mut impl Mortal) -> Result<()> {
    match fault {
        Fault::Restart => victim.restart().await,
        Fault::Kill => {
            victim.kill();
            victim.launch().await
        }
        Fault::Freeze => {
            victim.freeze();
            // The scenario itself is a duration.
            sleep_until(Instant::now() + Duration::from_secs(3)).await;
            victim.kill();
            victim.launch().await
        }
    }
}

fn end(server: &Server, user: &str) -> End {
    End {
        server: server.c2s(),
        jid: format!("{user}@{}", server.spec().domain),
    }
}

/// One run through the edge.
struct Run {
    account: Account,
    /// Lost without the receiver's server having acknowledged them.
    lost: Vec<u32>,
    /// Late arrivals that the sender's server did not cause itself.
    late: usize,
    /// Messages that the edge passed on, less those that arrived or were answered; counts only
    /// while the edge lives through the run.
    missing: i64,
}

/// Which way the messages go: from alice@org.example to bob@partner.example, or back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Direction {
    Outbound,
    Inbound,
}
use Direction::{Inbound, Outbound};

async fn through_the_edge(
    plan: FederationPlan,
    direction: Direction,
    victim: Victim,
    fault: Fault,
) -> Result<Run> {
    let mut scene = Federation::start_with(plan, &json!({ "queueTimeoutSeconds": 20 })).await?;
    let (alice, bob) = (end(&scene.inside, "alice"), end(&scene.partner, "bob"));
    let (from, to) = match direction {
        Outbound => (alice, bob),
        Inbound => (bob, alice),
    };
    let traffic = Traffic::start(from, to, COUNT, RATE).await?;
    let outcome = async {
        traffic.arrived(BEFORE).await?;
        match (victim, direction) {
            (Victim::Edge, _) => strike(fault, &mut scene.edge).await?,
            (Victim::Sender, Outbound) | (Victim::Receiver, Inbound) => {
                strike(fault, &mut scene.inside).await?
            }
            (Victim::Receiver, Outbound) | (Victim::Sender, Inbound) => {
                strike(fault, &mut scene.partner).await?
            }
        }
        let account = traffic.finish().await?;
        let (label, sender, receiver) = match direction {
            Outbound => ("direction=\"outbound\"", &scene.inside, &scene.partner),
            Inbound => ("direction=\"inbound\"", &scene.partner, &scene.inside),
        };
        let labels = [label, "kind=\"message\""];
        let passed = scene.edge.metric("stanzas_total", &labels).await? as i64;
        let accounted = account.delivered
            + account.duplicates
            + account.bounced
            + account.bounced_and_delivered;
        Ok(Run {
            lost: account.lost_beside(&receiver.log()),
            late: account.late_beside(&sender.log()).len(),
            missing: passed - i64::try_from(accounted)?,
            account,
        })
    }
    .await;
    let wanted = match &outcome {
        Ok(run) => std::env::var_os(LOGS).is_some() && run.account.lost + run.late > 0,
        Err(_) => true,
    };
    if wanted {
        eprintln!("{}", scene.logs());
    }
    outcome
}

/// The same two servers without the edge.
async fn direct(
    kind: Kind,
    acknowledge: Acknowledge,
    victim: Victim,
    fault: Fault,
) -> Result<Account> {
    let lab = Lab::new().await?;
    let mut from = lab.spec(OWN, 1, "alice", Security::Certificates);
    let mut to = lab.spec(PARTNER, 2, "bob", Security::Certificates);
    (from.acknowledge, to.acknowledge) = (acknowledge, acknowledge);
    lab.publish(&from);
    lab.publish(&to);
    let (mut from, mut to) = tokio::try_join!(
        Server::start(kind, from, lab.directory()),
        Server::start(kind, to, lab.directory())
    )?;
    let traffic = Traffic::start(end(&from, "alice"), end(&to, "bob"), COUNT, RATE).await?;
    traffic.arrived(BEFORE).await?;
    match victim {
        Victim::Sender => strike(fault, &mut from).await?,
        Victim::Edge => unreachable!("there is no edge"),
        Victim::Receiver => strike(fault, &mut to).await?,
    }
    traffic.finish().await
}

fn plan(partner: Kind, method: Method, inside: Kind) -> FederationPlan {
    FederationPlan {
        partner,
        partner_method: method,
        inside,
        inside_method: Method::External,
        inside_acknowledge: Acknowledge::Resending,
        trace: true,
    }
}

fn row(what: &str, victim: Victim, fault: Fault, account: &Account) {
    println!("{what:<45} {victim:<9?} {fault:<13} {account}");
}

impl Run {
    fn row(&self, plan: FederationPlan, direction: Direction, victim: Victim, fault: Fault) {
        let (from, to) = match direction {
            Outbound => (plan.inside, plan.partner),
            Inbound => (plan.partner, plan.inside),
        };
        let what = format!(
            "{from:?}, edge, {to:?} ({}, {direction:?})",
            plan.partner_method
        );
        row(&what, victim, fault, &self.account);
        println!(
            "{:>70} late beside the sender's own: {}, missing: {}",
            "", self.late, self.missing
        );
    }

    /// Nothing lost, order kept, and no more duplicates, or answers to what was delivered, than
    /// can have been unacknowledged at that moment: Prosody asks once a round trip, and a freeze
    /// lasts 3 s.
    fn assert_kept(&self) {
        let account = &self.account;
        assert_eq!(self.lost, Vec::<u32>::new(), "{account}");
        assert_eq!(self.late, 0, "{account}");
        let twice = account.duplicates + account.bounced_and_delivered;
        assert!(twice <= 4 * RATE as usize, "{account}");
    }
}

async fn kept(direction: Direction, victim: Victim, fault: Fault) {
    kept_by(
        plan(Prosody, Method::External, Prosody),
        direction,
        victim,
        fault,
    )
    .await;
}

async fn kept_by(plan: FederationPlan, direction: Direction, victim: Victim, fault: Fault) {
    let run = through_the_edge(plan, direction, victim, fault)
        .await
        .unwrap();
    run.row(plan, direction, victim, fault);
    run.assert_kept();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_when_the_edge_is_restarted() {
    kept(Outbound, Victim::Edge, Fault::Restart).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_when_the_edge_is_killed() {
    kept(Outbound, Victim::Edge, Fault::Kill).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_when_the_edge_freezes() {
    kept(Outbound, Victim::Edge, Fault::Freeze).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_when_the_partner_is_restarted() {
    kept(Outbound, Victim::Receiver, Fault::Restart).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_when_the_partner_is_killed() {
    kept(Outbound, Victim::Receiver, Fault::Kill).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_when_the_partner_freezes() {
    kept(Outbound, Victim::Receiver, Fault::Freeze).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_when_the_edge_is_killed_under_inbound_traffic() {
    kept(Inbound, Victim::Edge, Fault::Kill).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_when_the_server_inside_is_killed() {
    kept(Inbound, Victim::Receiver, Fault::Kill).await;
}

/// ejabberd cannot acknowledge; what it did not confirm on the same stream (behaviour.md, section
/// 3) is sent again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_unconfirmed_is_lost_when_ejabberd_inside_is_frozen_and_killed() {
    let plan = plan(Prosody, Method::External, Ejabberd);
    kept_by(plan, Inbound, Victim::Receiver, Fault::Freeze).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_unconfirmed_is_lost_when_a_newer_ejabberd_inside_is_frozen_and_killed() {
    let plan = plan(Prosody, Method::External, Ejabberd24);
    kept_by(plan, Inbound, Victim::Receiver, Fault::Freeze).await;
}

/// ejabberd without dialback answers pings alone, as most servers would: those count.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_unconfirmed_is_lost_when_a_server_inside_that_only_answers_pings_is_frozen_and_killed()
 {
    let plan = FederationPlan {
        inside_acknowledge: Acknowledge::AsPackaged,
        ..plan(Prosody, Method::External, Ejabberd)
    };
    kept_by(plan, Inbound, Victim::Receiver, Fault::Freeze).await;
}

/// A partner without XEP-0198 is asked by pings.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_unconfirmed_is_lost_when_a_partner_that_only_answers_pings_is_frozen_and_killed() {
    let plan = plan(Ejabberd, Method::External, Prosody);
    kept_by(plan, Outbound, Victim::Receiver, Fault::Freeze).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_unconfirmed_is_lost_when_a_newer_partner_that_only_answers_pings_is_frozen_and_killed()
 {
    let plan = plan(Ejabberd24, Method::TlsDialback, Prosody);
    kept_by(plan, Outbound, Victim::Receiver, Fault::Freeze).await;
}

/// Prosody 0.12 has no XEP-0198 on streams of dialback.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_unconfirmed_is_lost_when_a_partner_of_dialback_is_frozen_and_killed() {
    let plan = plan(Prosody, Method::TlsDialback, Prosody);
    kept_by(plan, Outbound, Victim::Receiver, Fault::Freeze).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_when_a_newer_partner_freezes() {
    let plan = plan(Prosody13, Method::External, Prosody);
    kept_by(plan, Outbound, Victim::Receiver, Fault::Freeze).await;
}

/// What dies in the sender's own server is that server's; what it had handed over arrives.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_handed_over_is_lost_when_the_senders_server_is_killed() {
    let plan = plan(Prosody, Method::External, Prosody);
    let run = through_the_edge(plan, Outbound, Victim::Sender, Fault::Kill)
        .await
        .unwrap();
    run.row(plan, Outbound, Victim::Sender, Fault::Kill);
    assert!(
        run.missing <= 0,
        "{} of what the edge took: {}",
        run.missing,
        run.account
    );
    assert_eq!(run.late, 0, "{}", run.account);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_edge_the_same_servers_are_measured_when_the_partner_freezes() {
    let (victim, fault) = (Victim::Receiver, Fault::Freeze);
    for acknowledge in [Acknowledge::AsPackaged, Acknowledge::Resending] {
        let account = direct(Prosody, acknowledge, victim, fault).await.unwrap();
        row(
            &format!("Prosody, Prosody ({acknowledge:?})"),
            victim,
            fault,
            &account,
        );
        assert_eq!(account.sent, COUNT as usize);
    }
}

/// The long table, only with the environment variable: it takes a quarter of an hour.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn table_of_every_server_method_and_fault() {
    if std::env::var_os(ALL).is_none() {
        eprintln!("skipped: set {ALL}=1 for the long table");
        return;
    }
    let faults = [Fault::Restart, Fault::Kill, Fault::Freeze];
    for (partner, method, inside, direction) in [
        (Prosody, Method::External, Prosody, Outbound),
        (Prosody, Method::External, Prosody, Inbound),
        (Prosody13, Method::External, Prosody, Outbound),
        (Ejabberd, Method::External, Prosody, Outbound),
        (Ejabberd24, Method::TlsDialback, Prosody, Outbound),
        (Prosody, Method::External, Ejabberd, Inbound),
        (Prosody, Method::External, Ejabberd24, Inbound),
        (Prosody, Method::External, Ejabberd, Outbound),
        (Prosody, Method::TlsDialback, Prosody, Outbound),
        (Prosody, Method::Bidi, Prosody, Outbound),
        (Prosody, Method::TcpDialback, Prosody, Outbound),
    ] {
        for victim in [Victim::Sender, Victim::Edge, Victim::Receiver] {
            for fault in faults {
                let plan = plan(partner, method, inside);
                let run = through_the_edge(plan, direction, victim, fault)
                    .await
                    .with_context(|| format!("{plan:?} {direction:?} {victim:?} {fault}"))
                    .unwrap();
                run.row(plan, direction, victim, fault);
            }
        }
    }
    for (kind, acknowledge) in [
        (Prosody, Acknowledge::AsPackaged),
        (Prosody, Acknowledge::Resending),
        (Ejabberd, Acknowledge::AsPackaged),
    ] {
        for victim in [Victim::Sender, Victim::Receiver] {
            for fault in faults {
                let account = direct(kind, acknowledge, victim, fault).await.unwrap();
                row(
                    &format!("{kind:?}, {kind:?} ({acknowledge:?})"),
                    victim,
                    fault,
                    &account,
                );
            }
        }
    }
}
