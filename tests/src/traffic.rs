//! Numbered messages at a rate, and the account of what became of each: "nothing lost" as numbers.
//!
//! Sender and receiver log in again whenever their server is gone. A number has one of three
//! fates: delivered (once or more), answered with an error, or lost.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use anyhow::Result;
use parking_lot::Mutex;
use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{Instant, sleep, sleep_until},
};

use crate::{client::Client, wait, xml::Element};

/// Messages a second of the fault scenarios.
pub const RATE: u32 = 500;

/// How long nothing may arrive before the account is closed: longer than `queueTimeoutSeconds` (20), after
/// which what waits is answered.
const QUIET: Duration = Duration::from_secs(25);

/// One end of the traffic: a user at a server.
#[derive(Clone, Debug)]
pub struct End {
    pub server: SocketAddr,
    /// Bare JID.
    pub jid: String,
}

/// What was seen so far.
#[derive(Debug, Default)]
struct SeenTraffic {
    /// Numbers written to the sender's server.
    sent: BTreeSet<u32>,
    /// Numbers in order of arrival, duplicates included.
    arrived: Vec<u32>,
    /// Numbers answered with an error, with the condition.
    failed: BTreeMap<u32, String>,
    /// Numbers that arrived or were answered.
    fated: BTreeSet<u32>,
    last: Option<Instant>,
}

/// The final account.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Account {
    pub sent: usize,
    /// Different numbers that arrived.
    pub delivered: usize,
    /// Arrivals beyond the first of a number.
    pub duplicates: usize,
    /// Answered with an error and not delivered.
    pub bounced: usize,
    /// Answered with an error although delivered.
    pub bounced_and_delivered: usize,
    /// Neither delivered nor answered.
    pub lost: usize,
    /// Which these are.
    pub lost_numbers: Vec<u32>,
    /// First arrivals that came late: the number, and the highest that had arrived before it.
    pub late: Vec<(u32, u32)>,
    /// Errors by condition.
    pub conditions: BTreeMap<String, usize>,
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "sent {:>5}  delivered {:>5}  duplicates {:>4}  bounced {:>5}  both {:>3}  lost {:>4}  disordered {:>3}  {:?}",
            self.sent,
            self.delivered,
            self.duplicates,
            self.bounced,
            self.bounced_and_delivered,
            self.lost,
            self.late.len(),
            self.conditions
        )?;
        if let Some((number, after)) = self.late.first() {
            write!(f, " first late: {number} after {after}")?;
        }
        Ok(())
    }
}

impl Account {
    /// The late arrivals that `log` does not explain, the log of a sender's Prosody with
    /// [`crate::servers::Spec::trace`]. Prosody breaks the order itself when it dials: it writes
    /// newer stanzas as soon as SASL succeeded, and only after the next stream features what it
    /// had queued meanwhile, past the log: new stanzas, and those of an earlier stream that were
    /// not acknowledged.
    pub fn late_beside(&self, log: &str) -> Vec<(u32, u32)> {
        let mut first = BTreeMap::new();
        let mut last = BTreeMap::new();
        let mut flushes = Vec::new();
        for (at, line) in log.lines().enumerate() {
            let session = line.split_whitespace().next().unwrap_or_default();
            if let Some(number) = written(line) {
                first.entry(number).or_insert((at, session));
                last.insert(number, (at, session));
            } else if line.contains(" queued stanzas across new outgoing connection") {
                flushes.push((at, session));
            }
        }
        let own = |number: &u32, after: &u32| {
            let Some((higher, stream)) = first.get(after) else {
                return false;
            };
            let flushed = flushes
                .iter()
                .any(|(at, session)| at > higher && session == stream);
            match last.get(number) {
                None => flushed,
                Some((at, session)) => at > higher || (session != stream && flushed),
            }
        };
        self.late
            .iter()
            .filter(|(n, after)| !own(n, after))
            .copied()
            .collect()
    }

    /// Those lost that `log` does not explain, the log of the receiver's Prosody with
    /// [`crate::servers::Spec::trace`]. A Prosody that stops goes on taking stanzas in and
    /// acknowledging them (XEP-0198) after its clients are gone, and its error for them never
    /// leaves: what it acknowledged, it lost.
    pub fn lost_beside(&self, log: &str) -> Vec<u32> {
        let mut taken: BTreeMap<&str, BTreeSet<u32>> = BTreeMap::new();
        let mut acknowledged = BTreeSet::new();
        for line in log.lines().filter(|line| line.starts_with("s2sin")) {
            let session = line.split_whitespace().next().unwrap_or_default();
            if let Some(number) = numbered(line, "RECV: <message") {
                taken.entry(session).or_default().insert(number);
            } else if line.contains("SEND: <a ") {
                acknowledged.append(taken.entry(session).or_default());
            }
        }
        let own = |number: &&u32| !acknowledged.contains(*number);
        self.lost_numbers.iter().filter(own).copied().collect()
    }
}

/// The number that this line of Prosody's stanza log says was written to another server.
fn written(line: &str) -> Option<u32> {
    numbered(line.strip_prefix("s2sout")?, "SEND: <message")
}

