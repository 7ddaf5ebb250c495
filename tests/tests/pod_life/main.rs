//! The proxy as it lives in a pod: volumes that are empty at first and change as the kubelet changes
//! them, secrets that come, change, break and go, a token, and the end.

#![allow(clippy::unwrap_used)]

mod logs;
mod page;
mod scene;
mod supervision;

use std::{net::SocketAddr, time::Duration};

use anyhow::{Result, ensure};
use serde_json::Value;
use sha2::{Digest, Sha256};
use xmpp_edge_crds::{
    domain::DomainName,
    edge_config::{AccessScope, Edge, Granted, StartSettings, VERSION, shards},
    jid::BareJid,
};
use xmpp_edge_tests::{
    conversation,
    edge::Place,
    lab::Lab,
    peer::{Behaviour, Login, Peer, PeerServer},
    pki::{Authority, Usage},
    pod::{Document, Pod},
    servers::{Kind, S2S_PORT, Security, Server},
    wait,
};

use scene::Scene;

const OWN: &str = "org.example";
const PARTNER: &str = "partner.example";
const ALICE: &str = "alice@org.example";
const BOB: &str = "bob@partner.example";
const TOKEN: &str = "a token of the pool";
/// An edit is in force.
const IN_FORCE: Duration = Duration::from_secs(5);

#[tokio::test]
async fn a_pod_waits_for_each_thing_by_name_and_begins_when_all_is_there() {
    let mut s = Scene::start().await.unwrap();
    let pod = &mut s.pod;
    pod.readiness(
        503,
        &[
            "no shard is there yet",
            "tls.crt",
            "issuer.crt",
            "internal-ca.crt",
            "dialback-secret",
        ],
        &[],
    )
    .await
    .unwrap();
    assert_eq!(pod.get("/healthz").await.unwrap().0, 200);
    let (code, text) = pod.get("/status").await.unwrap();
    assert!(code == 503 && text.contains("no shard"), "{code} {text}");
    let (code, text) = pod.get("/metrics").await.unwrap();
    assert!(
        code == 200 && text.contains("xmpp_edge_build_info"),
        "{text}"
    );

    let certificate = s.certificate();
    let issuer = s.internal.intermediate();
    let ca = s.internal.certificate();
    let pod = &mut s.pod;
    // As objects appear one by one, the text follows.
    pod.configure(&s.document.generation(1)).unwrap();
    pod.readiness(503, &["tls.crt"], &["shard"]).await.unwrap();
    let secrets = &mut pod.secrets;
    secrets
        .change(&[("internal-ca.crt", Some(ca.as_bytes()))])
        .unwrap();
    pod.readiness(503, &["tls.crt", "issuer.crt"], &["internal-ca"])
        .await
        .unwrap();
    let chain = Some(certificate.certificate.as_bytes());
    pod.secrets
        .change(&[
            ("issuer.crt", Some(issuer.certificate.as_bytes())),
            ("issuer.key", Some(issuer.key.as_bytes())),
            ("dialback-secret", Some(b"too short")),
            ("tls.crt", chain),
        ])
        .unwrap();
    pod.readiness(
        503,
        &["both are needed", "16 octets"],
        &["issuer", "internal-ca"],
    )
    .await
    .unwrap();
    let key = Some(certificate.key.as_bytes());
    pod.secrets
        .change(&[
            ("tls.key", key),
            ("dialback-secret", Some(b"long enough for a secret")),
        ])
        .unwrap();
    pod.readiness(200, &["ready"], &["waiting"]).await.unwrap();
    s.delivers("first").await.unwrap();

    // The token is the last to come: until then nobody is shown anything.
    for path in ["/status", "/explain?from=a@b.example&to=c@d.example"] {
        assert_eq!(s.pod.get(path).await.unwrap().0, 401, "{path}");
        let (code, _) = s.pod.get_as(path, Some("")).await.unwrap();
        assert_eq!(code, 401, "{path}");
    }
    let token = Some(TOKEN.as_bytes());
    s.pod.secrets.change(&[("admin-token", token)]).unwrap();
    s.generation(1).await.unwrap();
    assert_eq!(s.pod.get("/status").await.unwrap().0, 401);
    let wrong = s.pod.get_as("/status", Some("another")).await.unwrap();
    assert_eq!(wrong.0, 401);
    // Whoever sends the token in clear is told so, and learns nothing else.
    let (code, text) = s.pod.get_in_clear("/status", TOKEN).await.unwrap();
    assert!(code == 401 && text.contains("https"), "{code} {text}");
    for path in ["/healthz", "/readyz", "/metrics"] {
        assert_eq!(s.pod.get(path).await.unwrap().0, 200, "{path}");
    }
    // Taken away again, the last one stays: the door is never open for want of a key.
    s.pod.secrets.change(&[("admin-token", None)]).unwrap();
    s.pod
        .readiness(200, &["the admin token stays"], &[])
        .await
        .unwrap();
    assert_eq!(s.pod.get("/status").await.unwrap().0, 401);
    s.generation(1).await.unwrap();
    s.pod.stop().await.unwrap();
}

