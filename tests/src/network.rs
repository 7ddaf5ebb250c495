//! Networks of their own: one for each host of a scene, joined by wires, with firewalls that drop and count.
//!
//! A network belongs to no file, and ends with whoever is in it. Who enters does so with its thread, and for
//! the time of one poll: what a future opens or starts in [`Network::within`] is there.

use std::{
    fs::File,
    future::poll_fn,
    io::{BufRead, BufReader},
    net::Ipv4Addr,
    os::fd::{AsFd, AsRawFd},
    path::PathBuf,
    pin::pin,
    process::{Command, Stdio},
    sync::Arc,
};

use anyhow::{Context, Result, ensure};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// Where the calling thread is.
const HERE: &str = "/proc/thread-self/ns/net";

/// A network namespace.
#[derive(Debug)]
pub struct Network {
    namespace: File,
}

/// While it lives, the calling thread is in another network.
#[derive(Debug)]
struct Visit {
    home: File,
}

impl Network {
    /// One with a loopback device alone; `more` are commands of a shell that it is set up with.
    ///
    /// # Errors
    /// When this process may have none.
    pub fn new(more: &str) -> Result<Self> {
        let script = format!("ip link set lo up; {more}\necho made; read _");
        let mut child = Command::new("unshare")
            .args(["--net", "sh", "-ec", &script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("start unshare")?;
        let mut line = String::new();
        let out = child.stdout.take().context("stdout is piped")?;
        BufReader::new(out).read_line(&mut line)?;
        let namespace = File::open(format!("/proc/{}/ns/net", child.id()));
        // Its stdin ends with this.
        let ended = child.wait_with_output()?;
        ensure!(
            line.trim() == "made",
            "{}",
            String::from_utf8_lossy(&ended.stderr).trim()
        );
        Ok(Self {
            namespace: namespace?,
        })
    }

    /// Takes the calling thread there, for good.
    ///
    /// # Errors
    /// When it may not go there.
    pub fn enter(&self) -> Result<()> {
        enter(&self.namespace)
    }

    fn visit(&self) -> Result<Visit> {
        let home = File::open(HERE).context(HERE)?;
        self.enter()?;
        Ok(Visit { home })
    }

    /// Runs a future there. What it spawns is where the runtime's threads are.
    ///
    /// # Panics
    /// When the thread may not go there.
    pub async fn within<F: Future>(&self, future: F) -> F::Output {
        let mut future = pin!(future);
        poll_fn(|cx| {
            let _visit = self.visit().expect("a network that was made");
            future.as_mut().poll(cx)
        })
        .await
    }

    /// Runs a program there, to its end; what it printed.
    ///
    /// # Errors
    /// When it fails; carries stderr.
    pub fn run(&self, program: &str, arguments: &[&str]) -> Result<String> {
        let _visit = self.visit()?;
        let output = Command::new(program).args(arguments).output()?;
        ensure!(
            output.status.success(),
            "{program} {}: {}",
            arguments.join(" "),
            String::from_utf8_lossy(&output.stderr).trim()
        );
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// A wire to another network: `own` here is `theirs` there.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn wire(&self, own: &str, other: &Self, theirs: &str) -> Result<()> {
        let file = other.namespace.as_raw_fd();
        let there = format!("/proc/{}/fd/{file}", std::process::id());
        self.run(
            "ip",
            &[
                "link", "add", own, "type", "veth", "peer", "name", theirs, "netns", &there,
            ],
        )?;
        self.run("ip", &["link", "set", own, "up"])?;
        other.run("ip", &["link", "set", theirs, "up"])?;
        Ok(())
    }

    /// An address of its own.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn address(&self, address: Ipv4Addr) -> Result<()> {
        let address = format!("{address}/32");
        self.run("ip", &["address", "add", &address, "dev", "lo"])?;
        Ok(())
    }

    /// The way to an address: by this wire, as this own one.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn way(&self, to: Ipv4Addr, wire: &str, own: Ipv4Addr) -> Result<()> {
        let (to, own) = (to.to_string(), own.to_string());
        self.run("ip", &["route", "add", &to, "dev", wire, "src", &own])?;
        Ok(())
    }