/// The number of the stanza behind `mark` in a line of the log.
fn numbered(line: &str, mark: &str) -> Option<u32> {
    let stanza = line.split_once(mark)?.1;
    let digits = stanza
        .split_once("'n-")
        .or_else(|| stanza.split_once("\"n-"))?
        .1;
    digits
        .split(|c: char| !c.is_ascii_digit())
        .next()?
        .parse()
        .ok()
}

impl SeenTraffic {
    /// Whether fewer than `ahead` messages have no fate yet.
    fn has_room(&self, ahead: usize) -> bool {
        self.sent.len().saturating_sub(self.fated.len()) < ahead
    }

    fn account(&self) -> Account {
        let delivered: BTreeSet<u32> = self.arrived.iter().copied().collect();
        let mut late = Vec::new();
        let mut highest = 0;
        let mut first = BTreeSet::new();
        for number in &self.arrived {
            if first.insert(*number) {
                if highest > *number {
                    late.push((*number, highest));
                }
                highest = highest.max(*number);
            }
        }
        let mut conditions = BTreeMap::new();
        for condition in self.failed.values() {
            *conditions.entry(condition.clone()).or_default() += 1;
        }
        let fate = |n: &&u32| delivered.contains(n) || self.failed.contains_key(n);
        Account {
            sent: self.sent.len(),
            delivered: delivered.len(),
            duplicates: self.arrived.len() - delivered.len(),
            bounced: self
                .failed
                .keys()
                .filter(|n| !delivered.contains(n))
                .count(),
            bounced_and_delivered: self.failed.keys().filter(|n| delivered.contains(n)).count(),
            lost: self.sent.iter().filter(|n| !fate(n)).count(),
            lost_numbers: self.sent.iter().filter(|n| !fate(n)).copied().collect(),
            late,
            conditions,
        }
    }
}

/// Running traffic from one end to the other.
pub struct Traffic {
    seen: Arc<Mutex<SeenTraffic>>,
    /// How many are to be sent.
    count: Arc<AtomicU32>,
    /// Set once all was sent.
    done: watch::Receiver<bool>,
    tasks: Vec<JoinHandle<()>>,
}

impl Traffic {
    /// Logs both ends in (the receiver with a presence, so that messages to its bare JID reach it),
    /// then starts sending `count` messages at `rate` a second.
    ///
    /// # Errors
    /// When one of them cannot log in at first.
    pub async fn start(from: End, to: End, count: u32, rate: u32) -> Result<Self> {
        Self::start_within(from, to, (count, rate), usize::MAX).await
    }

    /// As [`Self::start`], with no more than `ahead` messages without a fate: a machine that cannot carry the
    /// rate is not given more and more.
    ///
    /// # Errors
    /// As there.
    pub async fn start_within(
        from: End,
        to: End,
        (count, rate): (u32, u32),
        ahead: usize,
    ) -> Result<Self> {
        let seen = Arc::new(Mutex::new(SeenTraffic::default()));
        let receiver = receiver(&to).await?;
        let sender = Client::login(from.server, &from.jid, "sender").await?;
        let (tx, done) = watch::channel(false);
        let count = Arc::new(AtomicU32::new(count));
        let tasks = vec![
            tokio::spawn(receive(to.clone(), receiver, Arc::clone(&seen))),
            tokio::spawn(send(
                from,
                to.jid,
                sender,
                Arc::clone(&count),
                (rate, ahead),
                Arc::clone(&seen),
                tx,
            )),
        ];
        Ok(Self {
            seen,
            count,
            done,
            tasks,
        })
    }

    /// The receiver is this user too, at a server of its own.
    ///
    /// # Errors
    /// When it cannot log in at first.
    pub async fn arrives_also_at(&mut self, to: End) -> Result<()> {
        let client = receiver(&to).await?;
        let seen = Arc::clone(&self.seen);
        self.tasks.push(tokio::spawn(receive(to, client, seen)));
        Ok(())
    }

    /// Waits until `count` numbers have arrived.
    ///
    /// # Errors
    /// When they do not in time.
    pub async fn arrived(&self, count: usize) -> Result<()> {
        wait::until(
            &format!("{count} messages arrive"),
            wait::GENEROUS,
            || async { (self.seen.lock().arrived.len() >= count).then_some(()) },
        )
        .await
    }

    /// How many messages have arrived so far, duplicates included.
    pub fn so_far(&self) -> usize {
        self.seen.lock().arrived.len()
    }

    /// How many messages were written to the sender's server so far.
    pub fn sent(&self) -> usize {
        self.seen.lock().sent.len()
    }

    /// Sends no further message, though fewer than asked for were sent.
    pub fn stop(&self) {
        self.count.store(0, Ordering::Relaxed);
    }

