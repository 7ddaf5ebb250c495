//! A next hop that is away for a while, or slow: what an outage shorter than `queueTimeoutSeconds` costs, with
//! real servers of each kind on each side, beside what the same costs without the edge.
//!
//! The short ones run always; `make loss` prints all of them as a table (`docs/loss.md`).

#![allow(clippy::unwrap_used)]

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use futures::future::try_join_all;
use serde_json::json;
use tokio::time::sleep;
use xmpp_edge_tests::{
    federation::{Federation, FederationPlan, Method, OWN, PARTNER, PARTNER_NAME},
    lab::Lab,
    servers::{
        Acknowledge,
        Kind::{self, Ejabberd, Ejabberd24, Prosody, Prosody13},
        S2S_PORT, Security, Server,
    },
    silent::Silent,
    traffic::{Account, End, Traffic},
};

/// Messages a second.
const RATE: u32 = 100;
/// How many have arrived when the server goes.
const BEFORE: usize = 100;
/// `queueTimeoutSeconds`.
const PATIENCE: Duration = Duration::from_secs(20);
/// All rows, as a table.
const ALL: &str = "FAULTS_ALL";
/// What a server answers for a user who has not come back yet.
const NOT_LOGGED_IN: &str = "service-unavailable";

/// Who is away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Partner,
    Gateway,
}
use Side::{Gateway, Partner};

/// How it is away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Absence {
    /// Killed, and started so that it is back after about this time.
    Killed(u64),
    /// Before anything was sent: it accepts connections and says nothing for this time (SIGSTOP).
    Slow(u64),
    /// The first of the partner's two targets never answers.
    FirstTargetSilent,
}
use Absence::{FirstTargetSilent, Killed, Slow};

#[derive(Clone, Copy, Debug)]
struct Case {
    side: Side,
    kind: Kind,
    /// `confirmByPing` of the partner.
    asked: bool,
    absence: Absence,
}

const fn case(side: Side, kind: Kind, absence: Absence) -> Case {
    Case {
        side,
        kind,
        asked: true,
        absence,
    }
}

/// What came of it.
#[derive(Debug)]
struct Outcome {
    account: Account,
    /// How long nobody was there.
    away: Duration,
    /// Answered with an error that is not [`NOT_LOGGED_IN`].
    errors: usize,
    /// Lost, and not by a server that had confirmed it.
    lost: usize,
    /// Late, and not by the sender's own server.
    late: usize,
}

impl Outcome {
    fn new(account: Account, away: Duration, (lost, late): (usize, usize)) -> Self {
        let errors = account.conditions.iter();
        let errors = errors.filter(|(condition, _)| *condition != NOT_LOGGED_IN);
        Self {
            errors: errors.map(|(_, count)| count).sum(),
            lost,
            late,
            away,
            account,
        }
    }

    fn row(&self, what: &str) {
        let Account {
            sent,
            delivered,
            duplicates,
            conditions,
            ..
        } = &self.account;
        let not_logged_in = conditions.get(NOT_LOGGED_IN).copied().unwrap_or_default();
        println!(
            "| {what} | {:.1} s | {sent} | {delivered} | {duplicates} | {} | {not_logged_in} | {} | {} |",
            self.away.as_secs_f64(),
            self.errors,
            self.lost,
            self.late
        );
    }

    /// An outage shorter than the queue's time costs nobody an error, loses nothing and keeps order.
    fn costs_nothing(&self, case: &Case) {
        if self.away >= PATIENCE {
            return;
        }
        let what = format!("{}: {}", what(case), self.account);
        assert_eq!((self.errors, self.late), (0, 0), "{what}");
        let own = match case.kind {
            Prosody | Prosody13 => 0,
            // What it had confirmed and not yet written to its client when it was killed is its own; its log
            // does not tell.
            Ejabberd | Ejabberd24 => RATE as usize,
        };
        assert!(self.lost <= own, "{what}");
    }
}

fn end(server: &Server, user: &str) -> End {
    End {
        server: server.c2s(),
        jid: format!("{user}@{}", server.spec().domain),
    }
}

