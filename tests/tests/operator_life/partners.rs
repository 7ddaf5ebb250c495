//! A partner's life: made, in force, broken, mended, deleted.

use serde_json::json;
use xmpp_edge_tests::{
    cluster::{FakePod, Operator, Submission},
    wait,
};

use super::{
    SERVER,
    stage::{SOON, condition, create, delete, edit, get, partner, pool, until_says},
};

#[test]
fn a_partner_is_accepted_then_programmed_once_all_pods_have_it() {
    SERVER.test(async |namespace| {
        let object = partner("p", json!({"domain": "p.example"}));
        create(namespace, &[pool(namespace), object.clone()]).await?;
        let _operator = Operator::start(namespace, &[]).await?;
        let waiting = [
            ("Accepted", "True, Accepted"),
            ("Programmed", "False, Pending"),
            ("Ready", "False, Pending"),
        ];
        until_says(namespace, &object, &waiting).await?;
        let (slow, fast) = (
            FakePod::start(namespace, "hq", 0).await?,
            FakePod::start(namespace, "hq", 1000).await?,
        );
        until_says(namespace, &object, &waiting).await?;
        slow.load(1000);
        let all = [
            ("Ready", "True, Ready"),
            ("Programmed", "True, Programmed"),
            ("Secure", "True, Encrypted"),
            ("Reachable", "Unknown, NotAttempted"),
        ];
        let ready = until_says(namespace, &object, &all).await?;
        assert_eq!(
            ready["status"]["authenticationMethods"],
            json!(["SaslOverTls"])
        );
        // With no pod left, what the last had loaded is what the next begin with.
        fast.delete().await?;
        slow.set_ready(false).await?;
        let other = partner("q", json!({"domain": "q.example"}));
        create(namespace, std::slice::from_ref(&other)).await?;
        until_says(namespace, &other, &[("Accepted", "True, Accepted")]).await?;
        assert_eq!(
            condition(&get(namespace, &object).await?, "Programmed"),
            "True, Programmed"
        );
        Ok(())
    });
}

#[test]
fn two_partners_of_one_domain_the_older_has_it_until_it_is_gone() {
    SERVER.test(async |namespace| {
        let older = partner("z-older", json!({"domain": "p.example"}));
        let younger = partner(
            "a-younger",
            json!({"domain": "x.example", "additionalDomains": ["p.example"]}),
        );
        create(namespace, &[pool(namespace), older.clone()]).await?;
        let _operator = Operator::start(namespace, &[]).await?;
        until_says(namespace, &older, &[("Accepted", "True, Accepted")]).await?;
        create(namespace, std::slice::from_ref(&younger)).await?;
        let lost = until_says(
            namespace,
            &younger,
            &[
                ("Accepted", "False, DomainConflict"),
                ("Programmed", "False, NotAccepted"),
                ("Ready", "False, DomainConflict"),
            ],
        )
        .await?;
        assert!(
            lost.to_string().contains("z-older"),
            "the winner is named: {lost}"
        );
        delete(namespace, &older).await?;
        until_says(namespace, &younger, &[("Accepted", "True, Accepted")]).await?;
        Ok(())
    });
}

#[test]
fn a_broken_edit_says_what_is_wrong_and_a_mended_one_that_all_is_well() {
    SERVER.test(async |namespace| {
        let object = partner("p", json!({"domain": "p.example"}));
        create(namespace, &[pool(namespace), object.clone()]).await?;
        let _operator = Operator::start(namespace, &[]).await?;
        until_says(namespace, &object, &[("Accepted", "True, Accepted")]).await?;
        let trust = json!({"trust": {"caConfigMapRef": {"name": "roots", "key": "ca.crt"}}});
        edit(namespace, &object, trust).await?;
        let broken = until_says(
            namespace,
            &object,
            &[("Accepted", "False, ReferenceMissing")],
        )
        .await?;
        assert!(broken.to_string().contains("create it in this namespace"));
        edit(namespace, &object, json!({"trust": null})).await?;
        until_says(namespace, &object, &[("Accepted", "True, Accepted")]).await?;
        // Both transitions are Events.
        let kubectl = namespace.server.kubectl();
        wait::until("both are Events", SOON, async || {
            let events = kubectl
                .run(&["-n", &namespace.name, "get", "events", "-o", "json"])
                .ok()?;
            (events.contains("ReferenceMissing") && events.contains("\"Accepted\"")).then_some(())
        })
        .await?;
        Ok(())
    });
}