#[tokio::test]
async fn generations_come_into_force_live_and_what_is_broken_keeps_the_old() {
    let mut s = Scene::started().await.unwrap();
    let mut stream = s.partner_stream().await.unwrap();
    stream.message(BOB, ALICE, "before", "hello").await.unwrap();
    s.inside.stanza_id("before").await.unwrap();
    s.document.suspended = true;
    s.pod.configure(&s.document.generation(2)).unwrap();
    s.generation(2).await.unwrap();
    stream
        .expect_stream_error("policy-violation")
        .await
        .unwrap();
    s.document.suspended = false;
    s.pod.configure(&s.document.generation(3)).unwrap();
    s.generation(3).await.unwrap();
    s.delivers("again").await.unwrap();

    // Damaged, and of a version to come: told once each.
    let before = s.rejected_total().await.unwrap();
    let mut damaged = shards::encode(&s.document.generation(4))
        .unwrap()
        .shards
        .remove(0);
    let last = damaged.len() - 1;
    damaged[last] ^= 1;
    let mut later = s.document.generation(5);
    later.version.minor = VERSION.minor + 1;
    let of_later = format!("version {}.{}", VERSION.major, VERSION.minor + 1);
    let later = shards::encode(&later).unwrap().shards.remove(0);
    for (number, (shard, told)) in [(damaged, "hash"), (later, of_later.as_str())]
        .into_iter()
        .enumerate()
    {
        s.pod.config.change(&[("shard-0", Some(&shard))]).unwrap();
        let status = s
            .status(told, |status| {
                let error = &status["config"]["rejected"]["error"];
                error.as_str().is_some_and(|error| error.contains(told))
            })
            .await
            .unwrap();
        assert_eq!(status["config"]["generation"], 3);
        let now = s.rejected_total().await.unwrap();
        assert!((now - before - (number + 1) as f64).abs() < 0.1, "{now}");
        s.pod
            .readiness(200, &["ready", "rejected", told], &[])
            .await
            .unwrap();
        s.delivers(told).await.unwrap();
    }
    let lines = s.pod.log().matches("configuration rejected").count();
    assert_eq!(lines, 2, "{}", s.pod.log());

    // A new certificate does not wait for a good configuration.
    let old = s.pod.status(TOKEN).await.unwrap()["certificate"]["serial"].clone();
    let next = s.certificate();
    s.pod
        .secrets
        .change(&[
            ("tls.crt", Some(next.certificate.as_bytes())),
            ("tls.key", Some(next.key.as_bytes())),
        ])
        .unwrap();
    let status = s
        .status("the new certificate", |status| {
            status["certificate"]["serial"] != old
        })
        .await
        .unwrap();
    assert_eq!(status["config"]["generation"], 3);

    // The shard goes, then the next comes.
    s.pod.config.change(&[("shard-0", None)]).unwrap();
    s.delivers("without shards").await.unwrap();
    s.pod.configure(&s.document.generation(7)).unwrap();
    let status = s.generation(7).await.unwrap();
    assert!(status["config"]["rejected"].is_null(), "{status:#}");
    // Trust that cannot be used is told, and costs nothing else.
    let mut distrusting = s.document.generation(8);
    distrusting.trust_ca = Some("no certificate".to_owned());
    s.pod.configure(&distrusting).unwrap();
    s.generation(8).await.unwrap();
    s.pod
        .readiness(200, &["ready", "caConfigMapRef"], &["rejected"])
        .await
        .unwrap();
    s.pod.stop().await.unwrap();
}

