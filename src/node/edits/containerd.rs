//! containerd's own configuration: one content store, the differ, and where the hosts of registries are.
//!
//! A file of version 1 is brought to version 2 first where the store is swapped: by its short names the builtin store
//! cannot be told from the service in front of it. So it is where a containerd 2.x is to find hosts in it.

use std::path::Path;

use toml_edit::{Array, ArrayOfTables, DocumentMut, Item, Key, Table, TableLike, Value};

use crate::node::containerd::{
    BUILTIN_STORE, DIFF_SERVICE, METADATA, TRANSFER, Version, full_name, registry_plugin,
};

use super::table::{Place, edited, include, look, remark, set, table};
use super::{NOTE, Refusal};

/// The name of our content store in `[proxy_plugins]`, and of our stream processor.
const STORE: &str = "tidehold";

/// That of our differ.
pub const DIFFER: &str = "tidehold-diff";

/// The differ of containerd itself.
pub const WALKING: &str = "walking";

/// What a containerd is to be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted<'a> {
    /// The one folder with the hosts of registries, where it has to be written.
    pub hosts: Option<&'a str>,
    /// The content store, unless that is to stay what it is.
    pub store: Option<Store<'a>>,
    /// Whether this containerd is a 2.x, which finds no hosts in a file of version 1.
    pub is_2: bool,
}

/// Tidehold as the content store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Store<'a> {
    /// The content socket.
    pub socket: &'a Path,
    /// How layers are unpacked from there.
    pub differ: Differ<'a>,
}

/// How layers are unpacked quickly.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Differ<'a> {
    /// By Tidehold, for this platform and snapshotter; containerd 1.7 and later.
    Proxy {
        /// Such as `linux/amd64`.
        platform: &'a str,
        /// Such as `overlayfs`.
        snapshotter: &'a str,
        /// Whether a differ of containerd's own stays wherever the transfer service is told of it: somebody has put it in
        /// the place of ours.
        walking_is_chosen: bool,
    },
    /// By this program in the place of the decompression; containerd 1.6.
    Processor {
        /// The program `tidehold`.
        program: &'a Path,
    },
}

impl<'a> Differ<'a> {
    /// The one for a version of containerd.
    pub fn of(version: Version, platform: &'a str, program: &'a Path) -> Self {
        if version.has_differs() {
            Self::Proxy { platform, snapshotter: "overlayfs", walking_is_chosen: false }
        } else {
            Self::Processor { program }
        }
    }
}

/// Writes what is wanted into a containerd's configuration; an empty text is that of a file that is still to be made.
///
/// # Errors
/// What stands against it.
pub fn configure(text: &str, wanted: &Wanted<'_>) -> Result<String, Refusal> {
    edited(text, |document| {
        let mut version = file_version(document);
        let bare = document.as_table().is_empty();
        let unread = wanted.is_2 && wanted.hosts.is_some();
        if version < 2 && (wanted.store.is_some() || unread || bare) {
            if bare {
                // What is there are comments: they stay above.
                let mut comments = document.trailing().as_str().unwrap_or_default().to_owned();
                if !comments.is_empty() && !comments.ends_with('\n') {
                    comments.push('\n');
                }
                document.set_trailing("");
                document.insert("version", Item::Value(Value::from(2)));
                if let Some(mut key) = document.key_mut("version") {
                    key.leaf_decor_mut().set_prefix(comments);
                }
            } else {
                upgrade(document)?;
            }
            version = 2;
        }
        if let Some(hosts) = wanted.hosts {
            let registry = table(document.as_item_mut(), &["plugins", registry_plugin(version), "registry"])?;
            remark(registry, "");
            set(registry, "config_path", hosts)?;
        }
        if let Some(store) = &wanted.store {
            swap_store(document, store)?;
        }
        Ok(())
    })
}

fn file_version(document: &DocumentMut) -> i64 {
    document.get("version").and_then(Item::as_integer).filter(|version| *version > 0).unwrap_or(1)
}

