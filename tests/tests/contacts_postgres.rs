//! Contacts of unverified partners, shared by two pods through a real PostgreSQL with TLS and
//! passwords.

#![allow(clippy::unwrap_used)]

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context, Result};
use xmpp_edge_tests::{
    database::{Database, PORT, ROLE},
    edge::Place,
    lab::Lab,
    peer::{Behaviour, Identity, Login, Peer, PeerServer},
    pki::{Authority, Leaf, Usage},
    pod::{Document, Pod},
    servers::S2S_PORT,
    wait,
    xml::Element,
};

const OWN: &str = "org.example";
const PARTNER: &str = "partner.example";
const ALICE: &str = "alice@org.example";
/// What one pod learned, the other knows: promised are fractions of a second.
const SHARED: Duration = Duration::from_secs(10);

struct Scene {
    pods: [Pod; 2],
    database: Database,
    inside: PeerServer,
    partner_server: PeerServer,
    gateway: Leaf,
    partner: Leaf,
    authority: Authority,
    number: std::cell::Cell<u32>,
    // Last, so that its directory and DNS outlive the processes.
    lab: Lab,
}

impl Scene {
    /// Two pods that wait for their contacts: their database's url is not right yet.
    async fn start(url: impl Fn(&Lab) -> String, ca: Option<&str>) -> Result<Self> {
        let lab = Lab::new().await?;
        let internal = Authority::new("Internal CA");
        let gateway = internal.issue(&[OWN], Usage::ServerAndClientAuth);
        let partner = lab.authority().issue(&[PARTNER], Usage::ServerAuth);
        let at = |host| SocketAddr::from((lab.ip(host), S2S_PORT));
        let inside = PeerServer::listen(at(30), Behaviour::good(Identity::of(&gateway)?)).await?;
        let partner_server =
            PeerServer::listen(at(40), Behaviour::good(Identity::of(&partner)?)).await?;
        let target = format!("xmpp.{PARTNER}");
        lab.dns().host(&target, lab.ip(40));
        lab.dns().xmpp_server(PARTNER, 0, 0, S2S_PORT, &target);
        let authority = Authority::new("Database CA");
        let leaf = authority.issue(&["db.example"], Usage::ServerAuth);
        let directory = lab.path("database");
        let database = Database::start(directory, lab.ip(60), &leaf, "first").await?;
        let ca = ca.map_or_else(|| authority.certificate(), str::to_owned);
        let mut pods = Vec::new();
        for (public, private) in [(20, 21), (22, 23)] {
            let mut pod = Pod::start(Place::in_lab(&lab, public, private)).await?;
            let document = Document {
                own: OWN.to_owned(),
                gateway: at(30),
                partner: PARTNER.to_owned(),
                roots: lab.authority().certificate(),
                partner_type: "PublicUnverified",
                suspended: false,
                contacts: "Postgres",
            };
            pod.configure(&document.generation(1))?;
            pod.readiness(503, &["contacts-url"], &["shard"]).await?;
            let edge = lab
                .authority()
                .issue(&[OWN, "edge.example"], Usage::ServerAndClientAuth);
            let issuer = internal.intermediate();
            pod.secrets.change(&[
                ("tls.crt", Some(edge.certificate.as_bytes())),
                ("tls.key", Some(edge.key.as_bytes())),
                ("issuer.crt", Some(issuer.certificate.as_bytes())),
                ("issuer.key", Some(issuer.key.as_bytes())),
                ("internal-ca.crt", Some(internal.certificate().as_bytes())),
                ("dialback-secret", Some(b"a secret of more than sixteen")),
                ("contacts-url", Some(url(&lab).as_bytes())),
                ("contacts-ca.crt", Some(ca.as_bytes())),
            ])?;
            pods.push(pod);
        }
        let pods = <[Pod; 2]>::try_from(pods).ok().context("two pods")?;
        Ok(Self {
            pods,
            database,
            inside,
            partner_server,
            gateway,
            partner,
            authority,
            number: std::cell::Cell::new(0),
            lab,
        })
    }

