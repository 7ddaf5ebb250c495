//! Every way in which a primary can refuse: each has its own reason and says what to do, what is in
//! DNS stays, and it is well again once that is done.

use anyhow::Result;
use hickory_proto::rr::RecordType;
use serde_json::{Value, json};
use xmpp_edge_tests::{
    cluster::{Clock, Namespace, Operator},
    dns::interfering::Interferer,
    primary::{EDITOR, GUEST, Primary, SECRET, Software},
};

use crate::{stage::*, test};

/// A pool that is published, by an operator whose clock can be set.
struct Scene<'a> {
    namespace: &'a Namespace<'a>,
    own: String,
    primary: Primary,
    operator: Operator,
    clock: Clock,
}

/// A zone that the primary has beside the pool's.
const ELSEWHERE: &str = "elsewhere.example";

impl<'a> Scene<'a> {
    async fn start(namespace: &'a Namespace<'a>, software: Software) -> Result<Self> {
        let own = domain(namespace);
        let zones = [(own.as_str(), "c IN CNAME ns\n"), (ELSEWHERE, "")];
        let primary = Primary::start(software, &zones).await?;
        let clock = Clock::new()?;
        let operator = Operator::start_by(&clock, namespace, &[]).await?;
        key(namespace).await?;
        create(namespace, &pool(&own, "hq", json!({"dns": at(&primary)}))).await?;
        pods_are(namespace, "hq", true).await?;
        let scene = Self {
            namespace,
            own,
            primary,
            operator,
            clock,
        };
        // It is well, too, before its pod is ready: with nothing published.
        until_leads_to(&scene.primary, &scene.own, &[&format!("hq.{}", scene.own)]).await?;
        scene.is_well().await?;
        Ok(scene)
    }

    async fn is_well(&self) -> Result<()> {
        until_says(self.namespace, "hq", PUBLISHED, "True, Published").await?;
        self.is_measured(1.0).await
    }

    /// The condition says this, the metrics agree, and no secret is told.
    async fn fails(&self, reason: &str, says: &str) -> Result<()> {
        let said = format!("False, {reason}");
        let pool = until_says(self.namespace, "hq", PUBLISHED, &said).await?;
        let message = message(&pool, PUBLISHED);
        assert!(message.contains(says), "{reason}: {message}");
        assert!(!message.contains(SECRET), "{message}");
        let label = format!("reason=\"{reason}\"");
        let failures = "xmpp_edge_operator_dns_failures_total";
        let counted = self.operator.metric(failures, &[&label]).await?;
        assert!(counted >= Some(1.0), "{reason}: {counted:?}");
        Ok(())
    }

    async fn is_measured(&self, published: f64) -> Result<()> {
        let of = format!("domain=\"{}\"", self.own);
        let metric = "xmpp_edge_operator_dns_published";
        let now = self.operator.metric(metric, &[&of]).await?;
        assert_eq!(now, Some(published));
        Ok(())
    }

    async fn answers(&self) -> Result<Vec<String>> {
        let names = [
            starttls(&self.own),
            direct(&self.own),
            format!("hq.{}", self.own),
        ];
        everything(&self.primary, &names).await
    }

    async fn edit(&self, spec: Value) -> Result<()> {
        edit(self.namespace, "hq", spec).await
    }
}

/// What somebody does wrong, and what is said of it.
struct Mistake {
    /// Name and secret of the key.
    key: (&'static str, &'static str),
    /// Fields of `spec.dns.rfc2136`; to mend, they are taken out again.
    fields: Value,
    reason: &'static str,
    says: &'static str,
}

fn mistakes(software: Software) -> Vec<Mistake> {
    let right = (EDITOR, SECRET);
    let mistake = |key, fields, reason, says| Mistake {
        key,
        fields,
        reason,
        says,
    };
    let guest = match software {
        Software::Bind => mistake(
            (GUEST, SECRET),
            // Reading it may.
            json!({"ttlSeconds": 63}),
            "UpdateRefused",
            "update-policy",
        ),
        // A key that may not is one that it does not know.
        Software::Knot => mistake((GUEST, SECRET), json!({}), "TsigBadKey", "acl"),
    };
    vec![
        mistake(("stranger", SECRET), json!({}), "TsigBadKey", "BADKEY"),
        mistake(
            (EDITOR, "d3Jvbmc="),
            json!({}),
            "TsigBadSignature",
            "BADSIG",
        ),
        mistake((EDITOR, "wrong!"), json!({}), "TsigKeyInvalid", "base64"),
        guest,
        mistake(
            right,
            json!({"zone": "example", "ttlSeconds": 61}),
            "NotAuthoritative",
            "NOTAUTH",
        ),
        mistake(
            right,
            json!({"zone": ELSEWHERE, "ttlSeconds": 62}),
            "NotInZone",
            "NOTZONE",
        ),
        mistake(
            right,
            json!({"tsigSecretRef": {"name": "absent"}}),
            "ReferenceMissing",
            "absent",
        ),
        mistake(
            right,
            json!({"server": "127.0.0.1:1"}),
            "DnsServerUnreachable",
            "127.0.0.1:1",
        ),
    ]
}

