//! Where a partner's servers are, as zones in the field say it.

use anyhow::ensure;
use xmpp_edge_tests::{
    peer::{Behaviour, Identity, PeerServer},
    pki::Usage,
    rig::ALICE,
    servers::S2S_PORT,
    wait,
};

use super::RIG;

/// The records stand behind an alias, in the zone of whoever hosts the partner.
#[test]
fn s2_srv_records_behind_an_alias_are_dialled() {
    RIG.test(1, async |s| {
        s.unpublish();
        let dns = s.rig.lab.dns();
        let hosted = "_xmpp-server._tcp.hoster.example";
        dns.alias(&format!("_xmpp-server._tcp.{}", s.domain), hosted);
        dns.srv(hosted, 0, 0, S2S_PORT, &s.target());
        // Where the domain itself leads, nothing listens.
        dns.host(&s.domain, s.rig.lab.ip(250));
        let outside = s.outside().await?;
        let mut inside = s.inside().await?;
        s.delivers_outwards(&mut inside, &outside).await
    });
}

#[test]
fn s2_two_aliases_and_two_records_are_followed() {
    RIG.test(2, async |s| {
        s.unpublish();
        let dns = s.rig.lab.dns();
        let (middle, end) = (
            "_xmpp-server._tcp.middle.example",
            "_xmpp-server._tcp.end.example",
        );
        dns.alias(&format!("_xmpp-server._tcp.{}", s.domain), middle);
        dns.alias(middle, end);
        dns.srv(end, 5, 0, 5999, &s.target());
        dns.srv(end, 1, 0, S2S_PORT, &s.target());
        dns.host(&s.domain, s.rig.lab.ip(250));
        let outside = s.outside().await?;
        let mut inside = s.inside().await?;
        s.delivers_outwards(&mut inside, &outside).await?;
        ensure!(outside.connections() == 1, "{}", outside.connections());
        Ok(())
    });
}

/// A partner has moved, and its old records hold for an hour: the attempt that fails by them leads to the new ones,
/// through an alias too, while the stanza waits.
#[test]
fn s13_a_failed_attempt_leads_to_the_new_record() {
    RIG.test(4, async |s| {
        let dns = s.rig.lab.dns();
        let domain = format!("moved.{}", s.domain);
        let owner = format!("_xmpp-server._tcp.{domain}");
        let (hosted, old, new) = (
            format!("_xmpp-server._tcp.hoster.{domain}"),
            format!("old.{domain}"),
            format!("new.{domain}"),
        );
        for name in [&owner, &hosted, &old] {
            dns.holds(name, 3600);
        }
        dns.alias(&owner, &hosted);
        dns.srv(&hosted, 0, 0, S2S_PORT, &old);
        // Nothing listens there.
        dns.host(&old, s.rig.lab.ip(250));
        dns.host(&new, s.address().ip());
        let leaf = s.rig.lab.authority().issue(&[&domain], Usage::ServerAuth);
        let behaviour = Behaviour::good(Identity::of(&leaf)?);
        let outside = PeerServer::listen(s.address(), behaviour).await?;
        let mut inside = s.inside_to(&domain).await?;
        let id = s.fresh();
        let to = format!("rob@{domain}");
        inside.message(ALICE, &to, &id, "hello").await?;
        wait::until(
            "the old address was looked up",
            wait::GENEROUS,
            async || {
                dns.asked()
                    .iter()
                    .any(|(name, _)| *name == old)
                    .then_some(())
            },
        )
        .await?;
        dns.replace_srv(&hosted, 0, 0, S2S_PORT, &new);
        outside.stanza_id(&id).await?;
        Ok(())
    });
}
