//! One child process with its process group, its log file, and signals.
//!
//! A daemon dies with its value and with this process: it is started by a thread that lives as
//! long as the process does, under `setpriv --pdeathsig` (whose signal follows the starting
//! thread, not the process).

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{OnceLock, mpsc},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use parking_lot::Mutex;
use rustix::process::{Pid, Signal, kill_process_group};

use crate::{network, wait};

/// A running child process, killed with its whole group on drop.
#[derive(Debug)]
pub struct Daemon {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Daemon {
    /// Starts `program` with `arguments` in a process group of its own; stdout and stderr are
    /// appended to `log`.
    ///
    /// # Errors
    /// When the log cannot be opened or the program not be started.
    pub fn start(
        name: &str,
        program: &Path,
        arguments: &[String],
        environment: &[(&str, String)],
        log: &Path,
    ) -> Result<Self> {
        let out = File::options()
            .create(true)
            .append(true)
            .open(log)
            .with_context(|| format!("log {}", log.display()))?;
        let mut command = Command::new("setpriv");
        command
            .args(["--pdeathsig", "KILL", "--"])
            .arg(program)
            .args(arguments)
            .envs(environment.iter().map(|(k, v)| (*k, v)))
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out);
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let child =
            spawn(command).with_context(|| format!("start {name}: {}", program.display()))?;
        Ok(Self {
            name: name.to_owned(),
            child,
            log: log.to_owned(),
        })
    }

    /// The process id, also the id of its group.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// CPU time of all threads of all processes of its group that still run.
    pub fn group_cpu(&self) -> Duration {
        let is_of_group = |process: &Path| {
            let stat = fs::read_to_string(process.join("stat")).unwrap_or_default();
            // Behind the name, which may hold anything: state, parent, group (proc(5)).
            let fields = stat
                .rsplit_once(')')
                .map(|(_, rest)| rest.split_ascii_whitespace());
            let group = fields.and_then(|mut fields| fields.nth(2)?.parse().ok());
            group == Some(self.id())
        };
        let of_thread = |thread: PathBuf| {
            let text = fs::read_to_string(thread.join("schedstat")).ok()?;
            text.split(' ').next()?.parse::<u64>().ok()
        };
        let entries = |folder: &Path| fs::read_dir(folder).into_iter().flatten().flatten();
        let processes = entries(Path::new("/proc")).map(|entry| entry.path());
        let threads = processes
            .filter(|process| is_of_group(process))
            .flat_map(|process| entries(&process.join("task")).map(|entry| entry.path()));
        Duration::from_nanos(threads.filter_map(of_thread).sum())
    }

    /// Sends `signal` to the whole group. A group that is gone already is no error.
    pub fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).expect("pids fit i32");
        if let Some(group) = Pid::from_raw(pid) {
            let _ = kill_process_group(group, signal);
        }
    }

    /// Stops the process where it stands (SIGSTOP), connections alive.
    pub fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    /// Undoes [`Self::freeze`].
    pub fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    /// SIGKILL, then waits for the end, so that its ports are free.
    pub fn kill(&mut self) {
        self.signal(Signal::KILL);
        let _ = self.child.wait();
    }

    /// SIGTERM, then waits; after `limit` SIGKILL.
    ///
    /// # Errors
    /// When it did not end by itself within `limit`.
    pub async fn terminate(&mut self, limit: Duration) -> Result<ExitStatus> {
        self.signal(Signal::TERM);
        let name = self.name.clone();
        let ended = wait::until(&format!("{name} ends on SIGTERM"), limit, || {
            let status = self.child.try_wait().ok().flatten();
            async move { status }
        })
        .await;
        if ended.is_err() {
            self.kill();
        }
        ended
    }

    /// `None` while it runs.
    pub fn exited(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Everything it wrote so far.
    pub fn log(&self) -> String {
        read(&self.log)
    }

    /// As [`wait::until`], for what this process is expected to do: its end ends the waiting, even
    /// amid a probe. Every wait for a process that was started is this one.
    ///
    /// # Errors
    /// When the process ends or `limit` passes first; carries the end of the log.
    pub async fn until<T>(
        &mut self,
        what: &str,
        limit: Duration,
        probe: impl AsyncFnMut() -> Option<T>,
    ) -> Result<T> {
        let found = {
            let ended = wait::until("it ends", Duration::MAX, async || self.exited());
            tokio::select! {
                biased;
                found = wait::until(what, limit, probe) => found,
                status = ended => status.and_then(|status| bail!("{what}: it ended: {status}")),
            }
        };
        found.with_context(|| self.tail())
    }

    /// Waits for a line that contains `marker`.
    ///
    /// # Errors
    /// When the process ends or `limit` passes first; carries the end of the log.
    pub async fn await_line(&mut self, marker: &str, limit: Duration) -> Result<()> {
        let what = format!("{} says {marker:?}", self.name);
        let log = self.log.clone();
        self.until(&what, limit, async || {
            read(&log).contains(marker).then_some(())
        })
        .await
    }

    /// The last lines of its log, for messages.
    pub fn tail(&self) -> String {
        let log = self.log();
        let lines: Vec<_> = log.lines().collect();
        let from = lines.len().saturating_sub(60);
        format!("--- {} ---\n{}\n", self.name, lines[from..].join("\n"))
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("{}", self.tail());
        }
    }
}