/// About how long a server of this kind takes to be ready.
fn boot(kind: Kind) -> u64 {
    match kind {
        Prosody | Prosody13 => 1,
        Ejabberd | Ejabberd24 => 4,
    }
}

async fn leave(server: &mut Server, seconds: u64) -> Result<Duration> {
    let began = Instant::now();
    server.kill();
    // The scenario itself is a duration.
    sleep(Duration::from_secs(
        seconds.saturating_sub(boot(server.kind())),
    ))
    .await;
    server.launch().await?;
    Ok(began.elapsed())
}

async fn stall(server: &Server, seconds: u64) -> Result<Duration> {
    // The scenario itself is a duration.
    sleep(Duration::from_secs(seconds)).await;
    server.thaw();
    Ok(Duration::ZERO)
}

async fn through_the_edge(case: Case) -> Result<Outcome> {
    let (partner, inside) = match case.side {
        Partner => (case.kind, Prosody),
        Gateway => (Prosody, case.kind),
    };
    let plan = FederationPlan {
        partner,
        partner_method: Method::External,
        inside,
        inside_method: Method::External,
        inside_acknowledge: Acknowledge::Resending,
        trace: true,
    };
    let mut scene = Federation::start(plan).await?;
    if !case.asked {
        scene
            .edge
            .edit("XmppFederatedPartner", PARTNER_NAME, |partner| {
                partner["spec"]["confirmByPing"] = json!(false);
            })?;
    }
    let lab = &scene.lab;
    let _silent = (case.absence == FirstTargetSilent)
        .then(|| {
            let dns = lab.dns();
            dns.host("silent.partner.example", lab.ip(11));
            let service = format!("_xmpp-server._tcp.{PARTNER}");
            dns.remove(&service);
            dns.srv(&service, 1, 0, S2S_PORT, "silent.partner.example");
            dns.srv(&service, 2, 0, S2S_PORT, &format!("xmpp.{PARTNER}"));
            Silent::at((lab.ip(11), S2S_PORT).into())
        })
        .transpose()?;
    let (alice, bob) = (end(&scene.inside, "alice"), end(&scene.partner, "bob"));
    let (from, to) = match case.side {
        Partner => (alice, bob),
        Gateway => (bob, alice),
    };
    let seconds = match case.absence {
        Killed(seconds) | Slow(seconds) => seconds,
        FirstTargetSilent => 1,
    };
    let count = RATE * (u32::try_from(seconds)? + 4);
    let traffic = Traffic::start(from, to, count, RATE).await?;
    let away = match case.absence {
        FirstTargetSilent => Duration::ZERO,
        Killed(seconds) => {
            traffic.arrived(BEFORE).await?;
            let server = match case.side {
                Partner => &mut scene.partner,
                Gateway => &mut scene.inside,
            };
            leave(server, seconds).await?
        }
        Slow(seconds) => {
            let server = match case.side {
                Partner => &scene.partner,
                Gateway => &scene.inside,
            };
            server.freeze();
            stall(server, seconds).await?
        }
    };
    let account = traffic.finish().await?;
    let (sender, receiver) = match case.side {
        Partner => (&scene.inside, &scene.partner),
        Gateway => (&scene.partner, &scene.inside),
    };
    let lost = account.lost_beside(&receiver.log()).len();
    let late = account.late_beside(&sender.log()).len();
    let outcome = Outcome::new(account, away, (lost, late));
    if outcome.errors + outcome.lost + outcome.late > 0 && std::env::var_os("FAULTS_LOGS").is_some()
    {
        eprintln!("{}", scene.logs());
    }
    Ok(outcome)
}

