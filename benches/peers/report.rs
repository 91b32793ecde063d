//! What was measured: samples of several sides in rows, as a table and as JSON.

use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::{Options, places};

/// The results of a section: one table for each chapter.
#[derive(Debug)]
pub(crate) struct Report {
    section: &'static str,
    chapters: Vec<Chapter>,
    /// What could not be measured, and why; and what has to be known to read the rest.
    notes: Vec<String>,
}

/// Rows that are compared with the same side.
#[derive(Debug)]
struct Chapter {
    first: &'static str,
    rows: Vec<Row>,
}

#[derive(Debug)]
struct Row {
    what: String,
    unit: &'static str,
    sides: Vec<Side>,
}

#[derive(Debug)]
struct Side {
    name: String,
    samples: Vec<f64>,
}

impl Report {
    pub(crate) fn new(section: &'static str) -> Self {
        Self { section, chapters: Vec::new(), notes: Vec::new() }
    }

    /// Begins a table whose ratios are over this side.
    pub(crate) fn compare_with(&mut self, first: &'static str) {
        self.chapters.push(Chapter { first, rows: Vec::new() });
    }

    /// Takes down one sample, and says so to whoever waits.
    pub(crate) fn add(&mut self, what: &str, unit: &'static str, side: &str, sample: f64) {
        eprintln!("  {what}: {side}: {} {unit}", number(sample));
        self.add_quietly(what, unit, side, sample);
    }

    /// Takes down one sample.
    pub(crate) fn add_quietly(&mut self, what: &str, unit: &'static str, side: &str, sample: f64) {
        let rows = &mut self.chapters.last_mut().expect("a table that was begun").rows;
        let at = rows.iter().position(|row| row.what == what).unwrap_or_else(|| {
            rows.push(Row { what: what.to_owned(), unit, sides: Vec::new() });
            rows.len() - 1
        });
        let sides = &mut rows[at].sides;
        match sides.iter_mut().find(|known| known.name == side) {
            Some(known) => known.samples.push(sample),
            None => sides.push(Side { name: side.to_owned(), samples: vec![sample] }),
        }
    }

    /// Takes down something that belongs beneath the table, once.
    pub(crate) fn note(&mut self, said: impl Into<String>) {
        let said = said.into();
        if !self.notes.contains(&said) {
            eprintln!("  {said}");
            self.notes.push(said);
        }
    }

    /// Medians, with the smallest and the largest, and how they compare with the first side's.
    pub(crate) fn tables(&self) -> String {
        let mut tables = format!("## {}\n", self.section);
        for chapter in &self.chapters {
            tables.push_str(&chapter.table());
        }
        for note in &self.notes {
            let _ = write!(tables, "\n* {note}");
        }
        tables.push('\n');
        tables
    }

    /// Writes the samples, and answers where to.
    pub(crate) fn write(&self, options: &Options) -> PathBuf {
        let only: String =
            options.only.iter().map(|word| format!("-{}", word.replace(['/', ' '], "-"))).collect();
        let file = places::results().join(format!("{}{only}.json", self.section));
        let rows =
            |chapter: &Chapter| chapter.rows.iter().map(|row| row.json(chapter.first)).collect::<Vec<_>>();
        let rows: Vec<Value> = self.chapters.iter().flat_map(rows).collect();
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let all = json!({
            "section": self.section,
            "quick": options.quick,
            "machine": { "cores": cores, "cpu": cpu_model(), "kernel": kernel.trim() },
            "rows": rows,
            "notes": self.notes,
        });
        fs::write(&file, format!("{all:#}\n")).expect("a file beneath target");
        file
    }
}

impl Chapter {
    fn table(&self) -> String {
        let mut names = vec![self.first];
        for side in self.rows.iter().flat_map(|row| &row.sides) {
            if !names.contains(&side.name.as_str()) {
                names.push(&side.name);
            }
        }
        let mut table = String::from("\n| |");
        for (index, name) in names.iter().enumerate() {
            let _ = write!(table, " {name} |{}", if index == 0 { "" } else { " ratio |" });
        }
        table.push_str("\n|---|");
        table.push_str(&"---|".repeat(names.len() * 2 - 1));
        for row in &self.rows {
            let _ = write!(table, "\n| {}, {} |", row.what, row.unit);
            for (index, name) in names.iter().enumerate() {
                let side = row.sides.iter().find(|side| side.name == *name);
                let _ = write!(table, " {} |", side.map_or_else(|| "–".to_owned(), Side::shown));
                if index > 0 {
                    let ratio = side.and_then(|side| row.ratio(side, self.first));
                    let shown = ratio.map_or_else(|| "–".to_owned(), |ratio| format!("{ratio:.2}"));
                    let _ = write!(table, " {shown} |");
                }
            }
        }
        table.push('\n');
        table
    }
}

impl Row {
    fn ratio(&self, side: &Side, first: &str) -> Option<f64> {
        let base = self.sides.iter().find(|side| side.name == first)?.median();
        (base > 0.0).then(|| side.median() / base)
    }

    fn json(&self, first: &str) -> Value {
        let side = |side: &Side| {
            json!({
                "name": side.name,
                "median": side.median(),
                "min": side.smallest(),
                "max": side.largest(),
                "ratio": self.ratio(side, first),
                "samples": side.samples,
            })
        };
        let sides: Vec<Value> = self.sides.iter().map(side).collect();
        json!({ "what": self.what, "unit": self.unit, "sides": sides })
    }
}

impl Side {
    fn median(&self) -> f64 {
        quantile(&self.samples, 0.5)
    }

    fn smallest(&self) -> f64 {
        quantile(&self.samples, 0.0)
    }

    fn largest(&self) -> f64 {
        quantile(&self.samples, 1.0)
    }

    fn shown(&self) -> String {
        let median = number(self.median());
        if self.samples.len() == 1 {
            return median;
        }
        format!("{median} ({}–{})", number(self.smallest()), number(self.largest()))
    }
}

/// The sample that this share of all does not exceed; of two in the middle, the mean.
pub(crate) fn quantile(samples: &[f64], share: f64) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let place = share * (sorted.len() - 1) as f64;
    let (below, above) = (sorted[place.floor() as usize], sorted[place.ceil() as usize]);
    if share == 0.5 { f64::midpoint(below, above) } else { above }
}

/// Three figures are all that a measurement has.
fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 0.1 || size == 0.0 => format!("{value:.2}"),
        _ => format!("{value:.4}"),
    }
}

fn cpu_model() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = text.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    model.map_or_else(String::new, |(_, model)| model.to_owned())
}
