//! What policy refused, from what the pods of all pools say: those of one partner, direction and reason are one.

use std::collections::HashMap;

use xmpp_edge_crds::{remedy, verdict::Direction};
use xmpp_edge_page::model::RefusalRecord;

use crate::proxy_status::Reports;

/// Refusals that are shown: those that grew last.
const REFUSALS: usize = 100;

/// The newest first; `None` where no pod was asked.
pub(super) fn records(reports: &Reports) -> Option<Vec<RefusalRecord>> {
    let mut records: HashMap<String, RefusalRecord> = HashMap::new();
    for (namespace, refusal) in reports.refusals()? {
        let record = RefusalRecord {
            partner: format!("{namespace}/{}", refusal.partner),
            direction: match refusal.direction {
                Direction::Inbound => "inbound",
                Direction::Outbound => "outbound",
            },
            remedy: remedy::of_refusal(&refusal.reason),
            reason: refusal.reason,
            count: refusal.count,
            last_time: refusal.last_time,
        };
        let known = records.entry(record.key());
        known
            .and_modify(|known| {
                known.count = known.count.saturating_add(record.count);
                known.last_time = known.last_time.max(record.last_time);
            })
            .or_insert(record);
    }
    let mut records: Vec<_> = records.into_values().collect();
    records.sort_by(|one, other| {
        let newest_first = other.last_time.cmp(&one.last_time);
        newest_first.then_with(|| one.key().cmp(&other.key()))
    });
    records.truncate(REFUSALS);
    Some(records)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::{Value, json};

    use super::*;
    use crate::proxy_status::{PodReport, PoolReport};

    fn pool(pods: &[Value]) -> PoolReport {
        let status = |refusals: &Value| {
            json!({"pool": "hq", "version": "0", "refusals": refusals,
                "config": {"generation": 1, "loadedTime": "2026-01-01T00:00:00Z"}})
        };
        let mut report = PoolReport::default();
        for (number, refusals) in pods.iter().enumerate() {
            let pod = PodReport {
                status: Some(serde_json::from_value(status(refusals)).unwrap()),
                unreachable: None,
            };
            report.pods.insert(format!("pod-{number}"), pod);
        }
        report
    }

    fn refusal(partner: &str, reason: &str, count: u64, minute: u8) -> Value {
        json!({"partner": partner, "direction": "Inbound", "reason": reason, "count": count,
            "lastTime": format!("2026-01-01T00:{minute:02}:00Z")})
    }

    #[test]
    fn what_the_pods_of_a_namespace_refused_is_added_up_and_the_newest_comes_first() {
        let reports = Reports::default();
        assert!(records(&reports).is_none(), "nobody was asked");
        let first = json!([refusal("a", "Contact", 2, 1), refusal("b", "Content", 1, 2)]);
        let second = json!([refusal("a", "Contact", 3, 3)]);
        reports.set("chat", "hq", pool(&[first, second]));
        reports.set(
            "other",
            "hq",
            pool(&[json!([refusal("a", "Contact", 7, 0)])]),
        );
        let found = records(&reports).unwrap();
        let found: Vec<_> = found.iter().map(|it| (it.key(), it.count)).collect();
        let expected = [
            ("chat/a inbound Contact", 5),
            ("chat/b inbound Content", 1),
            ("other/a inbound Contact", 7),
        ];
        assert_eq!(found, expected.map(|(key, count)| (key.to_owned(), count)));
    }

    #[test]
    fn however_much_pods_say_a_hundred_are_shown() {
        let reports = Reports::default();
        let many = (0..500).map(|number| refusal(&format!("p{number}"), "Contact", 1, 0));
        reports.set("chat", "hq", pool(&[many.collect()]));
        assert_eq!(records(&reports).unwrap().len(), REFUSALS);
    }
}
