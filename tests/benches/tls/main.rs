//! What TLS costs a stream that a partner opened, by the way in which rustls is driven: the proxy's own
//! connection on the unbuffered API, tokio-rustls, and tokio-rustls above an adapter that reads as much
//! at once as the proxy does. Decision 25 rests on it. All three in one run; nothing here asserts a time.

mod large_reads;

use std::{env, fs, process::Command, sync::Arc, thread, time::Duration};

use anyhow::{Context, Result, anyhow};
use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::UnixStream,
    runtime::{Builder, Runtime},
};
use tokio_rustls::{TlsAcceptor, TlsConnector, client::TlsStream};
use xmpp_edge_proxy::tls::{self, Identity, Mode};
use xmpp_edge_tests::pki::{Authority, Usage};

use crate::large_reads::LargeReads;

const DOMAIN: &str = "partner.example";
/// Streams that are held idle.
const IDLE: u32 = 2_000;
/// What a peer has said before it is silent: a stanza.
const STANZA: usize = 220;
/// Bytes of plaintext of one saturated stream.
const SATURATED: usize = 512 * 1024 * 1024;
/// Bytes that the proxy reads at once.
const READ: usize = 64 * 1024;
/// Runs of each way, which take turns; the median counts.
const RUNS: usize = 5;

/// How rustls is driven.
#[derive(Clone, Copy)]
enum Way {
    Unbuffered,
    TokioRustls,
    LargeReads,
}

impl Way {
    const ALL: [Self; 3] = [Self::Unbuffered, Self::TokioRustls, Self::LargeReads];

    fn name(self) -> &'static str {
        match self {
            Self::Unbuffered => "the proxy's own, unbuffered",
            Self::TokioRustls => "tokio-rustls",
            Self::LargeReads => "tokio-rustls, large reads",
        }
    }
}

/// A stream that was accepted, whichever way.
trait Accepted: AsyncRead + AsyncWrite + Unpin {}

impl<T: AsyncRead + AsyncWrite + Unpin> Accepted for T {}

/// What both sides present and trust; as the proxy has it, without tickets and resumption.
struct Sides {
    identity: Arc<Identity>,
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
}

fn main() -> Result<()> {
    // cargo bench hands `--bench` on.
    let words: Vec<String> = env::args()
        .skip(1)
        .filter(|word| word != "--bench")
        .collect();
    if let [word, way] = &words[..]
        && word == "idle"
    {
        let way = Way::ALL.into_iter().find(|known| known.name() == way);
        println!("{}", idle(way.context("no such way")?)?);
        return Ok(());
    }
    let idle = medians(idle_of_its_own)?;
    let large = medians(|way| saturated(way, 16 * 1024))?;
    let small = medians(|way| saturated(way, STANZA))?;
    println!(
        "| rustls is driven by | idle stream with its client | CPU for 64 KiB in records of 16 KiB | of {STANZA} bytes |"
    );
    println!("| --- | --- | --- | --- |");
    for (number, way) in Way::ALL.into_iter().enumerate() {
        println!(
            "| {} | {:.1} KiB | {:.1} µs | {:.1} µs |",
            way.name(),
            idle[number],
            large[number],
            small[number]
        );
    }
    Ok(())
}

/// The median of each way's runs.
fn medians(run: impl Fn(Way) -> Result<f64>) -> Result<Vec<f64>> {
    let mut figures = vec![Vec::new(); Way::ALL.len()];
    for _ in 0..RUNS {
        for (way, figures) in Way::ALL.into_iter().zip(&mut figures) {
            figures.push(run(way)?);
        }
    }
    let median = |mut figures: Vec<f64>| {
        figures.sort_by(f64::total_cmp);
        figures[figures.len() / 2]
    };
    Ok(figures.into_iter().map(median).collect())
}

/// [`idle`] in a new process: what one way's streams gave back would be the next one's to take.
fn idle_of_its_own(way: Way) -> Result<f64> {
    let output = Command::new(env::current_exe()?)
        .args(["idle", way.name()])
        .output()?;
    let printed = String::from_utf8(output.stdout)?;
    printed
        .trim()
        .parse()
        .map_err(|_| anyhow!("{}", String::from_utf8_lossy(&output.stderr)))
}

/// KiB by which resident memory grows for a stream whose peer said one stanza and is silent since. Its
/// client is in it, the same for every way.
fn idle(way: Way) -> Result<f64> {
    let sides = Sides::new()?;
    let runtime = runtime()?;
    runtime.block_on(async {
        let mut open = Vec::new();
        let mut before = 0;
        // What the first ones bring is needed once.
        for number in 0..IDLE + 50 {
            if number == 50 {
                before = resident()?;
            }
            let (mut accepted, mut client) = connected(way, &sides).await?;
            let mut said = [0; STANZA];
            client.write_all(&said).await?;
            client.flush().await?;
            accepted.read_exact(&mut said).await?;
            open.push((accepted, client));
        }
        let grown = resident()?.saturating_sub(before);
        drop(open);
        Ok(grown as f64 / 1024.0 / f64::from(IDLE))
    })
}

