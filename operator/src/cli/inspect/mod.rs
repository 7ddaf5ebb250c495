//! The commands that look and change nothing: `validate`, `render`, `explain` on files or a cluster, and
//! `import-lync`.

pub(super) mod cluster;
pub(super) mod explain;
mod findings;
pub(super) mod inspection;
mod outside;
pub(super) mod render;
mod sidecars;
mod validate;

use std::io::Write;

use self::inspection::{Inspection, InspectionSource};
use super::{
    CommandError, EXIT_FAILURE, Explain, ImportLync, Output, Render, Validate, print, print_json,
};
use crate::{compile::Severity, lync, standalone::status::Note};

pub(super) async fn validate(asked: Validate) -> Result<u8, CommandError> {
    let source = asked.look.source();
    let inspection = Inspection::of(&source, jiff::Timestamp::now()).await?;
    let validation = validate::validate(&inspection);
    match asked.look.output {
        Output::Text => print(&validation.text())?,
        Output::Json => print_json(&validation)?,
    }
    Ok(if validation.valid { 0 } else { EXIT_FAILURE })
}

/// Reads for `render` and `explain`: what is wrong goes to stderr, and is the exit code.
async fn inspected(source: &InspectionSource) -> Result<(Inspection, u8), CommandError> {
    let inspection = Inspection::of(source, jiff::Timestamp::now()).await?;
    let mut code = 0;
    for note in inspection.notes() {
        if note.severity() == Severity::Error {
            code = EXIT_FAILURE;
        }
        say(&note);
    }
    Ok((inspection, code))
}

fn say(note: &Note) {
    let _ = writeln!(std::io::stderr(), "{note}");
}

pub(super) async fn render(asked: Render) -> Result<u8, CommandError> {
    if asked.sidecars.sidecar.is_some() {
        return sidecars::render(&asked.sidecars, asked.output);
    }
    let source = InspectionSource {
        manifests: asked.manifests,
        cluster: None,
    };
    let (inspection, code) = inspected(&source).await?;
    let rendered = render::render(&inspection, jiff::Timestamp::now())?;
    match asked.output {
        Output::Text => print(&render::yaml(&rendered)?)?,
        Output::Json => print_json(&rendered)?,
    }
    Ok(code)
}

pub(super) fn import(asked: &ImportLync) -> Result<u8, CommandError> {
    let bytes = std::fs::read(&asked.file).map_err(|source| CommandError::Export {
        path: asked.file.clone(),
        source,
    })?;
    let imported = lync::import(&bytes, &asked.file.display().to_string())?;
    for warning in &imported.warnings {
        let _ = writeln!(std::io::stderr(), "warning: {warning}");
    }
    match asked.output {
        Output::Text => print(&imported.yaml())?,
        Output::Json => print_json(&serde_json::json!({
            "objects": imported.objects,
            "warnings": imported.warnings,
        }))?,
    }
    Ok(0)
}

pub(super) async fn explain(asked: Explain) -> Result<u8, CommandError> {
    let (from, to) = (
        explain::address("--from", &asked.from)?,
        explain::address("--to", &asked.to)?,
    );
    let (inspection, code) = inspected(&asked.look.source()).await?;
    let explanation = explain::explain(&inspection, &from, &to)?;
    match asked.look.output {
        Output::Text => print(&explain::text(&explanation))?,
        Output::Json => print_json(&explanation)?,
    }
    Ok(code)
}
