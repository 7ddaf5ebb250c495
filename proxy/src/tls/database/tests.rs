#![allow(clippy::unwrap_used)]

use std::time::Duration;

use tokio::{io::duplex, time::Instant};

use super::*;
use crate::tls::{
    Identity, Mode, accept,
    pki::{Issued, Subject, authority, issue, self_signed},
};

async fn connects(
    server: &Issued,
    demand: ServerVerification,
    roots: Roots,
    host: &str,
) -> Result<(), String> {
    let identity = Arc::new(Identity::from_pem(&server.pem, &server.key_pem, "test").unwrap());
    let (near, far) = duplex(16_384);
    let client = DatabaseTls::new(demand, roots).map_err(|error| error.to_string())?;
    let soon = Instant::now() + Duration::from_secs(10);
    let (client, _) = tokio::join!(
        client.connect(near, host),
        accept(far, Mode::StartTls, soon, |_| Some(Arc::clone(&identity))),
    );
    client.map(|_| ()).map_err(|error| error.to_string())
}

#[tokio::test]
async fn a_certificate_counts_as_demanded() {
    let ca = authority("the database's");
    let names = ["db.example"];
    let subject = Subject {
        names: &names,
        ..Subject::default()
    };
    let issued = issue(&ca, &subject);
    let own = self_signed(&subject);
    let roots = |pem: &str| Roots::from_pem(pem, "ca.crt").unwrap();
    let (by_ca, by_own) = (roots(&ca.pem()), roots(&own.pem));
    let stranger = roots(&authority("a stranger's").pem());
    use ServerVerification::{Chain, Name, Nothing};
    for (server, demand, roots, host, expected) in [
        (&issued, Name, &by_ca, "db.example", true),
        (&issued, Name, &by_ca, "other.example", false),
        (&issued, Name, &by_ca, "127.0.0.1", false),
        (&issued, Name, &stranger, "db.example", false),
        (&issued, Chain, &by_ca, "other.example", true),
        (&issued, Chain, &by_ca, "127.0.0.1", true),
        (&issued, Chain, &stranger, "db.example", false),
        (&issued, Nothing, &stranger, "other.example", true),
        // One that is its own authority.
        (&own, Name, &by_own, "db.example", true),
        (&own, Name, &by_own, "other.example", false),
        (&own, Chain, &by_own, "other.example", true),
        (&own, Chain, &by_ca, "db.example", false),
    ] {
        let found = connects(server, demand, roots.clone(), host).await;
        assert_eq!(found.is_ok(), expected, "{demand:?} {host}: {found:?}");
    }
    let nobody = connects(&issued, Name, Roots::default(), "db.example").await;
    assert!(nobody.is_err(), "without authorities nothing verifies");
}

#[tokio::test]
async fn an_expired_certificate_counts_for_nobody_who_asks() {
    let names = ["db.example"];
    let expired = self_signed(&Subject {
        names: &names,
        end: crate::tls::pki::BEGIN + 1,
        ..Subject::default()
    });
    let roots = Roots::from_pem(&expired.pem, "ca.crt").unwrap();
    let found = connects(
        &expired,
        ServerVerification::Chain,
        roots.clone(),
        "db.example",
    )
    .await;
    assert!(found.unwrap_err().contains("xpired"));
    assert!(
        connects(&expired, ServerVerification::Nothing, roots, "db.example")
            .await
            .is_ok()
    );
}