/// Microseconds of CPU of the accepting side for 64 KiB of plaintext that comes in records of `record`
/// bytes. The sender has a thread and a runtime of its own.
fn saturated(way: Way, record: usize) -> Result<f64> {
    let sides = Sides::new()?;
    let runtime = runtime()?;
    let (mut accepted, client) = runtime.block_on(connected(way, &sides))?;
    // The socket goes over to the other runtime.
    let (socket, connection) = client.into_inner();
    let socket = socket.into_std()?;
    let sending = thread::spawn(move || -> Result<()> {
        let mut socket = socket;
        socket.set_nonblocking(false)?;
        let mut connection = connection;
        let payload = vec![b'x'; record];
        let mut stream = rustls::Stream::new(&mut connection, &mut socket);
        for _ in 0..SATURATED / record {
            std::io::Write::write_all(&mut stream, &payload)?;
        }
        Ok(())
    });
    let total = SATURATED / record * record;
    let spent = runtime.block_on(async {
        let mut scratch = vec![0; READ];
        let (before, mut read) = (cpu()?, 0);
        while read < total {
            let count = accepted.read(&mut scratch).await?;
            anyhow::ensure!(count > 0, "the sender ended after {read} bytes");
            read += count;
        }
        anyhow::Ok(cpu()?.saturating_sub(before))
    })?;
    sending
        .join()
        .map_err(|_| anyhow!("the sender panicked"))??;
    Ok(spent.as_secs_f64() * 1e6 * READ as f64 / total as f64)
}

fn runtime() -> Result<Runtime> {
    Ok(Builder::new_current_thread().enable_all().build()?)
}

/// CPU time of this thread.
fn cpu() -> Result<Duration> {
    let text = fs::read_to_string("/proc/thread-self/schedstat")?;
    let nanos = text.split(' ').next().context("schedstat is empty")?;
    Ok(Duration::from_nanos(nanos.parse()?))
}

/// Resident memory of this process in bytes.
fn resident() -> Result<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
    Ok(kib.context("no VmRSS")?.trim().parse::<u64>()? * 1024)
}

/// A stream, accepted in this way, and its client.
async fn connected(way: Way, sides: &Sides) -> Result<(Box<dyn Accepted>, TlsStream<UnixStream>)> {
    let (near, far) = UnixStream::pair()?;
    let name = ServerName::try_from(DOMAIN)?;
    let client = TlsConnector::from(Arc::clone(&sides.client)).connect(name, far);
    let accepted = async {
        let acceptor = TlsAcceptor::from(Arc::clone(&sides.server));
        Ok::<Box<dyn Accepted>, anyhow::Error>(match way {
            Way::Unbuffered => {
                let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
                let identity = Some(Arc::clone(&sides.identity));
                Box::new(tls::accept(near, Mode::StartTls, deadline, |_| identity).await?)
            }
            Way::TokioRustls => Box::new(acceptor.accept(near).await?),
            Way::LargeReads => Box::new(acceptor.accept(LargeReads::new(near)).await?),
        })
    };
    let (accepted, client) = tokio::join!(accepted, client);
    Ok((accepted?, client?))
}

impl Sides {
    fn new() -> Result<Self> {
        let authority = Authority::new("authority");
        let leaf = authority.issue(&[DOMAIN], Usage::ServerAndClientAuth);
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let key = || PrivateKeyDer::from_pem_slice(leaf.key.as_bytes());
        let chain: Vec<CertificateDer<'static>> =
            CertificateDer::pem_slice_iter(leaf.certificate.as_bytes())
                .collect::<Result<_, _>>()?;
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(
            authority.certificate().as_bytes(),
        )?)?;
        let roots = Arc::new(roots);
        let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(
            Arc::clone(&roots),
            Arc::clone(&provider),
        );
        let mut server = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()?
            .with_client_cert_verifier(verifier.build()?)
            .with_single_cert(chain.clone(), key()?)?;
        server.send_tls13_tickets = 0;
        server.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
        let mut client = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key()?)?;
        client.resumption = rustls::client::Resumption::disabled();
        Ok(Self {
            identity: Arc::new(Identity::from_pem(
                &leaf.certificate,
                &leaf.key,
                "the leaf",
            )?),
            server: Arc::new(server),
            client: Arc::new(client),
        })
    }
}