fn swap_store(document: &mut DocumentMut, store: &Store<'_>) -> Result<(), Refusal> {
    let socket = socket_text(store.socket)?;
    let root = document.as_item_mut();
    if let Some(other) = other_store(root, socket) {
        return Err(Refusal::new(
            format!("it has a content store of another kind already, [proxy_plugins.{other}]"),
            "remove that entry, or run this with --mirror-only to leave the content store alone",
        ));
    }
    include(root, "disabled_plugins", BUILTIN_STORE, Place::End)?;
    include(root, "required_plugins", METADATA, Place::End)?;
    proxy(root, STORE, "content", socket)?;
    match store.differ {
        Differ::Proxy { platform, snapshotter, walking_is_chosen } => {
            proxy(root, DIFFER, "diff", socket)?;
            let service = table(root, &["plugins", DIFF_SERVICE])?;
            if look(service, &["default"]).is_none() {
                set(service, "default", Array::from_iter([DIFFER, WALKING]))?;
            }
            include(service, "default", DIFFER, Place::First)?;
            unpack(table(root, &["plugins", TRANSFER])?, platform, snapshotter, walking_is_chosen)
        }
        Differ::Processor { program } => processor(root, socket, program),
    }
}

fn socket_text(socket: &Path) -> Result<&str, Refusal> {
    socket.to_str().ok_or_else(|| {
        Refusal::new("the content socket's path is no UTF-8", "give it another in Tidehold's configuration")
    })
}

/// The name of a content store that is not ours. One on our own socket is, whatever it is called.
fn other_store(root: &Item, socket: &str) -> Option<String> {
    let proxies = look(root, &["proxy_plugins"])?.as_table_like()?;
    let text = |item: &Item, key| look(item, &[key]).and_then(Item::as_str).map(str::to_owned);
    let other = |item: &Item| {
        text(item, "type").as_deref() == Some("content") && text(item, "address").as_deref() != Some(socket)
    };
    proxies.iter().find(|(name, item)| *name != STORE && other(item)).map(|(name, _)| name.to_owned())
}

fn proxy(root: &mut Item, name: &str, kind: &str, socket: &str) -> Result<(), Refusal> {
    if same_proxy(root, kind, socket) {
        return Ok(());
    }
    let entry = table(root, &["proxy_plugins", name])?;
    remark(entry, NOTE);
    set(entry, "type", kind)?;
    set(entry, "address", socket)
}

/// Whether there is such an entry, by whatever name.
fn same_proxy(root: &Item, kind: &str, socket: &str) -> bool {
    let Some(proxies) = look(root, &["proxy_plugins"]).and_then(Item::as_table_like) else { return false };
    let is = |item: &Item, key, text| look(item, &[key]).and_then(Item::as_str) == Some(text);
    proxies.iter().any(|(_, item)| is(item, "type", kind) && is(item, "address", socket))
}

/// The differs that a text's transfer service is told of, for Linux.
pub fn transfer_differs(text: &str) -> Vec<String> {
    let Ok(table) = text.parse::<toml::Table>() else { return Vec::new() };
    let entries =
        table.get("plugins").and_then(|plugins| plugins.get(TRANSFER)?.get("unpack_config")?.as_array());
    let entries = entries.into_iter().flatten().filter(|entry| {
        entry
            .get("platform")
            .and_then(toml::Value::as_str)
            .is_some_and(|platform| platform.starts_with("linux"))
    });
    entries.filter_map(|entry| entry.get("differ")?.as_str().map(str::to_owned)).collect()
}

