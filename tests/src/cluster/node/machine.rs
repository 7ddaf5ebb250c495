//! One node's machine: network, mounts and processes of its own on this computer's kernel.
//!
//! Everything of it ends with it: its processes with the first of them, its mounts and devices with
//! the processes, its control groups and data by a janitor who waits for the end of this process,
//! however that ends. Nothing is changed outside: what a kubelet sets of the kernel's settings goes
//! to files of the machine's own.

use std::{
    fs,
    io::{BufRead, BufReader},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
};

use anyhow::{Context, Result, ensure};

use super::{Lacking, Site, internet::ip};
use crate::process::Daemon;

/// Makes the machine; told how by the environment. What a kubelet wants of the kernel (the names are
/// paths below /proc/sys) is shown to it as it wants it.
const INSIDE: &str = r#"
mount --make-rshared /
mount -t proc proc /proc
# Where others keep sockets, state and logs at fixed places.
for place in /run /var/lib /var/log; do mount -t tmpfs tmpfs $place; done
mkdir /run/netns /run/lock
set_aside() {
    printf '%s\n' "$2" >"/run/lock/${1##*/}"
    mount --bind "/run/lock/${1##*/}" "/proc/sys/$1"
}
set_aside kernel/panic 10
set_aside kernel/panic_on_oops 1
set_aside kernel/keys/root_maxkeys 1000000
set_aside kernel/keys/root_maxbytes 25000000
set_aside vm/overcommit_memory 1
set_aside vm/panic_on_oom 0
# Layers of images are laid upon each other.
mkdir -p "$DATA/probe/lower" "$DATA/probe/upper" "$DATA/probe/work" "$DATA/probe/all"
mount -t overlay -o "lowerdir=$DATA/probe/lower,upperdir=$DATA/probe/upper,workdir=$DATA/probe/work" overlay "$DATA/probe/all"
umount "$DATA/probe/all"
echo 1 >/proc/sys/net/ipv4/ip_forward
ip link set lo up
echo made
until ip link show node0 >/dev/null 2>&1; do sleep 0.02; done
ip address add "$NODE/24" dev node0
ip link set node0 up
ip route add default via "$ROUTER"
echo joined
sleep 2147483647 &
wait
"#;

/// Keeps the machine, and tidies up after it.
const JANITOR: &str = r#"
groups() { find /sys/fs/cgroup -mindepth 1 -maxdepth 2 -type d -name "$GROUP"; }
# A first process that orphans fall to, and with which all others end.
unshare --net --mount --pid --fork --kill-child sh -ec "$INSIDE" </dev/null &
machine=$!
echo "$machine"
# So that who reads sees when the machine says no more.
exec >/dev/null
read _
kill -9 $machine 2>/dev/null
wait $machine 2>/dev/null
tries=0
while [ -n "$(groups)" ] && [ $tries -lt 100 ]; do
    for group in $(groups); do find "$group" -depth -type d -exec rmdir {} + 2>/dev/null; done
    tries=$((tries + 1))
    sleep 0.05
done
rm -rf "$DATA"
"#;

/// A running machine; it ends with the value, or with the process.
#[derive(Debug)]
pub struct Machine {
    janitor: Child,
    /// The process in whose parent's namespaces everything runs.
    process: u32,
    /// Its control group, below the root of each hierarchy.
    group: String,
    directory: PathBuf,
}

