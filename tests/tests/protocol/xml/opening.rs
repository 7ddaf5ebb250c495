//! the header of a stream.

use anyhow::ensure;
use xmpp_edge_tests::{
    peer::{ClientTls, Identity, Open, Peer},
    rig::{ALICE, Moved, OWN},
};

use super::{RIG, header_refused};

#[test]
fn x_01_a_stream_for_clients_is_invalid_namespace() {
    RIG.test(1, async |s| {
        let mut open = Open::new(&s.domain, OWN);
        open.content = "jabber:client".into();
        header_refused(s, &open, "invalid-namespace").await?;
        s.unharmed(Moved::Connection("ContentNamespace")).await
    });
}

#[test]
fn x_02_a_wrong_stream_namespace_is_invalid_namespace() {
    RIG.test(2, async |s| {
        let mut open = Open::new(&s.domain, OWN);
        open.stream = "urn:x:streams".into();
        header_refused(s, &open, "invalid-namespace").await?;
        s.unharmed(Moved::Connection("StreamNamespace")).await
    });
}

#[test]
fn x_03_a_higher_version_is_answered_with_ours() {
    RIG.test(3, async |s| {
        let mut peer = s.connect().await?;
        let mut open = Open::new(&s.domain, OWN);
        open.version = Some("2.0".into());
        peer.open_with(&open).await?;
        let header = peer.header().await?;
        ensure!(header.attribute("version") == Some("1.0"), "{header:?}");
        ensure!(peer.features().await?.starttls() == Some(true));
        s.rig.serves_the_good_partner().await
    });
}

#[test]
fn x_03_no_version_is_unsupported_version_where_tls_is_required() {
    RIG.test(3, async |s| {
        let mut open = Open::new(&s.domain, OWN);
        open.version = None;
        header_refused(s, &open, "unsupported-version").await?;
        s.unharmed(Moved::Connection("UnsupportedVersion")).await
    });
}

#[test]
fn x_03_no_version_gets_no_features_where_plaintext_is_allowed() {
    RIG.test(24, async |s| {
        let outside = s.outside().await?;
        outside.made("key");
        let mut peer = s.connect().await?;
        let mut open = Open::new(&s.domain, OWN);
        open.version = None;
        peer.open_with(&open).await?;
        let header = peer.header().await?;
        ensure!(header.attribute("version").is_none(), "{header:?}");
        ensure!(peer.dialback(&s.domain, OWN, "key").await? == "valid");
        ensure!(!peer.received().contains("features"), "{}", peer.received());
        s.delivers_inwards(&mut peer).await
    });
}

#[test]
fn x_04_a_stream_without_to_is_improper_addressing() {
    RIG.test(4, async |s| {
        for to in [None, Some(""), Some("@"), Some("a b"), Some("192.0.2.1..x")] {
            let mut open = Open::new(&s.domain, OWN);
            open.to = to.map(str::to_owned);
            header_refused(s, &open, "improper-addressing").await?;
        }
        s.unharmed(Moved::Connection("ToUnusable")).await
    });
}

#[test]
fn x_05_to_of_a_domain_not_served_is_host_unknown() {
    RIG.test(5, async |s| {
        header_refused(s, &Open::new(&s.domain, "nowhere.example"), "host-unknown").await?;
        s.unharmed(Moved::Connection("HostUnknown")).await
    });
}

#[test]
fn x_05_to_of_a_domain_not_served_is_host_unknown_inside_tls_too() {
    RIG.test(5, async |s| {
        let open = Open::new(&s.domain, "nowhere.example");
        let mut direct = Peer::connect(s.rig.direct()).await?;
        direct.tls_client(&ClientTls::new(Some(OWN), None)).await?;
        let mut upgraded = s.connect().await?;
        upgraded.open(&s.domain, OWN).await?;
        upgraded.starttls(&ClientTls::new(Some(OWN), None)).await?;
        for mut peer in [direct, upgraded] {
            peer.open_with(&open).await?;
            peer.header().await?;
            peer.expect_stream_error("host-unknown").await?;
        }
        s.unharmed(Moved::Connection("HostUnknown")).await
    });
}

#[test]
fn x_06_external_is_not_offered_to_a_stream_without_from() {
    RIG.test(6, async |s| {
        let mut open = Open::new(&s.domain, OWN);
        open.from = None;
        let mut peer = s.connect().await?;
        peer.open_with(&open).await?;
        peer.header().await?;
        peer.features().await?;
        let identity = Identity::of(&s.identity)?;
        let tls = ClientTls::new(Some(OWN), Some(identity));
        peer.starttls(&tls).await?;
        peer.open_with(&open).await?;
        peer.header().await?;
        ensure!(!peer.features().await?.external());
        let answer = peer.auth("EXTERNAL", "eDA2LmV4YW1wbGU=").await?;
        ensure!(answer.name == "failure", "{answer:?}");
        let id = s.forbidden();
        peer.message(&s.user("rob"), ALICE, &id, &id).await?;
        peer.expect_stream_error("not-authorized").await?;
        s.unharmed(Moved::Connection("NotAuthorized")).await
    });
}
