//! `docs/mistakes.md`: which message each mistake leads to, as tables that tests compare with what the
//! programs print. `…` in a message stands for whatever is there.

use std::{fs, path::Path};

/// One row: what somebody did, and the message.
#[derive(Clone, Debug)]
pub struct Row {
    pub mistake: String,
    pub message: String,
}

impl Row {
    /// Whether a program's text has the message: all its parts, in order.
    pub fn is_in(&self, text: &str) -> bool {
        let mut rest = text;
        self.message.split('…').map(str::trim).all(|part| {
            let Some(at) = rest.find(part) else {
                return false;
            };
            rest = &rest[at + part.len()..];
            true
        })
    }
}

/// The rows of the table below a heading of the page.
///
/// # Panics
/// When there is no such heading, or no table below it.
pub fn rows(heading: &str) -> Vec<Row> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/mistakes.md");
    let page = fs::read_to_string(path).expect("docs/mistakes.md is there");
    let below = page
        .lines()
        .skip_while(|line| line.trim_start_matches('#').trim() != heading)
        .skip(1)
        .take_while(|line| !line.starts_with('#'));
    let table = below.filter(|line| line.starts_with("| ")).skip(2);
    let rows: Vec<Row> = table
        .map(|line| {
            let line = line.replace("\\|", "\u{0}");
            let mut cells = line
                .trim_matches('|')
                .split('|')
                .map(|cell| cell.trim().replace('\u{0}', "|"));
            let (mistake, message) = (cells.next(), cells.next());
            Row {
                mistake: mistake.unwrap_or_default(),
                message: message.unwrap_or_default(),
            }
        })
        .collect();
    assert!(
        !rows.is_empty(),
        "docs/mistakes.md: nothing below {heading:?}"
    );
    rows
}

/// Compares the table below a heading with the messages that mistakes led to: each message has a
/// row, and each row was met.
///
/// # Panics
/// Naming what differs.
pub fn compare(heading: &str, messages: &[String]) {
    let rows = rows(heading);
    let unlisted: Vec<&String> = messages
        .iter()
        .filter(|message| !rows.iter().any(|row| row.is_in(message)))
        .collect();
    let unmet: Vec<&Row> = rows
        .iter()
        .filter(|row| !messages.iter().any(|message| row.is_in(message)))
        .collect();
    assert!(
        unlisted.is_empty() && unmet.is_empty(),
        "docs/mistakes.md, {heading:?}\nnot listed: {unlisted:#?}\nlisted, and nothing leads to it: {unmet:#?}"
    );
}
