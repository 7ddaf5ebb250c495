//! The servers of Debian 13, in a root folder of their own beside this machine's (`tests/servers/build`).

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};

/// In a mount namespace of the process alone: the lab's files and the resolver's, then the other root. `$0` is
/// the root, `$1` the folder of temporary files, `$2` the resolver's file.
const ENTER: &str = "mount --rbind /dev \"$0/dev\" && mount -t proc proc \"$0/proc\" && mkdir -p \"$0$1\" && \
    mount --rbind \"$1\" \"$0$1\" && mount --bind \"$2\" \"$0/etc/resolv.conf\" && \
    root=$0 && shift 2 && exec chroot \"$root\" \"$@\"";

/// The arguments of `unshare` that run `program` of that root with `arguments`; it resolves names by the file
/// `resolver`.
pub(super) fn within(program: &str, resolver: &Path, arguments: &[String]) -> Result<Vec<String>> {
    let root = root()?.display().to_string();
    let temporary = std::env::temp_dir().display().to_string();
    let resolver = resolver.display().to_string();
    let enter = [
        "--mount", "sh", "-c", ENTER, &root, &temporary, &resolver, program,
    ];
    let enter = enter.into_iter().map(str::to_owned);
    Ok(enter.chain(arguments.iter().cloned()).collect())
}

fn root() -> Result<PathBuf> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("servers/build");
    let answer = Command::new(&script).arg("--where").output();
    let answer = answer.with_context(|| script.display().to_string())?;
    let root = PathBuf::from(String::from_utf8(answer.stdout)?.trim());
    ensure!(
        root.is_dir(),
        "no servers of Debian 13 in {}: make tools makes them, as root",
        root.display()
    );
    Ok(root)
}
