//! Traffic both ways at once, and the account of it.

use anyhow::{Result, ensure};
use tokio::sync::{Mutex, MutexGuard};
use xmpp_edge_tests::traffic::{Account, End, RATE, Traffic};

use crate::scene::SidecarScene;

/// Messages a second each way: what two slow cores carry beside all these processes, most of which log each
/// stanza.
pub const EACH_WAY: u32 = RATE / 5;
/// On their way at most: of a machine that is too slow for the rate no more is asked.
pub const AHEAD: usize = 3 * EACH_WAY as usize;
/// No more comes twice than can have been unacknowledged when somebody died: XEP-0198 is asked once a round trip, a
/// trunk that is silent is given up within 10 s.
pub const MOST_TWICE: usize = 12 * EACH_WAY as usize;

/// More than is ever sent: it is stopped.
const ENOUGH: u32 = 2_000 * EACH_WAY;

/// One of these tests at a time: beside another one's traffic a server may not even start in time.
pub async fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::const_new(());
    TURN.lock().await
}

pub struct BothWays {
    pub outbound: Traffic,
    pub inbound: Traffic,
}

/// What became of all of it.
pub struct BothAccounts {
    pub outbound: Account,
    pub inbound: Account,
}

/// At [`EACH_WAY`], until it is stopped.
pub async fn one_way(from: End, to: End) -> Result<Traffic> {
    Traffic::start_within(from, to, (ENOUGH, EACH_WAY), AHEAD).await
}

impl BothWays {
    /// Between the partner's user and the own one at the first server.
    pub async fn start(scene: &SidecarScene) -> Result<Self> {
        Self::between(scene.alice(0), scene.bob()).await
    }

    /// As [`Self::start`], between these two.
    pub async fn between(alice: End, bob: End) -> Result<Self> {
        let own = Self {
            outbound: one_way(alice.clone(), bob.clone()).await?,
            inbound: one_way(bob, alice).await?,
        };
        own.flows(1).await?;
        Ok(own)
    }

    /// How many were written so far, outbound and inbound.
    pub fn sent(&self) -> (usize, usize) {
        (self.outbound.sent(), self.inbound.sent())
    }

    /// Until what is sent in so many seconds has arrived, each way.
    pub async fn flows(&self, seconds: u32) -> Result<()> {
        let more = (seconds * EACH_WAY) as usize;
        tokio::try_join!(
            self.outbound.arrived(self.outbound.so_far() + more),
            self.inbound.arrived(self.inbound.so_far() + more)
        )?;
        Ok(())
    }

    /// Sends no more, and waits until each message has its fate.
    pub async fn finish(self) -> Result<BothAccounts> {
        self.outbound.stop();
        self.inbound.stop();
        let (outbound, inbound) = tokio::try_join!(self.outbound.finish(), self.inbound.finish())?;
        println!("outbound: {outbound}");
        println!("inbound:  {inbound}");
        Ok(BothAccounts { outbound, inbound })
    }
}

impl BothAccounts {
    /// Nothing is lost but by a server itself, and nothing answered; outbound order is kept.
    pub fn ensure_kept(&self, scene: &SidecarScene) -> Result<()> {
        let (partner, inside) = (scene.partner.log(), scene.insides[0].log());
        for (account, sender, receiver) in [
            (&self.outbound, &inside, &partner),
            (&self.inbound, &partner, &inside),
        ] {
            let lost = account.lost_beside(receiver);
            ensure!(lost.is_empty(), "lost {lost:?}: {account}");
            let late = account.late_beside(sender);
            ensure!(late.is_empty(), "late {late:?}: {account}");
        }
        Ok(())
    }
}
