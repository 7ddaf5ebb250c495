//! What changes while people talk: partners, policies, certificates. Nobody else notices, and no pod is
//! replaced or restarted.

use anyhow::ensure;
use serde_json::json;
use xmpp_edge_tests::wait;

use crate::{
    stage::{SOON, STAGE},
    talk::{Talk, until_sent},
};

#[test]
fn a_partner_is_suspended_and_a_policy_changed_and_nobody_else_notices() {
    STAGE.test(async |stage| {
        until_sent(stage, "it passes before", None).await?;
        let lives = stage.lives()?;
        let talk = Talk::begin(stage).await?;

        stage.edit("xfp/partner", &json!({"suspended": true}))?;
        let refused = Some("not-allowed");
        until_sent(stage, "refused while suspended", refused).await?;
        stage.edit("xfp/partner", &json!({"suspended": false}))?;
        until_sent(stage, "it passes again", None).await?;

        stage.edit("exap/everyone", &json!({"partners": ["friend"]}))?;
        until_sent(stage, "refused by policy", refused).await?;
        stage.edit("exap/everyone", &json!({"partners": null}))?;
        until_sent(stage, "it passes as before", None).await?;

        talk.goes_on().await?;
        talk.end().await?.undisturbed()?;
        ensure!(stage.lives()? == lives, "pods were replaced");
        Ok(())
    });
}

#[test]
fn another_certificate_is_served_without_a_stream_or_a_pod_ending() {
    STAGE.test(async |stage| {
        let (lives, before) = (stage.lives()?, stage.served(1)?);
        let talk = Talk::begin(stage).await?;
        stage.certify()?;
        for host in [1, 2] {
            let changed = async || stage.served(host).ok().filter(|now| *now != before);
            wait::until("the new one is served", SOON, changed).await?;
        }
        talk.goes_on().await?;
        talk.end().await?.undisturbed()?;
        ensure!(stage.lives()? == lives, "pods were replaced");
        Ok(())
    });
}
