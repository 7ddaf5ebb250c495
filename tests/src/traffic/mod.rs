//! Numbered messages at a rate, and the account of what became of each: "nothing lost" as numbers.
//!
//! Sender and receiver log in again whenever their server is gone. A number has one of three
//! fates: delivered (once or more), answered with an error, or lost.

mod account;

use std::{
    collections::{BTreeMap, BTreeSet},
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

pub use account::Account;

use crate::{client::Client, wait, xml::Element};

/// Messages a second of the fault scenarios.
pub const RATE: u32 = 500;

/// How long nothing may arrive before the account is closed: longer than `queueTimeoutSeconds` (20), after
/// which what waits is answered.
const QUIET: Duration = Duration::from_secs(25);

/// Of traffics that were begun in this process.
static NUMBER: AtomicU32 = AtomicU32::new(0);

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
    /// Numbers answered with an error.
    failed: BTreeMap<u32, StanzaFailure>,
    /// Numbers that arrived or were answered.
    fated: BTreeSet<u32>,
    last: Option<Instant>,
}

/// What a sender was told of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
struct StanzaFailure {
    condition: String,
    text: String,
    /// The sender's own server said it: it names itself in the error (RFC 6120 section 8.3.2), as Prosody does.
    is_of_own_server: bool,
}

impl StanzaFailure {
    fn of(stanza: &Element) -> Option<Self> {
        let condition = stanza.error_condition()?.to_owned();
        let sender = stanza.attribute("to").unwrap_or_default();
        let (_, host) = sender.split_once('@').unwrap_or(("", sender));
        let by = stanza
            .child("error")
            .and_then(|error| error.attribute("by"));
        Some(Self {
            condition,
            text: stanza.error_text().to_owned(),
            is_of_own_server: by.is_some_and(|by| host.split('/').next() == Some(by)),
        })
    }
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
        for failure in self.failed.values() {
            *conditions.entry(failure.condition.clone()).or_default() += 1;
        }
        let refusals = self.failed.iter().filter(|(_, it)| !it.is_of_own_server);
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
            refusals: refusals
                .map(|(n, it)| (*n, it.condition.clone(), it.text.clone()))
                .collect(),
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
        // Of two clients with one resource the server ends the older one, and several traffics may have one sender.
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let resource = format!("sender-{number}");
        let sender = Client::login(from.server, &from.jid, &resource).await?;
        let (tx, done) = watch::channel(false);
        let count = Arc::new(AtomicU32::new(count));
        let tasks = vec![
            tokio::spawn(receive(to.clone(), receiver, Arc::clone(&seen))),
            tokio::spawn(send(
                (from, resource),
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

    /// Waits until `count` numbers were answered with an error.
    ///
    /// # Errors
    /// When they are not in time.
    pub async fn answered(&self, count: usize) -> Result<()> {
        wait::until(
            &format!("{count} messages are answered"),
            wait::GENEROUS,
            || async { (self.seen.lock().failed.len() >= count).then_some(()) },
        )
        .await
    }

    /// How many numbers were answered with an error so far.
    pub fn answered_so_far(&self) -> usize {
        self.seen.lock().failed.len()
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
        match StanzaFailure::of(stanza) {
            Some(failure) => {
                seen.failed.insert(number, failure);
            }
            None => seen.arrived.push(number),
        }
    }
}

async fn send(
    (from, resource): (End, String),
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
        client = again(|| Client::login(from.server, &from.jid, &resource)).await;
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
            failed: BTreeMap::from([(4, failure("x")), (5, failure("y"))]),
            ..SeenTraffic::default()
        };
        let account = seen.account();
        assert_eq!((account.delivered, account.duplicates), (5, 1));
        assert_eq!((account.bounced, account.bounced_and_delivered), (1, 1));
        assert_eq!((account.lost, account.late), (2, vec![(2, 3)]));
    }

    fn failure(condition: &str) -> StanzaFailure {
        StanzaFailure {
            condition: condition.to_owned(),
            text: String::new(),
            is_of_own_server: false,
        }
    }

    #[test]
    fn an_error_of_the_sender_s_own_server_is_told_from_those_of_others() {
        let error = |by: &str| {
            let text = format!(
                "<message to='a@org.example/x' type='error' id='n-1'><error type='wait'{by}>\
                 <remote-server-timeout xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></message>"
            );
            let failure = StanzaFailure::of(&crate::xml::parse(&text).unwrap());
            failure.unwrap().is_of_own_server
        };
        assert!(error(" by='org.example'"));
        assert!(!error(" by='partner.example'"));
        assert!(!error(""));
    }
}
