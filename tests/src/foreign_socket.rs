//! A fault of the host that no file and no peer can make: a socket of another process that is of no use to
//! it any more, while the process keeps it.

use std::{
    fs,
    net::{Shutdown, SocketAddrV4, TcpStream},
    path::Path,
};

use anyhow::{Context, Result};
use rustix::process::{PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};

/// State of a socket that listens, as `/proc/<pid>/net/tcp` writes it (proc(5)).
const LISTENS: &str = "0A";

/// The process holds a socket that listens at `address`; from here on it accepts nothing there.
///
/// # Errors
/// When there is no such socket, or it may not be taken: that needs the right to trace the process.
pub fn stop_listening(process: u32, address: SocketAddrV4) -> Result<()> {
    let inode = inode(process, address)?;
    let wanted = format!("socket:[{inode}]");
    let descriptors = format!("/proc/{process}/fd");
    let descriptor = fs::read_dir(&descriptors)?
        .filter_map(|entry| {
            let path = entry.ok()?.path();
            let target = fs::read_link(&path).ok()?;
            (target == Path::new(&wanted)).then_some(path)
        })
        .next()
        .with_context(|| format!("{descriptors} holds no {wanted}"))?;
    let descriptor = descriptor.file_name().context("a name")?.to_string_lossy();
    let pid = rustix::process::Pid::from_raw(i32::try_from(process)?).context("a process")?;
    let of_process = pidfd_open(pid, PidfdFlags::empty()).context("pidfd_open")?;
    let socket = pidfd_getfd(&of_process, descriptor.parse()?, PidfdGetfdFlags::empty())
        .context("pidfd_getfd")?;
    // What `std` calls a stream is any socket of TCP.
    TcpStream::from(socket).shutdown(Shutdown::Both)?;
    Ok(())
}

/// The number of the socket that listens at `address`.
fn inode(process: u32, address: SocketAddrV4) -> Result<String> {
    let table = fs::read_to_string(format!("/proc/{process}/net/tcp"))?;
    let ip = u32::from_le_bytes(address.ip().octets());
    let local = format!("{ip:08X}:{:04X}", address.port());
    table
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .find(|fields| fields.get(1) == Some(&local.as_str()) && fields.get(3) == Some(&LISTENS))
        .and_then(|fields| fields.get(9).map(|inode| (*inode).to_owned()))
        .with_context(|| format!("nothing listens at {address}"))
}
