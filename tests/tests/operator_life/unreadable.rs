//! Namespaces that the operator is told to watch and may not read: they stop nobody else.

use std::process::{Command, Stdio};

use anyhow::{Context, Result};
use serde_json::json;
use xmpp_edge_tests::{
    cluster::{
        ApiServer, Namespace, Operator, alone, operator_account,
        operator_account_that_looks_nowhere_else,
    },
    edge, wait,
};

use super::stage::{SOON, create, get, partner, pool, until_says};

const WATCHED: [&str; 2] = ["--watch-namespace=chat", "--watch-namespace=gone"];

async fn in_namespace<'a>(server: &'a ApiServer, name: &str) -> Result<Namespace<'a>> {
    Ok(Namespace {
        server,
        client: server.admin().client(name).await?,
        name: name.to_owned(),
    })
}

#[test]
fn a_namespace_that_may_not_be_read_stops_no_other_and_is_served_once_it_may() {
    alone(async {
        let server = ApiServer::start().await?;
        server.install_kinds().await?;
        server.namespace("chat", &[]).await?;
        let account = operator_account(&server, "chat", &[]).await?;
        // As after `kubectl delete namespace gone`: no namespace, no Role.
        let mut operator = Operator::start_as(&server, &account, "chat", &WATCHED).await?;
        let chat = in_namespace(&server, "chat").await?;
        let object = partner("p", json!({ "domain": "p.example" }));
        create(&chat, &[pool(&chat), object.clone()]).await?;
        until_says(&chat, &object, &[("Accepted", "True, Accepted")]).await?;

        let ready = operator.get("/readyz").await?;
        assert!(ready.starts_with("ok\n"), "{ready}");
        assert!(ready.contains("namespace gone is not served"), "{ready}");
        assert_eq!(
            ready.lines().count(),
            2,
            "one line for the namespace: {ready}"
        );
        let failing = operator
            .metric("xmpp_edge_operator_watch_failing", &["namespace=\"gone\""])
            .await?;
        assert!(failing.is_some_and(|failing| failing >= 1.0), "{failing:?}");
        wait::until("it was tried again", SOON, async || {
            let labels = ["namespace=\"gone\"", "code=\"403\""];
            let name = "xmpp_edge_operator_watch_errors_total";
            let errors = operator.metric(name, &labels).await.ok()??;
            (errors >= 33.0).then_some(())
        })
        .await?;
        let log = operator.process().log();
        let lines: Vec<&str> = log
            .lines()
            .filter(|line| line.contains("403") || line.contains("may not be read"))
            .collect();
        assert!(lines.len() <= 2, "{lines:#?}");

        server.namespace("gone", &[]).await?;
        operator_account(&server, "chat", &["chat", "gone"]).await?;
        let gone = in_namespace(&server, "gone").await?;
        create(&gone, &[pool(&gone), object.clone()]).await?;
        until_says(&gone, &object, &[("Accepted", "True, Accepted")]).await?;
        let mut ready = String::new();
        // Kinds that could be listed and not watched are known to be well once they have not failed for a while.
        let is_well = wait::until("nothing is wrong any more", 3 * SOON, async || {
            ready = operator.get("/readyz").await.ok()?;
            (ready == "ok\n").then_some(())
        })
        .await;
        is_well.with_context(|| ready)
    });
}

#[test]
fn an_uninstallation_is_not_held_up_by_a_namespace_without_rights_nor_the_next_installation_by_its_lease()
 {
    alone(async {
        let server = ApiServer::start().await?;
        server.install_kinds().await?;
        server.namespace("chat", &[]).await?;
        server.namespace("gone", &[]).await?;
        let gone = in_namespace(&server, "gone").await?;
        let mut left = pool(&gone);
        left["metadata"]["finalizers"] = json!(["xmpp-edge.dev/dns"]);
        create(&gone, std::slice::from_ref(&left)).await?;
        let prepared = async |account| {
            let kubeconfig = server.kubeconfig_file("uninstall", account, "chat")?;
            let output = tokio::process::Command::from(command(&["prepare-uninstall"]))
                .args(WATCHED)
                .env("KUBECONFIG", &kubeconfig)
                .output()
                .await?;
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(output.status.success(), "{said}");
            Ok::<_, anyhow::Error>((kubeconfig, said))
        };
        let blind = operator_account_that_looks_nowhere_else(&server, "chat", &[]).await?;
        let (_, said) = prepared(&blind).await?;
        assert!(said.contains("none is released"), "{said}");
        // Where it may list its kinds everywhere it sees what it may not change.
        let account = operator_account(&server, "chat", &[]).await?;
        let (kubeconfig, said) = prepared(&account).await?;
        assert!(said.contains("is not released"), "{said}");
        let patch = "--patch={\"metadata\":{\"finalizers\":null}}";
        let free = [
            "patch",
            "epool/hq",
            "--namespace=gone",
            "--type=merge",
            patch,
        ];
        server.kubectl().run(&free)?;
        let delete = ["delete", "epool/hq", "--namespace=gone"];
        server.kubectl().run(&delete)?;

        let chat = in_namespace(&server, "chat").await?;
        let object = partner("p", json!({ "domain": "p.example" }));
        create(&chat, &[pool(&chat), object.clone()]).await?;
        let _operator = Operator::start_as(&server, &account, "chat", &[]).await?;
        // What `helm test` runs right after an installation.
        let output = tokio::process::Command::from(command(&["check"]))
            .env("KUBECONFIG", &kubeconfig)
            .output()
            .await?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{said}");
        until_says(&chat, &object, &[("Accepted", "True, Accepted")]).await?;
        Ok(())
    });
}

#[test]
fn pools_of_a_namespace_that_is_no_longer_watched_are_let_go_beside_a_running_operator() {
    alone(async {
        let server = ApiServer::start().await?;
        server.install_kinds().await?;
        server.namespace("chat", &[]).await?;
        server.namespace("gone", &[]).await?;
        let (chat, gone) = (
            in_namespace(&server, "chat").await?,
            in_namespace(&server, "gone").await?,
        );
        let mut operator = Operator::start(&chat, &[]).await?;
        let mut left = pool(&gone);
        left["metadata"]["finalizers"] = json!(["xmpp-edge.dev/dns", "others.example/kept"]);
        create(&gone, std::slice::from_ref(&left)).await?;
        let kubeconfig = server.kubeconfig_file("let-go", server.admin(), "chat")?;
        let output = tokio::process::Command::from(command(&["prepare-uninstall"]))
            .args(["--watch-namespace=gone", "--keep-lease"])
            .env("KUBECONFIG", &kubeconfig)
            .output()
            .await?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{said}");
        let finalizers = get(&gone, &left).await?["metadata"]["finalizers"].clone();
        assert_eq!(finalizers, json!(["others.example/kept"]), "others' stay");
        let object = partner("p", json!({ "domain": "p.example" }));
        create(&chat, &[pool(&chat), object.clone()]).await?;
        until_says(&chat, &object, &[("Accepted", "True, Accepted")]).await?;
        assert_eq!(operator.process().exited(), None);
        Ok(())
    });
}

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(edge::binary().unwrap());
    command.args(arguments).stdin(Stdio::null());
    command
}
