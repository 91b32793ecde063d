//! What a client has after a pull, held against what the registry has: byte by byte where it keeps the image as it
//! came, and by what it unpacked and says of it where it does not.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::client::{Client, Extent, Machine};
use crate::support::hub::{Image, PlatformImage, digest_of};

/// The image has arrived, whole and unchanged.
#[track_caller]
pub(crate) fn assert_arrived(client: Client, machine: &Machine<'_>, image: &Image, extent: Extent) {
    match client {
        Client::Crane | Client::Oras | Client::Skopeo | Client::SkopeoMirror => {
            assert_eq!(layout(&machine.image()), parts_of(image, extent));
        }
        Client::PodmanMirror => assert_unpacked(machine, image),
    }
}

/// The digests that are in a layout of the OCI image specification, each file checked against its name.
fn layout(folder: &Path) -> BTreeSet<String> {
    let blobs = fs::read_dir(folder.join("blobs/sha256")).expect("an OCI layout");
    blobs
        .map(|entry| {
            let file = entry.unwrap().path();
            let name = format!("sha256:{}", file.file_name().unwrap().to_str().unwrap());
            assert_eq!(digest_of(&fs::read(&file).unwrap()), name, "{}", file.display());
            name
        })
        .collect()
}

/// The digests that such a pull brings.
fn parts_of(image: &Image, extent: Extent) -> BTreeSet<String> {
    let of = |platform: &PlatformImage| {
        [&platform.manifest, &platform.config]
            .into_iter()
            .chain(&platform.layers)
            .cloned()
            .collect::<Vec<_>>()
    };
    match extent {
        Extent::OwnPlatform => of(image.own()).into_iter().collect(),
        Extent::EveryPlatform => image.platforms.iter().flat_map(of).chain([image.digest.clone()]).collect(),
    }
}

/// podman has unpacked the layers, which it checks as they come. The config names what they unpack to, and the
/// manifest names the config.
fn assert_unpacked(machine: &Machine<'_>, image: &Image) {
    let own = image.own();
    let id = machine.ask_podman(&["image", "ls", "--no-trunc", "--quiet"]);
    assert_eq!(id, own.config);

    let digests = machine.ask_podman(&["image", "inspect", "--format", "{{join .RepoDigests \" \"}}", &id]);
    let digests: BTreeSet<&str> =
        digests.split(' ').filter_map(|name| Some(name.split_once('@')?.1)).collect();
    assert_eq!(digests, BTreeSet::from([image.digest.as_str(), own.manifest.as_str()]));

    let kept: BTreeSet<String> =
        big_data(&machine.image(), &own.config).iter().map(|bytes| digest_of(bytes)).collect();
    for part in [&image.digest, &own.manifest, &own.config] {
        assert!(kept.contains(part), "{part} is not among {kept:?}");
    }

    let root = PathBuf::from(machine.ask_podman(&["image", "mount", &id]));
    let release = fs::read_to_string(root.join("etc/tide-release")).expect("the image's last layer");
    assert_eq!(release, format!("{} {}\n", image.marker, own.platform));
}

/// The manifests and the config of an image, as podman's storage keeps them.
fn big_data(storage: &Path, config: &str) -> Vec<Vec<u8>> {
    let id = config.strip_prefix("sha256:").expect("a digest of sha256");
    let folder = fs::read_dir(storage.join("vfs-images").join(id)).expect("the image in podman's storage");
    folder.map(|entry| fs::read(entry.unwrap().path()).unwrap()).collect()
}
