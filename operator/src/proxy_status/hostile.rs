//! What a pod that was broken into may answer, and what that costs.

#![allow(clippy::unwrap_used)]

use serde_json::json;

use super::{
    border::{NAME, STEPS, TEXT, WORD},
    held::{Held, MAX_HELD},
    model::ProxyStatus,
};

/// An answer as large as one may be, of entries like this one.
fn largest(list: &str, entry: impl Fn(usize) -> String) -> String {
    let mut entries = String::new();
    for number in 0.. {
        let entry = entry(number);
        if entries.len() + entry.len() + 512 > 8 << 20 {
            break;
        }
        entries += &entry;
        entries.push(',');
    }
    entries.pop();
    format!(
        r#"{{"pool":"hq","version":"0","config":{{"generation":1,"loadedTime":"2026-01-01T00:00:00Z"}},"{list}":[{entries}]}}"#
    )
}

#[test]
fn whatever_a_pod_answers_how_often_what_is_held_of_it_is_bounded() {
    const STEP: &str =
        r#"{"step":"","outcome":"","direction":"Both","time":"2026-01-01T00:00:00Z"}"#;
    let steps = vec![STEP; 100_000].join(",");
    let long = "x".repeat(1 << 20);
    let invented = |round: usize| largest("partners", |it| format!(r#"{{"name":"{round}-{it}"}}"#));
    let of_known = |_: usize| {
        largest("partners", |it| {
            format!(r#"{{"name":"p{it}","lastAttempt":[{STEP}]}}"#)
        })
    };
    let deep = |_: usize| {
        largest("partners", |it| {
            format!(r#"{{"name":"p{it}","lastAttempt":[{steps}]}}"#)
        })
    };
    // As many as are kept, of as many partners as fit.
    let full = vec![STEP; STEPS].join(",");
    let wide = |_: usize| {
        largest("partners", |it| {
            format!(r#"{{"name":"p{it}","lastAttempt":[{full}]}}"#)
        })
    };
    let streams = |round: usize| {
        largest("streams", |it| {
            let id = round * 1_000_000 + it;
            format!(r#"{{"id":{id},"side":"Partner","direction":"Both","peerDomains":["a","b"]}}"#)
        })
    };
    let gateways = |round: usize| {
        largest("gateways", |it| {
            format!(r#"{{"name":"{round}-{it}","address":"{long}","domains":["{long}"]}}"#)
        })
    };
    let refusals = |round: usize| {
        largest("refusals", |it| {
            format!(
                r#"{{"partner":"{round}-{it}","direction":"Inbound","reason":"r","count":1,"lastTime":"2026-01-01T00:00:00Z"}}"#
            )
        })
    };
    let kinds: [(&str, &dyn Fn(usize) -> String); 7] = [
        ("invented partners", &invented),
        ("partners", &of_known),
        ("steps", &deep),
        ("steps of many", &wide),
        ("streams", &streams),
        ("gateways", &gateways),
        ("refusals", &refusals),
    ];
    let exists = |name: &str| name.starts_with('p');
    for (kind, answer) in kinds {
        let mut known: Option<ProxyStatus> = None;
        let mut refused = false;
        // Of streams none replaces another, and a pod need not say which have ended.
        let rounds = if kind == "streams" { 8 } else { 2 };
        for round in 0..rounds {
            let text = answer(round);
            let mut said: ProxyStatus = serde_json::from_str(&text).unwrap();
            assert!(said.held() <= 2 * MAX_HELD, "{kind}: {}", said.held());
            said.keep_partners(exists);
            let taken = match &mut known {
                None => ProxyStatus::replace(&mut known, said),
                Some(known) => known.update(said),
            };
            refused |= taken.is_err();
            let held = known.as_ref().map_or(0, Held::held);
            assert!(held <= MAX_HELD, "{kind}, answer {round}: {held}");
        }
        match kind {
            "invented partners" => {
                assert!(
                    known.unwrap().partners.is_empty(),
                    "of these nobody is told"
                );
            }
            "streams" => assert!(refused, "they would grow for ever"),
            _ => {}
        }
    }
}

#[test]
fn what_a_pod_says_is_one_short_line_and_a_key_that_is_none_is_refused() {
    let long = format!("a\n\u{1b}[1m\u{202e}{}", "ä".repeat(100_000));
    let said = |key: &str| {
        json!({"pool": long, "version": long,
            "config": {"generation": 1, "loadedTime": "2026-01-01T00:00:00Z",
                "rejected": {"time": "2026-01-01T00:00:00Z", "error": long}},
            "partners": [{"name": "p", "peerKeySha256": key, "lastAttempt": [
                {"step": long, "outcome": long, "direction": "Inbound", "domain": long,
                    "address": long, "text": long, "time": "2026-01-01T00:00:00Z"}]}]})
    };
    let read = |key: &str| serde_json::from_value::<ProxyStatus>(said(key));
    let status = read(&"0a".repeat(32)).unwrap();
    let step = &status.partners[0].last_attempt[0];
    let texts = [
        (&status.pool, NAME),
        (&status.version, WORD),
        (&status.config.rejected.as_ref().unwrap().error, TEXT),
        (&step.step, WORD),
        (&step.outcome, WORD),
        (step.domain.as_ref().unwrap(), NAME),
        (step.address.as_ref().unwrap(), NAME),
        (step.text.as_ref().unwrap(), TEXT),
    ];
    for (text, most) in texts {
        assert!(text.len() <= most && text.starts_with("a  [1m ä"), "{text}");
    }
    let right = "0a".repeat(32);
    for key in [
        String::new(),
        "0a".to_owned(),
        right.to_uppercase(),
        right.replacen('a', "g", 1),
        vec![right.as_str(); 32].join("\n"),
        "0".repeat(900_000),
    ] {
        let error = read(&key).unwrap_err().to_string();
        assert!(
            error.contains("64 lower-case hexadecimal digits"),
            "{error}"
        );
        assert!(error.len() < 200, "{} octets", error.len());
    }
}

#[test]
fn an_attempt_as_long_as_a_proxy_tells_is_read_to_its_end() {
    let step = |direction: &str, outcome: String| json!({"step": "tcp", "outcome": outcome, "direction": direction, "time": "2026-01-01T00:00:00Z"});
    let mut steps = Vec::new();
    for (of, direction) in [("c", "inbound"), ("i", "inbound"), ("o", "outbound")] {
        steps.extend((0..32).map(|number| step(direction, format!("{of}{number}"))));
    }
    let status: ProxyStatus = serde_json::from_value(json!({"pool": "hq", "version": "0",
        "config": {"generation": 1, "loadedTime": "2026-01-01T00:00:00Z"},
        "partners": [{"name": "p", "lastAttempt": steps}]}))
    .unwrap();
    let read = &status.partners[0].last_attempt;
    let ends = [read.first(), read.last()].map(|step| step.unwrap().outcome.as_str());
    assert_eq!((read.len(), ends), (96, ["c0", "o31"]));
}