fn read(log: &Path) -> String {
    String::from_utf8_lossy(&std::fs::read(log).unwrap_or_default()).into_owned()
}

struct Request {
    command: Command,
    /// The network in which it is asked for, where that is another than the starter's.
    network: Option<File>,
    reply: mpsc::SyncSender<io::Result<Child>>,
}

/// Spawns from the one thread that never ends before the process, in the network of the thread that asks.
fn spawn(command: Command) -> io::Result<Child> {
    static STARTER: OnceLock<mpsc::Sender<Request>> = OnceLock::new();
    /// Where the starter is.
    static NETWORK: Mutex<Option<PathBuf>> = Mutex::new(None);
    // Before it starts: it is where it is asked first.
    let mut at = NETWORK.lock();
    let starter = STARTER.get_or_init(|| {
        let (tx, rx) = mpsc::channel::<Request>();
        std::thread::Builder::new()
            .name("starter".into())
            .spawn(move || {
                for mut request in rx {
                    let moved = request.network.as_ref().map_or(Ok(()), network::follow);
                    let child = moved.and_then(|()| request.command.spawn());
                    let _ = request.reply.send(child);
                }
            })
            .expect("a thread can be started");
        tx
    });
    let (tx, rx) = mpsc::sync_channel(1);
    let own = network::here()?;
    let network = match at.as_ref() {
        Some(at) if *at == own.0 => None,
        None => None,
        Some(_) => Some(own.1),
    };
    *at = Some(own.0);
    let request = Request {
        command,
        network,
        reply: tx,
    };
    starter.send(request).expect("the starter never ends");
    rx.recv().expect("the starter answers every request")
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn outcome(script: &str, probe: impl AsyncFnMut() -> Option<()>) -> String {
        let directory = tempfile::tempdir().unwrap();
        let arguments = ["-c".to_owned(), script.to_owned()];
        let log = directory.path().join("log.txt");
        let shell = Path::new("/bin/sh");
        let mut daemon = Daemon::start("shell", shell, &arguments, &[], &log).unwrap();
        let found = daemon.until("it answers", wait::GENEROUS, probe).await;
        found.map_or_else(|error| format!("{error:#}"), |()| "it answers".to_owned())
    }

    #[tokio::test]
    async fn a_process_that_ends_ends_the_waiting_and_its_last_words_are_told() {
        for hangs in [false, true] {
            let told = outcome("echo unknown option >&2; exit 3", async || {
                if hangs {
                    std::future::pending::<()>().await;
                }
                None
            })
            .await;
            assert!(told.contains("it ended: exit status: 3"), "{told}");
            assert!(told.contains("unknown option"), "{told}");
        }
    }

    #[tokio::test]
    async fn a_process_that_does_what_it_should_is_waited_for_until_then() {
        let mut asked = 0;
        let told = outcome("exec sleep 60", async || {
            asked += 1;
            (asked == 3).then_some(())
        })
        .await;
        assert_eq!(told, "it answers");
    }
}
