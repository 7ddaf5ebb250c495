//! Every class of failure is told apart in each place where one looks: `/status`, the log, the metric and the
//! page say the step, the word, the address, what was seen, and what to do.

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use xmpp_edge_tests::{
    failure_class::{self, FailureClass},
    peer::{Behaviour, Identity, PeerServer, Verdict},
    pki::{Draft, Validity},
    rig::{ALICE, OWN, Scene},
    wait,
};

use super::{RIG, ensure_no_complaints, hostile, page, row_says};

/// What every place says of one class.
struct Cause {
    class: FailureClass,
    /// Where there is no connection there is no address.
    has_address: bool,
    /// A part of what was seen.
    text: &'static str,
    state: &'static str,
}

impl Cause {
    const fn of(class: FailureClass) -> Self {
        Self {
            class,
            has_address: true,
            text: "",
            state: "Failing",
        }
    }
}

/// Alice writes to the partner, which is what makes the edge try.
async fn alice_writes(s: &Scene) -> Result<()> {
    let mut inside = s.inside().await?;
    let id = s.fresh();
    inside.message(ALICE, &s.user("rob"), &id, "hello").await
}

async fn is_told_everywhere(s: &Scene, cause: &Cause) -> Result<()> {
    let step = wait::until(cause.class.outcome, wait::GENEROUS, async || {
        let status = s.rig.edge.lock().await.status().await.ok()?;
        let mut partners = status["partners"].as_array()?.iter();
        let partner = partners.find(|one| one["name"] == *s.name)?;
        let mut steps = partner["lastAttempt"].as_array()?.iter();
        steps
            .find(|step| step["outcome"] == cause.class.outcome)
            .cloned()
    })
    .await
    .context("/status")?;
    let text = |field: &str| step[field].as_str().unwrap_or_default().to_owned();
    ensure!(
        text("step") == cause.class.step && text("direction") == cause.class.direction,
        "{step}"
    );
    ensure!(text("address").is_empty() != cause.has_address, "{step}");
    ensure!(
        text("text").contains(cause.text) && !text("text").is_empty(),
        "{step}"
    );
    ensure!(text("time").parse::<jiff::Timestamp>().is_ok(), "{step}");
    let remedy = text("remedy");
    ensure!(
        remedy.starts_with(cause.class.remedy) && !remedy.is_empty(),
        "{step}"
    );

    let edge = s.rig.edge.lock().await;
    let log = edge.log();
    let labels = [
        format!("partner=\"{}\"", s.name),
        format!("direction=\"{}\"", cause.class.direction),
        format!("step=\"{}\"", cause.class.step),
        format!("outcome=\"{}\"", cause.class.outcome),
    ];
    let line = log.lines().find(|line| {
        line.contains("attempt failed") && labels.iter().all(|label| line.contains(label))
    });
    let line = line.context("no line of the log")?;
    ensure!(line.contains(&s.domain) && line.contains("text="), "{line}");
    let labels: Vec<_> = labels.iter().map(String::as_str).collect();
    ensure!(
        edge.metric("attempts_total", &labels).await? >= 1.0,
        "no metric"
    );
    drop(edge);

    let mut browser = page(s, &format!("#filter={}&open=default/{}", s.domain, s.name)).await?;
    row_says(&mut browser, s, cause.state).await?;
    let details = "document.querySelector('tr.details')?.innerText";
    let wanted = format!(
        "{details}?.includes({:?}) && {details}",
        cause.class.outcome
    );
    let shown = browser.until(&wanted).await?;
    let shown = shown.as_str().context("a text")?;
    for part in [cause.class.step, &text("address"), cause.text, &remedy] {
        ensure!(
            shown.contains(part),
            "the page does not say {part:?}: {shown}"
        );
    }
    ensure_no_complaints(&browser.complaints())
}

#[test]
fn dns_the_domain_is_nowhere() {
    RIG.test(10, async |s| {
        s.unpublish();
        alice_writes(s).await?;
        let cause = Cause {
            has_address: false,
            ..Cause::of(failure_class::DNS)
        };
        is_told_everywhere(s, &cause).await
    });
}