    /// The url with this password and these options.
    fn url(lab: &Lab, password: &str, options: &str) -> String {
        let address = lab.ip(60);
        format!("postgres://{ROLE}:{password}@db.example:{PORT}/{ROLE}?hostaddr={address}{options}")
    }

    fn fresh(&self) -> String {
        self.number.set(self.number.get() + 1);
        format!("n{}", self.number.get())
    }

    /// Alice writes to somebody, through the pod of this number: that adds him.
    async fn adds(&self, pod: usize, remote: &str) -> Result<()> {
        let login = Login::External(&self.gateway);
        let mut inside = Peer::login(self.pods[pod].internal(), OWN, PARTNER, &login).await?;
        let id = self.fresh();
        inside.message(ALICE, remote, &id, "hello").await?;
        self.partner_server.stanza_id(&id).await?;
        inside.send("</stream:stream>").await
    }

    /// Whether a message of `remote`, sent to the pod of this number, reaches Alice.
    async fn reaches(&self, pod: usize, remote: &str) -> Result<bool> {
        let login = Login::External(&self.partner);
        let public = self.pods[pod].public(S2S_PORT);
        let mut peer = Peer::login(public, PARTNER, OWN, &login).await?;
        let (asked, after) = (self.fresh(), self.fresh());
        peer.message(remote, ALICE, &asked, "hello").await?;
        // Passes whatever the contact is, with its addresses alone; what is handed on before it has arrived by then.
        let gone = format!("{remote}/{after}");
        let unavailable = format!("<presence type='unavailable' from='{gone}' to='{ALICE}'/>");
        peer.send(unavailable).await?;
        let is_it = |stanza: &Element| stanza.attribute("from") == Some(gone.as_str());
        self.inside.stanza("unavailable presence", is_it).await?;
        peer.send("</stream:stream>").await?;
        let arrived = self.inside.stanzas();
        Ok(arrived
            .iter()
            .any(|it| it.stanza.attribute("id") == Some(asked.as_str())))
    }

    async fn comes_to_reach(&self, pod: usize, remote: &str, wanted: bool) -> Result<()> {
        let what = format!("{remote} reaches alice at pod {pod}: {wanted}");
        wait::until(&what, SHARED, || async {
            (self.reaches(pod, remote).await.ok()? == wanted).then_some(())
        })
        .await
        .with_context(|| self.pods[pod].log())
    }

    async fn ready(&self) -> Result<()> {
        for pod in &self.pods {
            pod.readiness(200, &["ready"], &["PostgreSQL"]).await?;
        }
        Ok(())
    }
}

#[tokio::test]
async fn a_contact_added_at_one_pod_holds_at_the_other_whatever_happens_to_the_database() {
    let url = |lab: &Lab| Scene::url(lab, "first", "&sslmode=verify-full");
    let mut s = Scene::start(url, None).await.unwrap();
    // Both began at once, on a database without a table.
    s.ready().await.unwrap();
    let bob = "bob@partner.example";
    assert!(!s.reaches(0, bob).await.unwrap());
    assert!(!s.reaches(1, bob).await.unwrap());
    s.adds(0, bob).await.unwrap();
    assert!(s.reaches(0, bob).await.unwrap());
    s.comes_to_reach(1, bob, true).await.unwrap();
    let encrypted = "SELECT bool_and(ssl) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) \
        WHERE application_name = 'xmpp-edge-proxy'";
    assert_eq!(s.database.sql(ROLE, encrypted).unwrap(), "t");

    // Away: what is known counts, what is new counts where it was seen, and both stay ready.
    s.database.stop().await.unwrap();
    for pod in &s.pods {
        pod.readiness(200, &["ready", "PostgreSQL"], &[])
            .await
            .unwrap();
    }
    assert!(s.reaches(1, bob).await.unwrap());
    let carol = "carol@partner.example";
    s.adds(1, carol).await.unwrap();
    assert!(s.reaches(1, carol).await.unwrap());
    assert!(!s.reaches(0, carol).await.unwrap());
    s.database.launch().await.unwrap();
    s.comes_to_reach(0, carol, true).await.unwrap();
    s.ready().await.unwrap();

    // A pod that is new loads what holds before it is ready.
    s.pods[0].stop().await.unwrap();
    s.pods[0].launch().await.unwrap();
    s.pods[0]
        .readiness(200, &["ready"], &["waiting"])
        .await
        .unwrap();
    assert!(s.reaches(0, bob).await.unwrap());
    assert!(s.reaches(0, carol).await.unwrap());

    // The password changes, first in the database, then in the Secret.
    let change = format!(
        "ALTER ROLE {ROLE} PASSWORD 'second'; \
         SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
         WHERE application_name = 'xmpp-edge-proxy'"
    );
    s.database.sql("postgres", &change).unwrap();
    for pod in &s.pods {
        pod.readiness(200, &["ready", "password"], &["second", "first"])
            .await
            .unwrap();
    }
    let url = Scene::url(&s.lab, "second", "&sslmode=verify-full");
    for pod in &mut s.pods {
        let url = Some(url.as_bytes());
        pod.secrets.change(&[("contacts-url", url)]).unwrap();
    }
    s.ready().await.unwrap();
    let dave = "dave@partner.example";
    s.adds(1, dave).await.unwrap();
    s.comes_to_reach(0, dave, true).await.unwrap();
    for mut pod in s.pods {
        pod.stop().await.unwrap();
        assert!(!pod.log().contains("first@") && !pod.log().contains("second@"));
    }
}

