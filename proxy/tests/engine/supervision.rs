//! A task that the proxy cannot do without ends: so does the process, with its reason.

use crate::peers::{Lab, Plan, message};

#[tokio::test]
async fn a_proxy_that_nobody_tells_of_configurations_any_more_drains_and_ends_with_that_reason() {
    let mut lab = Lab::start(41, Plan::default()).await;
    let mut partner = lab.partner_stream().await;
    partner.say(&message(0)).await;
    lab.gateway.heard_stanzas(1).await;
    let error = lab.lose_the_configuration().await;
    assert_eq!(
        error.to_string(),
        "the source of the configuration ended before its time"
    );
    partner.hears("</stream:stream>").await;
}
