//! Text for a terminal: a few styles, each for one meaning, and tables whose columns stand under each other.
//!
//! Whoever writes a style need not ask whether it may be seen: `print` takes out all of them where standard output is
//! no terminal, or where `NO_COLOR` says so. Nothing is said by a colour alone. Widths are counted in characters, which
//! is right for what registries and we ourselves call things.

use std::fmt;
use std::io::stdout;

use anstyle::{AnsiColor, Style};

use super::words::plain;

/// Between two columns.
const GAP: usize = 2;
/// No column is cut to less than this.
const LEAST: usize = 12;

/// A piece of text and how it looks. What a terminal would act on is taken out of the text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Painted {
    text: String,
    style: Style,
}

/// What stands out: a heading, the one number that counts.
pub(super) fn strong(text: impl AsRef<str>) -> Painted {
    Painted::new(text, Style::new().bold())
}

/// What is there for completeness.
pub(super) fn faint(text: impl AsRef<str>) -> Painted {
    Painted::new(text, Style::new().dimmed())
}

/// What is as it should be.
pub(super) fn good(text: impl AsRef<str>) -> Painted {
    Painted::new(text, AnsiColor::Green.on_default())
}

/// What wants a look.
pub(super) fn odd(text: impl AsRef<str>) -> Painted {
    Painted::new(text, AnsiColor::Yellow.on_default())
}

/// What has failed.
pub(super) fn bad(text: impl AsRef<str>) -> Painted {
    Painted::new(text, AnsiColor::Red.on_default())
}

impl Painted {
    fn new(text: impl AsRef<str>, style: Style) -> Self {
        Self { text: plain(text.as_ref()), style }
    }

    fn width(&self) -> usize {
        self.text.chars().count()
    }
}

impl<T: AsRef<str>> From<T> for Painted {
    fn from(text: T) -> Self {
        Self::new(text, Style::new())
    }
}

impl fmt::Display for Painted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}{}", self.style.render(), self.text, self.style.render_reset())
    }
}

/// A column of a table: [`left`] for words, [`right`] for numbers, [`long`] for what may be cut.
#[derive(Debug, Clone, Copy)]
pub(super) struct Column {
    name: &'static str,
    kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Left,
    Right,
    Long,
}

/// A column of words.
pub(super) const fn left(name: &'static str) -> Column {
    Column { name, kind: Kind::Left }
}

/// A column of numbers.
pub(super) const fn right(name: &'static str) -> Column {
    Column { name, kind: Kind::Right }
}

/// A column of words that are cut where the terminal is too narrow for them.
pub(super) const fn long(name: &'static str) -> Column {
    Column { name, kind: Kind::Long }
}

/// Rows under a head.
#[derive(Debug)]
pub(super) struct Table<const N: usize> {
    columns: [Column; N],
    rows: Vec<[Painted; N]>,
}

impl<const N: usize> Table<N> {
    /// No rows yet.
    pub(super) fn new(columns: [Column; N]) -> Self {
        Self { columns, rows: Vec::new() }
    }

    /// One row more.
    pub(super) fn row(&mut self, cells: [Painted; N]) {
        self.rows.push(cells);
    }

    /// As lines for standard output, without the last line's end: as wide as the terminal where it is one, else as wide
    /// as it has to be.
    pub(super) fn shown(&self) -> String {
        self.within(terminal_width())
    }

    fn within(&self, most: Option<usize>) -> String {
        let widths = self.widths(most);
        let head = self.columns.map(|column| strong(column.name));
        let rows = std::iter::once(&head).chain(&self.rows);
        rows.map(|row| self.line(row, &widths)).collect::<Vec<_>>().join("\n")
    }

    fn widths(&self, most: Option<usize>) -> [usize; N] {
        let mut widths = self.columns.map(|column| column.name.chars().count());
        for row in &self.rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.width());
            }
        }
        let all = widths.iter().sum::<usize>() + GAP * N.saturating_sub(1);
        let mut over = most.map_or(0, |most| all.saturating_sub(most));
        for (width, column) in widths.iter_mut().zip(&self.columns) {
            if column.kind == Kind::Long {
                let less = over.min(width.saturating_sub(LEAST));
                *width -= less;
                over -= less;
            }
        }
        widths
    }

    fn line(&self, row: &[Painted; N], widths: &[usize; N]) -> String {
        let mut line = String::new();
        let mut owed = 0;
        for ((cell, column), width) in row.iter().zip(&self.columns).zip(widths) {
            let cell = cut(cell, *width);
            let room = width.saturating_sub(cell.width());
            let (before, after) = match column.kind {
                Kind::Right => (room, 0),
                Kind::Left | Kind::Long => (0, room),
            };
            // Spaces are written once something follows them.
            if cell.width() > 0 {
                line.extend(std::iter::repeat_n(' ', owed + before));
                line.push_str(&cell.to_string());
                owed = after + GAP;
            } else {
                owed += width + GAP;
            }
        }
        line
    }
}

/// Without its end where it is too long, and a mark in its place.
fn cut(cell: &Painted, width: usize) -> Painted {
    if cell.width() <= width {
        return cell.clone();
    }
    let mut text: String = cell.text.chars().take(width.saturating_sub(1)).collect();
    text.push('…');
    Painted { text, style: cell.style }
}

/// How many characters a line of standard output takes, where it is a terminal that says so.
pub(super) fn terminal_width() -> Option<usize> {
    let size = rustix::termios::tcgetwinsize(stdout()).ok()?;
    (size.ws_col > 0).then(|| usize::from(size.ws_col))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table<3> {
        let mut table = Table::new([long("REFERENCE"), right("SIZE"), left("PINNED")]);
        table.row(["docker.io/library/nginx:latest".into(), "1.5 GiB".into(), good("yes")]);
        table.row(["ghcr.io/a/b:1".into(), "12 B".into(), "".into()]);
        table
    }

    fn bare(text: &str) -> String {
        anstream::adapter::strip_str(text).to_string()
    }

    #[test]
    fn columns_stand_under_each_other_and_numbers_end_there() {
        let text = [
            "REFERENCE                          SIZE  PINNED",
            "docker.io/library/nginx:latest  1.5 GiB  yes",
            "ghcr.io/a/b:1                      12 B",
        ];
        assert_eq!(bare(&table().within(None)), text.join("\n"));
        assert_eq!(bare(&table().within(Some(47))), text.join("\n"));
    }

    #[test]
    fn only_a_terminal_that_is_too_narrow_cuts_and_only_long_words() {
        let text = [
            "REFERENCE               SIZE  PINNED",
            "docker.io/library/…  1.5 GiB  yes",
            "ghcr.io/a/b:1           12 B",
        ];
        assert_eq!(bare(&table().within(Some(36))), text.join("\n"));
        let narrow = bare(&table().within(Some(1)));
        assert!(narrow.contains("docker.io/l…  1.5 GiB  yes"), "{narrow}");
    }

    #[test]
    fn a_style_ends_with_its_text_and_no_text_brings_one_along() {
        assert_eq!(good("yes").to_string(), "\u{1b}[32myes\u{1b}[0m");
        assert_eq!(Painted::from("as it is").to_string(), "as it is");
        assert_eq!(bad("\u{1b}[0m").text, "\u{fffd}[0m");
    }
}
