//! `docs/guide/install.md` followed word for word on a node, by somebody who has a Prosody in the cluster: each block
//! of commands from "Install" to the first message goes through a shell as it stands, each manifest into the file
//! that the text names. What the page calls the reader's own stays too; the one word replaced is the registry.
#![allow(clippy::unwrap_used)]

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use xmpp_edge_tests::{
    client::Client,
    cluster::{
        Helm, Kubectl, Major,
        images::{Images, Product},
        inside::{self, CHAT},
        node::{Cluster, DNS, Lacking, Site, on_the_internet},
    },
    conversation, edge,
    pki::{Authority, Usage},
    primary::{Primary, Software},
    servers::{Acknowledge, Kind, Security, Server, Spec},
    wait,
};

/// Stands where the page says `REGISTRY`.
const REGISTRY: &str = "registry.example/team";
const REPOSITORY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

/// A page of the guide, block after block.
struct Page {
    blocks: Vec<Block>,
}

#[derive(Debug)]
struct Block {
    /// The heading that it stands below.
    below: String,
    /// Behind the back-ticks.
    kind: String,
    text: String,
}

impl Page {
    fn read(name: &str) -> Self {
        let path = Path::new(REPOSITORY).join("docs/guide").join(name);
        let text = fs::read_to_string(path).unwrap();
        let (mut blocks, mut below, mut open) = (Vec::new(), String::new(), None::<Block>);
        for line in text.lines() {
            match (&mut open, line.strip_prefix("```")) {
                (Some(_), Some(_)) => blocks.extend(open.take()),
                (Some(block), None) => block.text += &format!("{line}\n"),
                (None, Some(kind)) => {
                    open = Some(Block {
                        below: below.clone(),
                        kind: kind.to_owned(),
                        text: String::new(),
                    });
                }
                (None, None) => {
                    if let Some(heading) = line.strip_prefix("## ") {
                        heading.clone_into(&mut below);
                    }
                }
            }
        }
        Self { blocks }
    }

    /// Those of one kind below a heading.
    fn below(&self, heading: &str, kind: &str) -> Vec<&str> {
        let wanted = self
            .blocks
            .iter()
            .filter(|it| it.below == heading && it.kind == kind);
        wanted.map(|it| it.text.as_str()).collect()
    }
}

/// The reader's shell, in a folder that has the chart.
struct Shell {
    kubectl: Kubectl,
    helm: Helm,
    folder: PathBuf,
    began: Instant,
}

impl Shell {
    /// A block of commands, ended by the first one that fails; what it printed.
    async fn run(&self, commands: &str) -> Result<String> {
        let since = Instant::now();
        let typed = commands.replace("REGISTRY", REGISTRY);
        let here = format!("cd '{}'\n{typed}", self.folder.display());
        let programs = edge::binary()?.parent().unwrap().display().to_string();
        let (helm, kubectl) = (self.helm.clone(), self.kubectl.clone());
        let done = tokio::task::spawn_blocking(move || {
            let here = format!("PATH=$PATH:{programs}\n{here}");
            helm.script(&kubectl, &["sh", "-euc", &here], &[])
        });
        let said = done
            .await?
            .with_context(|| format!("the page says:\n{commands}"))?;
        eprintln!(
            "--- {:?} after the start, {:?} for\n{commands}{said}",
            self.began.elapsed(),
            since.elapsed()
        );
        Ok(said)
    }

    fn save(&self, name: &str, text: &str) -> Result<()> {
        Ok(fs::write(self.folder.join(name), text)?)
    }
}

/// A Prosody on the internet that proves domains by dialback, as packages configure it.
async fn partner(authority: &Authority, ip: Ipv4Addr, directory: &Path) -> Result<Server> {
    let spec = Spec {
        domain: "partner.example".to_owned(),
        ip,
        resolver: DNS,
        resolvers: Vec::new(),
        identity: authority.issue(&["partner.example"], Usage::ServerAndClientAuth),
        trust: authority.certificate(),
        users: vec!["bob".to_owned()],
        security: Security::TlsDialback,
        direct_tls: false,
        bidi: false,
        acknowledge: Acknowledge::AsPackaged,
        trace: true,
    };
    Server::start(Kind::Prosody, spec, directory).await
}