    /// Drops and counts what opens a connection from this wire.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn forbid_opening(&self, wire: &str) -> Result<()> {
        let rule = format!(
            "table inet firewall {{ counter opened {{ }}\n chain input {{ type filter hook input priority 0; \
             iifname {wire:?} ct state new counter name opened drop; }}\n}}"
        );
        self.run("nft", &[&rule])?;
        Ok(())
    }

    /// How many packets [`Self::forbid_opening`] dropped.
    ///
    /// # Errors
    /// When it forbids nothing.
    pub fn opened(&self) -> Result<u64> {
        let listed = self.run("nft", &["list", "counter", "inet", "firewall", "opened"])?;
        let packets = listed.split_once("packets ").context("a counter")?.1;
        let digits = packets.split_whitespace().next().context("a number")?;
        Ok(digits.parse()?)
    }

    /// From now on packets of this wire are lost without a word.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn lose(&self, wire: &str, loss: Loss) -> Result<()> {
        let input =
            format!("chain input {{ type filter hook input priority -1; iifname {wire:?} drop; }}");
        let output = format!(
            "chain output {{ type filter hook output priority -1; oifname {wire:?} drop; }}"
        );
        let chains = match loss {
            Loss::In => input,
            Loss::Out => output,
            Loss::Both => format!("{input}\n{output}"),
        };
        self.run("nft", &[&format!("table inet loss {{\n{chains}\n}}")])?;
        Ok(())
    }

    /// Nothing is lost any more.
    ///
    /// # Errors
    /// When nothing was.
    pub fn heal(&self) -> Result<()> {
        self.run("nft", &["delete", "table", "inet", "loss"])?;
        Ok(())
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        enter(&self.home).expect("a thread may go where it was");
    }
}

/// Which way packets are lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    In,
    Out,
    Both,
}

fn enter(namespace: &File) -> Result<()> {
    let network = Some(LinkNameSpaceType::Network);
    move_into_link_name_space(namespace.as_fd(), network).context("enter a network")
}

/// The network of the calling thread: its name and itself.
pub(crate) fn here() -> std::io::Result<(PathBuf, File)> {
    Ok((std::fs::read_link(HERE)?, File::open(HERE)?))
}

/// Takes the calling thread to where another one was.
pub(crate) fn follow(other: &File) -> std::io::Result<()> {
    let network = Some(LinkNameSpaceType::Network);
    move_into_link_name_space(other.as_fd(), network).map_err(Into::into)
}

/// Runs a test in a network of its own, in which all that it starts is unless it says otherwise. Says why and
/// returns where this computer has none.
///
/// # Panics
/// When the test fails.
pub fn apart<F: Future<Output = Result<()>>>(body: impl FnOnce(Arc<Network>) -> F + Send) {
    let world = match Network::new("").and_then(|world| {
        world.run("nft", &["list", "ruleset"])?;
        Ok(world)
    }) {
        Ok(world) => Arc::new(world),
        Err(error) => {
            eprintln!("skipped: no network of its own: {error:#}");
            return;
        }
    };
    let test = std::thread::scope(|scope| {
        let running = scope.spawn(|| {
            world.enter()?;
            let of_threads = Arc::clone(&world);
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(2)
                .on_thread_start(move || {
                    of_threads.enter().expect("a network that was made");
                })
                .enable_all()
                .build()?;
            runtime.block_on(body(Arc::clone(&world)))
        });
        running.join()
    });
    match test {
        Ok(Ok(())) => {}
        Ok(Err(error)) => panic!("{error:#}"),
        Err(panic) => std::panic::resume_unwind(panic),
    }
}
