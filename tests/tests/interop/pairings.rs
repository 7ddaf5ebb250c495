//! Prosody and ejabberd, each as partner and as inside server, through the edge: everything people
//! do with each other, by every method that both ends of a hop have.
//!
//! | method | Prosody 0.12, 13 | ejabberd 23.01, 24.12 |
//! | --- | --- | --- |
//! | SASL EXTERNAL over STARTTLS | both sides | both sides |
//! | direct TLS | as partner | as partner |
//! | bidi (XEP-0288) | both sides | has none |
//! | dialback over TLS, over TCP | both sides | both sides |
//! | acknowledgements (XEP-0198) | both sides | has none |

use anyhow::{Context, Result};
use xmpp_edge_tests::{
    conversation,
    federation::{Federation, FederationPlan, Method},
    servers::{
        Acknowledge,
        Kind::{self, Ejabberd, Ejabberd24, Prosody, Prosody13},
    },
};

async fn converse(partner: (Kind, Method), inside: (Kind, Method)) -> Result<()> {
    let plan = FederationPlan {
        partner: partner.0,
        partner_method: partner.1,
        inside: inside.0,
        inside_method: inside.1,
        inside_acknowledge: Acknowledge::Resending,
        trace: false,
    };
    let scene = Federation::start(plan).await?;
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
    outcome.with_context(|| format!("{plan:?}"))
}

macro_rules! pairings {
    ($($name:ident: $partner:expr, $inside:expr;)*) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            converse($partner, $inside).await.unwrap();
        }
    )*};
}

pairings! {
    prosody_with_prosody_by_certificates: (Prosody, Method::External), (Prosody, Method::External);
    prosody_with_ejabberd_by_certificates: (Prosody, Method::External), (Ejabberd, Method::External);
    ejabberd_with_prosody_by_certificates: (Ejabberd, Method::External), (Prosody, Method::External);
    ejabberd_with_ejabberd_by_certificates: (Ejabberd, Method::External), (Ejabberd, Method::External);

    prosody_partner_by_direct_tls: (Prosody, Method::DirectTls), (Prosody, Method::External);
    prosody_partner_by_bidi: (Prosody, Method::Bidi), (Ejabberd, Method::External);
    prosody_partner_by_dialback_over_tls: (Prosody, Method::TlsDialback), (Ejabberd, Method::External);
    prosody_partner_by_dialback_over_tcp: (Prosody, Method::TcpDialback), (Prosody, Method::External);
    ejabberd_partner_by_direct_tls: (Ejabberd, Method::DirectTls), (Prosody, Method::External);
    ejabberd_partner_by_dialback_over_tls: (Ejabberd, Method::TlsDialback), (Prosody, Method::External);
    ejabberd_partner_by_dialback_over_tcp: (Ejabberd, Method::TcpDialback), (Prosody, Method::External);

    prosody_inside_by_bidi: (Ejabberd, Method::External), (Prosody, Method::Bidi);
    prosody_inside_by_dialback_over_tls: (Prosody, Method::External), (Prosody, Method::TlsDialback);
    prosody_inside_by_dialback_over_tcp: (Ejabberd, Method::External), (Prosody, Method::TcpDialback);
    ejabberd_inside_by_dialback_over_tls: (Prosody, Method::External), (Ejabberd, Method::TlsDialback);
    ejabberd_inside_by_dialback_over_tcp: (Prosody, Method::External), (Ejabberd, Method::TcpDialback);

    prosody_with_prosody_by_bidi_on_both_sides: (Prosody, Method::Bidi), (Prosody, Method::Bidi);
    prosody_13_with_prosody_13_by_certificates: (Prosody13, Method::External), (Prosody13, Method::External);
    prosody_13_with_ejabberd_24_by_certificates: (Prosody13, Method::External), (Ejabberd24, Method::External);
    ejabberd_24_with_prosody_13_by_certificates: (Ejabberd24, Method::External), (Prosody13, Method::External);
    prosody_13_partner_by_direct_tls: (Prosody13, Method::DirectTls), (Prosody, Method::External);
    prosody_13_by_bidi_on_both_sides: (Prosody13, Method::Bidi), (Prosody13, Method::Bidi);
    prosody_13_by_dialback_over_tls_on_both_sides: (Prosody13, Method::TlsDialback), (Prosody13, Method::TlsDialback);
    prosody_13_partner_by_dialback_over_tcp: (Prosody13, Method::TcpDialback), (Prosody, Method::External);
    ejabberd_24_by_dialback_over_tls_on_both_sides: (Ejabberd24, Method::TlsDialback), (Ejabberd24, Method::TlsDialback);
    ejabberd_24_by_dialback_over_tcp_on_both_sides: (Ejabberd24, Method::TcpDialback), (Ejabberd24, Method::TcpDialback);

    ejabberd_with_ejabberd_by_dialback_on_both_sides: (Ejabberd, Method::TlsDialback), (Ejabberd, Method::TlsDialback);
}