#[tokio::test]
async fn who_the_database_is_counts_as_sslmode_says_and_faults_are_named() {
    let stranger = Authority::new("Another CA").certificate();
    let url = |lab: &Lab| Scene::url(lab, "first", "&sslmode=verify-full");
    let mut s = Scene::start(url, Some(&stranger)).await.unwrap();
    // Of another authority: no password is sent, and both wait and say why.
    for pod in &s.pods {
        pod.readiness(503, &["contacts to be loaded", "UnknownIssuer"], &[])
            .await
            .unwrap();
    }
    // The right one, but the host has another name; then a mode that does not ask for names.
    let ca = s.authority.certificate();
    let other_name = Scene::url(&s.lab, "first", "&sslmode=verify-full")
        .replace("db.example", "elsewhere.example");
    let pod = &mut s.pods[0];
    pod.secrets
        .change(&[
            ("contacts-ca.crt", Some(ca.as_bytes())),
            ("contacts-url", Some(other_name.as_bytes())),
        ])
        .unwrap();
    pod.readiness(503, &["contacts to be loaded", "elsewhere.example"], &[])
        .await
        .unwrap();
    let by_chain = other_name.replace("verify-full", "verify-ca");
    let by_chain = Some(by_chain.as_bytes());
    pod.secrets.change(&[("contacts-url", by_chain)]).unwrap();
    pod.readiness(200, &["ready"], &["PostgreSQL"])
        .await
        .unwrap();
    // The other pod: a mode that asks for nothing, without an authority.
    let require = Scene::url(&s.lab, "first", "&sslmode=require");
    let pod = &mut s.pods[1];
    pod.secrets
        .change(&[
            ("contacts-ca.crt", None),
            ("contacts-url", Some(require.as_bytes())),
        ])
        .unwrap();
    pod.readiness(200, &["ready"], &["PostgreSQL"])
        .await
        .unwrap();
    // A url that is none keeps the one in use, and its text is nowhere.
    let broken = Some(&b"postgres://edge:hunter2@db.example:port/x"[..]);
    pod.secrets.change(&[("contacts-url", broken)]).unwrap();
    pod.readiness(
        200,
        &["ready", "contacts' database stays", "postgres://user"],
        &["hunter2"],
    )
    .await
    .unwrap();
    assert!(!pod.log().contains("hunter2"));
    // Without TLS the server lets nobody in, and that is told.
    let plain = Scene::url(&s.lab, "first", "&sslmode=disable");
    let plain = Some(plain.as_bytes());
    pod.secrets.change(&[("contacts-url", plain)]).unwrap();
    pod.readiness(200, &["ready", "no encryption"], &["first"])
        .await
        .unwrap();
}
