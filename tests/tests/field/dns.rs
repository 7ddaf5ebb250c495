//! Where a partner's servers are, as zones in the field say it.

use anyhow::ensure;
use xmpp_edge_tests::servers::S2S_PORT;

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
