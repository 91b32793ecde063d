//! What containerd's applier is not asked, and the daemon is: layers for somebody else, layers that never end, disks
//! that do, and clients that leave.

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use containerd_client::services::v1::ApplyRequest;
use containerd_client::services::v1::diff_client::DiffClient;
use libtest_mimic::Failed;
use tempfile::TempDir;
use tonic::Code;

use crate::applier::tidehold::{Tidehold, bind, request};
use crate::applier::{Applied, Layer, Mount, digest_of};
use crate::archive::{file, tar};
use crate::corpus::{PLAIN, ZSTD, zstd_bomb};

pub(crate) type Test = fn(&Tidehold) -> Result<(), Failed>;

pub(crate) const TESTS: &[(&str, Test)] = &[
    ("a layer that the hold does not have is left to the next differ", absent),
    ("a layer with payloads is left to the next differ", with_payloads),
    ("a media type that is unknown or encrypted is left to the next differ", media_types),
    ("mounts of another kind than the two are left to the next differ", mounts),
    ("a read-only mount is not written to", read_only),
    ("a folder that isn't there is an error", no_folder),
    ("a call without a layer is an error, as is a malformed digest", malformed),
    ("a layer damaged on the disk is not applied", damaged),
    ("a layer is applied and the file system synced, where that is asked for", synced),
    ("a layer that fills the disk ends in an error that says so", bomb),
    ("clients that leave in the middle make room for others", leaving),
];

/// How often something is looked for that nobody announces.
const LOOK_EVERY: Duration = Duration::from_millis(10);

fn absent(tidehold: &Tidehold) -> Result<(), Failed> {
    let folder = folder();
    let layer = layer("never put into the hold");
    refused(tidehold, request(&layer, &[bind(folder.path())]), &[Code::Unimplemented], folder.path())
}

fn with_payloads(tidehold: &Tidehold) -> Result<(), Failed> {
    let folder = folder();
    let layer = held(tidehold, "with payloads");
    let payloads = HashMap::from([("decrypt".to_owned(), prost_types::Any::default())]);
    let request = ApplyRequest { payloads, ..request(&layer, &[bind(folder.path())]) };
    refused(tidehold, request, &[Code::Unimplemented], folder.path())
}

fn media_types(tidehold: &Tidehold) -> Result<(), Failed> {
    let folder = folder();
    let layer = held(tidehold, "of many types");
    for media_type in [
        "application/vnd.oci.image.layer.v1.tar+gzip+encrypted",
        "application/vnd.oci.image.layer.v1.tar+encrypted",
        "application/vnd.oci.image.layer.v1.erofs",
        "application/vnd.oci.image.config.v1+json",
        "application/octet-stream",
        "",
    ] {
        let request = request(&Layer { media_type, ..layer.clone() }, &[bind(folder.path())]);
        refused(tidehold, request, &[Code::Unimplemented], folder.path())?;
    }
    Ok(())
}

fn mounts(tidehold: &Tidehold) -> Result<(), Failed> {
    let folder = folder();
    let layer = held(tidehold, "for other mounts");
    let bound = bind(folder.path());
    let other = |kind: &str, options: &[&str]| Mount {
        r#type: kind.to_owned(),
        options: options.iter().map(|option| (*option).to_owned()).collect(),
        ..bound.clone()
    };
    let lower = format!("lowerdir={0}:{0}", folder.path().display());
    for mounts in [
        vec![],
        vec![bound.clone(), bound.clone()],
        vec![other("erofs", &["ro", "loop"])],
        vec![other("ext4", &[])],
        vec![other("tmpfs", &[])],
        vec![other("format/overlay", &["upperdir={{ upper 0 }}"])],
        vec![other("", &[])],
        vec![other("overlay", &["index=off", &lower])],
        vec![other("overlay", &["upperdir=", &lower])],
        vec![other("overlay", &["upperdir=relative", &lower])],
        vec![other("bind", &["rbind", "uidmap=0:100000:65536"])],
        vec![Mount { source: "relative".to_owned(), ..bound.clone() }],
        vec![Mount { target: "/etc".to_owned(), ..bound.clone() }],
    ] {
        refused(tidehold, request(&layer, &mounts), &[Code::Unimplemented], folder.path()).map_err(
            |failed| Failed::from(format!("{mounts:?}: {}", failed.message().unwrap_or_default())),
        )?;
    }
    Ok(())
}

fn read_only(tidehold: &Tidehold) -> Result<(), Failed> {
    let folder = folder();
    let layer = held(tidehold, "for a read-only mount");
    let mount = Mount { options: vec!["ro".to_owned(), "rbind".to_owned()], ..bind(folder.path()) };
    let codes = [Code::Unimplemented, Code::FailedPrecondition];
    refused(tidehold, request(&layer, &[mount]), &codes, folder.path())
}

fn no_folder(tidehold: &Tidehold) -> Result<(), Failed> {
    let folder = folder();
    let layer = held(tidehold, "for no folder");
    let mount = bind(&folder.path().join("absent"));
    let codes = [Code::Internal, Code::NotFound, Code::FailedPrecondition];
    refused(tidehold, request(&layer, &[mount]), &codes, folder.path())
}

