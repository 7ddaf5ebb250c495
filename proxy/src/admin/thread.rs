//! The admin port's own thread, with a runtime of its own: a status of 10,000 partners costs no stream its
//! turn, and an edge under load answers its probes.

use std::{future::Future, io, sync::Arc, thread};

use tokio::{net::TcpListener, runtime, sync::oneshot, task::JoinSet};
use tokio_util::sync::CancellationToken;

use xmpp_edge_page::board::Board;

use super::{
    page::PoolPage,
    server::{self, Admin},
};

/// Serves on these listeners until `stop`. What is returned ends when the thread does, however that comes.
///
/// # Errors
/// What the system says to another thread.
pub fn spawn(
    admin: Arc<Admin>,
    listeners: Vec<TcpListener>,
    stop: CancellationToken,
) -> io::Result<impl Future<Output = ()> + Send + 'static> {
    let listeners = listeners
        .into_iter()
        .map(TcpListener::into_std)
        .collect::<io::Result<Vec<_>>>()?;
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let (alive, ended) = oneshot::channel::<()>();
    thread::Builder::new()
        .name("admin".to_owned())
        .spawn(move || {
            // Dropped with the thread: by a panic too.
            let _alive = alive;
            if let Err(error) = runtime.block_on(serve(admin, listeners, stop)) {
                tracing::error!(%error, "the admin port failed");
            }
        })?;
    Ok(async move {
        let _ = ended.await;
    })
}

async fn serve(
    admin: Arc<Admin>,
    listeners: Vec<std::net::TcpListener>,
    stop: CancellationToken,
) -> io::Result<()> {
    let mut serving = JoinSet::new();
    let stopped = stop.clone();
    let page = PoolPage::new(Arc::clone(&admin));
    let board = Board::new(Arc::new(page));
    for listener in listeners {
        let listener = TcpListener::from_std(listener)?;
        let (admin, board) = (Arc::clone(&admin), Arc::clone(&board));
        serving.spawn(server::run(admin, board, listener, stop.clone()));
    }
    serving.spawn(async move {
        let metrics = &admin.telemetry().metrics;
        admin.history().follow(metrics, &stop).await;
        Ok(())
    });
    while let Some(ended) = serving.join_next().await {
        ended.map_err(io::Error::other)??;
        if !stopped.is_cancelled() {
            return Err(io::Error::other("a listener ended before its time"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write},
        net::{SocketAddr, TcpStream},
        sync::mpsc::{Receiver, SyncSender, sync_channel},
        time::Duration,
    };

    use parking_lot::Mutex;
    use prometheus_client::{
        collector::Collector, encoding::DescriptorEncoder, registry::Registry,
    };

    use super::*;
    use crate::{admin::server::AdminSubject, telemetry::config_status::Telemetry};

    /// What a loaded machine may need for one step.
    const GENEROUS: Duration = Duration::from_secs(40);

    async fn serving(further: Option<Registry>) -> (SocketAddr, CancellationToken) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("an address");
        let address = listener.local_addr().expect("it has one");
        let admin = Admin::new(
            Telemetry::default(),
            AdminSubject::Edge,
            further.map(Arc::new),
            None,
        );
        let stop = CancellationToken::new();
        let running = spawn(admin, vec![listener], stop.clone()).expect("a thread");
        tokio::spawn(running);
        (address, stop)
    }

    /// Blocks the calling thread until it is answered.
    fn get(address: SocketAddr, path: &str) -> String {
        let mut stream = TcpStream::connect(address).expect("it listens");
        stream.set_read_timeout(Some(GENEROUS)).expect("an option");
        let request = format!("GET {path} HTTP/1.1\r\nHost: edge\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).expect("it is read");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("it is answered");
        answer
    }

    /// A scrape that takes as long as the test says.
    #[derive(Debug)]
    struct Slow {
        /// The name of the thread that encodes.
        begun: SyncSender<Option<String>>,
        end: Mutex<Receiver<()>>,
    }

    impl Collector for Slow {
        fn encode(&self, _: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
            let name = thread::current().name().map(str::to_owned);
            self.begun.send(name).expect("the test waits");
            self.end
                .lock()
                .recv_timeout(GENEROUS)
                .map_err(|_| std::fmt::Error)
        }
    }

    // One worker, as the streams of the smallest pod have.
    #[tokio::test]
    async fn the_admin_port_answers_while_every_worker_of_the_streams_is_busy() {
        let (address, _stop) = serving(None).await;
        // Nothing of this runtime runs until it is answered.
        let answer = get(address, "/healthz");
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }

    #[tokio::test]
    async fn health_is_answered_while_many_hold_silent_connections() {
        let (address, _stop) = serving(None).await;
        let silent: Vec<TcpStream> = (0..300)
            .map(|_| TcpStream::connect(address).expect("it listens"))
            .collect();
        let answer = get(address, "/healthz");
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        let held = silent.iter().filter(|stream| {
            stream.set_nonblocking(true).expect("an option");
            stream
                .peek(&mut [0])
                .is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
        });
        assert_eq!(held.count(), 300, "nobody had to go for it");
    }

    #[tokio::test]
    async fn streams_go_on_while_a_scrape_takes_long() {
        let (begun, begins) = sync_channel(1);
        let (release, end) = sync_channel(1);
        let mut further = Registry::default();
        further.register_collector(Box::new(Slow {
            begun,
            end: Mutex::new(end),
        }));
        let (address, _stop) = serving(Some(further)).await;
        let scrape = thread::spawn(move || get(address, "/metrics"));
        let encoder = begins.recv_timeout(GENEROUS).expect("it is scraped");
        assert_eq!(encoder.as_deref(), Some("admin"));
        // As streams do, on the runtime that is theirs: each has its turn.
        let mut streams = JoinSet::new();
        for _ in 0..100 {
            streams.spawn(tokio::task::yield_now());
        }
        assert_eq!(streams.join_all().await.len(), 100);
        assert!(!scrape.is_finished(), "the scrape is under way");
        release.send(()).expect("it waits");
        let answer = scrape.join().expect("no panic");
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
}