#[tokio::test]
async fn a_document_of_several_shards_counts_when_the_last_of_them_is_there() {
    let mut s = Scene::start().await.unwrap();
    s.equip().unwrap();
    // Users whose names no compression shortens below two shards.
    let large = |generation: u64| {
        let mut config = s.document.generation(generation);
        let mut policy = config.access.policies[0].clone();
        policy.name = format!("many-{generation}");
        policy.scope = AccessScope::User(Granted {
            users: (0..90_000_u64)
                .map(|number| {
                    let hash = Sha256::digest((number * 1_000 + generation).to_be_bytes());
                    let name: String = hash[..12].iter().map(|it| format!("{it:02x}")).collect();
                    BareJid::parse(&format!("{name}@{OWN}")).unwrap()
                })
                .collect(),
            domains: Vec::new(),
        });
        config.access.policies.push(policy);
        shards::encode(&config).unwrap().shards
    };
    let put = |pod: &mut Pod, shards: &[(&str, &Vec<u8>)]| {
        let files: Vec<_> = shards
            .iter()
            .map(|(name, shard)| (*name, Some(shard.as_slice())))
            .collect();
        pod.config.change(&files).unwrap();
    };
    let (two, three) = (large(2), large(3));
    assert_eq!((two.len(), three.len()), (2, 2));
    put(&mut s.pod, &[("shard-0", &two[0])]);
    s.pod
        .readiness(503, &["shard 1 of 2 of generation 2 is missing"], &[])
        .await
        .unwrap();
    // The first that is whole cannot be put in force: the pod lives, says why, and waits.
    let mut unusable = s.document.generation(1);
    unusable.version.minor = VERSION.minor + 1;
    s.pod.configure(&unusable).unwrap();
    s.pod
        .readiness(503, &["that can be used", "upgrade the proxy"], &[])
        .await
        .unwrap();
    put(&mut s.pod, &[("shard-0", &two[0]), ("shard-1", &two[1])]);
    s.pod
        .readiness(200, &["ready"], &["rejected"])
        .await
        .unwrap();
    s.generation(2).await.unwrap();
    // One ConfigMap is written, the other not yet: nobody complains, and the old serves.
    put(&mut s.pod, &[("shard-1", &three[1])]);
    s.delivers("in the middle").await.unwrap();
    let status = s.pod.status(TOKEN).await.unwrap();
    assert_eq!(status["config"]["generation"], 2);
    assert!(status["config"]["rejected"].is_null(), "{status:#}");
    put(&mut s.pod, &[("shard-0", &three[0])]);
    s.generation(3).await.unwrap();
    // It shrinks: the surplus shard is taken away later.
    s.pod.configure(&s.document.generation(4)).unwrap();
    s.generation(4).await.unwrap();
    s.pod.config.change(&[("shard-1", None)]).unwrap();
    s.delivers("after all").await.unwrap();
    assert_eq!(
        s.pod.status(TOKEN).await.unwrap()["config"]["generation"],
        4
    );
    s.pod.stop().await.unwrap();
}

#[tokio::test]
async fn secrets_that_break_or_go_stay_as_they_were_and_hold_nothing_else_up() {
    let mut s = Scene::started().await.unwrap();
    let serial = s.generation(1).await.unwrap()["certificate"]["serial"].clone();
    // A key of another certificate; meanwhile a configuration comes.
    let other = s.certificate();
    let key = Some(other.key.as_bytes());
    s.pod.secrets.change(&[("tls.key", key)]).unwrap();
    s.pod
        .readiness(200, &["the pool's certificate stays as last read"], &[])
        .await
        .unwrap();
    s.pod.configure(&s.document.generation(2)).unwrap();
    let status = s.generation(2).await.unwrap();
    assert_eq!(status["certificate"]["serial"], serial);
    s.delivers("with a broken pair").await.unwrap();

    // The other half comes.
    let chain = Some(other.certificate.as_bytes());
    s.pod.secrets.change(&[("tls.crt", chain)]).unwrap();
    s.status("the new certificate", |status| {
        status["certificate"]["serial"] != serial
    })
    .await
    .unwrap();
    s.pod.readiness(200, &["ready"], &["stays"]).await.unwrap();

    // Everything goes: what was read stays, the pod stays ready; a new one waits.
    let all = [
        "tls.crt",
        "tls.key",
        "issuer.crt",
        "issuer.key",
        "internal-ca.crt",
        "dialback-secret",
    ];
    s.pod.secrets.change(&all.map(|name| (name, None))).unwrap();
    s.pod
        .readiness(
            200,
            &["the internal CA stays", "the dialback secret stays"],
            &[],
        )
        .await
        .unwrap();
    s.delivers("without secrets").await.unwrap();
    s.pod.stop().await.unwrap();
    s.pod.launch().await.unwrap();
    s.pod
        .readiness(503, &["tls.crt", "internal-ca.crt"], &["shard"])
        .await
        .unwrap();
    s.equip().unwrap();
    s.pod
        .readiness(200, &["ready"], &["waiting"])
        .await
        .unwrap();
    s.delivers("with all again").await.unwrap();
    s.pod.stop().await.unwrap();
}

