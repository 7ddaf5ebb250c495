//! The commands that read files and ask nobody: `validate`, `render`, `explain`, `import-lync`.

pub(super) mod explain;
mod findings;
mod inspection;
mod outside;
pub(super) mod render;
mod sidecars;
mod validate;

use std::io::Write;

use self::inspection::Inspection;
use super::{
    CommandError, EXIT_FAILURE, Explain, ImportLync, ManifestArgs, Output, Render, print,
    print_json,
};
use crate::{lync, standalone::status::Note};

pub(super) fn validate(look: &ManifestArgs) -> Result<u8, CommandError> {
    let inspection = Inspection::of(&look.manifests, jiff::Timestamp::now())?;
    let validation = validate::validate(&inspection, &look.manifests);
    match look.output {
        Output::Text => print(&validation.text())?,
        Output::Json => print_json(&validation)?,
    }
    Ok(if validation.valid { 0 } else { EXIT_FAILURE })
}

/// Reads for `render` and `explain`: what is wrong goes to stderr, and is the exit code.
fn inspected(look: &ManifestArgs) -> Result<(Inspection, u8), CommandError> {
    let inspection = Inspection::of(&look.manifests, jiff::Timestamp::now())?;
    let mut code = 0;
    for note in inspection.notes() {
        if note.severity() == crate::compile::Severity::Error {
            code = EXIT_FAILURE;
        }
        say(&note);
    }
    Ok((inspection, code))
}

fn say(note: &Note) {
    let _ = writeln!(std::io::stderr(), "{note}");
}

pub(super) fn render(asked: Render) -> Result<u8, CommandError> {
    let look = match (asked.manifests, asked.sidecars.sidecar.is_some()) {
        (Some(manifests), false) => ManifestArgs {
            manifests,
            output: asked.output,
        },
        _ => return sidecars::render(&asked.sidecars, asked.output),
    };
    let (inspection, code) = inspected(&look)?;
    let rendered = render::render(&inspection, jiff::Timestamp::now())?;
    match look.output {
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

pub(super) fn explain(asked: &Explain) -> Result<u8, CommandError> {
    let (from, to) = (
        explain::address("--from", &asked.from)?,
        explain::address("--to", &asked.to)?,
    );
    let (inspection, code) = inspected(&asked.look)?;
    let explanation = explain::explain(&inspection, &from, &to)?;
    match asked.look.output {
        Output::Text => print(&explain::text(&explanation))?,
        Output::Json => print_json(&explanation)?,
    }
    Ok(code)
}
