//! What podman and BuildKit are told, where they are told at all: neither reads containerd's hosts.

use toml_edit::{Array, Item};

use super::table::{Place, edited, include, look, remark, set, table};
use super::{NOTE, Refusal};

/// A file of podman's own, for `registries.conf.d`: for each registry the mirror, which is told of the registry by the path.
pub fn podman(registries: &[&str], mirror: &str) -> String {
    let mut text = NOTE.to_owned();
    let at = authority(mirror);
    for registry in registries {
        text += &format!(
            "[[registry]]\nprefix = \"{registry}\"\nlocation = \"{registry}\"\n\
             [[registry.mirror]]\nlocation = \"{at}/{registry}\"\ninsecure = true\n"
        );
    }
    text
}

/// Puts the mirror before those that `buildkitd.toml` has for these registries.
///
/// # Errors
/// What stands against it.
pub fn buildkit(text: &str, registries: &[&str], mirror: &str) -> Result<String, Refusal> {
    let at = authority(mirror);
    edited(text, |document| {
        let root = document.as_item_mut();
        for registry in registries {
            let entry = table(root, &["registry", registry])?;
            remark(entry, NOTE);
            if look(entry, &["mirrors"]).is_none() {
                set(entry, "mirrors", Array::from_iter([at]))?;
            }
            include(entry, "mirrors", at, Place::First)?;
        }
        let own = table(root, &["registry", at])?;
        if look(own, &["http"]).and_then(Item::as_bool) != Some(true) {
            set(own, "http", true)?;
        }
        Ok(())
    })
}

fn authority(mirror: &str) -> &str {
    mirror.trim_start_matches("http://")
}
