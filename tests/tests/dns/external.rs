//! The objects for external-dns, run through external-dns's own checks, merging, plan and in-memory
//! provider (`tests/external-dns`, pinned by its go.sum).

use anyhow::Result;
use serde_json::{Value, json};
use xmpp_edge_crds::kinds::pool::dns::ExternalDns as ExternalDnsSettings;
use xmpp_edge_operator::dns::{
    Addresses, Availability, DesiredRecords,
    backend::external_dns::{API_VERSION, DnsEndpoint, EndpointSpec, KIND, PoolEndpoint, objects},
};
use xmpp_edge_tests::dns::external::ExternalDns;

/// The objects as the API server would hold them.
fn as_stored(moment: &[DnsEndpoint]) -> Vec<Value> {
    let objects = moment.iter().map(|object| {
        json!({
            "apiVersion": API_VERSION, "kind": KIND,
            "metadata": { "name": object.name, "namespace": "org" },
            "spec": object.spec,
        })
    });
    objects.collect()
}

/// A pool at one moment.
struct State {
    name: &'static str,
    fqdn: &'static str,
    ip: &'static str,
    priority: u16,
    ttl: u32,
    standing: Availability,
}

/// The objects of these pools, over those of the moment before.
fn moment(pools: &[State], before: &[DnsEndpoint]) -> Vec<DnsEndpoint> {
    let wanted: Vec<DesiredRecords> = pools
        .iter()
        .map(|pool| {
            let spec = json!({
                "site": "hq", "domains": ["org.example"], "accessEdge": { "fqdn": pool.fqdn },
                "route": { "priority": pool.priority },
                "gateways": [{ "domains": ["org.example"], "address": "a:1" }],
                "certificate": { "selfSigned": {} },
            });
            let spec = serde_json::from_value(spec).unwrap();
            let addresses = Addresses::Known(vec![pool.ip.parse().unwrap()]);
            DesiredRecords::new(&spec, pool.standing, &addresses).unwrap()
        })
        .collect();
    let settings: Vec<ExternalDnsSettings> = pools
        .iter()
        .map(|pool| ExternalDnsSettings {
            ttl_seconds: pool.ttl,
            ..ExternalDnsSettings::default()
        })
        .collect();
    let pools: Vec<PoolEndpoint<'_>> = pools
        .iter()
        .zip(&settings)
        .zip(&wanted)
        .map(|((pool, settings), wanted)| PoolEndpoint {
            name: pool.name,
            priority: pool.priority,
            settings,
            wanted,
        })
        .collect();
    let now: Vec<EndpointSpec> = before.iter().map(|object| object.spec.clone()).collect();
    objects(&pools, &now)
}

#[test]
fn external_dns_creates_changes_and_withdraws_what_the_objects_say() -> Result<()> {
    use Availability::{OutOfService, Serving, Unready};
    let Some(program) = ExternalDns::build()? else {
        return Ok(());
    };
    let pools = |priority, [one, two]: [Availability; 2]| {
        [
            State {
                name: "a",
                fqdn: "a.edge.test",
                ip: "192.0.2.1",
                priority,
                ttl: 60,
                standing: one,
            },
            State {
                name: "b",
                fqdn: "b.edge.test",
                ip: "2001:db8::2",
                priority: 20,
                ttl: 300,
                standing: two,
            },
        ]
    };
    let mut moments: Vec<Vec<DnsEndpoint>> = Vec::new();
    for (priority, standings) in [
        (10, [Serving, Serving]),
        (10, [Serving, Serving]),
        (15, [Serving, Serving]),
        (15, [Unready, Serving]),
        (15, [Unready, Unready]),
        (15, [Serving, OutOfService]),
        (15, [OutOfService, OutOfService]),
    ] {
        let before = moments.last().cloned().unwrap_or_default();
        moments.push(moment(&pools(priority, standings), &before));
    }
    let stored: Vec<Vec<Value>> = moments.iter().map(|moment| as_stored(moment)).collect();
    let answers = program.run(None, &["org.example", "edge.test"], &stored)?;
    for answer in &answers {
        assert_eq!(answer["refused"], json!([]), "{answer:#}");
    }
    let counts =
        |answer: &Value| ["created", "updated", "deleted"].map(|key| answer[key].as_u64().unwrap());
    assert_eq!(counts(&answers[0]), [4, 0, 0], "{:#}", answers[0]);
    assert_eq!(
        answers[0]["records"],
        json!([
            "_xmpp-server._tcp.org.example 60 SRV 10 100 5269 a.edge.test.",
            "_xmpp-server._tcp.org.example 60 SRV 20 100 5269 b.edge.test.",
            "_xmpps-server._tcp.org.example 60 SRV 10 100 5270 a.edge.test.",
            "_xmpps-server._tcp.org.example 60 SRV 20 100 5270 b.edge.test.",
            "a.edge.test 60 A 192.0.2.1",
            "b.edge.test 300 AAAA 2001:db8::2",
        ])
    );
    assert_eq!(
        counts(&answers[1]),
        [0, 0, 0],
        "the same again changes nothing"
    );
    assert_eq!(counts(&answers[2]), [0, 2, 0], "{:#}", answers[2]);
    let targets = |answer: &Value| -> Vec<String> {
        let records = answer["records"].as_array().unwrap().iter();
        let records = records.filter_map(Value::as_str);
        let srv = records.filter(|record| record.starts_with("_xmpp-server"));
        srv.map(|record| record.rsplit(' ').next().unwrap().to_owned())
            .collect()
    };
    let (a, b) = ("a.edge.test.", "b.edge.test.");
    assert_eq!(targets(&answers[2]), [a, b]);
    assert_eq!(targets(&answers[3]), [b]);
    assert_eq!(targets(&answers[4]), [b], "the last one stays");
    assert_eq!(targets(&answers[5]), [a]);
    assert_eq!(
        answers[6]["records"],
        json!([
            "a.edge.test 60 A 192.0.2.1",
            "b.edge.test 300 AAAA 2001:db8::2"
        ]),
        "addresses stay while the pools exist"
    );
    Ok(())
}
