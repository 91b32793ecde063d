//! A disk whose every step might have been the last: what a kill or a loss of power would leave, as values.
//!
//! The trial lets the steps through to the real disk. Before each it takes down what is there, in the forms that an
//! end at this moment may leave behind. So one run gives every crash point, and a crash is nothing but a value.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use super::model::Model;
use crate::store::disk::{Disk, Step};
use crate::store::index::{Entries, Index};

pub(in crate::store) struct Trial {
    root: PathBuf,
    lie: Option<Lie>,
    model: Arc<Mutex<Model>>,
    seen: Mutex<Seen>,
}

/// A wait for the disk that the disk lies about: the proof that the checks would notice were it left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lie {
    FileSync,
    BlobFolderSync,
    MarkFolderSync,
    NoteFolderSync,
    FlushIndex,
}

/// Everything below the data folder, as a value.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Image {
    pub(super) folders: BTreeSet<PathBuf>,
    pub(super) files: BTreeMap<PathBuf, Content>,
    /// `None` where it is damaged.
    pub(super) index: Option<Entries>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Content {
    pub(super) bytes: Vec<u8>,
    modified_at: SystemTime,
}

/// An end, what was promised by then, and where it came.
pub(super) struct Crash {
    pub(super) at: String,
    /// What is there for whoever opens it next.
    pub(super) image: Image,
    /// The same names with the bytes that were synced.
    pub(super) synced: Image,
    /// What a loss of power right after would leave.
    pub(super) durable: Image,
    pub(super) model: Model,
}

#[derive(Default)]
struct Seen {
    crashes: Vec<Crash>,
    steps: usize,
    next_file: usize,
    /// What stands where, and what of that a loss of power leaves.
    names: BTreeMap<PathBuf, Node>,
    durable_names: BTreeMap<PathBuf, Node>,
    durable_contents: BTreeMap<usize, Content>,
    index: Option<Entries>,
    durable_index: Option<Entries>,
}

#[derive(Clone, Copy, PartialEq)]
enum Node {
    Folder,
    File(usize),
}

impl Trial {
    /// Lays out what a crash left in an empty folder and puts that on trial.
    pub(super) fn of(crash: &Crash, root: &Path, model: Arc<Mutex<Model>>, lie: Option<Lie>) -> Disk {
        let Crash { image, synced, durable, .. } = crash;
        image.lay_out(root);
        let mut seen =
            Seen { index: image.index.clone(), durable_index: durable.index.clone(), ..Seen::default() };
        for folder in &image.folders {
            seen.names.insert(root.join(folder), Node::Folder);
        }
        for path in image.files.keys() {
            let node = seen.new_file();
            seen.names.insert(root.join(path), Node::File(node));
            if let Some(content) = synced.files.get(path) {
                seen.durable_contents.insert(node, content.clone());
            }
        }
        let outlasts = |path: &Path| {
            let name = path.strip_prefix(root).unwrap();
            durable.folders.contains(name) || durable.files.contains_key(name)
        };
        seen.durable_names = seen.names.clone();
        seen.durable_names.retain(|path, _| outlasts(path));
        let trial = Self { root: root.to_owned(), lie, model, seen: Mutex::new(seen) };
        Disk { trial: Some(Arc::new(trial)), ..Disk::default() }
    }

    pub(in crate::store) fn take<T, E: From<io::Error>>(
        &self,
        step: Step<'_>,
        act: impl FnOnce() -> Result<T, E>,
    ) -> Result<T, E> {
        let mut seen = self.seen.lock().unwrap();
        self.take_down(&mut seen, &described(step));
        let done = act();
        if done.is_ok() && !self.lie.is_some_and(|lie| lie.is_about(step)) {
            seen.note(step, &self.root);
        }
        done
    }

    /// Every end that there could have been, the one after the last step included.
    pub(super) fn crashes(&self) -> Vec<Crash> {
        let mut seen = self.seen.lock().unwrap();
        self.take_down(&mut seen, "the end");
        std::mem::take(&mut seen.crashes)
    }

