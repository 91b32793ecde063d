//! Lines to be put into a containerd's own configuration, so that the file is whole with them.

use std::path::Path;

use tidehold::node::containerd::{CONFIG, File};

/// What makes a whole node of one that nobody has set up.
pub(super) const SETUP: &str = "sudo tidehold setup";

/// Where the lines are put.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place<'a> {
    /// The file that is to be edited.
    pub(super) config: &'a Path,
    /// What restarts the containerd that reads it.
    pub(super) restart: &'a str,
    /// How that one takes the names in it.
    pub(super) names: Names,
}

/// What a file says of its version, by which the names of plugins are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Names {
    /// There is no file.
    None,
    /// It is of version 1, in which plugins have short names, or says nothing, which is the same.
    Short,
    /// It is of version 2 or later.
    Full,
}

impl Names {
    /// By the files of a configuration, and the version of the first.
    pub(super) fn of(files: &[File], version: i64) -> Self {
        match (files, version) {
            ([], _) => Self::None,
            (_, ..=1) => Self::Short,
            (_, 2..) => Self::Full,
        }
    }
}

impl Place<'_> {
    /// Tells to put these lines there, each with two spaces before it.
    pub(super) fn put(&self, lines: &str) -> String {
        let Self { config, restart, names } = self;
        let shown = config.display();
        match names {
            // All that is missing is missing here, and the command knows the rest of it too.
            Names::None if *config == Path::new(CONFIG) => SETUP.to_owned(),
            Names::None => {
                format!("make {shown} of this, and restart it ({restart}):\n  version = 2\n{lines}")
            }
            Names::Short => format!(
                "put into {shown}, and restart it ({restart}):\n  version = 2    (the first line)\n{lines}\n\
                 (with that line all plugins have their full names in it, such as \"io.containerd.grpc.v1.cri\" for \
                 \"cri\": tidehold setup writes it so)"
            ),
            Names::Full => format!("put into {shown}, and restart it ({restart}):\n{lines}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_whole_with_the_lines() {
        let restart = "systemctl restart containerd";
        let put = |config: &'static str, names| {
            Place { config: Path::new(config), restart, names }.put("  [a]\n    b = 1")
        };
        assert_eq!(put(CONFIG, Names::None), "sudo tidehold setup");
        let made =
            format!("make /c.toml of this, and restart it ({restart}):\n  version = 2\n  [a]\n    b = 1");
        assert_eq!(put("/c.toml", Names::None), made);
        let into = format!("put into /c.toml, and restart it ({restart}):\n");
        let short = put("/c.toml", Names::Short);
        let lines = format!("{into}  version = 2    (the first line)\n  [a]\n    b = 1\n(");
        assert!(short.starts_with(&lines) && short.contains("io.containerd.grpc.v1.cri"), "{short}");
        assert_eq!(put("/c.toml", Names::Full), format!("{into}  [a]\n    b = 1"));
        let file = File { path: "/c.toml".into(), text: String::new() };
        let names = [(&[][..], 2), (std::slice::from_ref(&file), 1), (std::slice::from_ref(&file), 3)];
        assert_eq!(
            names.map(|(files, version)| Names::of(files, version)),
            [Names::None, Names::Short, Names::Full]
        );
    }
}
