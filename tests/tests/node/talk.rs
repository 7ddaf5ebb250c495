//! People who talk while an administrator works, and the account of it.

use anyhow::{Result, ensure};
use xmpp_edge_tests::{
    client::Client,
    servers::Server,
    traffic::{Account, End, Traffic},
    wait,
};

use crate::stage::{OWN, Stage};

/// Messages a second, each way.
pub const RATE: u32 = 50;

/// Traffic both ways between two users whose servers acknowledge and send again.
pub struct Talk {
    inbound: Traffic,
    outbound: Traffic,
}

/// What became of it.
#[derive(Debug)]
pub struct Outcome {
    pub inbound: Account,
    pub outbound: Account,
}

impl Talk {
    /// Between `alice@org.example` and `dave@friend.example`; returns once messages arrive both ways.
    pub async fn begin(stage: &Stage) -> Result<Self> {
        let alice = End {
            server: stage.inside,
            jid: format!("alice@{OWN}"),
        };
        let dave = End {
            server: stage.friend.c2s(),
            jid: "dave@friend.example".to_owned(),
        };
        Self::between(alice, dave).await
    }

    /// Between a user inside and a partner's; returns once messages arrive both ways.
    pub async fn between(inside: End, outside: End) -> Result<Self> {
        let talk = Self {
            inbound: Traffic::start(outside.clone(), inside.clone(), u32::MAX, RATE).await?,
            outbound: Traffic::start(inside, outside, u32::MAX, RATE).await?,
        };
        talk.goes_on().await?;
        Ok(talk)
    }

    /// Waits until two seconds' worth of messages more have arrived each way.
    pub async fn goes_on(&self) -> Result<()> {
        for traffic in [&self.inbound, &self.outbound] {
            let more = 2 * RATE as usize;
            traffic.arrived(traffic.so_far() + more).await?;
        }
        Ok(())
    }

    /// Ends it, and prints what became of it.
    pub async fn end(self) -> Result<Outcome> {
        self.inbound.stop();
        self.outbound.stop();
        let outcome = Outcome {
            inbound: self.inbound.finish().await?,
            outbound: self.outbound.finish().await?,
        };
        println!(
            "inbound  {}\noutbound {}",
            outcome.inbound, outcome.outbound
        );
        Ok(outcome)
    }
}

impl Outcome {
    /// That every message has its fate.
    pub fn nothing_lost(&self) -> Result<()> {
        for account in [&self.inbound, &self.outbound] {
            ensure!(
                account.lost == 0,
                "lost {:?}: {account}",
                account.lost_numbers
            );
        }
        Ok(())
    }

    /// That every message arrived, once and in order.
    pub fn undisturbed(&self) -> Result<()> {
        self.nothing_lost()?;
        for account in [&self.inbound, &self.outbound] {
            let as_sent = account.delivered == account.sent && account.late.is_empty();
            ensure!(as_sent && account.duplicates == 0, "{account}");
        }
        Ok(())
    }
}

/// What `alice@org.example` is told of a message to a user of `server`: nothing, as it arrives, or the
/// condition of the error that comes back.
pub async fn sent_to(stage: &Stage, server: &Server, user: &str) -> Result<Option<String>> {
    let alice = Client::login(stage.inside, &format!("alice@{OWN}"), "asking").await?;
    let other = server.login(user).await?;
    let id = alice.fresh_id();
    alice.message(other.full(), &id, "are you there?").await?;
    tokio::select! {
        delivered = other.expect_message(&id) => delivered.map(|_| None),
        answered = alice.expect_message(&id) => {
            Ok(Some(answered?.error_condition().unwrap_or_default().to_owned()))
        }
    }
}

/// Waits until a message to the partner's user fares so.
pub async fn until_sent(stage: &Stage, what: &str, fate: Option<&str>) -> Result<()> {
    let mut last = None;
    let found = wait::until(what, wait::GENEROUS, async || {
        let now = sent_to(stage, &stage.partner, "bob").await;
        let right = now.as_ref().is_ok_and(|now| now.as_deref() == fate);
        last = Some(now);
        right.then_some(())
    });
    let found = found.await;
    found.map_err(|error| error.context(format!("{last:?}")))
}
