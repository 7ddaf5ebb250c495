//! Real primary name servers that take dynamic updates under TSIG: BIND and Knot, each with its
//! zones and keys, on a port of loopback.

use std::{
    collections::BTreeSet,
    fs,
    net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket},
    path::Path,
    process::Stdio,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use hickory_proto::{
    op::{Message, MessageType, OpCode, Query},
    rr::{Name, RecordType},
};
use parking_lot::Mutex;
use rustix::process::Signal;
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::{process::Daemon, wait};

/// Key that may update every zone.
pub const EDITOR: &str = "edge-key";
/// Key that the server knows and that may update nothing.
pub const GUEST: &str = "guest-key";
/// Secret of both, in base64.
pub const SECRET: &str = "bm90IHNlY3JldCwgYnV0IDMyIGJ5dGVzIGxvbmchISE=";

/// Which implementation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Software {
    /// BIND 9.18 or 9.20.
    Bind,
    /// Knot DNS, 3.2 or later.
    Knot,
}

impl Software {
    /// All.
    pub const ALL: [Self; 2] = [Self::Bind, Self::Knot];
}

/// A running primary; its files go with it.
pub struct Primary {
    daemon: Daemon,
    address: SocketAddr,
    software: Software,
    directory: TempDir,
}

impl Primary {
    /// Starts a server with these zones; each zone's records are lines of a zone file, without SOA
    /// and NS.
    ///
    /// # Errors
    /// When it does not start; carries the end of its log.
    pub async fn start(software: Software, zones: &[(&str, &str)]) -> Result<Self> {
        Self::start_at(software, free_address()?, zones).await
    }

    /// As [`Self::start`], at an address that is known and free.
    ///
    /// # Errors
    /// As there.
    pub async fn start_at(
        software: Software,
        address: SocketAddr,
        zones: &[(&str, &str)],
    ) -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("primary-").tempdir()?;
        let path = directory.path();
        for (zone, records) in zones {
            let text = format!(
                "$ORIGIN {zone}.\n$TTL 300\n@ IN SOA ns.{zone}. admin.{zone}. 1 60 60 600 5\n@ IN NS ns.{zone}.\nns IN A 127.0.0.1\n{records}\n"
            );
            fs::write(path.join(format!("{zone}.zone")), text)?;
        }
        let names: Vec<&str> = zones.iter().map(|(zone, _)| *zone).collect();
        let (program, config, text) = match software {
            Software::Bind => ("/usr/sbin/named", "named.conf", bind(path, address, &names)),
            Software::Knot => ("/usr/sbin/knotd", "knot.conf", knot(path, address, &names)),
        };
        let config = path.join(config);
        fs::write(&config, text)?;
        let mut arguments: Vec<String> = match software {
            Software::Bind => vec!["-g".into(), "-n".into(), "1".into()],
            Software::Knot => Vec::new(),
        };
        arguments.extend(["-c".into(), config.display().to_string()]);
        let mut daemon = Daemon::start(
            &format!("{software:?} at {address}"),
            Path::new(program),
            &arguments,
            &[],
            &path.join("log.txt"),
        )?;
        let first = names.first().context("a primary has a zone")?;
        daemon
            .until("the primary answers", wait::GENEROUS, async || {
                let soa = ask(address, first, RecordType::SOA).await.ok()?;
                (!soa.answers.is_empty()).then_some(())
            })
            .await?;
        Ok(Self {
            daemon,
            address,
            software,
            directory,
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Which it is.
    pub fn software(&self) -> Software {
        self.software
    }

    /// The records of a name and type, as text without name and TTL, sorted. Asked unsigned.
    ///
    /// # Errors
    /// When it does not answer within 5 s.
    pub async fn records(&self, name: &str, kind: RecordType) -> Result<Vec<String>> {
        let answer = ask(self.address, name, kind).await?;
        let mut records: Vec<String> = answer
            .answers
            .iter()
            .filter(|record| record.record_type() == kind)
            .map(|record| record.data.to_string())
            .collect();
        records.sort();
        Ok(records)
    }

    /// The TTL of a name and type; `None` where there is no such record.
    ///
    /// # Errors
    /// As [`Self::records`].
    pub async fn ttl(&self, name: &str, kind: RecordType) -> Result<Option<u32>> {
        let answer = ask(self.address, name, kind).await?;
        Ok(answer.answers.first().map(|record| record.ttl))
    }

    /// Edits a zone as someone else would, with lines of `nsupdate` (`update add …`).
    ///
    /// # Errors
    /// When `nsupdate` fails.
    pub async fn edit(&self, lines: &str) -> Result<()> {
        self.editor().edit(lines).await
    }

    /// Someone else who edits its zones.
    pub fn editor(&self) -> Editor {
        Editor(self.address)
    }

    /// SIGKILL: connections are refused from then on.
    pub fn kill(&mut self) {
        self.daemon.kill();
    }

    /// SIGSTOP: connections are taken and nothing is answered. Returns once it stands: on a busy
    /// machine its threads run on for a while.
    ///
    /// # Errors
    /// When it still runs after a while.
    pub async fn freeze(&self) -> Result<()> {
        self.daemon.signal(Signal::STOP);
        let tasks = format!("/proc/{}/task", self.daemon.id());
        wait::until("every thread stands", wait::GENEROUS, async || {
            let stands = |task: std::io::Result<fs::DirEntry>| {
                let stat = fs::read_to_string(task.ok()?.path().join("stat")).ok()?;
                // The name may hold anything but ends with the last bracket.
                Some(stat.rsplit_once(')')?.1.trim_start().starts_with('T'))
            };
            let mut tasks = fs::read_dir(&tasks).ok()?;
            tasks.all(|task| stands(task) == Some(true)).then_some(())
        })
        .await
    }

    /// Undoes [`Self::freeze`].
    pub fn thaw(&self) {
        self.daemon.signal(Signal::CONT);
    }

    /// Everything it logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("log.txt")).unwrap_or_default()
    }
}

async fn ask(server: SocketAddr, name: &str, kind: RecordType) -> Result<Message> {
    let mut question = Message::new(7, MessageType::Query, OpCode::Query);
    let mut name = Name::from_ascii(name)?;
    name.set_fqdn(true);
    question.add_query(Query::query(name, kind));
    let socket = tokio::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    socket.connect(server).await?;
    socket.send(&question.to_vec()?).await?;
    let mut buffer = [0; 4096];
    let length = timeout(Duration::from_secs(5), socket.recv(&mut buffer)).await??;
    let answer = Message::from_vec(&buffer[..length])?;
    if !answer.metadata.truncation {
        return Ok(answer);
    }
    let question = question.to_vec()?;
    let asked = by_tcp(server, &question);
    let answer = timeout(Duration::from_secs(5), asked).await??;
    Ok(Message::from_vec(&answer)?)
}

/// As UDP's answers must be small.
async fn by_tcp(server: SocketAddr, question: &[u8]) -> Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server).await?;
    stream.write_u16(u16::try_from(question.len())?).await?;
    stream.write_all(question).await?;
    let mut answer = vec![0; stream.read_u16().await?.into()];
    stream.read_exact(&mut answer).await?;
    Ok(answer)
}

