//! How both programs log: to stderr, as text for people or as JSON, a line each; no colours where nobody
//! looks at a terminal. The fields of lines are documented in `docs/logs.md`.

use std::{env, io::IsTerminal};

use clap::ValueEnum;
use tracing_subscriber::EnvFilter;

/// Form of the lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    Text,
    Json,
}

/// Begins to log. Without `RUST_LOG` at level info; `quiet` are libraries, each with the directive that
/// counts for it where `RUST_LOG` does not speak of it.
///
/// # Panics
/// Where logging began before, or a directive is none.
pub fn start(format: LogFormat, quiet: &[(&str, &str)]) {
    let mut filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let asked = env::var(EnvFilter::DEFAULT_ENV).unwrap_or_default();
    for (library, directive) in quiet {
        if !asked.contains(library) {
            filter =
                filter.add_directive(directive.parse().expect("a directive of our own parses"));
        }
    }
    let logs = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(is_coloured())
        .with_writer(std::io::stderr);
    match format {
        LogFormat::Text => logs.init(),
        // Fields stand beside message and level, so that a search names them as they are.
        LogFormat::Json => logs.json().flatten_event(true).init(),
    }
}

/// For a terminal, unless its user wants none (no-color.org).
fn is_coloured() -> bool {
    let unwanted = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    std::io::stderr().is_terminal() && !unwanted
}
