//! Numbers of runs.

use std::time::Duration;

pub fn median(figures: impl Iterator<Item = f64>) -> f64 {
    let mut figures: Vec<f64> = figures.collect();
    figures.sort_unstable_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or(f64::NAN)
}

pub fn bounds(figures: impl Iterator<Item = f64>) -> (f64, f64) {
    figures.fold((f64::INFINITY, 0.0), |(least, most), figure| {
        (figure.min(least), figure.max(most))
    })
}

/// Microseconds each.
pub fn micros(cpu: Duration, count: u64) -> f64 {
    cpu.as_secs_f64() * 1e6 / count as f64
}

pub fn per_second(count: u64, took: Duration) -> f64 {
    count as f64 / took.as_secs_f64()
}