#[test]
fn tcp_nobody_listens() {
    RIG.test(11, async |s| {
        alice_writes(s).await?;
        let cause = Cause {
            text: "refused",
            ..Cause::of(failure_class::TCP)
        };
        is_told_everywhere(s, &cause).await
    });
}

#[test]
fn tls_the_peer_offers_none() {
    RIG.test(12, async |s| {
        let _outside = s.serve(Behaviour::plain()).await?;
        alice_writes(s).await?;
        let cause = Cause {
            text: "STARTTLS",
            ..Cause::of(failure_class::TLS)
        };
        is_told_everywhere(s, &cause).await
    });
}

/// A server whose certificate is this; dialback is not allowed with it.
async fn with_certificate(s: &Scene, draft: &Draft) -> Result<PeerServer> {
    let leaf = s.rig.lab.authority().issue_as(draft);
    s.serve(Behaviour::good(Identity::of(&leaf)?)).await
}

#[test]
fn certificate_it_names_somebody_else() {
    RIG.test(13, async |s| {
        let _outside = with_certificate(s, &Draft::of(&["somebody.example"])).await?;
        alice_writes(s).await?;
        let cause = Cause {
            text: "somebody.example",
            ..Cause::of(failure_class::CERTIFICATE_NAME)
        };
        is_told_everywhere(s, &cause).await
    });
}

#[test]
fn certificate_it_has_expired() {
    RIG.test(14, async |s| {
        let draft = Draft {
            validity: Validity::Expired,
            ..Draft::of(&[&s.domain])
        };
        let _outside = with_certificate(s, &draft).await?;
        alice_writes(s).await?;
        let cause = Cause {
            text: "expired",
            ..Cause::of(failure_class::CERTIFICATE_EXPIRED)
        };
        is_told_everywhere(s, &cause).await
    });
}

#[test]
fn sasl_the_peer_refuses_our_certificate() {
    RIG.test(15, async |s| {
        let outside = s.outside().await?;
        outside.behave(|behaviour| behaviour.external_verdict = Verdict::Error("not-authorized"));
        alice_writes(s).await?;
        let cause = Cause {
            text: "not-authorized",
            ..Cause::of(failure_class::SASL)
        };
        is_told_everywhere(s, &cause).await
    });
}

#[test]
fn dialback_the_peer_finds_our_key_invalid() {
    RIG.test(16, async |s| {
        let outside = s.outside().await?;
        outside.behave(|behaviour| {
            behaviour.external = false;
            behaviour.result = Some(Verdict::Invalid);
        });
        alice_writes(s).await?;
        let cause = Cause {
            text: "invalid",
            ..Cause::of(failure_class::DIALBACK)
        };
        is_told_everywhere(s, &cause).await
    });
}

#[test]
fn policy_the_peer_s_own_lets_nobody_in() {
    RIG.test(17, async |s| {
        let _server = hostile::Ending::listen(s, "You are not on our list").await?;
        alice_writes(s).await?;
        let cause = Cause {
            text: "You are not on our list",
            ..Cause::of(failure_class::PEER_POLICY)
        };
        is_told_everywhere(s, &cause).await
    });
}

#[test]
fn policy_our_own_has_the_partner_suspended() {
    RIG.test(18, async |s| {
        let mut peer = s.connect().await?;
        let _ = peer.open(&s.domain, OWN).await;
        let cause = Cause {
            text: "not allowed",
            state: "Suspended",
            ..Cause::of(failure_class::OWN_POLICY)
        };
        is_told_everywhere(s, &cause).await
    });
}

/// What the plan's partners say, where it is not the standard.
pub(super) fn partner(test: u8) -> Value {
    match test {
        16 => serde_json::json!({"saslNegotiation": "Optional"}),
        18 => serde_json::json!({"suspended": true}),
        _ => serde_json::json!({}),
    }
}
