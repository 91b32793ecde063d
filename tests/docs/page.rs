//! A page's blocks of code, and what stands before each in a comment that no reader sees:
//!
//! - `<!-- not run: REASON -->`: the commands in it suit no such machine; they are checked for their form alone;
//! - `<!-- file: PATH -->`: the block is what this file is to hold;
//! - `<!-- fails -->`: its commands are there to show how they fail.
//!
//! And, anywhere, how the node is on which the page begins: `<!-- on a node with Tidehold -->`, which was set up already;
//! `<!-- on a node in use -->`, whose containerd has pulled an image, and knows nothing of Tidehold. Otherwise there is a
//! containerd and nothing else.

/// What is done with a block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Use {
    Run,
    Fails,
    File(String),
    NotRun,
}

/// What a page begins with, beside a containerd.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Node {
    Bare,
    InUse,
    WithTidehold,
}

/// A block that means something to the test.
#[derive(Clone, Debug)]
pub(crate) struct Block {
    /// Where its first line is, from 1.
    pub(crate) line: usize,
    pub(crate) text: String,
    pub(crate) how: Use,
}

/// A page.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) blocks: Vec<Block>,
    pub(crate) node: Node,
}

impl Page {
    /// # Errors
    /// In words, where a comment is not understood or a block has no end.
    pub(crate) fn read(text: &str) -> Result<Self, String> {
        let mut page = Self { blocks: Vec::new(), node: Node::Bare };
        let mut next: Option<Use> = None;
        let mut lines = text.lines().enumerate();
        while let Some((number, line)) = lines.next() {
            if let Some(comment) = line.trim().strip_prefix("<!--").and_then(|rest| rest.strip_suffix("-->"))
            {
                match comment.trim() {
                    "on a node with Tidehold" => page.node = Node::WithTidehold,
                    "on a node in use" => page.node = Node::InUse,
                    comment => next = Some(use_of(comment, number + 1)?),
                }
            } else if let Some(language) = line.trim_start().strip_prefix("```") {
                let indent = line.len() - line.trim_start().len();
                let mut body = String::new();
                loop {
                    let (_, line) = lines.next().ok_or_else(|| format!("line {}: no end", number + 1))?;
                    if line.trim() == "```" {
                        break;
                    }
                    body += line.get(indent..).unwrap_or_default();
                    body.push('\n');
                }
                let how = next.take().or_else(|| (language.trim() == "sh").then_some(Use::Run));
                page.blocks.extend(how.map(|how| Block { line: number + 2, text: body, how }));
            } else if !line.trim().is_empty()
                && let Some(unused) = next.take()
            {
                return Err(format!("line {}: no block follows {unused:?}", number + 1));
            }
        }
        Ok(page)
    }

    /// One script of all that is run, in order, that says where it is.
    pub(crate) fn script(&self, name: &str) -> String {
        let mut script = String::from("set -eu -o pipefail\n");
        for Block { line, text, how } in &self.blocks {
            let at = format!("echo '=== {name}:{line}'\n");
            match how {
                Use::Run => script += &format!("{at}{text}"),
                Use::Fails => {
                    script += &format!("{at}if (\n{text}); then echo 'it does not fail'; exit 1; fi\n")
                }
                Use::File(path) => {
                    script += &format!(
                        "{at}install -d \"$(dirname '{path}')\"\ncat >'{path}' <<'=== end'\n{text}=== end\n"
                    );
                }
                Use::NotRun => {}
            }
        }
        script
    }
}

fn use_of(comment: &str, line: usize) -> Result<Use, String> {
    match comment.split_once(':').map_or((comment, ""), |(word, rest)| (word, rest.trim())) {
        ("fails", "") => Ok(Use::Fails),
        ("not run", reason) if !reason.is_empty() => Ok(Use::NotRun),
        ("file", path) if path.starts_with('/') => Ok(Use::File(path.to_owned())),
        _ => Err(format!("line {line}: a comment that means nothing here: {comment}")),
    }
}