    /// Waits until everything was sent and each has its fate, or nothing more comes for a while.
    ///
    /// # Errors
    /// When the sender cannot get rid of its messages within four minutes.
    pub async fn finish(mut self) -> Result<Account> {
        wait::within("all messages are sent", Duration::from_secs(240), async {
            self.done.wait_for(|done| *done).await?;
            Ok(())
        })
        .await?;
        let start = Instant::now();
        let _ = wait::until(
            "the traffic comes to rest",
            Duration::from_secs(120),
            || async {
                let seen = self.seen.lock();
                let account = seen.account();
                let quiet = seen.last.unwrap_or(start).max(start).elapsed() > QUIET;
                (account.lost == 0 || quiet).then_some(())
            },
        )
        .await;
        Ok(self.seen.lock().account())
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

async fn receiver(to: &End) -> Result<Client> {
    let client = Client::login(to.server, &to.jid, "receiver").await?;
    client.presence(None, None, "").await?;
    Ok(client)
}

async fn receive(to: End, mut client: Client, seen: Arc<Mutex<SeenTraffic>>) {
    loop {
        while let Some(stanzas) = client.batch(Duration::from_millis(500)).await {
            record(&stanzas, &seen);
        }
        client = again(|| receiver(&to)).await;
    }
}

/// Tries until it works: the server is being restarted.
async fn again<F: Future<Output = Result<Client>>>(mut login: impl FnMut() -> F) -> Client {
    loop {
        match login().await {
            Ok(client) => return client,
            Err(_) => sleep(Duration::from_millis(50)).await,
        }
    }
}

fn record(stanzas: &[Element], seen: &Mutex<SeenTraffic>) {
    let mut seen = seen.lock();
    for stanza in stanzas.iter().filter(|s| s.name == "message") {
        let Some(number) = stanza
            .attribute("id")
            .and_then(|id| id.strip_prefix("n-")?.parse().ok())
        else {
            continue;
        };
        seen.last = Some(Instant::now());
        seen.fated.insert(number);
        match stanza.error_condition() {
            Some(condition) => {
                seen.failed.insert(number, condition.to_owned());
            }
            None => seen.arrived.push(number),
        }
    }
}

async fn send(
    from: End,
    to: String,
    mut client: Client,
    count: Arc<AtomicU32>,
    (rate, ahead): (u32, usize),
    seen: Arc<Mutex<SeenTraffic>>,
    done: watch::Sender<bool>,
) {
    const BURST: u32 = 5;
    let pause = Duration::from_secs(1) * BURST / rate;
    let mut at = Instant::now();
    let mut next = 0;
    loop {
        let mut connected = true;
        loop {
            let count = count.load(Ordering::Relaxed);
            if !connected || next >= count {
                break;
            }
            sleep_until(at).await;
            at = (at + pause).max(Instant::now() - pause);
            if !seen.lock().has_room(ahead) {
                match client.batch(Duration::ZERO).await {
                    Some(stanzas) => record(&stanzas, &seen),
                    None => connected = false,
                }
                continue;
            }
            let last = (next + BURST).min(count);
            let burst: String = (next..last).map(|n| message(&to, n)).collect();
            connected = client.send(&burst).await.is_ok();
            if connected {
                seen.lock().sent.extend(next..last);
                next = last;
            }
            match client.batch(Duration::ZERO).await {
                Some(stanzas) => record(&stanzas, &seen),
                None => connected = false,
            }
        }
        if next >= count.load(Ordering::Relaxed) {
            let _ = done.send(true);
        }
        while connected {
            match client.batch(Duration::from_millis(500)).await {
                Some(stanzas) => record(&stanzas, &seen),
                None => connected = false,
            }
        }
        client = again(|| Client::login(from.server, &from.jid, "sender")).await;
    }
}

/// About 220 bytes, as chat messages are.
fn message(to: &str, number: u32) -> String {
    format!(
        "<message to='{to}' type='chat' id='n-{number}' xml:lang='en'><body>message number {number}: \
         the quick brown fox jumps over the lazy dog</body><request xmlns='urn:xmpp:receipts'/></message>"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_number_has_one_fate_and_order_counts_first_arrivals_only() {
        let seen = SeenTraffic {
            sent: (0..8).collect(),
            arrived: vec![0, 1, 3, 2, 3, 4],
            failed: BTreeMap::from([(4, "x".into()), (5, "y".into())]),
            ..SeenTraffic::default()
        };
        let account = seen.account();
        assert_eq!((account.delivered, account.duplicates), (5, 1));
        assert_eq!((account.bounced, account.bounced_and_delivered), (1, 1));
        assert_eq!((account.lost, account.late), (2, vec![(2, 3)]));
    }

    #[test]
    fn only_what_the_receivers_server_acknowledged_is_its_own_loss() {
        let account = Account {
            lost: 3,
            lost_numbers: vec![7, 8, 9],
            ..Account::default()
        };
        let log = "s2sin1 debug\tRECV: <message id='n-7'>\n\
                   s2sin2 debug\tRECV: <message id='n-8'>\n\
                   s2sin1 debug\tSEND: <a xmlns='urn:xmpp:sm:3' h='1'/>\n\
                   s2sin1 debug\tRECV: <message id='n-9'>\n";
        assert_eq!(account.lost_beside(log), [8, 9]);
    }
}
