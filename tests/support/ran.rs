//! How a command ended, and what a test may ask of that.

use std::process::{Command, Output};

use serde_json::Value;

/// Has a command run with nothing in its environment that would have it look elsewhere or speak otherwise, whoever runs the
/// tests.
pub(crate) fn plainly(command: &mut Command) -> &mut Command {
    for name in ["TIDEHOLD_CONFIG", "NO_COLOR", "CLICOLOR", "CLICOLOR_FORCE"] {
        command.env_remove(name);
    }
    command
}

/// How a command ended.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().expect("no signal ended it"),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

impl Ran {
    /// It did all that it was asked to, and complained of nothing.
    #[track_caller]
    pub(crate) fn done(self) -> Self {
        assert_eq!((self.code, self.stderr.as_str()), (0, ""), "{self:?}");
        self
    }

    /// It did what it was asked to; what it had to remark beside that is its own.
    #[track_caller]
    pub(crate) fn ended_well(self) -> Self {
        assert_eq!(self.code, 0, "{self:?}");
        self
    }

    /// It failed with this code, and said why with these words.
    #[track_caller]
    pub(crate) fn failed_with(self, code: i32, words: &[&str]) -> Self {
        assert_eq!(self.code, code, "{self:?}");
        for word in words {
            assert!(self.stderr.contains(word), "{word:?} is not in {self:?}");
        }
        self
    }

    /// It answered with these words.
    #[track_caller]
    pub(crate) fn said(self, words: &[&str]) -> Self {
        for word in words {
            assert!(self.stdout.contains(word), "{word:?} is not in {self:?}");
        }
        self
    }

    /// Its lines, each of which is a JSON object.
    pub(crate) fn objects(&self) -> Vec<Value> {
        let object = |line: &str| -> Value {
            serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))
        };
        self.stdout.lines().map(object).collect()
    }

    /// Its one line, which is a JSON object.
    #[track_caller]
    pub(crate) fn object(&self) -> Value {
        let mut objects = self.objects();
        assert_eq!(objects.len(), 1, "{self:?}");
        objects.remove(0)
    }

    /// Those of its lines that tell of this, each of which is a JSON object.
    pub(crate) fn events(&self, event: &str) -> Vec<Value> {
        self.objects().into_iter().filter(|object| object["event"] == event).collect()
    }

    /// The one line that tells of this.
    #[track_caller]
    pub(crate) fn event(&self, event: &str) -> Value {
        let mut events = self.events(event);
        assert_eq!(events.len(), 1, "{self:?}");
        events.remove(0)
    }
}
