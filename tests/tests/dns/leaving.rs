//! What stays in DNS of a pool that goes, or whose operator does: addresses while it exists, marks of
//! others, and what a successor finds.

use anyhow::Result;
use hickory_proto::rr::RecordType;
use xmpp_edge_operator::dns::{
    Availability, DesiredRecords, DnsMemory, Publisher, RecordSource, UpdateSettings,
};
use xmpp_edge_tests::primary::{Primary, SECRET};

use crate::rfc2136::{Site, on_each, srv};

/// Field case of the first hour, k: who still has the SRV record finds its target.
#[test]
fn addresses_stay_while_a_pool_is_disabled_and_go_with_it() -> Result<()> {
    on_each(async |software| {
        let primary = Primary::start(software, &[("org.example", ""), ("edge.test", "")]).await?;
        let mut site = Site::new(&primary, "one", "a.edge.test", "192.0.2.1");
        site.well(Availability::Serving).await;
        for _ in 0..2 {
            let report = site.well(Availability::OutOfService).await;
            assert_eq!(srv(&primary).await.map(|set| set.len()), [0, 0]);
            let addresses = primary.records("a.edge.test", RecordType::A).await?;
            assert_eq!(addresses, ["192.0.2.1"], "{software:?}");
            assert_eq!(report.published(), [("org.example", false)]);
            let said = report.condition();
            assert!(
                said.message.contains("kept while the pool exists"),
                "{said:?}"
            );
        }
        site.well(Availability::Serving).await;
        assert_eq!(srv(&primary).await.map(|set| set.len()), [1, 1]);
        site.well(Availability::Removed).await;
        assert!(
            primary
                .records("a.edge.test", RecordType::A)
                .await?
                .is_empty()
        );
        Ok(())
    })
}

/// j4: two installations, one after the other, for one pool.
#[test]
fn records_of_another_owner_of_the_same_pool_are_told_and_left() -> Result<()> {
    on_each(async |software| {
        let primary = Primary::start(software, &[("org.example", ""), ("edge.test", "")]).await?;
        let mut gone = Site::new(&primary, "before", "a.edge.test", "192.0.2.1");
        gone.well(Availability::Serving).await;
        let mut now = Site::new(&primary, "now", "a.edge.test", "192.0.2.1");
        let report = now.well(Availability::Serving).await;
        let said = report.condition();
        assert!(
            said.status && said.message.contains("owner before"),
            "{said:?}"
        );
        now.well(Availability::Removed).await;
        assert_eq!(
            srv(&primary).await.map(|set| set.len()),
            [1, 1],
            "{software:?}"
        );
        Ok(())
    })
}

/// 6.8 d: the spec says nothing of DNS any more, and whoever published was restarted since.
#[test]
fn what_is_remembered_is_enough_to_withdraw_by() -> Result<()> {
    on_each(async |software| {
        let primary = Primary::start(software, &[("org.example", ""), ("edge.test", "")]).await?;
        let mut site = Site::new(&primary, "one", "a.edge.test", "192.0.2.1");
        site.well(Availability::Serving).await;
        let memory = site.publisher.memory().clone();
        let source = memory.source.clone().unwrap();
        assert_eq!(source.owner, "one");
        let stored = serde_json::to_string(&source)?;
        let source: RecordSource = serde_json::from_str(&stored)?;
        assert!(!stored.contains(SECRET), "no secret is remembered");

        let owner = site.publisher.claim().clone();
        let mut restarted = Publisher::new(owner, memory);
        restarted.configure(UpdateSettings::read(
            &source.rfc2136,
            Some(&site.material()),
        ));
        let report = restarted.withdraw(&DesiredRecords::nothing()).await;
        assert!(report.is_good(), "{:?}", report.errors());
        assert_eq!(srv(&primary).await.map(|set| set.len()), [0, 0]);
        assert_eq!(*restarted.memory(), DnsMemory::default());
        Ok(())
    })
}
