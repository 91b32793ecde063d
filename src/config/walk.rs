//! Walks TOML tables key by key and goes on after every fault.
//!
//! Owns the three things any table can have wrong with it: a key nobody knows, a value of the wrong type,
//! a value its reader objects to. Knows no key by name; [`super::tables`] does.

use std::ops::{Range, RangeInclusive};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::faults::{Sink, Wrong};

/// What a key turned out to hold.
pub(super) enum Read<T> {
    /// The key is not there.
    Absent,
    /// It is there and a fault was reported: whatever depends on it must stay silent.
    Faulty,
    /// Its value and where that stands.
    Set(T, Range<usize>),
}

impl<T> Read<T> {
    /// The value, or the default. A faulty one is replaced too: the configuration is refused anyway.
    pub(super) fn or(self, default: T) -> T {
        match self {
            Read::Set(value, _) => value,
            Read::Absent | Read::Faulty => default,
        }
    }

    /// As [`Read::or`], but nothing where a fault was reported: for checks that compare values.
    pub(super) fn certain_or(&self, default: T) -> Option<T>
    where
        T: Clone,
    {
        match self {
            Read::Set(value, _) => Some(value.clone()),
            Read::Absent => Some(default),
            Read::Faulty => None,
        }
    }

    /// Where the value stands, if it was given and is sound.
    pub(super) fn place(&self) -> Option<&Range<usize>> {
        match self {
            Read::Set(_, place) => Some(place),
            Read::Absent | Read::Faulty => None,
        }
    }
}

/// A table that was opened for reading, or the lack of one, which reads as empty.
pub(super) struct Section<'t> {
    table: Option<&'t DeTable<'t>>,
    path: String,
    place: Range<usize>,
    homes: Homes,
}

impl<'t> Section<'t> {
    /// The document itself. `homes` lists the keys of every table, for hints on misplaced ones.
    pub(super) fn root(document: &'t DeTable<'t>, keys: &[&str], homes: Homes, sink: &mut Sink) -> Self {
        let section = Self { table: Some(document), path: String::new(), place: 0..0, homes };
        section.report_unknown(keys, sink);
        section
    }

    /// Where the table opens.
    pub(super) fn place(&self) -> &Range<usize> {
        &self.place
    }

    /// The path of one of its keys, as TOML would write it.
    pub(super) fn path_of(&self, key: &str) -> String {
        let bare = !key.is_empty()
            && key.chars().all(|char| char.is_ascii_alphanumeric() || char == '_' || char == '-');
        let key = if bare { key.to_owned() } else { format!("{:?}", short(key)) };
        if self.path.is_empty() { key } else { format!("{}.{key}", self.path) }
    }

