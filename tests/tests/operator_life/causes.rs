//! Each class of failure as `kubectl` tells it, from what pods say: one word in `get`, and in `describe` the step, the
//! time, the address, what was seen and what to do.

use anyhow::{Context, ensure};
use serde_json::{Value, json};
use xmpp_edge_tests::{
    cluster::{FakePod, Operator},
    failure_class::{self, FailureClass},
};

use super::{
    SERVER,
    stage::{create, partner, pool, until_says},
};

const ADDRESS: &str = "192.0.2.7:5269";
const SEEN: &str = "what was seen there";
const TIME: &str = "2026-02-03T01:02:03Z";

fn name(number: usize) -> String {
    format!("p{number}")
}

fn told(number: usize, class: &FailureClass) -> Value {
    json!({"name": name(number), "lastAttempt": [{"step": class.step, "outcome": class.outcome,
        "direction": class.direction, "domain": format!("p{number}.example"), "address": ADDRESS,
        "text": SEEN, "time": TIME}]})
}

/// Cells of a line that kubectl prints by the headings of its columns.
fn column<'a>(head: &str, line: &'a str, title: &str) -> Option<&'a str> {
    let from = head.find(title)?;
    line.get(from..)?.split_whitespace().next()
}

#[test]
fn kubectl_tells_each_class_of_failure_in_one_word_and_at_length() {
    SERVER.test(async |namespace| {
        let mut objects = vec![pool(namespace)];
        let partners: Vec<Value> = (0..failure_class::ALL.len())
            .map(|number| {
                partner(
                    &name(number),
                    json!({"domain": format!("p{number}.example")}),
                )
            })
            .collect();
        objects.extend(partners.iter().cloned());
        create(namespace, &objects).await?;
        let _operator = Operator::start(namespace, &[]).await?;
        let pod = FakePod::start(namespace, "hq", 1000).await?;
        let classes = failure_class::ALL.iter().enumerate();
        pod.say(
            "partners",
            classes
                .clone()
                .map(|(number, class)| told(number, class))
                .collect(),
        );
        for object in &partners {
            until_says(
                namespace,
                object,
                &[
                    ("Reachable", "False, Unreachable"),
                    ("Ready", "True, Ready"),
                ],
            )
            .await?;
        }
        let kubectl = namespace.server.kubectl();
        let listed = kubectl.run(&["--namespace", &namespace.name, "get", "xfp"])?;
        let head = listed.lines().next().context("a heading")?;
        for (number, class) in classes {
            let name = name(number);
            let line = listed
                .lines()
                .find(|line| line.starts_with(&format!("{name} ")));
            let line = line.with_context(|| listed.clone())?;
            ensure!(
                column(head, line, "WHY") == Some(class.outcome),
                "{head}\n{line}"
            );
            let described =
                kubectl.run(&["--namespace", &namespace.name, "describe", "xfp", &name])?;
            for part in [class.step, class.outcome, ADDRESS, SEEN, TIME, class.remedy] {
                ensure!(
                    described.contains(part),
                    "{}: {part:?} is missing: {described}",
                    class.name
                );
            }
        }
        Ok(())
    });
}

#[test]
fn a_partner_that_is_well_has_no_why_and_one_that_is_not_ready_has_the_reason() {
    SERVER.test(async |namespace| {
        let fine = partner("fine", json!({"domain": "fine.example"}));
        let suspended = partner(
            "suspended",
            json!({"domain": "suspended.example", "suspended": true}),
        );
        let own = format!("{}.example", namespace.name);
        let wrong = partner("wrong", json!({"domain": own}));
        create(
            namespace,
            &[
                pool(namespace),
                fine.clone(),
                suspended.clone(),
                wrong.clone(),
            ],
        )
        .await?;
        let _operator = Operator::start(namespace, &[]).await?;
        let _pod = FakePod::start(namespace, "hq", 1000).await?;
        let fine = until_says(namespace, &fine, &[("Ready", "True, Ready")]).await?;
        ensure!(fine["status"]["why"].is_null(), "{fine:#}");
        let suspended = until_says(namespace, &suspended, &[("Ready", "True, Ready")]).await?;
        ensure!(suspended["status"]["why"] == "Suspended", "{suspended:#}");
        let wrong = until_says(namespace, &wrong, &[("Ready", "False, OwnDomain")]).await?;
        ensure!(wrong["status"]["why"] == "OwnDomain", "{wrong:#}");
        Ok(())
    });
}
