//! A picture of figures that grow, for the docs: SVG, one panel beside the other, logarithmic sizes.

use std::{fmt::Write, fs, path::Path};

use anyhow::Result;

/// Pixels of a panel, and what is left round its lines.
const WIDTH: f64 = 240.0;
const HEIGHT: f64 = 200.0;
const MARGIN: f64 = 42.0;

pub struct Panel {
    pub title: &'static str,
    /// Size and figure.
    pub points: Vec<(f64, f64)>,
}

/// Writes `docs/images/<name>`; all panels have the scale of the highest figure.
pub fn write(name: &str, unit: &str, panels: &[Panel]) -> Result<()> {
    let figures = panels.iter().flat_map(|it| &it.points).map(|(_, y)| *y);
    let most = figures.fold(0.1, f64::max) * 1.1;
    let mut svg = String::new();
    let whole = WIDTH * panels.len() as f64;
    writeln!(
        svg,
        "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {whole} {HEIGHT}' font-family='sans-serif' font-size='10'>\n\
         <title>{unit}</title>\n<rect width='{whole}' height='{HEIGHT}' fill='white'/>"
    )?;
    for (at, panel) in panels.iter().enumerate() {
        draw(&mut svg, WIDTH * at as f64, unit, most, panel)?;
    }
    svg.push_str("</svg>\n");
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/images");
    Ok(fs::write(folder.join(name), svg)?)
}

fn draw(svg: &mut String, left: f64, unit: &str, most: f64, panel: &Panel) -> Result<()> {
    let (first, last) = (panel.points.first(), panel.points.last());
    let (Some((first, _)), Some((last, _))) = (first, last) else {
        return Ok(());
    };
    let (low, high) = (first.log10(), last.log10());
    let x = |size: f64| {
        let share = (size.log10() - low) / (high - low).max(f64::EPSILON);
        left + MARGIN + share * (WIDTH - MARGIN - 24.0)
    };
    let y = |figure: f64| HEIGHT - MARGIN - figure / most * (HEIGHT - 2.0 * MARGIN);
    let (bottom, start) = (y(0.0), left + MARGIN);
    let title = panel.title;
    writeln!(
        svg,
        "<path d='M{start} {MARGIN}V{bottom}H{:.0}' fill='none' stroke='black'/>\n\
         <text x='{start}' y='16' font-weight='bold'>{title}</text>\n<text x='{start}' y='30'>{unit}</text>",
        left + WIDTH - 20.0
    )?;
    for part in [0.5, 1.0] {
        let figure = most / 1.1 * part;
        writeln!(
            svg,
            "<text x='{:.0}' y='{:.0}' text-anchor='end'>{figure:.2}</text>",
            start - 4.0,
            y(figure) + 3.0
        )?;
    }
    let mut line = String::new();
    for (size, figure) in &panel.points {
        let (x, y) = (x(*size), y(*figure));
        write!(line, "{x:.1},{y:.1} ")?;
        writeln!(
            svg,
            "<circle cx='{x:.1}' cy='{y:.1}' r='2.5'/><text x='{x:.1}' y='{:.0}' text-anchor='middle'>{size}</text>",
            bottom + 14.0
        )?;
    }
    writeln!(
        svg,
        "<polyline points='{}' fill='none' stroke='black' stroke-width='1.5'/>",
        line.trim_end()
    )?;
    Ok(())
}