    /// Opens the table under `key`; one that is missing, or no table at all, reads as empty.
    pub(super) fn table(&self, key: &str, keys: &[&str], sink: &mut Sink) -> Section<'t> {
        let path = self.path_of(key);
        match self.value(key) {
            Some(value) => {
                let header = format!("[{path}]");
                self.open(value, path, &header, keys, sink)
            }
            None => Section { table: None, path, place: self.place.clone(), homes: self.homes },
        }
    }

    /// Opens every table of the array of tables under `key`.
    pub(super) fn tables(&self, key: &str, keys: &[&str], sink: &mut Sink) -> Vec<Section<'t>> {
        let path = self.path_of(key);
        let Some(value) = self.value(key) else { return Vec::new() };
        let DeValue::Array(array) = value.get_ref() else {
            let found = format!("expected an array of tables, found {}", found(value.get_ref()));
            sink.fault(&value.span(), &path, Wrong::new(found, format!("write it under [[{path}]]")));
            return Vec::new();
        };
        let header = format!("[[{path}]]");
        let each = array.iter().enumerate();
        each.map(|(index, value)| self.open(value, format!("{path}[{index}]"), &header, keys, sink)).collect()
    }

    /// The keys that are not in `keys`, each with its place, and what stands there when it is a table.
    pub(super) fn others(&self, keys: &[&str]) -> Vec<Other<'t>> {
        let entries = self.table.into_iter().flatten();
        let others = entries.filter(|(key, _)| !keys.contains(&key.get_ref().as_ref()));
        let others = others.map(|(key, value)| Other {
            key: key.get_ref().as_ref(),
            place: key.span(),
            table: value.get_ref().as_table(),
        });
        others.collect()
    }

    /// Reads text with `read`; `example` is what to write where something other than text stands.
    pub(super) fn text<T>(
        &self,
        key: &str,
        example: &str,
        read: impl Fn(&str) -> Result<T, Wrong>,
        sink: &mut Sink,
    ) -> Read<T> {
        let Some(value) = self.value(key) else { return Read::Absent };
        match one_text(value.get_ref(), example, read) {
            Ok(read) => Read::Set(read, value.span()),
            Err(wrong) => {
                sink.fault(&value.span(), &self.path_of(key), wrong);
                Read::Faulty
            }
        }
    }

    /// Reads one text or an array of them, of which none may come to the same as another. What is set has at least
    /// one member.
    pub(super) fn texts<T: PartialEq>(
        &self,
        key: &str,
        example: &str,
        read: impl Fn(&str) -> Result<T, Wrong>,
        sink: &mut Sink,
    ) -> Read<Vec<T>> {
        let Some(value) = self.value(key) else { return Read::Absent };
        let DeValue::Array(array) = value.get_ref() else {
            return match self.text(key, example, read, sink) {
                Read::Absent => Read::Absent,
                Read::Faulty => Read::Faulty,
                Read::Set(one, place) => Read::Set(vec![one], place),
            };
        };
        let path = self.path_of(key);
        if array.is_empty() {
            let instead = format!("write {example:?}, or leave the key out");
            sink.fault(&value.span(), &path, Wrong::new("the array is empty", instead));
            return Read::Faulty;
        }
        let mut members: Vec<(usize, T)> = Vec::new();
        for (index, value) in array.iter().enumerate() {
            let member = one_text(value.get_ref(), example, &read).and_then(|member| {
                match members.iter().find(|(_, other)| *other == member) {
                    Some((first, _)) => {
                        let problem = format!("this is the same as {path}[{first}]");
                        Err(Wrong::new(problem, "write each once"))
                    }
                    None => Ok(member),
                }
            });
            match member {
                Ok(member) => members.push((index, member)),
                Err(wrong) => sink.fault(&value.span(), &format!("{path}[{index}]"), wrong),
            }
        }
        if members.len() < array.len() {
            return Read::Faulty;
        }
        Read::Set(members.into_iter().map(|(_, member)| member).collect(), value.span())
    }

    /// Reads `true` or `false`.
    pub(super) fn switch(&self, key: &str, sink: &mut Sink) -> Read<bool> {
        let Some(value) = self.value(key) else { return Read::Absent };
        if let DeValue::Boolean(switch) = value.get_ref() {
            return Read::Set(*switch, value.span());
        }
        let problem = format!("expected true or false, found {}", found(value.get_ref()));
        let instead = match value.get_ref().as_str() {
            Some(text @ ("true" | "false")) => format!("write {text} without quotes"),
            _ => "write true or false".to_owned(),
        };
        sink.fault(&value.span(), &self.path_of(key), Wrong::new(problem, instead));
        Read::Faulty
    }

    /// Reads a whole number within these bounds.
    pub(super) fn count(&self, key: &str, bounds: RangeInclusive<usize>, sink: &mut Sink) -> Read<usize> {
        let Some(value) = self.value(key) else { return Read::Absent };
        let (least, most) = (bounds.start(), bounds.end());
        let problem = match value.get_ref() {
            DeValue::Integer(number) => match number.to_string().parse::<usize>() {
                Ok(number) if bounds.contains(&number) => return Read::Set(number, value.span()),
                Ok(_) | Err(_) => format!("{number} is not from {least} to {most}"),
            },
            other => format!("expected a number, found {}", found(other)),
        };
        let instead = format!("write a number from {least} to {most}, without quotes");
        sink.fault(&value.span(), &self.path_of(key), Wrong::new(problem, instead));
        Read::Faulty
    }

    fn open(
        &self,
        value: &'t Spanned<DeValue<'t>>,
        path: String,
        header: &str,
        keys: &[&str],
        sink: &mut Sink,
    ) -> Self {
        let table = value.get_ref().as_table();
        if table.is_none() {
            let problem = format!("expected a table, found {}", found(value.get_ref()));
            sink.fault(&value.span(), &path, Wrong::new(problem, format!("write its keys under {header}")));
        }
        let section = Self { table, path, place: value.span(), homes: self.homes };
        section.report_unknown(keys, sink);
        section
    }

    fn report_unknown(&self, keys: &[&str], sink: &mut Sink) {
        if keys.contains(&ANY_KEY) {
            return;
        }
        for other in self.others(keys) {
            let instead = hint(other.key, keys, self.homes);
            sink.fault(&other.place, &self.path_of(other.key), Wrong::new("unknown key", instead));
        }
    }

    fn value(&self, key: &str) -> Option<&'t Spanned<DeValue<'t>>> {
        self.table.and_then(|table| table.get(key))
    }
}

