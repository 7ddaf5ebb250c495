//! Records by dynamic updates on real primaries, BIND and Knot: single records under TSIG, foreign
//! ones untouched, two operators in one RRset, and each way it can fail with its own reason.

use std::collections::BTreeMap;

use anyhow::Result;
use hickory_proto::rr::RecordType;
use serde_json::json;
use xmpp_edge_crds::kinds::{
    PoolSpec,
    conditions::Reason,
    pool::{Dns, Rfc2136},
};
use xmpp_edge_operator::{
    dns::{
        Addresses, Availability, DesiredRecords, DnsMemory, DnsReport, Publisher, RecordGroupState,
        RecordOwner, UpdateSettings, observe::Observer,
    },
    secrets::store::SecretData,
};
use xmpp_edge_tests::primary::{EDITOR, GUEST, Primary, SECRET, Software};
use zeroize::Zeroizing;

const STARTTLS: &str = "_xmpp-server._tcp.org.example";
const DIRECT: &str = "_xmpps-server._tcp.org.example";
/// Records of others, a wildcard among them that answers for names that are not there.
const OTHERS: &str = "_xmpp-server._tcp IN SRV 50 0 5269 Legacy.org.example.\nlegacy IN A 192.0.2.77\n\
                      * IN TXT \"v=spf1 -all\"\n_xmpp-client._tcp IN SRV 0 0 5222 legacy.org.example.\n";

/// What one operator publishes and how.
pub(crate) struct Site {
    pub(crate) publisher: Publisher,
    spec: PoolSpec,
    settings: serde_json::Value,
    secret: BTreeMap<&'static str, String>,
    ip: &'static str,
}

impl Site {
    pub(crate) fn new(primary: &Primary, owner: &str, fqdn: &str, ip: &'static str) -> Self {
        Self::at(primary.address().to_string(), owner, fqdn, ip)
    }

    fn at(server: String, owner: &str, fqdn: &str, ip: &'static str) -> Self {
        let claim = RecordOwner {
            owner: owner.parse().unwrap(),
            namespace: "org".to_owned(),
            pool: "edge".to_owned(),
        };
        let spec = json!({
            "site": "hq", "domains": ["org.example"], "accessEdge": { "fqdn": fqdn },
            "gateways": [{ "domains": ["org.example"], "address": "a:1" }],
            "certificate": { "selfSigned": {} },
        });
        Self {
            publisher: Publisher::new(claim, DnsMemory::default()),
            spec: serde_json::from_value(spec).unwrap(),
            settings: json!({
                "server": server, "tsigSecretRef": { "name": "tsig" }
            }),
            secret: BTreeMap::from([("name", EDITOR.to_owned()), ("secret", SECRET.to_owned())]),
            ip,
        }
    }

    fn wanted(&self, standing: Availability) -> DesiredRecords {
        let ips = vec![self.ip.parse().unwrap()];
        DesiredRecords::new(&self.spec, standing, &Addresses::Known(ips)).unwrap()
    }

    fn read(&self) -> Rfc2136 {
        serde_json::from_value(self.settings.clone()).unwrap()
    }

    pub(crate) fn material(&self) -> SecretData {
        self.secret
            .iter()
            .map(|(key, value)| {
                (
                    (*key).to_owned(),
                    Zeroizing::new(value.clone().into_bytes()),
                )
            })
            .collect()
    }

    async fn publish(&mut self, standing: Availability) -> DnsReport {
        let material = self.material();
        let settings = UpdateSettings::read(&self.read(), Some(&material));
        self.publisher.configure(settings);
        self.publisher.publish(&self.wanted(standing)).await
    }

    /// Publishes what must not fail.
    pub(crate) async fn well(&mut self, standing: Availability) -> DnsReport {
        let report = self.publish(standing).await;
        assert!(report.is_good(), "{:?}", report.errors());
        report
    }
}

pub(crate) async fn srv(primary: &Primary) -> [Vec<String>; 2] {
    [
        primary.records(STARTTLS, RecordType::SRV).await.unwrap(),
        primary.records(DIRECT, RecordType::SRV).await.unwrap(),
    ]
}

/// All that may change in the zones.
async fn all(primary: &Primary, hosts: &[&str]) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    for name in [STARTTLS, DIRECT].iter().chain(hosts) {
        for kind in [
            RecordType::SRV,
            RecordType::TXT,
            RecordType::A,
            RecordType::AAAA,
        ] {
            found.push(primary.records(name, kind).await.unwrap());
        }
    }
    found
}

