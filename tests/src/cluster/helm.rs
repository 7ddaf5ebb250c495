//! Helm as an administrator calls it, in the two major versions that the chart works with.

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
};

use anyhow::{Context, Result, ensure};

use super::{ApiServer, ClusterIdentity, Kubectl, Missing, tools::built};

/// A major version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Major {
    Three,
    Four,
}

/// A built Helm, with somebody's kubeconfig or with none.
#[derive(Clone, Debug)]
pub struct Helm {
    program: PathBuf,
    kubeconfig: Option<PathBuf>,
    home: PathBuf,
}

impl Helm {
    /// One that asks no cluster: `lint`, `template`. It keeps what it keeps in `home`.
    ///
    /// # Errors
    /// When it was not built.
    pub fn offline(major: Major, home: PathBuf) -> Result<Self, Missing> {
        let program = match major {
            Major::Three => built("helm3/helm")?,
            Major::Four => built("helm4/helm")?,
        };
        Ok(Self {
            program,
            kubeconfig: None,
            home,
        })
    }

    /// One that acts on a cluster as somebody.
    ///
    /// # Errors
    /// When it was not built, or its kubeconfig cannot be written.
    pub fn on(server: &ApiServer, major: Major, who: &ClusterIdentity) -> Result<Self> {
        let home = server.directory().join(format!("helm-{major:?}"));
        let kubeconfig = server.kubeconfig_file(&format!("helm-{major:?}"), who, "default")?;
        Ok(Self {
            kubeconfig: Some(kubeconfig),
            ..Self::offline(major, home)?
        })
    }

    fn command(&self, arguments: &[&str]) -> Command {
        self.in_its_home(&self.program, arguments)
    }

    fn in_its_home(&self, program: &Path, arguments: &[&str]) -> Command {
        let mut command = Command::new(program);
        for (name, folder) in [
            ("HELM_CACHE_HOME", "cache"),
            ("HELM_CONFIG_HOME", "config"),
            ("HELM_DATA_HOME", "data"),
        ] {
            command.env(name, self.home.join(folder));
        }
        // A KUBECONFIG of the machine's own is none of a test's business.
        let nothing = self.home.join("no-kubeconfig");
        command.env("KUBECONFIG", self.kubeconfig.as_ref().unwrap_or(&nothing));
        command.args(arguments).stdin(Stdio::null());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Runs a script that calls `kubectl` and `helm` by their names, and gives what it printed to stdout.
    ///
    /// # Errors
    /// When it fails; carries what it printed.
    pub fn script(
        &self,
        kubectl: &Kubectl,
        command: &[&str],
        environment: &[(&str, &str)],
    ) -> Result<String> {
        let programs = [&self.program, kubectl.program()];
        let own = programs.into_iter().filter_map(|it| it.parent());
        let path = std::env::var_os("PATH").unwrap_or_default();
        let path = std::env::join_paths(own.map(Into::into).chain(std::env::split_paths(&path)))?;
        let output = self
            .in_its_home(Path::new(command[0]), &command[1..])
            .env("PATH", path)
            .envs(environment.iter().copied())
            .output();
        let output = output.with_context(|| command[0].to_owned())?;
        ensure!(
            output.status.success(),
            "{}: {}{}",
            command.join(" "),
            String::from_utf8_lossy(&output.stderr),
            String::from_utf8_lossy(&output.stdout),
        );
        Ok(String::from_utf8(output.stdout)?)
    }

    /// Starts it and does not wait: hooks are waited for by itself.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(&self, arguments: &[&str]) -> Result<Child> {
        let child = self.command(arguments).spawn();
        child.with_context(|| format!("start {}", self.program.display()))
    }

    /// Runs it whatever comes of it.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn output(&self, arguments: &[&str]) -> Result<Output> {
        Ok(self.start(arguments)?.wait_with_output()?)
    }

    /// Runs it and gives what it printed to stdout.
    ///
    /// # Errors
    /// When it fails; carries what it printed.
    pub fn run(&self, arguments: &[&str]) -> Result<String> {
        let output = self.output(arguments)?;
        ensure!(
            output.status.success(),
            "helm {}: {}{}",
            arguments.join(" "),
            String::from_utf8_lossy(&output.stderr),
            String::from_utf8_lossy(&output.stdout),
        );
        Ok(String::from_utf8(output.stdout)?)
    }
}
