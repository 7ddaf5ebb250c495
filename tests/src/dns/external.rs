//! external-dns's own code as a program (`tests/external-dns`, pinned by its go.sum), and its
//! CustomResourceDefinition as its module has it.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// The module that the program is made of.
const MODULE: &str = "sigs.k8s.io/external-dns";
/// Where in it the definition lies.
const DEFINITION: &str = "config/crd/standard/dnsendpoints.externaldns.k8s.io.yaml";

/// The built program.
pub struct ExternalDns {
    program: PathBuf,
}

/// A primary that external-dns's provider `rfc2136` updates.
#[derive(Clone, Copy, Debug)]
pub struct Target<'a> {
    /// `host:port`.
    pub server: &'a str,
    /// Name of the TSIG key, HMAC-SHA256.
    pub key: &'a str,
    /// In base64.
    pub secret: &'a str,
}

impl ExternalDns {
    /// Builds the program beside the running one; `None` where no Go here can, with the reason on
    /// stderr.
    ///
    /// # Errors
    /// When it does not build although there is a Go for it.
    pub fn build() -> Result<Option<Self>> {
        let own = std::env::current_exe()?;
        let program = own.with_file_name("external-dns-plan");
        let mut build = go();
        build.args(["build", "-mod=readonly", "-o"]);
        build.arg(&program).arg(".");
        match build.output() {
            Ok(output) if output.status.success() => Ok(Some(Self { program })),
            Ok(output) => {
                let said = String::from_utf8_lossy(&output.stderr);
                // A Go before 1.21 gets no other toolchain by itself.
                let too_old = said.contains("requires go") || said.contains("toolchain");
                ensure!(too_old, "go build: {said}");
                skipped(&said);
                Ok(None)
            }
            Err(error) => {
                skipped(&error.to_string());
                Ok(None)
            }
        }
    }

    /// The YAML of its definition of DNSEndpoint.
    ///
    /// # Errors
    /// When the module is not on this machine, which it is after [`Self::build`].
    pub fn definition(&self) -> Result<String> {
        let output = go()
            .args(["list", "-mod=readonly", "-m", "-f", "{{.Dir}}", MODULE])
            .output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "go list: {said}");
        let module = String::from_utf8(output.stdout)?;
        let path = Path::new(module.trim()).join(DEFINITION);
        fs::read_to_string(&path).with_context(|| path.display().to_string())
    }

    /// What external-dns makes of the objects that there are at each moment, in these zones: in
    /// memory, or with `target` at a primary.
    ///
    /// # Errors
    /// When it fails; carries its log.
    pub fn run(
        &self,
        target: Option<Target<'_>>,
        zones: &[&str],
        moments: &[Vec<Value>],
    ) -> Result<Vec<Value>> {
        let mut command = Command::new(&self.program);
        if let Some(target) = target {
            command.args(["-server", target.server, "-key", target.key]);
            command.args(["-secret", target.secret]);
        }
        let mut child = command
            .args(zones)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let mut input = child.stdin.take().context("it reads stdin")?;
        for moment in moments {
            writeln!(input, "{}", serde_json::to_string(moment)?)?;
        }
        drop(input);
        let output = child.wait_with_output()?;
        let log = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "it failed: {log}");
        String::from_utf8(output.stdout)?
            .lines()
            .map(|line| Ok(serde_json::from_str(line)?))
            .collect()
    }
}

fn go() -> Command {
    let mut go = Command::new("go");
    go.env("GOTOOLCHAIN", "auto")
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("external-dns"));
    go
}

/// Not by eprintln!, which the test harness keeps to itself when a test passes.
fn skipped(why: &str) {
    let _ = writeln!(
        std::io::stderr(),
        "skipped: no Go here can build external-dns: {why}"
    );
}