pub(crate) fn on_each(test: impl AsyncFn(Software) -> Result<()>) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        for software in Software::ALL {
            test(software).await?;
        }
        Ok(())
    })
}

#[test]
fn records_come_change_and_go_and_foreign_ones_stay() -> Result<()> {
    on_each(async |software| {
        let primary =
            Primary::start(software, &[("org.example", OTHERS), ("edge.test", "")]).await?;
        let hosts = ["a.edge.test", "legacy.org.example"];
        let before = all(&primary, &hosts).await;
        let mut site = Site::new(&primary, "one", "a.edge.test", "192.0.2.1");
        let report = site.well(Availability::Serving).await;
        assert_eq!(report.published(), [("org.example", true)]);
        let [starttls, direct] = srv(&primary).await;
        assert_eq!(starttls.len(), 2, "{starttls:?}");
        assert!(starttls.contains(&"10 100 5269 a.edge.test.".to_owned()));
        assert_eq!(direct, ["10 100 5270 a.edge.test."]);
        assert_eq!(
            primary.records("a.edge.test", RecordType::A).await?,
            ["192.0.2.1"]
        );
        let marker = primary.records(DIRECT, RecordType::TXT).await?;
        assert_eq!(marker.len(), 1, "{marker:?}");
        assert!(marker[0].contains("owner=one") && marker[0].contains("pool=org/edge"));

        site.spec.route.priority = 20;
        site.ip = "2001:db8::1";
        site.well(Availability::Serving).await;
        let [starttls, direct] = srv(&primary).await;
        assert!(starttls.contains(&"20 100 5269 a.edge.test.".to_owned()));
        assert_eq!(
            (starttls.len(), direct),
            (2, vec!["20 100 5270 a.edge.test.".to_owned()])
        );
        assert_eq!(
            primary.records("a.edge.test", RecordType::AAAA).await?,
            ["2001:db8::1"]
        );
        assert!(
            primary
                .records("a.edge.test", RecordType::A)
                .await?
                .is_empty()
        );

        // Where nobody else has records the TTL is ours.
        site.settings["ttlSeconds"] = json!(120);
        site.well(Availability::Serving).await;
        assert_eq!(primary.ttl(DIRECT, RecordType::SRV).await?, Some(120));
        assert_eq!(
            primary.ttl("a.edge.test", RecordType::AAAA).await?,
            Some(120)
        );
        assert_eq!(primary.ttl(STARTTLS, RecordType::SRV).await?, Some(300));

        // A record of ours that someone deleted comes back.
        primary
            .edit(&format!("zone org.example\nupdate delete {DIRECT} SRV"))
            .await?;
        site.well(Availability::Serving).await;
        assert_eq!(srv(&primary).await[1].len(), 1);

        site.well(Availability::Removed).await;
        assert_eq!(all(&primary, &hosts).await, before, "{software:?}");
        assert!(site.publisher.memory().places.is_empty());
        Ok(())
    })
}

#[test]
fn a_record_that_someone_else_put_there_is_theirs() -> Result<()> {
    on_each(async |software| {
        let own = "_xmpp-server._tcp IN SRV 10 100 5269 a.org.example.\n_xmpps-server._tcp IN SRV 10 100 5270 a.org.example.\na IN A 192.0.2.1\n";
        let primary = Primary::start(software, &[("org.example", own)]).await?;
        let before = all(&primary, &["a.org.example"]).await;
        let mut site = Site::new(&primary, "one", "a.org.example", "192.0.2.1");
        let report = site.well(Availability::Serving).await;
        assert!(
            report
                .places
                .iter()
                .all(|(_, it)| *it == Ok(RecordGroupState::Foreign))
        );
        site.well(Availability::Removed).await;
        assert_eq!(
            all(&primary, &["a.org.example"]).await,
            before,
            "{software:?}"
        );
        Ok(())
    })
}