/// The same two servers without the edge.
async fn direct(acknowledge: Acknowledge, seconds: u64) -> Result<Outcome> {
    let lab = Lab::new().await?;
    let mut from = lab.spec(OWN, 1, "alice", Security::Certificates);
    let mut to = lab.spec(PARTNER, 2, "bob", Security::Certificates);
    (from.acknowledge, to.acknowledge) = (acknowledge, acknowledge);
    (from.trace, to.trace) = (true, true);
    lab.publish(&from);
    lab.publish(&to);
    let (from, mut to) = tokio::try_join!(
        Server::start(Prosody, from, lab.directory()),
        Server::start(Prosody, to, lab.directory())
    )?;
    let count = RATE * (u32::try_from(seconds)? + 4);
    let traffic = Traffic::start(end(&from, "alice"), end(&to, "bob"), count, RATE).await?;
    traffic.arrived(BEFORE).await?;
    let away = leave(&mut to, seconds).await?;
    let account = traffic.finish().await?;
    let lost = account.lost_beside(&to.log()).len();
    let late = account.late_beside(&from.log()).len();
    Ok(Outcome::new(account, away, (lost, late)))
}

fn what(case: &Case) -> String {
    let Case {
        side,
        kind,
        asked,
        absence,
    } = case;
    let confirms = match (kind, side, asked) {
        (Prosody | Prosody13, ..) => "acknowledges (XEP-0198)",
        (_, Gateway, _) => "asked by `db:verify`",
        (_, Partner, true) => "asked by ping",
        (_, Partner, false) => "never asked",
    };
    let how = match absence {
        Killed(seconds) => format!("killed, away for {seconds} s"),
        Slow(seconds) => format!("says nothing for {seconds} s"),
        FirstTargetSilent => "first target silent".to_owned(),
    };
    format!("{side:?}, {kind:?}, {confirms}: {how}")
}

async fn run(cases: &[Case]) -> Vec<Outcome> {
    let runs = cases
        .iter()
        .map(async |case| through_the_edge(*case).await.with_context(|| what(case)));
    let outcomes = try_join_all(runs).await.unwrap();
    for (case, outcome) in cases.iter().zip(&outcomes) {
        outcome.row(&what(case));
    }
    outcomes
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outage_of_seconds_costs_nobody_anything_whoever_confirms_and_however() {
    let cases = [
        case(Partner, Prosody, Killed(3)),
        case(Partner, Prosody, FirstTargetSilent),
        case(Gateway, Ejabberd, Killed(3)),
    ];
    for (case, outcome) in cases.iter().zip(run(&cases).await) {
        outcome.costs_nothing(case);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outage_almost_as_long_as_a_stanza_waits_costs_nobody_anything() {
    let cases = [
        case(Partner, Prosody, Killed(18)),
        case(Gateway, Prosody, Killed(18)),
        case(Partner, Prosody, Slow(22)),
    ];
    for (case, outcome) in cases.iter().zip(run(&cases).await) {
        outcome.costs_nothing(case);
    }
}

/// The long table, only with the environment variable.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn table_of_every_server_and_outage() {
    if std::env::var_os(ALL).is_none() {
        eprintln!("skipped: set {ALL}=1 for the long table");
        return;
    }
    println!(
        "| next hop | away | sent | delivered | duplicates | errors | not logged in again | lost | late |"
    );
    println!("| --- | --- | --- | --- | --- | --- | --- | --- | --- |");
    for seconds in [3, 10, 18, 22] {
        let mut cases: Vec<_> = [
            (Partner, Prosody),
            (Partner, Prosody13),
            (Gateway, Prosody),
            (Partner, Ejabberd),
            (Gateway, Ejabberd),
            (Gateway, Ejabberd24),
        ]
        .map(|(side, kind)| case(side, kind, Killed(seconds)))
        .into();
        cases.push(Case {
            asked: false,
            ..case(Partner, Ejabberd, Killed(seconds))
        });
        for few in cases.chunks(2) {
            run(few).await;
        }
        for acknowledge in [Acknowledge::AsPackaged, Acknowledge::Resending] {
            let outcome = direct(acknowledge, seconds).await.unwrap();
            outcome.row(&format!(
                "no edge: Prosody to Prosody ({acknowledge:?}): killed, away for {seconds} s"
            ));
        }
    }
    run(&[
        case(Partner, Prosody, FirstTargetSilent),
        case(Partner, Prosody, Slow(22)),
    ])
    .await;
    run(&[case(Gateway, Prosody, Slow(22))]).await;
}
