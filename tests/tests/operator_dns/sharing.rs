//! Two clusters, each with its own operator, in one RRset by one key.

use anyhow::Result;
use hickory_proto::rr::RecordType;
use serde_json::json;
use xmpp_edge_tests::{
    cluster::{ApiServer, ControllerManager, Namespace, Operator, WITHOUT_NODES},
    primary::{Primary, Software},
    wait,
};

use crate::{stage::*, test};

/// The fewest targets that the domain had at any time, until `meanwhile` is done.
async fn fewest(
    primary: &Primary,
    domain: &str,
    meanwhile: impl Future<Output = Result<()>>,
) -> Result<usize> {
    let mut fewest = usize::MAX;
    let watch = async {
        loop {
            if let Ok(found) = targets(primary, domain).await {
                fewest = fewest.min(found.len());
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::select! {
        done = meanwhile => done?,
        () = watch => {}
    }
    Ok(fewest)
}

#[test]
fn two_clusters_share_an_rrset_keep_one_record_when_both_lose_all_pods_and_remove_only_their_own() {
    test(async |first| {
        let own = domain(first);
        let primary = Primary::start(Software::Bind, &[(&own, "")]).await?;
        let server = ApiServer::start().await?;
        server.install_kinds().await?;
        let _controllers = ControllerManager::start(&server, WITHOUT_NODES).await?;
        // The same names in both, as where both are made from the same files.
        let second = Namespace::new(&server, &first.name).await?;
        let clusters = [(first, "a", 10), (&second, "b", 20)];
        let mut operators = Vec::new();
        for (cluster, site, priority) in clusters {
            operators.push(Operator::start(cluster, &[]).await?);
            key(cluster).await?;
            let more = json!({"dns": at(&primary), "route": {"priority": priority},
                "accessEdge": {"fqdn": format!("{site}.{own}"), "addresses": ["192.0.2.1"]}});
            create(cluster, &pool(&own, "hq", more)).await?;
        }
        let both_are = async |ready: bool| -> Result<()> {
            tokio::try_join!(pods_are(first, "hq", ready), pods_are(&second, "hq", ready))?;
            Ok(())
        };
        let (a, b) = (format!("a.{own}"), format!("b.{own}"));
        let (a, b) = (a.as_str(), b.as_str());
        both_are(true).await?;
        until_leads_to(&primary, &own, &[a, b]).await?;
        let owners = primary.records(&starttls(&own), RecordType::TXT).await?;
        assert_eq!(owners.len(), 2, "{owners:?}");

        for round in 0..3 {
            let fewest = fewest(&primary, &own, async {
                both_are(false).await?;
                wait::until("one record stays", SOON, async || {
                    let found = targets(&primary, &own).await.ok()?;
                    (found.len() == 1).then_some(())
                })
                .await?;
                // Both have said what they make of it, and it is still so.
                for (cluster, ..) in clusters {
                    until_told(cluster, "hq", PUBLISHED, "no pod is ready").await?;
                }
                Ok(())
            })
            .await?;
            assert_eq!(fewest, 1, "round {round}");
            assert_eq!(targets(&primary, &own).await?.len(), 1, "round {round}");
            // Who comes back takes the place of whoever was left.
            let (back, fqdn) = if round % 2 == 0 {
                (first, a)
            } else {
                (&second, b)
            };
            pods_are(back, "hq", true).await?;
            until_leads_to(&primary, &own, &[fqdn]).await?;
            both_are(true).await?;
            until_leads_to(&primary, &own, &[a, b]).await?;
        }

        delete(first, "hq").await?;
        until_gone(first, "hq").await?;
        until_leads_to(&primary, &own, &[b]).await?;
        until_answers(&primary, a, RecordType::A, &[]).await?;
        until_answers(&primary, b, RecordType::A, &["192.0.2.1"]).await?;
        until_says(&second, "hq", PUBLISHED, "True, Published").await?;
        delete(&second, "hq").await?;
        until_gone(&second, "hq").await?;
        let names = [starttls(&own), direct(&own), a.to_owned(), b.to_owned()];
        assert!(everything(&primary, &names).await?.is_empty());
        Ok(())
    });
}