fn malformed(tidehold: &Tidehold) -> Result<(), Failed> {
    let folder = folder();
    let layer = layer("malformed");
    let whole = request(&layer, &[bind(folder.path())]);
    let without = ApplyRequest { diff: None, ..whole.clone() };
    refused(tidehold, without, &[Code::InvalidArgument], folder.path())?;
    for digest in ["", "sha256:abc", "../../etc/passwd"] {
        let mut request = whole.clone();
        digest.clone_into(&mut request.diff.as_mut().unwrap().digest);
        refused(tidehold, request, &[Code::InvalidArgument], folder.path())?;
    }
    Ok(())
}

fn damaged(tidehold: &Tidehold) -> Result<(), Failed> {
    let folder = folder();
    let layer = held(tidehold, "damaged later");
    let file = tidehold.file_of(&layer.digest());
    let mut bytes = fs::read(&file).unwrap();
    // The one entry's first byte.
    bytes[512] ^= 1;
    fs::write(&file, bytes).unwrap();
    refused(tidehold, request(&layer, &[bind(folder.path())]), &[Code::Unimplemented], folder.path())
}

fn synced(tidehold: &Tidehold) -> Result<(), Failed> {
    let folder = folder();
    let layer = held(tidehold, "synced");
    let applied = tidehold.ask(ApplyRequest { sync_fs: true, ..request(&layer, &[bind(folder.path())]) })?;
    let same = applied.digest == layer.digest() && fs::read(folder.path().join("file"))? == b"synced";
    if same { Ok(()) } else { Err(format!("{applied:?}").into()) }
}

fn bomb(tidehold: &Tidehold) -> Result<(), Failed> {
    let disk = SmallDisk::mount();
    // A file of 1 GiB, of which nothing is there but runs of zeros.
    let size = 1_i64 << 30;
    let header = tar([file("bomb", "").claims_size(size)])[..512].to_vec();
    let layer = Layer { bytes: zstd_bomb(&header, 8192), media_type: ZSTD };
    tidehold.hold(&layer);
    let status = tidehold.ask(request(&layer, &[bind(disk.path())])).err().ok_or("it was applied")?;
    if status.code() != Code::ResourceExhausted || !status.message().contains("space") {
        return Err(format!("{status}").into());
    }
    serves(tidehold)
}

fn leaving(tidehold: &Tidehold) -> Result<(), Failed> {
    // What follows the end of an archive is hashed and not written: half a tebibyte of it, so that nobody waits for it.
    let start = tar([file("first", "written before the long part")]);
    let endless = Layer { bytes: zstd_bomb(&start, 4 << 20), media_type: ZSTD };
    tidehold.hold(&endless);
    // More than are applied at a time on any machine, one after the other.
    for _ in 0..10 {
        let folder = folder();
        let begun = folder.path().join("first");
        let mut client = DiffClient::new(tidehold.channel());
        let call = client.apply(request(&endless, &[bind(folder.path())]));
        let left = tidehold.runtime().block_on(async {
            tokio::select! {
                answer = call => Err(format!("it was answered: {answer:?}")),
                () = appears(&begun) => Ok(()),
            }
        });
        left?;
    }
    serves(tidehold)
}

async fn appears(path: &Path) {
    while !path.exists() {
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Whether it goes on: a layer is applied, whole.
fn serves(tidehold: &Tidehold) -> Result<(), Failed> {
    let folder = folder();
    let layer = held(tidehold, "still served");
    let applied = tidehold.ask(request(&layer, &[bind(folder.path())]))?;
    let size = i64::try_from(layer.bytes.len()).unwrap();
    let whole = Applied { digest: digest_of(&layer.bytes), size, media_type: PLAIN.to_owned() };
    if applied != whole {
        return Err(format!("{applied:?} instead of {whole:?}").into());
    }
    let written = fs::read(folder.path().join("file"))?;
    if written == b"still served" { Ok(()) } else { Err("another file than the layer's".into()) }
}

/// Checks that a call fails with one of these codes and words, and that nothing is written.
fn refused(tidehold: &Tidehold, request: ApplyRequest, codes: &[Code], folder: &Path) -> Result<(), Failed> {
    match tidehold.ask(request) {
        Ok(applied) => Err(format!("it was applied: {applied:?}").into()),
        Err(status) if !codes.contains(&status.code()) || status.message().is_empty() => {
            Err(format!("it was refused by other words: {status}").into())
        }
        Err(_) if fs::read_dir(folder)?.next().is_some() => Err("something was written".into()),
        Err(_) => Ok(()),
    }
}

fn folder() -> TempDir {
    tempfile::Builder::new().prefix("tidehold-trees-").tempdir().unwrap()
}

fn layer(text: &str) -> Layer {
    Layer { bytes: tar([file("file", text)]), media_type: PLAIN }
}

fn held(tidehold: &Tidehold, text: &str) -> Layer {
    let layer = layer(text);
    tidehold.hold(&layer);
    layer
}

/// A file system with room for 16 MiB. Dropping it unmounts it.
struct SmallDisk(TempDir);

impl SmallDisk {
    fn mount() -> Self {
        let folder = folder();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=16m", "tidehold-trees"])
            .arg(folder.path())
            .status()
            .unwrap();
        assert!(mounted.success(), "a tmpfs can be mounted");
        Self(folder)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.path()).status();
    }
}