/// What the reader's registry has: the two images, under the name that the page's command gives.
fn images(cluster: &Cluster) -> Result<()> {
    let images = Images::find().map_err(Lacking::from)?;
    let folder = tempfile::Builder::new().prefix("guide-").tempdir()?;
    cluster.import(images.servers())?;
    for product in Product::ALL {
        let tag = env!("CARGO_PKG_VERSION");
        cluster.import(&images.build(product, tag, folder.path())?)?;
        let name = product.name();
        let (built, pushed) = (format!("{name}:{tag}"), format!("{REGISTRY}/{name}:{tag}"));
        cluster.tag(&built, &pushed)?;
    }
    Ok(())
}

#[test]
fn who_follows_install_md_word_for_word_has_a_message_both_ways() {
    on_the_internet(Duration::from_secs(600), async |internet| {
        let install = Page::read("install.md");
        let connect = Page::read("connect-in-a-cluster.md");
        let address = SocketAddr::from((internet.address(DNS.octets()[3])?, 53));
        let dns = Primary::start_at(Software::Bind, address, &[("example", "")]).await?;
        let cluster = Cluster::start(Site::First).await?;
        images(&cluster)?;
        let authority = Authority::new("Another CA");
        let directory = cluster.server().directory().to_owned();
        let partner = partner(&authority, internet.address(10)?, &directory).await?;
        dns.edit(&format!(
            "update add xmpp.partner.example. 60 A {}\n\
            update add _xmpp-server._tcp.partner.example. 60 SRV 0 0 5269 xmpp.partner.example.",
            partner.spec().ip
        ))
        .await?;
        let kubectl = cluster.server().kubectl();
        // The reader's server runs in a namespace of its own.
        kubectl.run(&["create", "namespace", CHAT])?;

        let folder = directory.join("reader");
        fs::create_dir_all(&folder)?;
        symlink(Path::new(REPOSITORY).join("charts"), folder.join("charts"))?;
        let shell = Shell {
            helm: Helm::on(cluster.server(), Major::Four, cluster.server().admin())?,
            kubectl: kubectl.clone(),
            folder,
            began: Instant::now(),
        };

        let [commands] = install.below("Install", "")[..] else {
            anyhow::bail!("one block of commands is below Install");
        };
        shell.run(commands).await?;

        let first = "The first message";
        let [pool, both] = install.below(first, "yaml apply")[..] else {
            anyhow::bail!("pool.yaml and partner.yaml are below {first}");
        };
        let [apply_pool, apply_partner, look, reachable] = install.below(first, "")[..] else {
            anyhow::bail!("four blocks of commands are below {first}");
        };
        shell.save("pool.yaml", pool)?;
        shell.save("partner.yaml", both)?;
        // The cloud gives the Service an address as soon as it is there.
        let balanced = async {
            wait::until("Service hq-edge", wait::GENEROUS, async || {
                cluster.balance("edge", "hq-edge", 1).await.ok()
            })
            .await
        };
        let (said, ()) = tokio::try_join!(shell.run(apply_pool), balanced)?;
        let balancer = cluster.site().balancer(1);
        let record = "_xmpp-server._tcp.org.example";
        for part in [record, "edge.org.example", &balancer.to_string()] {
            ensure!(said.contains(part), "{part}: {said}");
        }

        // 1. The records.
        dns.edit(&format!(
            "update add edge.org.example. 60 A {balancer}\n\
            update add {record}. 60 SRV 10 100 5269 edge.org.example."
        ))
        .await?;
        // 2. The server inside.
        let [files, copy] = connect.below("The certificate", "")[..] else {
            anyhow::bail!("two blocks of commands are below The certificate");
        };
        shell.run(files).await?;
        shell.run(copy).await?;
        let [resolver] = connect.below("Names", "")[..] else {
            anyhow::bail!("one block of commands is below Names");
        };
        let resolver = shell.run(resolver).await?;
        let prosody = inside::manifest(&[resolver.trim().to_owned()]);
        kubectl.run_with(&["apply", "--filename=-"], &prosody)?;
        let own = inside::until_it_runs(kubectl, &["alice"])?;
        // 3. and 4.
        shell.run(apply_partner).await?;
        let said = shell.run(look).await?;
        ensure!(said.contains("TlsDialback"), "{said}");
        // 5.
        let alice = Client::login(own, "alice@org.example", "guide").await?;
        let bob = partner.login("bob").await?;
        conversation::messages(&alice, &bob).await?;
        conversation::messages(&bob, &alice).await?;
        wait::until("the partner is reachable", wait::GENEROUS, async || {
            let said = shell.run(reachable).await.ok()?;
            let row = said.lines().find(|line| line.starts_with("partner "))?;
            row.contains(" True ").then_some(())
        })
        .await?;
        eprintln!("in all: {:?}", shell.began.elapsed());
        Ok(())
    });
}
