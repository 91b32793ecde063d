//! Reads Prometheus's text form, and takes nothing that it does not allow.

use std::collections::{BTreeMap, BTreeSet};

/// Metrics that were scraped.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    /// The type of each, by its name.
    pub(crate) types: BTreeMap<String, String>,
    samples: BTreeMap<(String, Labels), f64>,
}

type Labels = BTreeMap<String, String>;

impl Metrics {
    /// Panics with the line that is not as it should be.
    pub(crate) fn parse(text: &str) -> Self {
        let (mut metrics, mut helped) = (Self::default(), BTreeSet::new());
        assert!(text.ends_with('\n'), "the last line has an end");
        for line in text.lines() {
            if let Some(help) = line.strip_prefix("# HELP ") {
                let (name, said) = help.split_once(' ').expect(line);
                assert!(said.ends_with('.') && helped.insert(name.to_owned()), "{line}");
            } else if let Some(kind) = line.strip_prefix("# TYPE ") {
                let (name, kind) = kind.split_once(' ').expect(line);
                assert!(helped.contains(name), "{line}: help comes first");
                assert!(metrics.types.insert(name.to_owned(), kind.to_owned()).is_none(), "twice: {line}");
            } else {
                metrics.sample(line);
            }
        }
        metrics.check();
        metrics
    }

    fn sample(&mut self, line: &str) {
        let (series, value) = line.rsplit_once(' ').expect(line);
        let value = value.parse().unwrap_or_else(|error| panic!("{line}: {error}"));
        let (name, labels) = match series.split_once('{') {
            Some((name, labels)) => (name, read_labels(labels.strip_suffix('}').expect(line))),
            None => (series, Labels::new()),
        };
        let plain = |char: char| char.is_ascii_lowercase() || char == '_' || char.is_ascii_digit();
        assert!(name.chars().all(plain), "{line}");
        assert!(self.types.contains_key(self.family(name)), "{line} has no type");
        assert!(self.samples.insert((name.to_owned(), labels), value).is_none(), "twice: {line}");
    }

    /// The metric that a series is of: a histogram has three.
    pub(crate) fn family<'a>(&self, name: &'a str) -> &'a str {
        let parts = ["_bucket", "_sum", "_count"].iter().filter_map(|part| name.strip_suffix(part));
        let of_histogram = |name: &&str| self.types.get(*name).is_some_and(|kind| kind == "histogram");
        parts.into_iter().find(of_histogram).unwrap_or(name)
    }

    fn check(&self) {
        for (name, kind) in &self.types {
            match kind.as_str() {
                "counter" => assert!(name.ends_with("_total"), "{name}"),
                "gauge" => assert!(!name.ends_with("_total"), "{name}"),
                "histogram" => {
                    assert!(name.ends_with("_seconds"), "{name}");
                    let series = format!("{name}_bucket");
                    let buckets = self.of(&series);
                    let mut buckets: Vec<_> = buckets
                        .map(|(labels, value)| (labels["le"].parse::<f64>().unwrap(), value))
                        .collect();
                    buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
                    assert!(buckets.is_sorted_by(|a, b| a.1 <= b.1), "{name}: {buckets:?}");
                    let last = buckets.last().expect("buckets");
                    assert_eq!((last.0, last.1), (f64::INFINITY, self.sum(&format!("{name}_count"), &[])));
                }
                other => panic!("{name} is a {other}"),
            }
        }
    }

    /// Every name that a query may have.
    pub(crate) fn names(&self) -> BTreeSet<&str> {
        self.samples.keys().map(|(name, _)| name.as_str()).collect()
    }

    /// Every label of a name, with the values that it has.
    pub(crate) fn labels(&self, name: &str) -> BTreeMap<&str, BTreeSet<&str>> {
        let mut found: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for (other, labels) in self.samples.keys() {
            for (label, value) in labels.iter().filter(|_| other == name) {
                found.entry(label).or_default().insert(value);
            }
        }
        found
    }

    fn of<'a>(&'a self, name: &'a str) -> impl Iterator<Item = (&'a Labels, f64)> {
        let these = self.samples.iter().filter(move |((other, _), _)| other == name);
        these.map(|((_, labels), value)| (labels, *value))
    }

    /// The sum over all series of this name that have these labels.
    pub(crate) fn sum(&self, name: &str, wished: &[(&str, &str)]) -> f64 {
        let fits = |labels: &Labels| {
            wished.iter().all(|(label, value)| labels.get(*label).is_some_and(|found| found == value))
        };
        self.of(name).filter(|(labels, _)| fits(labels)).map(|(_, value)| value).sum()
    }
}

fn read_labels(text: &str) -> Labels {
    let mut labels = Labels::new();
    let mut rest = text;
    while !rest.is_empty() {
        let (name, behind) = rest.split_once("=\"").expect(text);
        let mut value = String::new();
        let mut chars = behind.char_indices();
        let end = loop {
            match chars.next().expect(text) {
                (at, '"') => break at,
                (_, '\\') => value.push(match chars.next().expect(text).1 {
                    'n' => '\n',
                    char @ ('\\' | '"') => char,
                    other => panic!("\\{other} in {text}"),
                }),
                (_, char) => value.push(char),
            }
        };
        assert!(labels.insert(name.to_owned(), value).is_none(), "{text}");
        rest = &behind[end + 1..];
        rest = rest.strip_prefix(',').unwrap_or(rest);
    }
    labels
}
