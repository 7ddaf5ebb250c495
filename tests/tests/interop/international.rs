//! s3: real servers that host a domain in Unicode, as partner and inside, and one that hosts A-labels.

use anyhow::Result;
use serde_json::json;
use xmpp_edge_tests::{
    conversation,
    federation::{Federation, FederationPlan, Hosted, Method, OWN, PARTNER},
    servers::{Acknowledge, Kind},
};

const BOOKS: Hosted = Hosted {
    name: "xn--bcher-kva.example",
    hosted: "bücher.example",
};
const MILLS: Hosted = Hosted {
    name: "xn--mhlen-kva.example",
    hosted: "mühlen.example",
};

async fn converse(own: Hosted, partner: Hosted, method: Method) -> Result<()> {
    let plan = FederationPlan {
        partner: Kind::Prosody,
        partner_method: method,
        inside: Kind::Prosody,
        inside_method: method,
        inside_acknowledge: Acknowledge::Resending,
        trace: false,
    };
    let scene = Federation::start_as(plan, &json!({}), (own, partner)).await?;
    let outcome = async {
        let (alice, bob) =
            tokio::try_join!(scene.inside.login("alice"), scene.partner.login("bob"))?;
        conversation::all(&alice, &bob).await?;
        scene.shows_methods().await
    }
    .await;
    if outcome.is_err() {
        eprintln!("{}", scene.logs());
    }
    outcome
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s3_prosody_hosts_a_partners_domain_in_unicode() {
    converse(Hosted::plain(OWN), BOOKS, Method::External)
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s3_prosody_hosts_the_organisations_domain_in_unicode_by_dialback() {
    converse(BOOKS, MILLS, Method::TlsDialback).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s3_prosody_hosts_the_organisations_domain_in_unicode() {
    converse(BOOKS, Hosted::plain(PARTNER), Method::External)
        .await
        .unwrap();
}

/// What is hosted as A-labels is found by its refusal of the other form.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s3_prosody_hosts_a_partners_domain_as_a_labels() {
    let ascii = Hosted::plain(BOOKS.name);
    converse(Hosted::plain(OWN), ascii, Method::External)
        .await
        .unwrap();
}
