//! The commands that read files and ask nobody: `validate`, `render`, `explain`, `import-lync`.

use std::io::Write;

use super::{Explain, Failure, ImportLync, Look, NOT_SO, Output, print, print_json};
use crate::{
    inspect::{self, Inspection},
    lync,
    standalone::status::Note,
};

pub(super) fn validate(look: &Look) -> Result<u8, Failure> {
    let inspection = Inspection::of(&look.manifests, jiff::Timestamp::now())?;
    let validation = inspect::validate::validate(&inspection);
    match look.output {
        Output::Text => print(&validation.text())?,
        Output::Json => print_json(&validation)?,
    }
    Ok(if validation.valid { 0 } else { NOT_SO })
}

/// Reads for `render` and `explain`: what is wrong goes to stderr, and is the exit code.
fn inspected(look: &Look) -> Result<(Inspection, u8), Failure> {
    let inspection = Inspection::of(&look.manifests, jiff::Timestamp::now())?;
    let mut code = 0;
    for note in inspection.notes() {
        if note.severity() == crate::compile::Severity::Error {
            code = NOT_SO;
        }
        say(&note);
    }
    Ok((inspection, code))
}

fn say(note: &Note) {
    let _ = writeln!(std::io::stderr(), "{note}");
}

pub(super) fn render(look: &Look) -> Result<u8, Failure> {
    let (inspection, code) = inspected(look)?;
    let rendered = inspect::render::render(&inspection, jiff::Timestamp::now())?;
    match look.output {
        Output::Text => print(&inspect::render::yaml(&rendered)?)?,
        Output::Json => print_json(&rendered)?,
    }
    Ok(code)
}

pub(super) fn import(asked: &ImportLync) -> Result<u8, Failure> {
    let bytes = std::fs::read(&asked.file).map_err(|source| Failure::Export {
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

pub(super) fn explain(asked: &Explain) -> Result<u8, Failure> {
    let (from, to) = (
        inspect::explain::address("--from", &asked.from)?,
        inspect::explain::address("--to", &asked.to)?,
    );
    let (inspection, code) = inspected(&asked.look)?;
    let explanation = inspect::explain::explain(&inspection, &from, &to)?;
    match asked.look.output {
        Output::Text => print(&inspect::explain::text(&explanation))?,
        Output::Json => print_json(&explanation)?,
    }
    Ok(code)
}
