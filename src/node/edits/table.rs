//! What the edits of TOML share: finding a table in whatever form it is written, and adding to it in the same form.

use toml_edit::{Array, DocumentMut, InlineTable, Item, RawString, Table, TableLike, Value};

use super::Refusal;

/// Parses a text, lets it be edited and gives it out as it was but for that: toml_edit itself knows no line ends but `\n`.
pub(super) fn edited(
    text: &str,
    edit: impl FnOnce(&mut DocumentMut) -> Result<(), Refusal>,
) -> Result<String, Refusal> {
    let bare = text.strip_prefix('\u{feff}').unwrap_or(text);
    let windows = bare.contains("\r\n");
    let unix = if windows { bare.replace("\r\n", "\n") } else { bare.to_owned() };
    let mut document = unix.parse::<DocumentMut>().map_err(|error| {
        Refusal::new(format!("it is no valid TOML: {}", error.to_string().trim_end()), "mend it first")
    })?;
    let before = document.to_string();
    let mut last = 0;
    each_table(document.as_table_mut(), &mut |table| last = last.max(table.position().unwrap_or_default()));
    edit(&mut document)?;
    new_tables_last(&mut document, last);
    let after = document.to_string();
    if after == before {
        return Ok(text.to_owned());
    }
    let after = if windows { after.replace('\n', "\r\n") } else { after };
    Ok(if bare.len() == text.len() { after } else { format!("\u{feff}{after}") })
}

/// Puts the tables that were made behind all that was there, the last comments included: what is in one of those may be a
/// key of the table above it, and would be one of ours below ours.
fn new_tables_last(document: &mut DocumentMut, mut last: isize) {
    let trailing = document.trailing().as_str().unwrap_or_default().to_owned();
    let mut comments = Some(trailing).filter(|trailing| !trailing.is_empty());
    each_table(document.as_table_mut(), &mut |table| {
        if table.position().is_some() || table.is_dotted() {
            return;
        }
        last += 1;
        table.set_position(Some(last));
        let has_a_head = !table.is_implicit() || !table.get_values().is_empty();
        if let Some(mut before) = comments.take_if(|_| has_a_head) {
            if !before.ends_with('\n') {
                before.push('\n');
            }
            before += table.decor().prefix().and_then(RawString::as_str).unwrap_or("\n");
            table.decor_mut().set_prefix(before);
        }
    });
    document.set_trailing(comments.unwrap_or_default());
}

/// Goes through the tables below one, in the order in which they are written where nothing else is said.
fn each_table(around: &mut Table, visit: &mut impl FnMut(&mut Table)) {
    for (_, item) in around.iter_mut() {
        match item {
            Item::Table(table) => {
                visit(table);
                each_table(table, visit);
            }
            Item::ArrayOfTables(tables) => {
                for table in tables.iter_mut() {
                    visit(table);
                    each_table(table, visit);
                }
            }
            Item::None | Item::Value(_) => {}
        }
    }
}

/// The table at a path, made in the form of the table around it where it is missing.
pub(super) fn table<'i>(item: &'i mut Item, path: &[&str]) -> Result<&'i mut Item, Refusal> {
    let Some((first, rest)) = path.split_first() else { return Ok(item) };
    let new = match &*item {
        Item::Table(around) => {
            let mut table = Table::new();
            table.set_dotted(around.is_dotted());
            table.set_implicit(!rest.is_empty());
            Item::Table(table)
        }
        Item::Value(Value::InlineTable(_)) => Item::Value(Value::InlineTable(InlineTable::new())),
        Item::None | Item::Value(_) | Item::ArrayOfTables(_) => return Err(no_table(first)),
    };
    let around = item.as_table_like_mut().ok_or_else(|| no_table(first))?;
    if !around.contains_key(first) {
        around.insert(first, new);
    }
    let found = around.get_mut(first).filter(|found| found.is_table_like());
    table(found.ok_or_else(|| no_table(first))?, rest)
}

