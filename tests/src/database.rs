//! A real PostgreSQL with a data folder of its own, TLS and a password; dies with its value.

use std::{
    fs,
    net::Ipv4Addr,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, ensure};

use crate::{pki::Leaf, process::Daemon, wait};

/// Its port.
pub const PORT: u16 = 5432;
/// The role that the proxies use, and their database.
pub const ROLE: &str = "edge";
const SUPERUSER: &str = "postgres";

/// A database server.
pub struct Database {
    directory: PathBuf,
    bin: PathBuf,
    ip: Ipv4Addr,
    daemon: Option<Daemon>,
}

impl Database {
    /// Makes a cluster in `directory`, whose TCP connections want TLS and a password, and starts it
    /// at `ip` with this certificate; role and database [`ROLE`] have `password`.
    ///
    /// # Errors
    /// When Debian's package is missing, or it does not get ready.
    pub async fn start(
        directory: PathBuf,
        ip: Ipv4Addr,
        leaf: &Leaf,
        password: &str,
    ) -> Result<Self> {
        fs::create_dir_all(&directory)?;
        // Its own user must get there.
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o777))?;
        for folder in directory.ancestors().skip(1).take(1) {
            fs::set_permissions(folder, fs::Permissions::from_mode(0o755))?;
        }
        let mut database = Self {
            bin: binaries()?,
            directory,
            ip,
            daemon: None,
        };
        let data = database.path("data");
        database.run(
            "initdb",
            &[
                "--auth=trust",
                "--username=postgres",
                "--no-sync",
                "--encoding=UTF8",
                "-D",
                &data,
            ],
        )?;
        fs::write(
            database.directory.join("data/pg_hba.conf"),
            "local all all trust\nhostssl all all all scram-sha-256\n",
        )?;
        for (name, content) in [("server.crt", &leaf.certificate), ("server.key", &leaf.key)] {
            let path = database.directory.join("data").join(name);
            fs::write(&path, content)?;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
            own_as(&path, &database.directory.join("data"))?;
        }
        database.launch().await?;
        database.sql(
            "postgres",
            &format!("CREATE ROLE {ROLE} LOGIN PASSWORD '{password}'"),
        )?;
        database.sql("postgres", &format!("CREATE DATABASE {ROLE} OWNER {ROLE}"))?;
        Ok(database)
    }

    /// Starts it (again) and waits until it answers.
    ///
    /// # Errors
    /// When it does not.
    pub async fn launch(&mut self) -> Result<()> {
        let (program, mut arguments) = self.command("postgres");
        let own = [
            "-c".to_owned(),
            format!("listen_addresses={}", self.ip),
            "-c".to_owned(),
            "ssl=on".to_owned(),
            "-c".to_owned(),
            "fsync=off".to_owned(),
            "-c".to_owned(),
            format!("unix_socket_directories={}", self.directory.display()),
            "-p".to_owned(),
            PORT.to_string(),
            "-D".to_owned(),
            self.path("data"),
        ];
        arguments.extend(own);
        let log = self.directory.join("log.txt");
        let mut daemon = Daemon::start("PostgreSQL", &program, &arguments, &[], &log)?;
        daemon
            .until("PostgreSQL answers", wait::GENEROUS, async || {
                self.sql("postgres", "SELECT 1").ok()
            })
            .await?;
        self.daemon = Some(daemon);
        Ok(())
    }

    /// Fast shutdown: clients are cut off.
    ///
    /// # Errors
    /// When it does not end.
    pub async fn stop(&mut self) -> Result<()> {
        if let Some(mut daemon) = self.daemon.take() {
            daemon.signal(rustix::process::Signal::INT);
            wait::until("PostgreSQL ends", Duration::from_secs(20), || {
                let ended = daemon.exited();
                async move { ended }
            })
            .await?;
        }
        Ok(())
    }

    /// Runs statements as superuser; the answer without headings.
    ///
    /// # Errors
    /// What psql says.
    pub fn sql(&self, database: &str, statements: &str) -> Result<String> {
        let folder = self.directory.display().to_string();
        let port = PORT.to_string();
        self.run(
            "psql",
            &[
                "-XAtq",
                "-v",
                "ON_ERROR_STOP=1",
                "-h",
                &folder,
                "-p",
                &port,
                "-U",
                SUPERUSER,
                "-d",
                database,
                "-c",
                statements,
            ],
        )
    }

    fn path(&self, name: &str) -> String {
        self.directory.join(name).display().to_string()
    }

    fn run(&self, program: &str, arguments: &[&str]) -> Result<String> {
        let (path, first) = self.command(program);
        let output = Command::new(path)
            .args(first)
            .args(arguments)
            .current_dir(&self.directory)
            .output()
            .with_context(|| program.to_owned())?;
        ensure!(
            output.status.success(),
            "{program}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    /// PostgreSQL refuses to run as root: then its own user does.
    fn command(&self, program: &str) -> (PathBuf, Vec<String>) {
        let program = self.bin.join(program);
        let is_root = fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0);
        if !is_root {
            return (program, Vec::new());
        }
        let arguments = [
            "--reuid=postgres",
            "--regid=postgres",
            "--clear-groups",
            &program.display().to_string(),
        ];
        (
            PathBuf::from("setpriv"),
            arguments.map(str::to_owned).to_vec(),
        )
    }
}

/// Gives `path` to whom `like` belongs.
fn own_as(path: &Path, like: &Path) -> Result<()> {
    let owner = fs::metadata(like)?;
    std::os::unix::fs::chown(path, Some(owner.uid()), Some(owner.gid()))?;
    Ok(())
}

fn binaries() -> Result<PathBuf> {
    let what = "PostgreSQL is missing: apt-get install postgresql";
    fs::read_dir("/usr/lib/postgresql")
        .context(what)?
        .filter_map(|version| Some(version.ok()?.path().join("bin")))
        .filter(|bin| bin.join("postgres").exists())
        .max()
        .context(what)
}
