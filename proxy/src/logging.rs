//! How both programs log: to stderr, as text for people or as JSON, a line each; no colours where nobody
//! looks at a terminal. The fields of lines are documented in `docs/logs.md`.

use std::{env, io::IsTerminal};

use clap::ValueEnum;
use tracing::{level_filters::LevelFilter, subscriber::with_default};
use tracing_subscriber::{EnvFilter, filter::Directive};

/// Form of the lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    Text,
    Json,
}

/// What is logged where `RUST_LOG` says nothing, or nothing that can be used.
const DEFAULT: &str = "info";

/// Begins to log, as `RUST_LOG` says; `quiet` are libraries, each with the directive that counts for it where
/// `RUST_LOG` does not speak of it. What it has that is no directive is told, whatever is logged.
///
/// # Panics
/// Where logging began before, or a directive is none.
pub fn start(format: LogFormat, quiet: &[(&str, &str)]) {
    let asked = env::var_os(EnvFilter::DEFAULT_ENV).unwrap_or_default();
    let asked = Directives::read(&asked.to_string_lossy());
    let mut filter = EnvFilter::new(&asked.taken);
    for (library, directive) in quiet {
        if !asked.taken.contains(library) {
            filter =
                filter.add_directive(directive.parse().expect("a directive of our own parses"));
        }
    }
    let logs = || {
        tracing_subscriber::fmt()
            .with_ansi(is_coloured())
            .with_writer(std::io::stderr)
    };
    if !asked.left_out.is_empty() {
        let tell = || asked.tell();
        match format {
            LogFormat::Text => with_default(logs().finish(), tell),
            LogFormat::Json => with_default(logs().json().flatten_event(true).finish(), tell),
        }
    }
    let logs = logs().with_env_filter(filter);
    match format {
        LogFormat::Text => logs.init(),
        // Fields stand beside message and level, so that a search names them as they are.
        LogFormat::Json => logs.json().flatten_event(true).init(),
    }
}

/// What `RUST_LOG` asks for.
#[derive(Debug, PartialEq, Eq)]
struct Directives {
    /// What is taken, in its form.
    taken: String,
    /// What is none: to the filter a word that it does not know is the name of a target, and all else is silent.
    left_out: Vec<String>,
}

impl Directives {
    fn read(asked: &str) -> Self {
        let mut taken: Vec<&str> = Vec::new();
        let mut left_out = Vec::new();
        let asked = asked.split(',').map(str::trim);
        for directive in asked.filter(|it| !it.is_empty()) {
            let is_known = is_level(directive) || directive.contains('=');
            if is_known && directive.parse::<Directive>().is_ok() {
                taken.push(directive);
            } else {
                left_out.push(directive.to_owned());
            }
        }
        // Whoever misspelt a level meant one.
        let has_level = taken.iter().any(|it| is_level(it));
        if taken.is_empty() || !left_out.is_empty() && !has_level {
            taken.insert(0, DEFAULT);
        }
        Self {
            taken: taken.join(","),
            left_out,
        }
    }

    fn tell(&self) {
        let (left_out, taken) = (self.left_out.join(", "), &self.taken);
        tracing::warn!(
            left_out,
            taken,
            "RUST_LOG has what is neither a level (off, error, warn, info, debug, trace) nor target=level: it is left out"
        );
    }
}

fn is_level(directive: &str) -> bool {
    directive.parse::<LevelFilter>().is_ok()
}

/// For a terminal, unless its user wants none (no-color.org).
fn is_coloured() -> bool {
    let unwanted = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    std::io::stderr().is_terminal() && !unwanted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_that_is_none_silences_nothing_and_is_named() {
        for (asked, taken, left_out) in [
            ("", "info", ""),
            ("warn", "warn", ""),
            ("WARN", "WARN", ""),
            (
                "warn,xmpp_edge_proxy::stream=debug",
                "warn,xmpp_edge_proxy::stream=debug",
                "",
            ),
            ("hyper=off", "hyper=off", ""),
            ("warning", "info", "warning"),
            ("verbose, hyper=off", "info,hyper=off", "verbose"),
            ("error,hyper=loud", "error", "hyper=loud"),
            ("info;debug", "info", "info;debug"),
        ] {
            let read = Directives::read(asked);
            assert_eq!(read.taken, taken, "{asked:?}");
            assert_eq!(read.left_out.join(","), left_out, "{asked:?}");
        }
    }
}