/// Someone who edits the zones of a primary.
#[derive(Clone, Copy, Debug)]
pub struct Editor(SocketAddr);

impl Editor {
    /// Where the primary listens.
    pub fn server(&self) -> SocketAddr {
        self.0
    }

    /// Edits a zone as someone else would, with lines of `nsupdate` (`update add …`).
    ///
    /// # Errors
    /// When `nsupdate` fails.
    pub async fn edit(&self, lines: &str) -> Result<()> {
        let mut child = tokio::process::Command::new("nsupdate")
            .args(["-v", "-y", &format!("hmac-sha256:{EDITOR}:{SECRET}")])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("start nsupdate (package bind9-dnsutils)")?;
        let script = format!("server {} {}\n{lines}\nsend\n", self.0.ip(), self.0.port());
        let mut input = child.stdin.take().context("nsupdate reads stdin")?;
        input.write_all(script.as_bytes()).await?;
        drop(input);
        let output = child.wait_with_output().await?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "nsupdate: {said}");
        Ok(())
    }
}

/// A port that is free for both protocols. BIND listens on addresses of interfaces alone, so that
/// other addresses of 127.0.0.0/8 are no way out.
fn free_address() -> Result<SocketAddr> {
    // Both servers share a port with whoever else asks to share it, and would not notice.
    static GIVEN: Mutex<BTreeSet<SocketAddr>> = Mutex::new(BTreeSet::new());
    for _ in 0..50 {
        let tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = tcp.local_addr()?;
        if UdpSocket::bind(address).is_ok() && GIVEN.lock().insert(address) {
            return Ok(address);
        }
    }
    anyhow::bail!("no port is free for UDP and TCP")
}

fn bind(directory: &Path, address: SocketAddr, zones: &[&str]) -> String {
    let directory = directory.display();
    let (ip, port) = (address.ip(), address.port());
    let mut text = format!(
        "options {{ directory \"{directory}\"; listen-on port {port} {{ {ip}; }}; listen-on-v6 {{ none; }};\n\
         recursion no; notify no; pid-file none; dnssec-validation no;\n\
         session-keyfile \"{directory}/session.key\"; }};\ncontrols {{ }};\n"
    );
    for key in [EDITOR, GUEST] {
        text += &format!("key \"{key}\" {{ algorithm hmac-sha256; secret \"{SECRET}\"; }};\n");
    }
    for zone in zones {
        // As the guide asks for: these types alone.
        text += &format!(
            "zone \"{zone}\" {{ type primary; file \"{zone}.zone\";\n\
             update-policy {{ grant {EDITOR} zonesub SRV TXT A AAAA CNAME; }}; }};\n"
        );
    }
    text
}

fn knot(directory: &Path, address: SocketAddr, zones: &[&str]) -> String {
    let directory = directory.display();
    let (ip, port) = (address.ip(), address.port());
    let mut text = format!(
        "server:\n  rundir: \"{directory}\"\n  listen: {ip}@{port}\n  udp-workers: 1\n  tcp-workers: 1\n  background-workers: 1\n\
         database:\n  storage: \"{directory}\"\n\
         log:\n  - target: stderr\n    any: info\nkey:\n"
    );
    for key in [EDITOR, GUEST] {
        text += &format!("  - id: {key}\n    algorithm: hmac-sha256\n    secret: {SECRET}\n");
    }
    // A key that no rule admits is one that Knot does not know (BADKEY).
    text += &format!(
        "acl:\n  - id: editor\n    key: {EDITOR}\n    action: update\n    update-type: [SRV, TXT, A, AAAA, CNAME]\nzone:\n"
    );
    for zone in zones {
        text += &format!(
            "  - domain: {zone}\n    file: \"{directory}/{zone}.zone\"\n    acl: editor\n    journal-content: none\n    zonefile-sync: -1\n"
        );
    }
    text
}