    fn take_down(&self, seen: &mut Seen, step: &str) {
        let number = seen.steps;
        seen.steps += 1;
        let step = step.replace(&format!("{}/", self.root.display()), "");
        let as_it_is = Image { index: None, ..Image::of(&self.root) };
        let durable = Image { index: seen.durable_index.clone(), ..seen.durable(&self.root) };
        let synced = seen.with_durable_contents(&as_it_is, &self.root);
        let files = [
            ("killed", as_it_is, &synced),
            // The names came to the disk before the bytes.
            ("bytes lost", synced.clone(), &synced),
            ("power lost", durable.clone(), &durable),
        ];
        let indexes = [("index kept", &seen.index), ("index as flushed", &seen.durable_index)];
        let model = self.model.lock().unwrap().clone();
        let mut crashes = Vec::new();
        for (files_how, image, synced) in files {
            for (index_how, index) in indexes {
                let image = Image { index: index.clone(), ..image.clone() };
                let at = format!("before step {number}, {step}: {files_how}, {index_how}");
                let (synced, durable, model) = (synced.clone(), durable.clone(), model.clone());
                crashes.push(Crash { at, image, synced, durable, model });
            }
        }
        for crash in crashes {
            let same = |other: &Crash| other.image == crash.image && other.model == crash.model;
            if !seen.crashes.iter().rev().take(12).any(same) {
                seen.crashes.push(crash);
            }
        }
    }
}

fn described(step: Step<'_>) -> String {
    match step {
        Step::Index { tree, key, value } => {
            let verb = if value.is_some() { "put" } else { "remove" };
            format!("{verb} {:?} in {tree}", String::from_utf8_lossy(key))
        }
        step => format!("{step:?}"),
    }
}

impl Lie {
    fn is_about(self, step: Step<'_>) -> bool {
        match (self, step) {
            (Self::FileSync, Step::Sync(_)) | (Self::FlushIndex, Step::FlushIndex) => true,
            (Self::BlobFolderSync, Step::SyncFolder(folder)) => {
                folder.ancestors().any(|at| at.ends_with("blobs"))
            }
            (Self::MarkFolderSync, Step::SyncFolder(folder)) => {
                folder.ancestors().any(|at| at.ends_with("adopted"))
            }
            (Self::NoteFolderSync, Step::SyncFolder(folder)) => folder.ends_with("entering"),
            _ => false,
        }
    }
}

impl Seen {
    fn new_file(&mut self) -> usize {
        self.next_file += 1;
        self.next_file
    }

    fn note(&mut self, step: Step<'_>, root: &Path) {
        match step {
            Step::MakeFolder(path) => {
                self.names.insert(path.to_owned(), Node::Folder);
            }
            Step::Create(path) => {
                let file = Node::File(self.new_file());
                self.names.insert(path.to_owned(), file);
            }
            // What is in the files is read from the disk.
            Step::Write(path) | Step::Truncate(path) => {
                assert!(
                    !path.starts_with(root.join("blobs")),
                    "{} is a blob and never changes",
                    path.display()
                );
            }
            Step::Sync(path) => {
                if let Some(Node::File(file)) = self.names.get(path) {
                    self.durable_contents.insert(*file, Content::of(path));
                }
            }
            Step::SyncFolder(folder) => {
                self.durable_names.retain(|path, _| path.parent() != Some(folder));
                let inside = self.names.iter().filter(|(path, _)| path.parent() == Some(folder));
                self.durable_names.extend(inside.map(|(path, node)| (path.clone(), *node)));
                if folder == root && self.durable_index.is_none() && self.index.is_some() {
                    self.durable_index = Some(Entries::new());
                }
            }
            Step::Rename(from, _) if from.ends_with("index") => self.index = Some(Entries::new()),
            Step::Rename(from, to) => {
                if let Some(node) = self.names.remove(from) {
                    self.names.insert(to.to_owned(), node);
                }
            }
            Step::Remove(path) => {
                self.names.remove(path);
            }
            Step::Index { tree, key, value } => {
                let index = self.index.get_or_insert_default();
                let key = (tree.to_owned(), key.to_vec());
                match value {
                    Some(value) => index.insert(key, value.to_vec()),
                    None => index.remove(&key),
                };
            }
            Step::FlushIndex => self.durable_index = self.index.clone(),
        }
    }