/// Has the transfer service use our differ wherever it would use containerd's own, unless that is what somebody wants: it is
/// where it is all that is written. `containerd config default` writes all other keys too, and since 1.7.28 this one.
fn unpack(
    transfer: &mut Item,
    platform: &str,
    snapshotter: &str,
    walking_is_chosen: bool,
) -> Result<(), Refusal> {
    let is_default = ["max_concurrent_downloads", "max_concurrent_uploaded_layers"]
        .iter()
        .all(|key| look(transfer, &[key]).is_some());
    let replaced: &[&str] = if is_default && !walking_is_chosen { &["", WALKING] } else { &[""] };
    let around = transfer.as_table_like_mut().ok_or_else(no_unpack_config)?;
    match around.get_mut("unpack_config") {
        None => {
            let mut entry = Table::new();
            for (key, value) in [("platform", platform), ("snapshotter", snapshotter), ("differ", DIFFER)] {
                entry.insert(key, Item::Value(Value::from(value)));
            }
            let mut entries = ArrayOfTables::new();
            entries.push(entry);
            // Within an inline table, or after dotted keys, an array is written inline.
            let inline = transfer.as_table().is_none_or(Table::is_dotted);
            if let Some(table) = transfer.as_table_mut()
                && table.is_empty()
                && !inline
            {
                table.set_implicit(true);
            }
            let around = transfer.as_table_like_mut().ok_or_else(no_unpack_config)?;
            let entries = if inline {
                Item::Value(Value::Array(entries.into_array()))
            } else {
                Item::ArrayOfTables(entries)
            };
            around.insert("unpack_config", entries);
        }
        Some(Item::ArrayOfTables(entries)) => {
            for entry in entries.iter_mut() {
                let ours = takes_our_differ(entry, replaced);
                let mut item = Item::Table(std::mem::take(entry));
                if ours {
                    set(&mut item, "differ", DIFFER)?;
                }
                if let Item::Table(changed) = item {
                    *entry = changed;
                }
            }
        }
        Some(Item::Value(Value::Array(entries))) => {
            for entry in entries.iter_mut() {
                if entry.as_inline_table().is_some_and(|entry| takes_our_differ(entry, replaced)) {
                    let mut item = Item::Value(entry.clone());
                    set(&mut item, "differ", DIFFER)?;
                    if let Item::Value(changed) = item {
                        *entry = changed;
                    }
                }
            }
        }
        Some(_) => return Err(no_unpack_config()),
    }
    Ok(())
}

fn takes_our_differ(entry: &dyn TableLike, replaced: &[&str]) -> bool {
    let text = |key| entry.get(key).and_then(Item::as_str).unwrap_or_default();
    replaced.contains(&text("differ"))
        && text("platform").starts_with("linux")
        && text("snapshotter") != "erofs"
}

fn no_unpack_config() -> Refusal {
    Refusal::new(format!("unpack_config of {TRANSFER} is no array of tables"), "mend it first")
}

fn processor(root: &mut Item, socket: &str, program: &Path) -> Result<(), Refusal> {
    let program = program.to_str().ok_or_else(|| {
        Refusal::new("the path of the program tidehold is no UTF-8", "name another with --program")
    })?;
    let entry = table(root, &["stream_processors", STORE])?;
    remark(entry, NOTE);
    let layers = [
        "application/vnd.docker.image.rootfs.diff.tar.gzip",
        "application/vnd.oci.image.layer.v1.tar+gzip",
        "application/vnd.oci.image.layer.v1.tar+zstd",
    ];
    set(entry, "accepts", Array::from_iter(layers))?;
    set(entry, "returns", "application/vnd.oci.image.layer.v1.tar")?;
    set(entry, "path", program)?;
    set(entry, "args", Array::from_iter(["decompress", "--socket", socket]))
}

/// Gives a file of version 1 the names of version 2, as containerd does when it reads one.
fn upgrade(document: &mut DocumentMut) -> Result<(), Refusal> {
    for key in ["disabled_plugins", "required_plugins"] {
        let Some(array) = document.get_mut(key).and_then(Item::as_array_mut) else { continue };
        for value in array.iter_mut() {
            let Some(full) = value.as_str().map(|name| full_name(name, 1)) else { continue };
            let decor = value.decor().clone();
            if value.as_str() != Some(&full) {
                *value = Value::from(full);
                *value.decor_mut() = decor;
            }
        }
    }
    if let Some(plugins) = document.get_mut("plugins").and_then(Item::as_table_like_mut) {
        rename(plugins);
    }
    document.insert("version", Item::Value(Value::from(2)));
    Ok(())
}

fn rename(plugins: &mut dyn TableLike) {
    let names: Vec<String> = plugins.iter().map(|(name, _)| name.to_owned()).collect();
    // All are taken out and put in again, so that they keep their order.
    for name in names {
        let decors = plugins.key(&name).map(|key| (key.leaf_decor().clone(), key.dotted_decor().clone()));
        let Some(item) = plugins.remove(&name) else { continue };
        let mut key = Key::new(full_name(&name, 1));
        if let Some((leaf, dotted)) = decors {
            key = key.with_leaf_decor(leaf).with_dotted_decor(dotted);
        }
        let full = key.get().to_owned();
        plugins.entry_format(&key).or_insert(item);
        debug_assert!(plugins.contains_key(&full));
    }
}