#[test]
fn two_operators_share_an_rrset_and_keep_one_record_when_both_lose_all_pods() -> Result<()> {
    on_each(async |software| {
        let primary = Primary::start(software, &[("org.example", ""), ("edge.test", "")]).await?;
        let mut one = Site::new(&primary, "cluster-1", "a.edge.test", "192.0.2.1");
        let mut two = Site::new(&primary, "cluster-2", "b.edge.test", "192.0.2.2");
        two.spec.route.priority = 20;
        two.settings["ttlSeconds"] = json!(90);
        tokio::join!(
            one.well(Availability::Serving),
            two.well(Availability::Serving)
        );
        assert_eq!(srv(&primary).await.map(|set| set.len()), [2, 2]);

        for round in 0..4 {
            tokio::join!(
                one.well(Availability::Unready),
                two.well(Availability::Unready)
            );
            let [starttls, direct] = srv(&primary).await;
            assert_eq!(
                (starttls.len(), direct.len()),
                (1, 1),
                "{software:?} {round}"
            );
            let target = |text: &str| text.split(' ').next_back().unwrap().to_owned();
            assert_eq!(target(&starttls[0]), target(&direct[0]));
            // Its address is still there.
            let host = target(&starttls[0]);
            assert_eq!(primary.records(&host, RecordType::A).await?.len(), 1);

            // One comes back: the other's last record goes with its next look.
            let (back, gone) = if round % 2 == 0 {
                (&mut one, &mut two)
            } else {
                (&mut two, &mut one)
            };
            back.well(Availability::Serving).await;
            gone.well(Availability::Unready).await;
            let [starttls, _] = srv(&primary).await;
            assert_eq!(starttls.len(), 1);
            assert_eq!(
                target(&starttls[0]),
                format!("{}.", back.spec.access_edge.fqdn)
            );
            gone.well(Availability::Serving).await;
        }
        // Who is switched off goes, even as the last one.
        tokio::join!(
            one.well(Availability::Removed),
            two.well(Availability::Removed)
        );
        assert_eq!(srv(&primary).await.map(|set| set.len()), [0, 0]);
        assert!(primary.records(STARTTLS, RecordType::TXT).await?.is_empty());
        Ok(())
    })
}

#[test]
fn a_foreign_record_counts_as_another() -> Result<()> {
    on_each(async |software| {
        let primary =
            Primary::start(software, &[("org.example", OTHERS), ("edge.test", "")]).await?;
        let mut site = Site::new(&primary, "one", "a.edge.test", "192.0.2.1");
        site.well(Availability::Serving).await;
        let report = site.well(Availability::Unready).await;
        assert_eq!(report.published(), [("org.example", false)]);
        assert_eq!(srv(&primary).await.map(|set| set.len()), [1, 0]);
        Ok(())
    })
}

#[test]
fn what_is_no_longer_wanted_is_withdrawn_even_after_a_restart_and_without_the_secret() -> Result<()>
{
    on_each(async |software| {
        let zones = [
            ("org.example", ""),
            ("sub.org.example", ""),
            ("edge.test", ""),
        ];
        let primary = Primary::start(software, &zones).await?;
        let mut site = Site::new(&primary, "one", "a.edge.test", "192.0.2.1");
        site.spec.domains.push("sub.org.example".to_owned());
        site.well(Availability::Serving).await;
        let sub = "_xmpp-server._tcp.sub.org.example";
        assert_eq!(
            primary.records(sub, RecordType::SRV).await?.len(),
            1,
            "the nearest zone"
        );

        // A domain goes and the FQDN changes while the operator is down.
        let memory = site.publisher.memory().clone();
        let mut next = Site::new(&primary, "one", "b.edge.test", "192.0.2.1");
        next.publisher = Publisher::new(site.publisher.claim().clone(), memory);
        next.well(Availability::Serving).await;
        assert!(primary.records(sub, RecordType::SRV).await?.is_empty());
        assert!(
            primary
                .records("a.edge.test", RecordType::A)
                .await?
                .is_empty()
        );
        assert_eq!(srv(&primary).await[0], ["10 100 5269 b.edge.test."]);

        // The Secret is deleted first: what is wanted is still done, and the fault is told.
        next.secret.clear();
        next.spec.route.priority = 30;
        let report = next.publish(Availability::Serving).await;
        assert_eq!(report.condition().reason, Reason::TsigKeyInvalid);
        assert_eq!(srv(&primary).await[0], ["30 100 5269 b.edge.test."]);
        let wanted = next.wanted(Availability::Serving);
        let report = next.publisher.withdraw(&wanted).await;
        assert!(report.is_good(), "{:?}", report.errors());
        assert_eq!(srv(&primary).await.map(|set| set.len()), [0, 0]);
        Ok(())
    })
}

/// Publishes in a way that fails, and returns the reason and the message.
async fn failure(site: &mut Site) -> (Reason, String) {
    let condition = site.publish(Availability::Serving).await.condition();
    assert!(!condition.status, "published: {:?}", site.settings);
    (condition.reason, condition.message)
}

