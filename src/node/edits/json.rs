//! `daemon.json` of dockerd, which knows mirrors of Docker Hub alone.

use serde_json::{Map, Value};

use super::Refusal;

/// Puts the mirror first among dockerd's `registry-mirrors`. What else is there stays, in its order; an empty text is that
/// of a file that is still to be made.
///
/// # Errors
/// That it is no JSON, or not of dockerd's form.
pub fn docker(text: &str, mirror: &str) -> Result<String, Refusal> {
    let mut root: Map<String, Value> = if text.trim().is_empty() {
        Map::new()
    } else {
        serde_json::from_str(text)
            .map_err(|error| Refusal::new(format!("it is no JSON object: {error}"), "mend it first"))?
    };
    let mirrors = root.entry("registry-mirrors").or_insert_with(|| Value::Array(Vec::new()));
    let Value::Array(mirrors) = mirrors else {
        return Err(Refusal::new("its registry-mirrors are no array", "mend it first"));
    };
    let same = |value: &Value| value.as_str().is_some_and(|url| url.trim_end_matches('/') == mirror);
    if mirrors.first().is_some_and(same) {
        return Ok(text.to_owned());
    }
    mirrors.retain(|value| !same(value));
    mirrors.insert(0, Value::String(mirror.to_owned()));
    let indent = text.lines().find_map(|line| {
        let indent = line.len() - line.trim_start().len();
        (indent > 0).then(|| line.get(..indent).unwrap_or("  "))
    });
    let mut written = Vec::new();
    let formatter = serde_json::ser::PrettyFormatter::with_indent(indent.unwrap_or("  ").as_bytes());
    let mut serializer = serde_json::Serializer::with_formatter(&mut written, formatter);
    serde::Serialize::serialize(&root, &mut serializer)
        .map_err(|error| Refusal::new(format!("it cannot be written again: {error}"), "edit it by hand"))?;
    let mut written = String::from_utf8_lossy(&written).into_owned();
    if text.is_empty() || text.ends_with('\n') {
        written.push('\n');
    }
    Ok(if text.contains("\r\n") { written.replace('\n', "\r\n") } else { written })
}