#[test]
fn what_pods_say_of_a_partner_is_in_its_status_by_pool() {
    SERVER.test(async |namespace| {
        let object = partner("p", json!({"domain": "p.example"}));
        create(namespace, &[pool(namespace), object.clone()]).await?;
        let _operator = Operator::start(namespace, &[]).await?;
        let (first, second) = (FakePod::start(namespace, "hq", 1000).await?, FakePod::start(namespace, "hq", 1000).await?);
        until_says(namespace, &object, &[("Ready", "True, Ready"), ("Reachable", "Unknown, NotAttempted")]).await?;
        let stream = |id: u64, time: &str| json!([{"id": id, "side": "Partner", "direction": "Inbound",
            "peerDomains": ["p.example"], "method": "SaslOverTls", "tlsVersion": "1.3", "establishedTime": time}]);
        first.say("streams", stream(1, "2026-02-01T00:00:00Z"));
        second.say("streams", stream(7, "2026-02-02T00:00:00Z"));
        first.say("partners", json!([{"name": "p", "lastConnectedTime": "2026-02-02T00:00:00Z"}]));
        let up = until_says(namespace, &object, &[("Reachable", "True, Reachable")]).await?;
        assert_eq!(up["status"]["pools"][0]["inboundStreams"], 2, "{up:#}");
        assert_eq!(up["status"]["pools"][0]["method"], "SaslOverTls");
        let failure = json!([{"name": "p", "lastAttempt": [{"step": "tcp", "outcome": "Refused", "direction": "outbound",
            "address": "192.0.2.7:5269", "text": "connection refused", "time": "2026-02-03T00:00:00Z"}]}]);
        second.say("partners", failure);
        let down = until_says(namespace, &object, &[("Reachable", "False, Unreachable")]).await?;
        assert_eq!(down["status"]["pools"][0]["lastAttempt"][0]["address"], "192.0.2.7:5269");
        Ok(())
    });
}

#[test]
fn a_status_that_someone_else_wrote_is_corrected() {
    SERVER.test(async |namespace| {
        let object = partner("p", json!({"domain": "p.example"}));
        create(namespace, &[pool(namespace), object.clone()]).await?;
        let _operator = Operator::start(namespace, &[]).await?;
        until_says(namespace, &object, &[("Accepted", "True, Accepted")]).await?;
        let mut lie = object.clone();
        lie["status"] = json!({"authenticationMethods": ["TcpDialback"]});
        namespace.write(Submission::STATUS, &lie).await?;
        wait::until("it is corrected", SOON, async || {
            let now = get(namespace, &object).await.ok()?;
            (now["status"]["authenticationMethods"] == json!(["SaslOverTls"])).then_some(())
        })
        .await
    });
}

#[test]
fn without_a_pool_every_partner_says_so() {
    SERVER.test(async |namespace| {
        let objects = [
            partner("p", json!({"domain": "p.example"})),
            partner("q", json!({"domain": "q.example"})),
        ];
        create(namespace, &objects).await?;
        let _operator = Operator::start(namespace, &[]).await?;
        for object in &objects {
            until_says(
                namespace,
                object,
                &[
                    ("Accepted", "True, Accepted"),
                    ("Programmed", "False, NoPool"),
                ],
            )
            .await?;
        }
        Ok(())
    });
}
