//! Container images as archives that a node takes in (`docker-archive`): the product's own, built from
//! images/Containerfile as a release builds them, and that of the servers around it.
//!
//! There is no registry. Two stages of the Containerfile are replaced by folders: the one that unpacks
//! packages by what `tests/cluster/images/build` made of the same ones (`make tools`), and the one that
//! compiles by the binaries that the other tests run too.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};

use super::shared::say_skipped;
use crate::{
    edge::{self, binary_named},
    pod,
};

/// Runs as user 1000 and starts nothing by itself; has Prosody, ejabberd, PostgreSQL
/// (`/usr/lib/postgresql/15/bin`) and busybox's commands.
pub const SERVERS: &str = "xmpp-edge-test-servers:1";

/// What the two images are built from.
#[derive(Debug)]
pub struct Images {
    base: PathBuf,
    servers: PathBuf,
}

/// Why there are no images on this computer.
#[derive(Debug, thiserror::Error)]
pub enum NoImages {
    #[error("images are made and built as root")]
    NotRoot,
    #[error("{0} is not here; `make install` gets it")]
    Program(&'static str),
    #[error("the image {0} is not here; `make tools` makes it")]
    Image(&'static str),
}

impl NoImages {
    /// Whether a run that must not skip runs where there should be images.
    fn should_not_be(&self) -> bool {
        let ci = std::env::var_os("CI").is_some_and(|ci| ci == "true");
        ci && !matches!(self, Self::NotRoot)
    }
}

/// Says that a test is skipped, and why.
///
/// # Panics
/// In CI as root: there they should have been made.
pub fn skip(why: &NoImages) {
    assert!(!why.should_not_be(), "{why}, though this is root in CI");
    say_skipped(why);
}

/// One of the product's two images.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Product {
    Operator,
    Proxy,
}

impl Product {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Operator, Self::Proxy];

    /// What the image and its program are called.
    pub fn name(self) -> &'static str {
        match self {
            Self::Operator => "xmpp-edge-operator",
            Self::Proxy => "xmpp-edge-proxy",
        }
    }

    /// The stage of the Containerfile.
    fn target(self) -> &'static str {
        match self {
            Self::Operator => "operator",
            Self::Proxy => "proxy",
        }
    }

    /// The binary that the other tests run.
    ///
    /// # Errors
    /// When it was not built.
    pub fn binary(self) -> Result<PathBuf> {
        match self {
            Self::Operator => edge::binary(),
            Self::Proxy => binary_named(self.name(), pod::BINARY),
        }
    }
}

impl Images {
    /// Looks for all that is needed.
    ///
    /// # Errors
    /// What is missing.
    pub fn find() -> Result<Self, NoImages> {
        if !rustix::process::geteuid().is_root() {
            return Err(NoImages::NotRoot);
        }
        let path = std::env::var_os("PATH").unwrap_or_default();
        let has = |program: &str| std::env::split_paths(&path).any(|it| it.join(program).is_file());
        for program in ["buildah", "objcopy"] {
            if !has(program) {
                return Err(NoImages::Program(program));
            }
        }
        Ok(Self {
            base: made("base")?,
            servers: made("servers")?,
        })
    }

    /// The archive of [`SERVERS`].
    pub fn servers(&self) -> &Path {
        &self.servers
    }

    /// Builds one of the product's images as `<name>:<tag>` and returns its archive in `folder`, which also
    /// holds what the build needs. Two tags are two images, which differ in a label alone.
    ///
    /// # Errors
    /// When a binary is missing or the build fails; carries what it printed.
    pub fn build(&self, product: Product, tag: &str, folder: &Path) -> Result<PathBuf> {
        let name = product.name();
        let unpacked = folder.join("unpacked");
        let root = unpacked.join("root-of-image");
        if !root.exists() {
            fs::create_dir_all(&root)?;
            run(Command::new("tar")
                .args(["--extract", "--numeric-owner", "--directory"])
                .arg(&root)
                .arg("--file")
                .arg(&self.base))?;
        }
        let compiled = folder.join("compiled");
        let binaries = compiled.join("out");
        fs::create_dir_all(&binaries)?;
        let binary = product.binary()?;
        // A tenth is left: more than that is for debuggers.
        run(Command::new("objcopy")
            .arg("--strip-debug")
            .args([&binary, &binaries.join(name)]))?;
        let image = format!("{name}:{tag}");
        let options = format!(
            // The same binaries make the same layers.
            "--timestamp 0 --build-context=unpacked={} --build-context=compiled={}",
            unpacked.display(),
            compiled.display()
        );
        run(
            Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../images/build"))
                .arg(product.target())
                .env("ENGINE", "buildah")
                .env("ENGINE_OPTIONS", storage(folder).join(" "))
                .env("BUILD_OPTIONS", options)
                .env("BUILDAH_ISOLATION", "chroot")
                .envs([("TAG", tag), ("SBOM", ""), ("PUSH", ""), ("PLATFORM", "")]),
        )?;
        let archive = folder.join(format!("{name}-{tag}.tar"));
        // One that is there already would be added to.
        let _ = fs::remove_file(&archive);
        let destination = format!("docker-archive:{}:{image}", archive.display());
        run(buildah(folder).args(["push", &image, &destination]))?;
        Ok(archive)
    }
}

/// A storage in a folder of the test's, and no container runtime.
fn storage(folder: &Path) -> Vec<String> {
    let path = |name: &str| folder.join(name).display().to_string();
    [
        "--storage-driver",
        "vfs",
        "--root",
        &path("storage"),
        "--runroot",
        &path("storage-run"),
    ]
    .map(str::to_owned)
    .to_vec()
}

fn buildah(folder: &Path) -> Command {
    let mut command = Command::new("buildah");
    command
        .env("BUILDAH_ISOLATION", "chroot")
        .args(storage(folder));
    command
}

fn run(command: &mut Command) -> Result<()> {
    let output = command.output().with_context(|| format!("{command:?}"))?;
    ensure!(
        output.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

fn made(name: &'static str) -> Result<PathBuf, NoImages> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/cluster/images/build");
    let answer = Command::new(script).args(["--where", name]).output();
    let answer = answer.map_err(|_| NoImages::Image(name))?;
    let place = PathBuf::from(String::from_utf8_lossy(&answer.stdout).trim());
    place
        .is_file()
        .then_some(place)
        .ok_or(NoImages::Image(name))
}