#[test]
fn each_fault_has_its_own_reason_and_says_what_to_do() -> Result<()> {
    on_each(async |software| {
        let mut primary = Primary::start(
            software,
            &[("org.example", "c IN CNAME ns\n"), ("edge.test", "")],
        )
        .await?;
        type Break = fn(&mut Site);
        let table: &[(Break, Reason, &str)] = &[
            (
                |site| {
                    site.secret
                        .insert("name", "other-key".to_owned())
                        .map_or((), drop)
                },
                Reason::TsigBadKey,
                "BADKEY",
            ),
            (
                |site| {
                    site.secret
                        .insert("secret", "d3Jvbmc=".to_owned())
                        .map_or((), drop)
                },
                Reason::TsigBadSignature,
                "BADSIG",
            ),
            (
                |site| {
                    site.secret
                        .insert("secret", "wrong!".to_owned())
                        .map_or((), drop)
                },
                Reason::TsigKeyInvalid,
                "base64",
            ),
            (
                |site| site.spec.domains = vec!["elsewhere.test".to_owned()],
                Reason::UpdateRefused,
                "refuses the question",
            ),
            (
                |site| site.settings["zone"] = json!("example"),
                Reason::NotAuthoritative,
                "NOTAUTH",
            ),
            (
                |site| site.settings["zone"] = json!("edge.test"),
                Reason::NotInZone,
                "NOTZONE",
            ),
            (
                |site| site.spec.access_edge.fqdn = "c.org.example".to_owned(),
                Reason::NameIsAlias,
                "CNAME",
            ),
            (
                |site| site.settings["server"] = json!("127.0.0.1:1"),
                Reason::DnsServerUnreachable,
                "127.0.0.1:1",
            ),
            (
                |site| site.settings["server"] = json!("no-such-host.invalid"),
                Reason::DnsServerUnreachable,
                "no-such-host.invalid",
            ),
        ];
        for (break_it, reason, says) in table {
            let mut site = Site::new(&primary, "one", "a.edge.test", "192.0.2.1");
            if *reason == Reason::NotAuthoritative {
                site.spec.access_edge.fqdn = "a.org.example".to_owned();
            }
            break_it(&mut site);
            let (found, message) = failure(&mut site).await;
            assert_eq!(found, *reason, "{software:?}: {message}");
            assert!(message.contains(says), "{software:?}: {says}: {message}");
            assert!(!message.contains(SECRET));
        }
        let mut site = Site::new(&primary, "one", "a.edge.test", "192.0.2.1");
        site.secret.insert("name", GUEST.to_owned());
        let (reason, message) = failure(&mut site).await;
        let (expected, says) = match software {
            Software::Bind => (vec![Reason::UpdateRefused], "update-policy"),
            // A key that may not is one that Knot 3.2 does not know, and for which 3.4 has no zone.
            Software::Knot => (vec![Reason::TsigBadKey, Reason::NotAuthoritative], "acl"),
        };
        assert!(
            expected.contains(&reason),
            "{software:?}: {reason:?}: {message}"
        );
        assert!(message.contains(says), "{software:?}: {message}");
        site.secret.insert("name", EDITOR.to_owned());
        primary.freeze().await?;
        let (reason, message) = failure(&mut site).await;
        assert_eq!(reason, Reason::DnsServerTimeout, "{software:?}: {message}");
        primary.thaw();
        site.well(Availability::Serving).await;
        primary.kill();
        let (reason, message) = failure(&mut site).await;
        assert_eq!(
            reason,
            Reason::DnsServerUnreachable,
            "{software:?}: {message}"
        );
        Ok(())
    })
}

/// Names the primary to the test that runs with another clock.
const SKEWED: &str = "DNS_RFC2136_SKEWED";

#[test]
fn clocks_that_differ_are_told_apart_from_a_wrong_key() -> Result<()> {
    on_each(async |software| {
        let zones = [("org.example", ""), ("edge.test", "")];
        let primary = Primary::start(software, &zones).await?;
        let (_, module) = module_path!().split_once("::").expect("this is a module");
        let clocked = format!("{module}::with_a_clock_that_is_an_hour_ahead");
        // It is this process whose clock can be another: BIND does not start under faketime.
        let output = tokio::process::Command::new("faketime")
            .args(["-m", "-f", "+1h"])
            .arg(std::env::current_exe()?)
            .args(["--exact", &clocked, "--ignored"])
            .env(SKEWED, primary.address().to_string())
            .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
            .kill_on_drop(true)
            .output()
            .await?;
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{software:?}: {said}");
        assert!(said.contains("1 passed"), "{said}");
        Ok(())
    })
}