#[tokio::test]
async fn on_sigterm_a_pod_is_not_ready_takes_no_more_and_ends_in_order() {
    let mut s = Scene::started().await.unwrap();
    let mut stream = s.partner_stream().await.unwrap();
    stream.message(BOB, ALICE, "last", "hello").await.unwrap();
    s.inside.stanza_id("last").await.unwrap();
    // What is on its way keeps the drain: the server inside reads nothing for a while.
    s.inside.freeze(s.inside.last_connection()).await.unwrap();
    stream.message(BOB, ALICE, "stuck", "hello").await.unwrap();
    s.status("the stanza waits for its ack", |status| {
        status["streams"]
            .as_array()
            .is_some_and(|all| all.iter().any(|it| it["stanzasIn"] == 2))
    })
    .await
    .unwrap();
    s.pod.terminate();
    s.pod.readiness(503, &["it drains"], &[]).await.unwrap();
    assert_eq!(s.pod.get("/healthz").await.unwrap().0, 200);
    let refused = wait::until("new connections are refused", IN_FORCE, || async {
        Peer::connect(s.pod.public(S2S_PORT)).await.err()
    })
    .await;
    assert!(refused.is_ok());
    stream.expect_stream_error("system-shutdown").await.unwrap();
    s.pod.stop().await.unwrap();

    // One that still waits ends at once.
    s.pod.config.change(&[("shard-0", None)]).unwrap();
    s.pod.launch().await.unwrap();
    s.pod.readiness(503, &["shard"], &[]).await.unwrap();
    s.pod.stop().await.unwrap();
}

/// A template reaches a new pod before the document does that it was made from.
#[tokio::test]
async fn a_pod_does_not_start_with_the_ports_of_a_document_from_before() {
    let mut s = Scene::started().await.unwrap();
    s.pod.stop().await.unwrap();
    let mut moved = s.document.generation(2);
    moved.listeners.s2s = 5271;
    s.pod.made_for = Some(StartSettings::of(&moved));
    s.pod.launch().await.unwrap();
    s.pod
        .readiness(503, &["a document with s2s 5271", "5269"], &[])
        .await
        .unwrap();
    assert!(s.partner_stream().await.is_err());
    s.pod.configure(&moved).unwrap();
    s.pod
        .readiness(200, &["ready"], &["waiting"])
        .await
        .unwrap();
    let login = Login::External(&s.partner);
    let stream = Peer::login(s.pod.public(5271), PARTNER, OWN, &login).await;
    stream.unwrap();
    s.pod.stop().await.unwrap();
}

#[tokio::test]
async fn a_suspended_pool_is_ready_and_serves_nobody() {
    let mut s = Scene::started().await.unwrap();
    let mut stream = s.partner_stream().await.unwrap();
    let mut config = s.document.generation(2);
    config.suspended = true;
    s.pod.configure(&config).unwrap();
    s.generation(2).await.unwrap();
    stream
        .expect_stream_error("policy-violation")
        .await
        .unwrap();
    assert!(s.partner_stream().await.is_err());
    s.pod.readiness(200, &["ready"], &[]).await.unwrap();
    s.pod.configure(&s.document.generation(3)).unwrap();
    s.generation(3).await.unwrap();
    s.delivers("served again").await.unwrap();
    s.pod.stop().await.unwrap();
}