/// As `table`, for reading alone.
pub(super) fn look<'i>(item: &'i Item, path: &[&str]) -> Option<&'i Item> {
    path.iter().try_fold(item, |item, key| item.as_table_like()?.get(key))
}

/// Writes a value into a table: in the place and with the comments of the one before, or at its end.
pub(super) fn set(item: &mut Item, key: &str, value: impl Into<Value>) -> Result<(), Refusal> {
    let table = item.as_table_like_mut().ok_or_else(|| no_table(key))?;
    let mut value = value.into();
    if let Some(Item::Value(old)) = table.get_mut(key) {
        if old.to_string().trim() != value.to_string().trim() {
            *value.decor_mut() = old.decor().clone();
            *old = value;
        }
        return Ok(());
    }
    let indent = indent(table);
    table.insert(key, Item::Value(value));
    if let (Some(indent), Some(mut key)) = (indent, table.key_mut(key)) {
        key.leaf_decor_mut().set_prefix(indent);
    }
    Ok(())
}

/// How the keys of a table are indented, where that can be told; inline tables have none.
fn indent(table: &dyn TableLike) -> Option<String> {
    let written: Vec<&toml_edit::Key> =
        table.get_values().iter().filter_map(|(path, _)| path.first().copied()).collect();
    let prefix = written.last()?.leaf_decor().prefix().and_then(RawString::as_str)?;
    let indent = prefix.rsplit('\n').next().unwrap_or_default();
    (!indent.is_empty() && indent.chars().all(char::is_whitespace)).then(|| indent.to_owned())
}

/// Has an array of texts contain one more, at its end or as its first, laid out as the others are. The array is made
/// where it is missing.
pub(super) fn include(item: &mut Item, key: &str, text: &str, place: Place) -> Result<(), Refusal> {
    let table = item.as_table_like_mut().ok_or_else(|| no_table(key))?;
    let Some(found) = table.get_mut(key) else {
        return set(item, key, Array::from_iter([text]));
    };
    let array = found
        .as_array_mut()
        .ok_or_else(|| Refusal::new(format!("{key} is no array there"), "mend it first"))?;
    if array.iter().any(|value| value.as_str() == Some(text)) {
        return Ok(());
    }
    let mut value = Value::from(text);
    match place {
        Place::First => {
            if let Some(first) = array.get(0) {
                *value.decor_mut() = first.decor().clone();
                value.decor_mut().set_suffix("");
                // Two on one line are set apart.
                let spaced = |prefix: &RawString| prefix.as_str().is_some_and(|prefix| !prefix.is_empty());
                if !first.decor().prefix().is_some_and(spaced)
                    && let Some(first) = array.get_mut(0)
                {
                    first.decor_mut().set_prefix(" ");
                }
            }
            array.insert_formatted(0, value);
        }
        Place::End => {
            let last = array.len().checked_sub(1).and_then(|last| array.get_mut(last));
            if let Some(last) = last {
                let prefix = last.decor().prefix().and_then(RawString::as_str).unwrap_or_default().to_owned();
                // A comment before the last one is its own.
                let line = prefix.rfind('\n').map(|at| prefix.get(at..).unwrap_or_default().to_owned());
                value.decor_mut().set_prefix(line.unwrap_or_else(|| " ".to_owned()));
                let suffix = last.decor().suffix().and_then(RawString::as_str).unwrap_or_default().to_owned();
                // What stood between it and the closing bracket.
                if !suffix.contains('#') {
                    last.decor_mut().set_suffix("");
                    value.decor_mut().set_suffix(suffix);
                }
            }
            array.push_formatted(value);
        }
    }
    Ok(())
}

/// Where in an array.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    First,
    End,
}

/// Sets the comment above a table that has just been made.
pub(super) fn remark(item: &mut Item, comment: &str) {
    if let Some(table) = item.as_table_mut()
        && table.decor().prefix().is_none()
        && !table.is_dotted()
    {
        table.decor_mut().set_prefix(format!("\n{comment}"));
    }
}

fn no_table(key: &str) -> Refusal {
    Refusal::new(format!("{key} is in no table there, or is none itself"), "mend it first")
}
