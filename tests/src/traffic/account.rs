//! What became of numbered messages, and what of it the servers' own logs explain.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

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
    /// Errors that are not of the sender's own server: number, condition and text.
    pub refusals: Vec<(u32, String, String)>,
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

    /// Those lost though they were acknowledged (XEP-0198) to the sender's server, by `log`, that of its Prosody
    /// with [`crate::servers::Spec::trace`]. It counts from its `<enable/>` on; what it writes before is not
    /// acknowledged at all.
    pub fn lost_though_acknowledged(&self, log: &str) -> Vec<u32> {
        let mut counted: BTreeMap<&str, Vec<Option<u32>>> = BTreeMap::new();
        let mut acknowledged = BTreeSet::new();
        for line in log.lines().filter(|line| line.starts_with("s2sout")) {
            let session = line.split_whitespace().next().unwrap_or_default();
            if line.contains("SEND: <enable ") {
                counted.insert(session, Vec::new());
            }
            let Some(sent) = counted.get_mut(session) else {
                continue;
            };
            if ["<message", "<iq", "<presence"]
                .iter()
                .any(|name| line.contains(&format!("SEND: {name}")))
            {
                sent.push(numbered(line, "SEND: <message"));
            } else if let Some(ack) = line.split_once("RECV: <a ") {
                let handled = handled(ack.1).unwrap_or_default();
                acknowledged.extend(sent.iter().take(handled).flatten().copied());
            }
        }
        let lost = self.lost_numbers.iter();
        lost.filter(|number| acknowledged.contains(*number))
            .copied()
            .collect()
    }

    /// Those lost of which `log`, as in [`Self::late_beside`], does not say that they were written: Prosody
    /// lost them itself when it ended, or wrote them past the log.
    pub fn lost_unwritten(&self, log: &str) -> Vec<u32> {
        let written: BTreeSet<u32> = log.lines().filter_map(written).collect();
        let lost = self.lost_numbers.iter();
        lost.filter(|number| !written.contains(*number))
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

/// `h` of an `<a/>` of the log.
fn handled(attributes: &str) -> Option<usize> {
    let value = attributes
        .split_once("h='")
        .or_else(|| attributes.split_once("h=\""))?
        .1;
    let digits = value.split(|c: char| !c.is_ascii_digit()).next()?;
    digits.parse().ok()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_acknowledged_to_the_sender_s_server_is_counted_from_enable_on() {
        let account = Account {
            lost: 3,
            lost_numbers: vec![1, 2, 3],
            ..Account::default()
        };
        let log = "s2sout1 debug\tSEND: <message id='n-1'>\n\
                   s2sout1 debug\tSEND: <enable xmlns='urn:xmpp:sm:3'/>\n\
                   s2sout1 debug\tSEND: <iq id='p'>\n\
                   s2sout1 debug\tSEND: <message id='n-2'>\n\
                   s2sout1 debug\tSEND: <message id='n-3'>\n\
                   s2sout1 debug\tRECV: <a xmlns='urn:xmpp:sm:3' h='2'/>\n";
        assert_eq!(account.lost_though_acknowledged(log), [2]);
        assert_eq!(account.lost_unwritten(&log.replace("n-3", "n-4")), [3]);
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
