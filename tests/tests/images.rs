//! The product's images, built from images/Containerfile: what is in them and as whom they run; and that the
//! image of the servers around them has the servers.

use std::{fs, path::Path, process::Command};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use xmpp_edge_tests::cluster::images::{Images, Product, skip};

/// As whom containers of the product run: chart and pods say the same.
const USER: &str = "65532:65532";

#[test]
fn the_images_have_one_program_the_c_library_and_ca_roots_and_run_as_nobody_special() {
    with_images(|images| {
        for product in Product::ALL {
            let folder = tempfile::tempdir()?;
            let archive = images.build(product, "9.9.9", folder.path())?;
            let image = Unpacked::new(&archive, &folder.path().join("unpacked"))?;
            let name = product.name();
            let program = format!("/usr/local/bin/{name}");

            let config = &image.config["config"];
            assert_eq!(config["User"], USER, "{name}");
            assert_eq!(config["Entrypoint"], serde_json::json!([program]), "{name}");
            assert_eq!(
                config["Labels"]["org.opencontainers.image.version"],
                "9.9.9"
            );
            for (label, value) in [("title", name), ("licenses", "Apache-2.0")] {
                let label = format!("org.opencontainers.image.{label}");
                assert_eq!(config["Labels"][&label], value, "{label}");
            }
            // Pods name their program without a path.
            assert_eq!(config["Env"], serde_json::json!(["PATH=/usr/local/bin"]));
            let said = image.run_as(USER, &[&program, "--version"])?;
            assert!(said.starts_with(name), "{said}");

            let files = image.files()?;
            let programs: Vec<_> = files.iter().filter(|it| is_program(it)).collect();
            assert_eq!(programs, [&program], "and no shell");
            let roots = fs::read_to_string(image.root.join("etc/ssl/certs/ca-certificates.crt"))?;
            assert!(roots.matches("BEGIN CERTIFICATE").count() > 100, "{name}");

            // Scanners read there which of Debian's packages it has.
            let packages = image.root.join("var/lib/dpkg/status.d");
            for package in ["libc6", "libgcc-s1", "ca-certificates"] {
                let said = fs::read_to_string(packages.join(package))?;
                assert!(said.contains("\nVersion: "), "{package}: {said}");
            }

            // The rest is the C library, the roots one by one and as one file.
            let own = fs::metadata(image.root.join(program.trim_start_matches('/')))?.len();
            let rest = image.size()? - own;
            assert!(rest < 6 << 20, "{name}: {rest} bytes beside the program");
        }
        Ok(())
    });
}

#[test]
fn the_builder_s_image_is_pinned_by_digest_and_has_the_toolchain_s_rust() {
    let file = |path: &str| {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path);
        fs::read_to_string(path).expect("a file of the repository")
    };
    let containerfile = file("images/Containerfile");
    let mut from = containerfile
        .lines()
        .filter(|line| line.starts_with("FROM "));
    let outside = from.find(|line| {
        !["${BUILDER}", " toolchain ", " dependencies ", " scratch "]
            .iter()
            .any(|own| line.contains(own))
    });
    assert_eq!(outside, None, "images come from BUILDER alone");
    let builder = containerfile
        .lines()
        .find_map(|line| line.strip_prefix("ARG BUILDER="));
    let (name, digest) = builder
        .and_then(|it| it.split_once("@sha256:"))
        .expect("a digest");
    assert!(
        digest.len() == 64 && digest.bytes().all(|it| it.is_ascii_hexdigit()),
        "{digest}"
    );
    let toolchain = file("rust-toolchain.toml");
    let channel = toolchain
        .lines()
        .find_map(|line| line.strip_prefix("channel = \""));
    let version = channel
        .and_then(|it| it.strip_suffix('"'))
        .expect("a channel");
    assert_eq!(name, format!("docker.io/library/rust:{version}-bookworm"));
}

#[test]
fn two_tags_of_the_same_binaries_are_two_images_that_share_their_layers() {
    with_images(|images| {
        let folder = tempfile::tempdir()?;
        let mut digests = Vec::new();
        let mut layers = Vec::new();
        for tag in ["1.0.0", "1.0.1"] {
            let archive = images.build(Product::Proxy, tag, folder.path())?;
            let image = Unpacked::new(&archive, &folder.path().join(tag))?;
            digests.push(image.manifest[0]["Config"].clone());
            layers.push(image.config["rootfs"]["diff_ids"].clone());
            let name = image.manifest[0]["RepoTags"][0].as_str();
            let expected = format!("xmpp-edge-proxy:{tag}");
            assert!(name.is_some_and(|it| it.ends_with(&expected)), "{name:?}");
        }
        assert_ne!(digests[0], digests[1]);
        assert_eq!(layers[0], layers[1]);
        Ok(())
    });
}