#[tokio::test]
async fn since_lists_what_changed_and_which_streams_are_left() {
    let mut s = Scene::started().await.unwrap();
    let mut first = s.partner_stream().await.unwrap();
    first.message(BOB, ALICE, "one", "hello").await.unwrap();
    s.inside.stanza_id("one").await.unwrap();
    let whole = s
        .status("both sides' streams", |status| {
            status["streams"].as_array().is_some_and(|it| it.len() == 2)
        })
        .await
        .unwrap();
    let ids = whole["openStreams"].as_array().unwrap().clone();
    assert_eq!(ids.len(), 2, "{whole:#}");
    // Nothing happens: the next answer lists nothing, and still what is open.
    let time = |status: &Value| status["time"].as_str().unwrap().to_owned();
    let quiet = wait::until("an answer without news", IN_FORCE, || async {
        let now = s.pod.status(TOKEN).await.ok()?;
        let path = format!("/status?since={}", time(&now));
        let (_, text) = s.pod.get_as(&path, Some(TOKEN)).await.ok()?;
        let answer: Value = serde_json::from_str(&text).ok()?;
        let none = |field: &str| answer[field].as_array().is_some_and(Vec::is_empty);
        (none("streams") && none("partners")).then_some(answer)
    })
    .await
    .unwrap();
    assert_eq!(quiet["openStreams"].as_array().unwrap().len(), 2);
    // A stream ends: it is no longer among those open.
    first.send("</stream:stream>").await.unwrap();
    let path = format!("/status?since={}", time(&quiet));
    wait::until("the stream is gone", IN_FORCE, || async {
        let (_, text) = s.pod.get_as(&path, Some(TOKEN)).await.ok()?;
        let answer: Value = serde_json::from_str(&text).ok()?;
        (answer["openStreams"].as_array()?.len() == 1).then_some(())
    })
    .await
    .unwrap();
    // A next one is news, its partner too.
    let _second = s.partner_stream().await.unwrap();
    wait::until(
        "the partner and its stream are listed",
        IN_FORCE,
        || async {
            let (_, text) = s.pod.get_as(&path, Some(TOKEN)).await.ok()?;
            let answer: Value = serde_json::from_str(&text).ok()?;
            let listed = |field: &str| answer[field].as_array().map(Vec::len);
            (listed("partners")? == 1 && listed("streams")? >= 1).then_some(())
        },
    )
    .await
    .unwrap();
    let (code, text) = s
        .pod
        .get_as("/status?since=yesterday", Some(TOKEN))
        .await
        .unwrap();
    assert!(code == 400 && text.contains("RFC 3339"), "{code} {text}");
    s.pod.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn real_servers_converse_through_a_pod() {
    let lab = Lab::new().await.unwrap();
    let internal = Authority::new("Internal CA");
    let outer = lab.spec(PARTNER, 10, "bob", Security::Certificates);
    lab.publish(&outer);
    let place = Place::in_lab(&lab, 20, 21);
    lab.dns().host("edge.example", place.bind);
    lab.dns().xmpp_server(OWN, 0, 0, S2S_PORT, "edge.example");
    let mut inner = lab.spec(OWN, 30, "alice", Security::Certificates);
    inner.users.push("carol".into());
    inner.resolver = place.internal_bind;
    inner.trust = internal.certificate();
    inner.identity = internal.issue(&[OWN], Usage::ServerAndClientAuth);
    let document = Document {
        own: OWN.to_owned(),
        gateway: SocketAddr::from((lab.ip(30), S2S_PORT)),
        partner: PARTNER.to_owned(),
        roots: lab.authority().certificate(),
        partner_type: "Federated",
        suspended: false,
        contacts: "Embedded",
    };
    let mut config = document.generation(1);
    // The server inside resolves by the view, which leads it to the pod.
    config.listeners.dns = 53;
    config.edges.push(Edge {
        withdrawn: false,
        pool: "edge".to_owned(),
        target: DomainName::parse("edge.inside.example").unwrap(),
        addresses: vec![place.internal_bind.into()],
        port: 23456,
        sip: 0,
        sip_tcp: 0,
        priority: 10,
        weight: 100,
        replicas: 1,
        domains: vec![DomainName::parse(OWN).unwrap()],
    });
    let pod = Pod::start(place).await.unwrap();
    let mut s = Scene {
        pod,
        inside: PeerServer::listen(SocketAddr::from((lab.ip(31), S2S_PORT)), Behaviour::plain())
            .await
            .unwrap(),
        document,
        internal,
        partner: lab.authority().issue(&[PARTNER], Usage::ServerAuth),
        lab,
    };
    s.equip().unwrap();
    s.pod.configure(&config).unwrap();
    s.pod.readiness(200, &["ready"], &[]).await.unwrap();
    let (partner, inside) = tokio::try_join!(
        Server::start(Kind::Prosody, outer, s.lab.directory()),
        Server::start(Kind::Prosody, inner, s.lab.directory()),
    )
    .unwrap();
    let (alice, bob) = tokio::try_join!(inside.login("alice"), partner.login("bob")).unwrap();
    let outcome = conversation::all(&alice, &bob).await;
    if outcome.is_err() {
        eprintln!("{}\n{}\n{}", partner.log(), s.pod.log(), inside.log());
    }
    outcome.unwrap();
    s.pod.stop().await.unwrap();
}

#[tokio::test]
async fn a_folder_that_is_none_is_an_error_at_once() -> Result<()> {
    let binary = std::env::var_os(xmpp_edge_tests::pod::BINARY);
    let binary = binary.map_or_else(
        || {
            let own = std::env::current_exe().unwrap();
            own.ancestors().nth(2).unwrap().join("xmpp-edge-proxy")
        },
        Into::into,
    );
    let output = tokio::process::Command::new(binary)
        .args(["run", "--config", "/nowhere/at/all"])
        .output()
        .await?;
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.code() == Some(1), "{text}");
    ensure!(text.contains("/nowhere/at/all"), "{text}");
    Ok(())
}