/// A key outside a table's fixed ones.
pub(super) struct Other<'t> {
    pub(super) key: &'t str,
    pub(super) place: Range<usize>,
    pub(super) table: Option<&'t DeTable<'t>>,
}

/// Among a table's keys: any other key is fine too, because whoever opens it looks at those itself.
pub(super) const ANY_KEY: &str = "*";

/// Where each table is, as "in [table]", with the keys that live there.
pub(super) type Homes = &'static [(&'static str, &'static [&'static str])];

/// What to write for a key that is not among `keys`: its right table, the nearest key, or the choice.
pub(super) fn hint(key: &str, keys: &[&str], homes: Homes) -> String {
    let at_home: Vec<&str> =
        homes.iter().filter(|(_, keys)| keys.contains(&key)).map(|(place, _)| *place).collect();
    if !at_home.is_empty() {
        return format!("move it: {} belongs {}", short(key), at_home.join(" or "));
    }
    let named = keys.iter().filter(|key| **key != ANY_KEY);
    let near = named.clone().map(|known| (strsim::damerau_levenshtein(known, &short(key)), known));
    match near.min_by_key(|(distance, _)| *distance) {
        Some((distance, known)) if distance <= (known.len() / 3).max(1) => format!("write {known}"),
        _ => format!("write one of {}", named.copied().collect::<Vec<_>>().join(", ")),
    }
}

/// A text from the file, cut to what fits in a message.
pub(super) fn short(text: &str) -> String {
    const CHARS: usize = 64;
    let mut chars = text.chars();
    let mut short: String = chars.by_ref().take(CHARS).collect();
    if chars.next().is_some() {
        short.push('…');
    }
    short
}

/// Reads a value that must be text.
fn one_text<T>(value: &DeValue, example: &str, read: impl Fn(&str) -> Result<T, Wrong>) -> Result<T, Wrong> {
    let DeValue::String(text) = value else {
        let problem = format!("expected text in quotes, found {}", found(value));
        // A bare number often lacks only its unit: what the reader says of it is the better advice.
        let instead = match value {
            DeValue::Integer(number) => read(&number.to_string()).err().map(|wrong| wrong.instead),
            _ => None,
        };
        return Err(Wrong::new(problem, instead.unwrap_or_else(|| format!("write {example:?}"))));
    };
    read(text)
}

fn found(value: &DeValue) -> &'static str {
    match value {
        DeValue::String(_) => "text",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a fraction",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "an array",
        DeValue::Table(_) => "a table",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOMES: Homes =
        &[("in [cache]", &["max_size"]), ("in [mirror]", &["listen"]), ("in [web]", &["listen"])];

    #[test]
    fn a_hint_knows_the_right_table_the_nearest_key_or_the_choice() {
        assert_eq!(hint("max_size", &["listen"], HOMES), "move it: max_size belongs in [cache]");
        assert_eq!(hint("listen", &["socket"], HOMES), "move it: listen belongs in [mirror] or in [web]");
        assert_eq!(hint("max-size", &["reserve_free", "max_size"], HOMES), "write max_size");
        assert_eq!(
            hint("colour", &["max_size", "reserve_free"], HOMES),
            "write one of max_size, reserve_free"
        );
    }

    #[test]
    fn long_texts_are_cut_by_characters() {
        assert_eq!(short("é"), "é");
        assert_eq!(short(&"é".repeat(65)), format!("{}…", "é".repeat(64)));
    }
}