#[test]
fn the_servers_image_has_each_server_and_runs_it_as_an_ordinary_user() {
    with_images(|images| {
        let folder = tempfile::tempdir()?;
        let image = Unpacked::new(images.servers(), folder.path())?;
        let user = image.config["config"]["User"].as_str().context("a user")?;
        let postgres = image.path_of("usr/lib/postgresql/*/bin/postgres")?;
        let ejabberd = "ERL_LIBS=/usr/lib/$(uname -m)-linux-gnu exec erl -noshell \
                        -eval 'io:put_chars([$:, atom_to_list(application:load(ejabberd))]), halt().'";
        let commands = [
            (
                &["sh", "-c", "lua5.4 -v && test -x /usr/bin/prosody"][..],
                "Lua 5.4",
            ),
            (
                &["lua5.4", "-e", "print(require 'lunbound' and 'unbound')"],
                "unbound",
            ),
            (&["sh", "-c", ejabberd], ":ok"),
            (&[&postgres, "--version"], "postgres (PostgreSQL)"),
            (&["id", "-u"], "1000"),
        ];
        for (command, said) in commands {
            let answer = image.run_as(user, command)?;
            assert!(answer.contains(said), "{command:?}: {answer}");
        }
        Ok(())
    });
}

/// Runs a test; says why and returns where there are no images.
fn with_images(body: impl FnOnce(&Images) -> Result<()>) {
    match Images::find() {
        Ok(images) => body(&images).expect("the images are as they should be"),
        Err(why) => skip(&why),
    }
}

fn is_program(path: &str) -> bool {
    ["/bin/", "/sbin/"].iter().any(|it| path.contains(it))
}

/// An image as a folder.
struct Unpacked {
    root: std::path::PathBuf,
    manifest: Value,
    config: Value,
}

impl Unpacked {
    fn new(archive: &Path, folder: &Path) -> Result<Self> {
        let parts = folder.join("parts");
        let root = folder.join("root");
        untar(archive, &parts)?;
        let read = |name: &str| -> Result<Value> {
            Ok(serde_json::from_str(&fs::read_to_string(
                parts.join(name),
            )?)?)
        };
        let manifest = read("manifest.json")?;
        let config = read(manifest[0]["Config"].as_str().context("a configuration")?)?;
        for layer in manifest[0]["Layers"].as_array().context("layers")? {
            untar(&parts.join(layer.as_str().context("a name")?), &root)?;
        }
        // All that a runtime mounts there that some program cannot do without.
        let null = root.join("dev/null");
        fs::create_dir_all(root.join("dev"))?;
        run(Command::new("mknod")
            .args(["-m", "666"])
            .arg(&null)
            .args(["c", "1", "3"]))?;
        Ok(Self {
            root,
            manifest,
            config,
        })
    }

    /// Runs a command in the image as `user:group`, without any of the machine's files.
    fn run_as(&self, user: &str, command: &[&str]) -> Result<String> {
        run(Command::new("chroot")
            .arg(format!("--userspec={user}"))
            .arg(&self.root)
            .args(command)
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"))
    }

    /// Every file that is no folder, from the image's root.
    fn files(&self) -> Result<Vec<String>> {
        let text = run(Command::new("find")
            .arg(&self.root)
            .args(["!", "-type", "d", "-printf", "/%P\\n"]))?;
        Ok(text.lines().map(str::to_owned).collect())
    }

    /// Bytes of all its files.
    fn size(&self) -> Result<u64> {
        let files = self.files()?;
        let size = |file: &String| {
            let path = self.root.join(file.trim_start_matches('/'));
            Ok(fs::symlink_metadata(path)?.len())
        };
        files.iter().map(size).sum()
    }

    /// The one file that a shell pattern names, from the image's root.
    fn path_of(&self, pattern: &str) -> Result<String> {
        let found = self.run_as("0:0", &["sh", "-c", &format!("ls /{pattern}")])?;
        Ok(found.trim().to_owned())
    }
}

fn untar(archive: &Path, folder: &Path) -> Result<()> {
    fs::create_dir_all(folder)?;
    run(Command::new("tar")
        .args(["--extract", "--numeric-owner", "--directory"])
        .arg(folder)
        .arg("--file")
        .arg(archive))?;
    Ok(())
}

/// What it printed to stdout.
fn run(command: &mut Command) -> Result<String> {
    let output = command.output()?;
    ensure!(
        output.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8(output.stdout)?)
}