impl Machine {
    /// Makes one at the site and joins it to the internet that the calling thread is on. Logs go to
    /// `directory`, `data` is removed at the end.
    ///
    /// # Errors
    /// [`Lacking`] when this computer has not what it needs.
    pub fn start(site: Site, directory: &Path, data: &Path) -> Result<Self> {
        fs::create_dir_all(data)?;
        let id = format!("{}-{}", std::process::id(), site.number());
        let group = format!("xmpp-edge-node-{id}");
        let log = directory.join("machine.log");
        let mut janitor = Command::new("sh")
            .args(["-c", JANITOR])
            .env("INSIDE", INSIDE)
            .env("GROUP", &group)
            .env("DATA", data)
            .env("NODE", site.node().to_string())
            .env("ROUTER", site.router().to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(fs::File::create(&log)?)
            // An interrupt from the keyboard is not meant for the janitor.
            .process_group(0)
            .spawn()
            .context("start a shell")?;
        let out = janitor.stdout.take().context("stdout is piped")?;
        let mut lines = BufReader::new(out).lines();
        let mut said = || -> Result<String> { Ok(lines.next().transpose()?.unwrap_or_default()) };
        let mut machine = Self {
            process: said()?.parse()?,
            janitor,
            group,
            directory: directory.to_owned(),
        };
        let refused = |step: &str| {
            let log = fs::read_to_string(&log).unwrap_or_default();
            Lacking::Machine(format!("{step}: {}", log.trim()))
        };
        if said()? != "made" {
            return Err(refused("namespaces and mounts").into());
        }
        machine.make_groups()?;
        machine
            .join(site)
            .map_err(|error| refused(&format!("{error:#}")))?;
        ensure!(said()? == "joined", refused("the node's address"));
        Ok(machine)
    }

    /// The wire, and the ways to what is behind it.
    fn join(&self, site: Site) -> Result<()> {
        let wire = site.wire();
        let machine = self.process.to_string();
        let ends = [
            "link", "add", &wire, "type", "veth", "peer", "name", "node0",
        ];
        ip(&[&ends[..], &["netns", &machine]].concat())?;
        let address = format!("{}/24", site.router());
        ip(&["address", "add", &address, "dev", &wire])?;
        ip(&["link", "set", &wire, "up"])?;
        let node = site.node().to_string();
        for network in site.behind() {
            ip(&["route", "add", &network, "via", &node])?;
        }
        Ok(())
    }

    /// One group in each hierarchy, or in the only one.
    fn make_groups(&mut self) -> Result<()> {
        let root = Path::new("/sys/fs/cgroup");
        let lacking = |error: &dyn std::fmt::Display| Lacking::Groups(error.to_string());
        let hierarchies: Vec<PathBuf> = if root.join("cgroup.controllers").exists() {
            vec![root.to_owned()]
        } else {
            let entries = fs::read_dir(root).map_err(|error| lacking(&error))?;
            let folders = entries.flatten().map(|entry| entry.path());
            folders.filter(|path| path.join("tasks").exists()).collect()
        };
        if hierarchies.is_empty() {
            return Err(lacking(&"no hierarchy is mounted at /sys/fs/cgroup").into());
        }
        for hierarchy in hierarchies {
            let own = hierarchy.join(&self.group);
            match fs::create_dir(&own) {
                // A fault of the test, not of the computer.
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                    return Err(error).with_context(|| own.display().to_string());
                }
                made => made.map_err(|error| lacking(&error))?,
            }
            // Of an older cpuset nothing runs in a group before it has these.
            for file in ["cpuset.cpus", "cpuset.mems"] {
                if own.join(file).exists() && hierarchy.join("tasks").exists() {
                    let value = fs::read_to_string(hierarchy.join(file))?;
                    fs::write(own.join(file), value).map_err(|error| lacking(&error))?;
                }
            }
        }
        Ok(())
    }

    /// Name of its control group, from the root.
    pub fn group(&self) -> String {
        format!("/{}", self.group)
    }

    /// Starts a program there.
    ///
    /// # Errors
    /// As [`Daemon::start`].
    pub fn daemon(
        &self,
        name: &str,
        program: &Path,
        arguments: &[String],
        environment: &[(&str, String)],
    ) -> Result<Daemon> {
        let mut all = self.entry();
        all.push(program.display().to_string());
        all.extend_from_slice(arguments);
        let log = self.directory.join(format!("{name}.log"));
        Daemon::start(name, Path::new("nsenter"), &all, environment, &log)
    }

    /// Runs a program there, to its end, whatever comes of it.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn output(&self, program: &str, arguments: &[&str]) -> Result<Output> {
        let mut command = Command::new("nsenter");
        command.args(self.entry()).arg(program).args(arguments);
        command.stdin(Stdio::null()).output().context("nsenter")
    }

    /// Runs a program there; what it printed.
    ///
    /// # Errors
    /// When it fails; carries stderr.
    pub fn run(&self, program: &str, arguments: &[&str]) -> Result<String> {
        let output = self.output(program, arguments)?;
        ensure!(
            output.status.success(),
            "{program} {}: {}",
            arguments.join(" "),
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    fn entry(&self) -> Vec<String> {
        let process = self.process;
        let of = |option: &str, file: &str| format!("--{option}=/proc/{process}/ns/{file}");
        vec![
            of("net", "net"),
            of("mount", "mnt"),
            of("pid", "pid_for_children"),
            "--".to_owned(),
        ]
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // The janitor waits for the end of its input, which this takes away.
        drop(self.janitor.stdin.take());
        let _ = self.janitor.wait();
    }
}