#[tokio::test]
#[ignore = "run by clocks_that_differ_are_told_apart_from_a_wrong_key"]
async fn with_a_clock_that_is_an_hour_ahead() {
    let server = std::env::var(SKEWED).expect("the other test names the server");
    let mut site = Site::at(server, "one", "a.edge.test", "192.0.2.1");
    let (reason, message) = failure(&mut site).await;
    assert_eq!(reason, Reason::TsigBadTime, "{message}");
    let seconds = message
        .split("by ")
        .nth(1)
        .and_then(|rest| rest.split(' ').next());
    let seconds: i64 = seconds.and_then(|it| it.parse().ok()).expect(&message);
    assert!((-3700..-3500).contains(&seconds), "{message}");
}

#[test]
fn what_may_be_left_in_a_zone_that_is_denied_is_named_and_many_domains_are_published() -> Result<()>
{
    on_each(async |software| {
        let primary = Primary::start(software, &[("org.example", ""), ("edge.test", "")]).await?;
        let mut site = Site::new(&primary, "one", "a.edge.test", "192.0.2.1");
        site.spec.domains = (0..40).map(|n| format!("d{n}.org.example")).collect();
        let report = site.well(Availability::Serving).await;
        assert_eq!(report.published().len(), 40);
        for domain in &site.spec.domains {
            let name = format!("_xmpp-server._tcp.{domain}");
            assert_eq!(primary.records(&name, RecordType::SRV).await?.len(), 1);
        }
        let memory = r#"[{"domain":"given-up.test"},{"domain":"d3.org.example"}]"#;
        let claim = site.publisher.claim().clone();
        let memory = DnsMemory {
            places: serde_json::from_str(memory)?,
            source: None,
        };
        site.publisher = Publisher::new(claim, memory);
        site.spec.domains = vec!["d4.org.example".to_owned()];
        let report = site.publish(Availability::Serving).await;
        let said = report.condition();
        assert!(said.status, "{said:?}");
        assert!(said.message.contains("SRV of given-up.test"), "{said:?}");
        let places = &site.publisher.memory().places;
        assert_eq!(places.len(), 3, "d4, the FQDN, and what nobody may see");
        let gone = primary.records("_xmpp-server._tcp.d3.org.example", RecordType::SRV);
        assert!(gone.await?.is_empty());
        Ok(())
    })
}

#[test]
fn what_dns_answers_is_told_of_records_that_others_publish() -> Result<()> {
    on_each(async |software| {
        let zones = [("org.example", ""), ("edge.test", "")];
        let primary = Primary::start(software, &zones).await?;
        let mut site = Site::new(&primary, "one", "a.edge.test", "192.0.2.1");
        let observer = Observer::at(primary.address())?;
        let wanted = site.wanted(Availability::Serving);
        let condition = observer.look(&wanted, |_| true).await.condition();
        assert_eq!(
            condition.reason,
            Reason::NotAnswered,
            "{}",
            condition.message
        );
        assert!(condition.message.contains("--managed-record-types"));
        site.well(Availability::Serving).await;
        let report = observer.look(&wanted, |_| true).await;
        assert!(report.condition().status, "{:?}", report.errors());
        assert_eq!(report.published(), [("org.example", true)]);
        Ok(())
    })
}

#[test]
fn the_settings_are_those_of_the_kind() {
    let spec: Dns = serde_json::from_value(json!({ "rfc2136": {
        "server": "ns.example", "zone": "Org.Example", "tsigSecretRef": { "name": "tsig" }, "tsigAlgorithm": "HmacSha512"
    }}))
    .unwrap();
    let material: SecretData = [("name", EDITOR), ("secret", SECRET)]
        .map(|(key, value)| (key.to_owned(), Zeroizing::new(value.as_bytes().to_vec())))
        .into();
    let settings = UpdateSettings::read(&spec.rfc2136.unwrap(), Some(&material)).unwrap();
    assert_eq!(settings.zone.unwrap().to_string(), "org.example.");
    assert_eq!(settings.ttl, 60);
    assert_eq!(
        format!("{:?}", settings.key),
        "TsigKey(edge-key., hmac-sha512)"
    );
}
