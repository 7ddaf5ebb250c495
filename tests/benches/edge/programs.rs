//! How large the programs are, and how soon they are there.

use std::{fs, path::Path, process::Command, time::Instant};

use anyhow::{Context, Result, ensure};

use crate::{
    RUNS,
    figures::median,
    report::Table,
    rig::{Inside, Rig, Task, binary},
};

/// Size as images have it, and the time until a program answers.
pub async fn programs() -> Result<()> {
    let mut table = Table::new("programs", 1, &["program", "size in an image", "start"]);
    let proxy = binary();
    let mut ready = Vec::new();
    for _ in 0..RUNS {
        let began = Instant::now();
        drop(Rig::start(Task::of(Inside::Plain)).await?);
        ready.push(began.elapsed().as_secs_f64() * 1e3);
    }
    table.row(&[
        "xmpp-edge-proxy".into(),
        size(&proxy)?,
        format!(
            "`--version` {:.1} ms; a configuration in force {:.0} ms",
            version(&proxy)?,
            median(ready.into_iter())
        ),
    ]);
    let operator = proxy.with_file_name("xmpp-edge-operator");
    // `make release` builds it; a run for the proxy alone does without.
    if operator.is_file() {
        table.row(&[
            "xmpp-edge-operator".into(),
            size(&operator)?,
            format!("`--version` {:.1} ms", version(&operator)?),
        ]);
    }
    table.end()
}

/// Without what only debuggers read, as images/cross strips it.
fn size(program: &Path) -> Result<String> {
    let folder = tempfile::tempdir()?;
    let stripped = folder.path().join("stripped");
    let done = Command::new("objcopy")
        .arg("--strip-debug")
        .args([program, &stripped])
        .status()
        .context("objcopy")?;
    ensure!(done.success(), "objcopy: {done}");
    let bytes = fs::metadata(stripped)?.len();
    Ok(format!("{:.1} MiB", bytes as f64 / 1_048_576.0))
}

/// Milliseconds from the call to the end of `--version`.
fn version(program: &Path) -> Result<f64> {
    let mut took = Vec::new();
    for _ in 0..RUNS {
        let began = Instant::now();
        Command::new(program).arg("--version").output()?;
        took.push(began.elapsed().as_secs_f64() * 1e3);
    }
    Ok(median(took.into_iter()))
}
