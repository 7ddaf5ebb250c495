//! What there is once an administrator did what the guide says.

use anyhow::{Result, ensure};
use hickory_proto::rr::RecordType;
use tokio::process::Command;
use xmpp_edge_tests::{client::Client, conversation, edge};

use crate::stage::{EDGE, OWN, STAGE};

#[test]
fn installed_and_applied_as_the_guide_says_a_site_federates() {
    STAGE.test(async |stage| {
        let helm = stage.helm()?;
        let tested = helm.run(&["test", "xmpp-edge", "--namespace", "edge-system"])?;
        ensure!(tested.contains("Succeeded"), "{tested}");

        let pool = stage.get("epool/hq")?;
        ensure!(pool["status"]["readyReplicas"] == 2, "{pool:#}");
        let name = format!("_xmpp-server._tcp.{OWN}");
        let records = stage.dns.records(&name, RecordType::SRV).await?;
        let both = [
            "10 100 5269 edge.org.example.",
            "20 100 5269 edge2.org.example.",
        ];
        ensure!(records == both, "{records:?}");

        // ejabberd and Prosody, each calling and called.
        for (server, user) in [(&stage.partner, "bob"), (&stage.friend, "dave")] {
            let alice = Client::login(stage.inside, &format!("alice@{OWN}"), user).await?;
            let other = server.login(user).await?;
            conversation::messages(&alice, &other).await?;
            conversation::messages(&other, &alice).await?;
        }
        let methods = stage.until("xfp/partner", "its streams show", |it| {
            let method = it["status"]["pools"][0]["method"].as_str()?;
            Some(method.to_owned())
        });
        ensure!(methods.await? == "SaslOverTls");

        // A pod walks there, asked through the API server.
        let server = stage.cluster.server();
        let kubeconfig = server.kubeconfig_file("probe", server.admin(), EDGE)?;
        let probed = Command::new(edge::binary()?)
            .args(["probe", "friend.example", "--pool", "hq"])
            .env("KUBECONFIG", kubeconfig)
            .output()
            .await?;
        let said = format!(
            "{}{}",
            String::from_utf8_lossy(&probed.stdout),
            String::from_utf8_lossy(&probed.stderr)
        );
        ensure!(
            probed.status.success() && said.contains("SaslOverTls") && said.contains("edge/hq-"),
            "{said}"
        );
        Result::Ok(())
    });
}