    fn with_durable_contents(&self, image: &Image, root: &Path) -> Image {
        let lost = |(path, content): (&PathBuf, &Content)| {
            let durable = match self.names.get(&root.join(path)) {
                Some(Node::File(file)) => self.durable_contents.get(file).cloned(),
                Some(Node::Folder) | None => None,
            };
            (path.clone(), durable.unwrap_or(Content { bytes: Vec::new(), ..content.clone() }))
        };
        Image { files: image.files.iter().map(lost).collect(), ..image.clone() }
    }

    /// Only names whose folder was synced, below folders whose own names were; only bytes that were synced.
    fn durable(&self, root: &Path) -> Image {
        let mut image = Image { index: None, ..Image::default() };
        for (path, node) in &self.durable_names {
            let mut above = path.ancestors().skip(1).take_while(|folder| *folder != root);
            if !above.all(|folder| self.durable_names.get(folder) == Some(&Node::Folder)) {
                continue;
            }
            let Ok(name) = path.strip_prefix(root) else { continue };
            match node {
                Node::Folder => {
                    image.folders.insert(name.to_owned());
                }
                Node::File(file) => {
                    let empty = || Content { bytes: Vec::new(), modified_at: SystemTime::UNIX_EPOCH };
                    let content = self.durable_contents.get(file).cloned().unwrap_or_else(empty);
                    image.files.insert(name.to_owned(), content);
                }
            }
        }
        image
    }
}

impl Content {
    fn of(path: &Path) -> Self {
        let modified_at = fs::metadata(path).unwrap().modified().unwrap();
        Self { bytes: fs::read(path).unwrap(), modified_at }
    }
}

impl Image {
    /// A folder's files; the index is left empty.
    pub(super) fn of(root: &Path) -> Self {
        let mut image = Self { index: Some(Entries::new()), ..Self::default() };
        let mut folders = vec![root.to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder).unwrap() {
                let path = entry.unwrap().path();
                let name = path.strip_prefix(root).unwrap().to_owned();
                if name.starts_with("lock") || name.to_string_lossy().starts_with("index") {
                    continue;
                }
                if path.is_dir() {
                    image.folders.insert(name);
                    folders.push(path);
                } else {
                    image.files.insert(name, Content::of(&path));
                }
            }
        }
        image
    }

    /// The paths of the files in a folder, from there on.
    pub(super) fn below(&self, folder: &str) -> BTreeSet<&Path> {
        self.files.keys().filter_map(|path| path.strip_prefix(folder).ok()).collect()
    }

    pub(super) fn put(&mut self, path: &str, bytes: &[u8]) {
        let path = PathBuf::from(path);
        self.folders.extend(path.ancestors().skip(1).filter(|at| at.parent().is_some()).map(Path::to_owned));
        let content = Content { bytes: bytes.to_vec(), modified_at: SystemTime::UNIX_EPOCH };
        self.files.insert(path, content);
    }

    pub(super) fn lay_out(&self, root: &Path) {
        for folder in &self.folders {
            fs::create_dir_all(root.join(folder)).unwrap();
        }
        for (path, content) in &self.files {
            let path = root.join(path);
            fs::write(&path, &content.bytes).unwrap();
            fs::File::options().write(true).open(&path).unwrap().set_modified(content.modified_at).unwrap();
        }
        match &self.index {
            Some(entries) if entries.is_empty() => {}
            Some(entries) => Index::open(&root.join("index"), Disk::default()).unwrap().fill(entries),
            None => {
                fs::create_dir(root.join("index")).unwrap();
                fs::write(root.join("index/conf"), b"noise").unwrap();
                fs::write(root.join("index/db"), vec![0x55; 4096]).unwrap();
            }
        }
    }
}
