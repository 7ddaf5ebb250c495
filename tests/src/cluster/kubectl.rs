//! kubectl as an administrator calls it.

use std::{
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use anyhow::{Context, Result, ensure};

use super::{Missing, tools::built};

/// kubectl with somebody's kubeconfig.
#[derive(Clone, Debug)]
pub struct Kubectl {
    program: PathBuf,
    kubeconfig: PathBuf,
}

impl Kubectl {
    pub(super) fn new(program: &Path, kubeconfig: &Path) -> Self {
        Self {
            program: program.to_owned(),
            kubeconfig: kubeconfig.to_owned(),
        }
    }

    /// One that asks no cluster: `--help`, `--dry-run=client`.
    ///
    /// # Errors
    /// When it was not built.
    pub fn offline() -> Result<Self, Missing> {
        Ok(Self::new(&built("kubectl")?, Path::new("/dev/null")))
    }

    /// Where it lies.
    pub(super) fn program(&self) -> &PathBuf {
        &self.program
    }

    /// Runs it and gives what it printed to stdout.
    ///
    /// # Errors
    /// When it fails; carries stderr.
    pub fn run(&self, arguments: &[&str]) -> Result<String> {
        self.run_with(arguments, "")
    }

    /// As [`Self::run`] with `input` on stdin (`apply -f -`).
    ///
    /// # Errors
    /// As there.
    pub fn run_with(&self, arguments: &[&str], input: &str) -> Result<String> {
        let output = self.output(arguments, input)?;
        ensure!(
            output.status.success(),
            "kubectl {}: {}",
            arguments.join(" "),
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(String::from_utf8(output.stdout)?)
    }

    /// Runs it whatever comes of it.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn output(&self, arguments: &[&str], input: &str) -> Result<Output> {
        let mut child = Command::new(&self.program)
            .arg("--kubeconfig")
            .arg(&self.kubeconfig)
            .args(arguments)
            // Discovery is cached in the home folder otherwise, by host and port.
            .env("KUBECACHEDIR", self.kubeconfig.with_extension("cache"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("start {}", self.program.display()))?;
        let mut stdin = child.stdin.take().expect("stdin is piped");
        let input = input.to_owned();
        // Not in one thread with the reading: both pipes may be full.
        let writer = std::thread::spawn(move || stdin.write_all(input.as_bytes()));
        let output = child.wait_with_output()?;
        // A kubectl that ends early reads no input; it says why by itself.
        let _ = writer.join();
        Ok(output)
    }
}
