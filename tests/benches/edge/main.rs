//! What the edge costs, beside what a plain TLS-terminating relay costs, in one run.
//!
//! `make bench` builds the release binaries and runs it. One stream from a partner comes in over
//! direct TLS with SASL EXTERNAL; the gateway inside is a sink that reads and counts. CPU is what the
//! kernel counted for all threads of the process. Nothing here asserts a time.

mod cores;
mod figures;
mod growth;
mod handshake;
mod idle;
mod load;
mod paced;
mod plot;
mod process;
mod programs;
mod report;
mod rig;
mod saturated;
mod sidecar;
mod sink;
mod sip;

use anyhow::Result;
use rustix::process::{Resource, Rlimit, setrlimit};

/// Runs of each, which take turns with the relay's; medians are printed.
const RUNS: usize = 5;

/// Files that the bench and the edge may have open: 50,000 streams and the rest.
const FILES: u64 = 120_000;

fn main() -> Result<()> {
    let limit = Rlimit {
        current: Some(FILES),
        maximum: Some(FILES),
    };
    // Who may not raise it measures with fewer streams, and is told by the one that fails.
    let _ = setrlimit(Resource::Nofile, limit);
    // cargo bench hands `--bench` on; words choose what runs.
    let chosen: Vec<String> = std::env::args()
        .skip(1)
        .filter(|word| !word.starts_with("--"))
        .collect();
    let wanted = |name: &str| chosen.is_empty() || chosen.iter().any(|word| name.contains(word));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        println!("stanza: {} bytes", load::stanza(0, "").len());
        if wanted("saturated") {
            saturated::saturated_table().await?;
        }
        if wanted("shapes") {
            saturated::shapes().await?;
        }
        if wanted("cores") {
            cores::cores().await?;
        }
        if wanted("paced") {
            paced::paced_table().await?;
        }
        if wanted("quiet") {
            paced::quiet_table().await?;
        }
        if wanted("streams") {
            idle::streams().await?;
        }
        if wanted("pairs") {
            idle::pairs().await?;
        }
        if wanted("sidecar") {
            sidecar::table().await?;
        }
        if wanted("sip") {
            sip::tables().await?;
        }
        if wanted("scale") {
            idle::scale().await?;
        }
        if wanted("programs") {
            programs::programs().await?;
        }
        if wanted("growth") {
            growth::growth().await?;
        }
        Ok(())
    })
}
