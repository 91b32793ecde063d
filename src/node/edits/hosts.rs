//! `hosts.toml`: whom containerd and nerdctl ask for what a registry has.

use toml_edit::{Array, DocumentMut, Item, Table};

use super::table::{Place, edited, include, look, remark, set};
use super::{NOTE, Refusal};

/// Puts the mirror before the hosts of a `hosts.toml`; an empty text is that of a file that is still to be made.
///
/// # Errors
/// What stands against it.
pub fn hosts(text: &str, mirror: &str) -> Result<String, Refusal> {
    if text.is_empty() {
        // 1.6 and 1.7 take a file without a table of hosts for damaged.
        return Ok(format!("{NOTE}[host.\"{mirror}\"]\n  capabilities = [\"pull\", \"resolve\"]\n"));
    }
    edited(text, |document| {
        let root = document.as_table_mut();
        let host = root.entry("host").or_insert_with(|| {
            let mut table = Table::new();
            table.set_implicit(true);
            Item::Table(table)
        });
        let Some(hosts) = host.as_table_mut().filter(|table| !table.is_dotted()) else {
            return Err(odd(mirror));
        };
        if hosts.iter().any(|(_, item)| item.as_table().is_none_or(Table::is_dotted)) {
            return Err(odd(mirror));
        }
        put_first(hosts, mirror)?;
        let Some(ours) = hosts.get_mut(mirror) else { return Err(odd(mirror)) };
        for capability in ["pull", "resolve"] {
            if look(ours, &["capabilities"]).is_some() {
                include(ours, "capabilities", capability, Place::End)?;
            }
        }
        Ok(())
    })
}

/// What a `hosts.toml` says that comes to the same as these files beside it, which containerd takes by their names where it
/// finds no `hosts.toml` (`loadCertFiles`): empty where none of them is a certificate.
pub fn with_certificates(files: &[String]) -> String {
    let authorities: Array = files.iter().filter(|name| name.ends_with(".crt")).map(String::as_str).collect();
    let mut clients = Array::new();
    for name in files {
        let Some(stem) = name.strip_suffix(".cert") else { continue };
        // One without a key has that in it.
        let key = files.iter().find(|key| key.strip_suffix(".key") == Some(stem)).unwrap_or(name);
        clients.push(Array::from_iter([name.as_str(), key.as_str()]));
    }
    let mut document = DocumentMut::new();
    for (key, values) in [("ca", authorities), ("client", clients)] {
        if !values.is_empty() {
            document.insert(key, Item::Value(values.into()));
        }
    }
    document.to_string()
}

/// Whether a `hosts.toml` names any host beside the mirror.
pub fn has_hosts(text: &str, mirror: &str) -> bool {
    let Ok(table) = text.parse::<toml::Table>() else { return true };
    let hosts = table.get("host").and_then(toml::Value::as_table);
    hosts.is_some_and(|hosts| hosts.keys().any(|host| host != mirror))
}

/// The hosts are asked in the order in which they stand in the file.
fn put_first(hosts: &mut Table, mirror: &str) -> Result<(), Refusal> {
    let first = hosts.iter().min_by_key(|(_, item)| item.as_table().and_then(Table::position));
    if first.is_some_and(|(name, _)| name == mirror) {
        return Ok(());
    }
    let position = first.and_then(|(_, item)| item.as_table()?.position());
    let mut ours = match hosts.remove(mirror) {
        Some(Item::Table(ours)) => ours,
        Some(_) => return Err(odd(mirror)),
        None => {
            let mut item = Item::Table(Table::new());
            remark(&mut item, NOTE);
            set(&mut item, "capabilities", Array::from_iter(["pull", "resolve"]))?;
            item.into_table().map_err(|_| odd(mirror))?
        }
    };
    ours.set_position(position);
    let names: Vec<String> = hosts.iter().map(|(name, _)| name.to_owned()).collect();
    let mut others = Vec::new();
    for name in names {
        others.extend(hosts.remove_entry(&name));
    }
    hosts.insert(mirror, Item::Table(ours));
    for (key, item) in others {
        hosts.insert_formatted(&key, item);
    }
    Ok(())
}

fn odd(mirror: &str) -> Refusal {
    Refusal::new(
        "its hosts are not written as tables [host.\"URL\"]",
        format!("put [host.\"{mirror}\"] with capabilities = [\"pull\", \"resolve\"] before them yourself"),
    )
}