async fn each_mistake_is_told(scene: &Scene<'_>) -> Result<()> {
    let before = scene.answers().await?;
    for mistake in mistakes(scene.primary.software()) {
        let (name, base64) = mistake.key;
        secret(
            scene.namespace,
            KEY,
            json!({"name": name, "secret": base64}),
        )
        .await?;
        if mistake.fields != json!({}) {
            scene
                .edit(json!({"dns": {"rfc2136": mistake.fields}}))
                .await?;
        }
        scene.fails(mistake.reason, mistake.says).await?;
        assert_eq!(scene.answers().await?, before, "{}", mistake.reason);
        // A key that cannot be read leaves the one last read in use.
        if !matches!(mistake.reason, "TsigKeyInvalid" | "ReferenceMissing") {
            scene.is_measured(0.0).await?;
        }
        key(scene.namespace).await?;
        let mut mended = at(&scene.primary);
        for field in ["zone", "ttlSeconds"] {
            mended["rfc2136"][field] = Value::Null;
        }
        scene.edit(json!({"dns": mended})).await?;
        scene.is_well().await?;
    }
    Ok(())
}

/// The clock, a server that is silent for a while, an alias, and others who write the same records.
async fn each_misfortune_is_told(scene: &Scene<'_>) -> Result<()> {
    scene.clock.ahead(3600)?;
    scene.edit(json!({"route": {"weight": 11}})).await?;
    scene
        .fails("TsigBadTime", "(BADTIME): set both by NTP")
        .await?;
    scene.clock.ahead(0)?;
    scene.is_well().await?;

    scene.primary.freeze().await?;
    scene.edit(json!({"route": {"weight": 12}})).await?;
    scene.fails("DnsServerTimeout", "within 5 s").await?;
    scene.primary.thaw();
    scene.is_well().await?;

    let alias = format!("c.{}", scene.own);
    scene.edit(json!({"accessEdge": {"fqdn": alias}})).await?;
    scene.fails("NameIsAlias", "CNAME").await?;
    let fqdn = format!("hq.{}", scene.own);
    scene.edit(json!({"accessEdge": {"fqdn": fqdn}})).await?;
    scene.is_well().await?;

    let owner = starttls(&scene.own);
    let between = Interferer::start(scene.primary.editor(), &owner).await?;
    let through = json!({"rfc2136": {"server": between.address().to_string()}});
    scene
        .edit(json!({"route": {"weight": 13}, "dns": through}))
        .await?;
    scene.fails("RecordsChanging", "NXRRSET").await?;
    between.desist();
    scene.is_well().await?;
    let records = scene.primary.records(&owner, RecordType::SRV).await?;
    let ours = format!("10 13 5269 {fqdn}.");
    assert!(records.contains(&ours), "{records:?}");
    let theirs = records.iter().filter(|it| it.starts_with("99 ")).count();
    assert!(
        theirs >= 12,
        "{theirs} of others, {} updates",
        between.updates()
    );
    scene.edit(json!({"dns": at(&scene.primary)})).await?;
    scene.is_well().await
}

#[test]
fn each_mistake_has_its_own_reason_and_is_mended_at_bind() {
    test(async |namespace| {
        let scene = Scene::start(namespace, Software::Bind).await?;
        each_mistake_is_told(&scene).await
    });
}

#[test]
fn each_mistake_has_its_own_reason_and_is_mended_at_knot() {
    test(async |namespace| {
        let scene = Scene::start(namespace, Software::Knot).await?;
        each_mistake_is_told(&scene).await
    });
}

#[test]
fn a_clock_that_is_wrong_silence_an_alias_and_rivals_are_told_apart_at_bind() {
    test(async |namespace| {
        let scene = Scene::start(namespace, Software::Bind).await?;
        each_misfortune_is_told(&scene).await
    });
}

#[test]
fn a_clock_that_is_wrong_silence_an_alias_and_rivals_are_told_apart_at_knot() {
    test(async |namespace| {
        let scene = Scene::start(namespace, Software::Knot).await?;
        each_misfortune_is_told(&scene).await
    });
}
