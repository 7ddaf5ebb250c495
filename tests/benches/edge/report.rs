//! What is printed, and written into docs/performance.md: a table for each part, which replaces the one of the
//! run before. What is more than a tenth worse than there is said.

use std::{fs, path::PathBuf};

use anyhow::{Context, Result};

/// A figure that grows by more than this is told.
const WORSE: f64 = 1.1;

/// The table of one part.
pub struct Table {
    part: &'static str,
    /// The column that is compared with the run before: less is better.
    judged: usize,
    lines: Vec<String>,
}

impl Table {
    pub fn new(part: &'static str, judged: usize, head: &[&str]) -> Self {
        let mut table = Self {
            part,
            judged,
            lines: Vec::new(),
        };
        table.line(head);
        table.line(&vec!["---"; head.len()]);
        table
    }

    /// One row; its first cell is its name.
    pub fn row(&mut self, cells: &[String]) {
        let cells: Vec<&str> = cells.iter().map(String::as_str).collect();
        self.line(&cells);
    }

    fn line(&mut self, cells: &[&str]) {
        let line = format!("| {} |", cells.join(" | "));
        println!("{line}");
        self.lines.push(line);
    }

    /// Compares with what docs/performance.md has, and takes its place there.
    pub fn end(self) -> Result<()> {
        let path = PathBuf::from(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../docs/performance.md"
        ));
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let (begin, end) = (
            format!("<!-- bench:{}:begin -->\n", self.part),
            format!("<!-- bench:{}:end -->", self.part),
        );
        let place = text.split_once(&begin).and_then(|(before, rest)| {
            let (old, after) = rest.split_once(&end)?;
            Some((before, old, after))
        });
        let (before, old, after) =
            place.with_context(|| format!("docs/performance.md has no place for {}", self.part))?;
        for line in &self.lines {
            let was = old.lines().find(|old| name(old) == name(line));
            let figures = (was.and_then(|was| self.figure(was)), self.figure(line));
            if let (Some(was), Some(is)) = figures
                && is > was * WORSE
            {
                println!(
                    "worse than the last table: {}: {is} after {was}",
                    name(line)
                );
            }
        }
        let lines = self.lines.join("\n");
        fs::write(&path, format!("{before}{begin}{lines}\n{end}{after}"))?;
        println!();
        Ok(())
    }

    /// The number that the judged cell begins with.
    fn figure(&self, line: &str) -> Option<f64> {
        let cell = line.split('|').nth(self.judged + 1)?.trim();
        let digits = cell
            .split(|c: char| c != '.' && !c.is_ascii_digit())
            .next()?;
        digits.parse().ok()
    }
}

fn name(line: &str) -> &str {
    line.split('|').nth(1).unwrap_or_default().trim()
}
