//! What DNS answers for the records that the status page shows. It asks the resolver of this machine, which
//! may see another DNS than partners do.
//!
//! Only what is shown is asked for, and only while somebody looks.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::{Duration, Instant},
};

use futures::{StreamExt, stream};
use parking_lot::Mutex;
use xmpp_edge_page::model::{AnswerShown, RecordAnswers};

use super::observe::Observer;

/// Between two looks at a record.
const EVERY: Duration = Duration::from_secs(30);
/// What was not shown for this long is not asked for any more, and forgotten.
const SHOWN: Duration = Duration::from_secs(60);
/// Between two looks at what is due.
const TICK: Duration = Duration::from_secs(2);
/// Records that are remembered: of more nothing is said.
const RECORDS: usize = 1_000;
/// Questions at a time.
const AT_ONCE: usize = 8;

/// What came of asking.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RecordAnswer {
    /// The record is among what is answered.
    Answered,
    /// It is not: these are. None: there is no record of this name and type.
    Otherwise(Vec<String>),
    /// Why nothing was answered.
    Failed(String),
}

/// What is known, by the record's text as in a zone file.
#[derive(Debug, Default)]
pub struct AnsweredRecords {
    records: Mutex<HashMap<String, RecordMemory>>,
}

#[derive(Debug)]
struct RecordMemory {
    shown: Instant,
    asked: Option<Instant>,
    answer: Option<RecordAnswer>,
}

impl AnsweredRecords {
    /// What was answered last; the record is asked for soon where it was not yet.
    pub fn answer(&self, record: &str) -> Option<RecordAnswer> {
        let now = Instant::now();
        let mut records = self.records.lock();
        if let Some(known) = records.get_mut(record) {
            known.shown = now;
            return known.answer.clone();
        }
        if records.len() < RECORDS {
            let fresh = RecordMemory {
                shown: now,
                asked: None,
                answer: None,
            };
            records.insert(record.to_owned(), fresh);
        }
        None
    }

    /// The same, for the page.
    #[must_use]
    pub fn shown(self: &Arc<Self>) -> RecordAnswers {
        let answers = Arc::clone(self);
        RecordAnswers(Arc::new(move |record| {
            Some(match answers.answer(record)? {
                RecordAnswer::Answered => AnswerShown::Same,
                RecordAnswer::Otherwise(others) => AnswerShown::Other(others),
                RecordAnswer::Failed(why) => AnswerShown::Nothing(why),
            })
        }))
    }

    /// Asks for what is shown, until dropped.
    pub async fn follow(&self, observer: &Observer) {
        loop {
            let due = self.due(Instant::now());
            let mut answers = stream::iter(due)
                .map(|record| async move {
                    let answer = ask(observer, &record).await;
                    (record, answer)
                })
                .buffer_unordered(AT_ONCE);
            while let Some((record, answer)) = answers.next().await {
                if let Some(known) = self.records.lock().get_mut(&record) {
                    known.answer = Some(answer);
                }
            }
            tokio::time::sleep(TICK).await;
        }
    }

    /// The records to ask for now; what nobody looks at is forgotten.
    fn due(&self, now: Instant) -> Vec<String> {
        let mut records = self.records.lock();
        records.retain(|_, known| now.duration_since(known.shown) < SHOWN);
        let mut due = Vec::new();
        for (record, known) in records.iter_mut() {
            let is_fresh = |asked: Instant| now.duration_since(asked) < EVERY;
            if !known.asked.is_some_and(is_fresh) {
                known.asked = Some(now);
                due.push(record.clone());
            }
        }
        due
    }
}

async fn ask(observer: &Observer, record: &str) -> RecordAnswer {
    let Some((name, data)) = parts(record) else {
        return RecordAnswer::Failed("it is no record".to_owned());
    };
    match observer.answered(name, &data).await {
        Err(error) => RecordAnswer::Failed(error.to_string()),
        Ok(answered) => compared(&data, answered),
    }
}

fn compared(wanted: &str, answered: BTreeSet<String>) -> RecordAnswer {
    if answered.iter().any(|one| one.eq_ignore_ascii_case(wanted)) {
        RecordAnswer::Answered
    } else {
        RecordAnswer::Otherwise(answered.into_iter().collect())
    }
}

/// Name, and type with data, of `NAME TTL IN TYPE DATA`.
fn parts(record: &str) -> Option<(&str, String)> {
    let mut words = record.split_ascii_whitespace();
    let name = words.next()?;
    let data: Vec<&str> = words.skip_while(|word| *word != "IN").skip(1).collect();
    (data.len() > 1).then(|| (name, data.join(" ")))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn only_what_is_shown_is_asked_for_and_not_more_often_than_it_may() {
        let answered = AnsweredRecords::default();
        let record = "_xmpp-server._tcp.org.example. 300 IN SRV 10 100 5269 edge.org.example.";
        assert_eq!(answered.answer(record), None);
        let now = Instant::now();
        assert_eq!(answered.due(now), [record]);
        assert!(answered.due(now).is_empty(), "it is asked for already");
        assert_eq!(answered.due(now + EVERY), [record]);
        assert!(answered.due(now + SHOWN + EVERY).is_empty());
        assert!(answered.records.lock().is_empty(), "nobody looks");
        for number in 0..RECORDS + 7 {
            answered.answer(&format!("n{number}. 1 IN A 192.0.2.1"));
        }
        assert_eq!(answered.records.lock().len(), RECORDS);
    }

    #[test]
    fn a_record_among_others_is_answered_and_others_alone_are_named() {
        let (name, data) = parts("edge.example. 5 IN A 192.0.2.1").unwrap();
        assert_eq!((name, &*data), ("edge.example.", "A 192.0.2.1"));
        let of = |all: &[&str]| all.iter().map(|one| (*one).to_owned()).collect();
        let both = of(&["A 192.0.2.1", "A 192.0.2.7"]);
        assert_eq!(compared(&data, both), RecordAnswer::Answered);
        let other = RecordAnswer::Otherwise(vec!["A 192.0.2.7".to_owned()]);
        assert_eq!(compared(&data, of(&["A 192.0.2.7"])), other);
        assert!(parts("edge.example.").is_none());
    }
}
