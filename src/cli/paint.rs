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
/// What stands under a name that has a line of its own is so far to the right of it.
const INDENT: usize = 4;
/// So far other columns stand off for the longest name, unless a terminal has room for more: a few names are far longer than
/// all others, as those of pinned digests.
const FOR_A_NAME: usize = 64;

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

/// A column of a table: [`left`] for words, [`right`] for numbers, [`long`] for the names by which rows are told apart.
#[derive(Debug, Clone, Copy)]
pub(super) struct Column {
    name: &'static str,
    kind: Kind,
    rare: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Left,
    Right,
    Long,
}

/// A column of words.
pub(super) const fn left(name: &'static str) -> Column {
    Column { name, kind: Kind::Left, rare: false }
}

/// A column of numbers.
pub(super) const fn right(name: &'static str) -> Column {
    Column { name, kind: Kind::Right, rare: false }
}

/// The first column, of names: never cut. A name that is far longer than others makes its own row longer; on a terminal that
/// has no room for that it has a line of its own. Where there is room for no whole row beside its name, all names have.
pub(super) const fn long(name: &'static str) -> Column {
    Column { name, kind: Kind::Long, rare: false }
}

/// A column that a terminal which is too narrow goes without; the last of these first.
pub(super) const fn rare(column: Column) -> Column {
    Column { rare: true, ..column }
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

    /// As lines for standard output, without the last line's end: fit for the terminal where it is one, else whole.
    pub(super) fn shown(&self) -> String {
        self.within(terminal_width())
    }

    fn within(&self, most: Option<usize>) -> String {
        let head = self.columns.map(|column| strong(column.name));
        let mut widths = self.columns.map(|column| column.name.chars().count());
        for row in &self.rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.width());
            }
        }
        let all = self.columns.map(|_| true);
        let named = self.columns.first().is_some_and(|column| column.kind == Kind::Long);
        let fits = |most| room(&widths, &all) <= most;
        let for_names = match widths.first() {
            Some(longest) if named && !most.is_some_and(fits) => FOR_A_NAME.min(*longest),
            Some(longest) => *longest,
            None => 0,
        };
        if let Some(width) = widths.first_mut() {
            *width = for_names;
        }
        let room_for_all = most.unwrap_or(usize::MAX);
        let shown = self.without_rare(&widths, room_for_all, all);
        let apart = named && room(&widths, &shown) > room_for_all;
        // A name of more characters than this has a line of its own, and the rest of its row begins so far to the right.
        let (longest, indent) = match most {
            _ if apart => (0, INDENT),
            Some(_) if named => (for_names, for_names + GAP),
            Some(_) | None => (usize::MAX, 0),
        };
        let mut beneath = shown_but_first(shown);
        if apart {
            // Beneath the names there is room again.
            beneath = self.without_rare(&widths, room_for_all.saturating_sub(INDENT), shown_but_first(all));
        }
        let mut lines = Vec::new();
        for row in std::iter::once(&head).chain(&self.rows) {
            match row.first().filter(|name| name.width() > longest) {
                Some(name) => {
                    lines.push(name.to_string());
                    lines.push(self.line(row, &widths, &beneath, indent));
                }
                None => lines.push(self.line(row, &widths, &shown, 0)),
            }
        }
        lines.join("\n")
    }

    /// These columns but for as many of the rare ones, from the last on, as there is no room for.
    fn without_rare(&self, widths: &[usize; N], most: usize, mut shown: [bool; N]) -> [bool; N] {
        for place in (0..N).rev() {
            let rare = self.columns.get(place).is_some_and(|column| column.rare);
            let over = room(widths, &shown) > most;
            if let (true, true, Some(shown)) = (rare, over, shown.get_mut(place)) {
                *shown = false;
            }
        }
        shown
    }

    fn line(&self, row: &[Painted; N], widths: &[usize; N], shown: &[bool; N], indent: usize) -> String {
        let mut line = String::new();
        let mut owed = indent;
        let cells = row.iter().zip(&self.columns).zip(widths).zip(shown).filter(|(_, shown)| **shown);
        for (((cell, column), width), _) in cells {
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

fn shown_but_first<const N: usize>(mut shown: [bool; N]) -> [bool; N] {
    if let Some(first) = shown.first_mut() {
        *first = false;
    }
    shown
}

/// How wide these columns are beside each other.
fn room<const N: usize>(widths: &[usize; N], shown: &[bool; N]) -> usize {
    let shown = widths.iter().zip(shown).filter(|(_, shown)| **shown);
    shown.map(|(width, _)| width + GAP).sum::<usize>().saturating_sub(GAP)
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
    fn a_terminal_that_is_too_narrow_goes_without_what_is_rare_and_cuts_no_name() {
        let mut table = Table::new([
            long("REFERENCE"),
            right("SIZE"),
            rare(right("OWN")),
            left("PINNED"),
            rare(left("RELIED ON BY")),
        ]);
        let row =
            |name: &str, own: &str| [name.into(), "12 B".into(), own.into(), "yes".into(), "system".into()];
        table.row(row("ghcr.io/a/b:1", "1 B"));
        table.row(row("ghcr.io/a/b:12", "2 B"));
        let whole = bare(&table.within(Some(47)));
        assert_eq!(whole.lines().next(), Some("REFERENCE       SIZE  OWN  PINNED  RELIED ON BY"));
        let lines = |most| bare(&table.within(Some(most))).lines().map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(lines(46)[2], "ghcr.io/a/b:12  12 B  2 B  yes");
        assert_eq!(lines(32)[2], "ghcr.io/a/b:12  12 B  yes");
        let apart = [
            "REFERENCE",
            "    SIZE  PINNED",
            "ghcr.io/a/b:1",
            "    12 B  yes",
            "ghcr.io/a/b:12",
            "    12 B  yes",
        ];
        assert_eq!(lines(1), apart);
        assert_eq!(
            lines(25)[..3],
            ["REFERENCE", "    SIZE  OWN  PINNED", "ghcr.io/a/b:1"],
            "there is room again"
        );
    }

    #[test]
    fn one_name_that_is_far_longer_than_others_widens_its_own_row_alone() {
        let long = format!("docker.io/library/{}:1", "x".repeat(200));
        let mut table = table();
        table.row([(&long).into(), "3 KiB".into(), "yes".into()]);
        let lines = |most| bare(&table.within(most)).lines().map(str::to_owned).collect::<Vec<_>>();
        let pad = " ".repeat(FOR_A_NAME - "REFERENCE".len());
        let piped = lines(None);
        assert_eq!(piped[0], format!("REFERENCE{pad}     SIZE  PINNED"));
        assert_eq!(piped[1].len(), FOR_A_NAME + GAP + "1.5 GiB  yes".len(), "{piped:?}");
        assert_eq!(piped[3], format!("{long}    3 KiB  yes"), "one line, and no name is cut");
        // A terminal that has no room for that has it on a line of its own, the rest where all others have it.
        let narrow = lines(Some(100));
        assert_eq!((&narrow[..3], narrow[3] == long), (&piped[..3], true), "{narrow:?}");
        assert_eq!(narrow[4], format!("{}    3 KiB  yes", " ".repeat(FOR_A_NAME)));
        let wide = lines(Some(400));
        assert_eq!((wide.len(), wide[1].len()), (4, long.len() + GAP + "1.5 GiB  yes".len()));
    }

    #[test]
    fn a_style_ends_with_its_text_and_no_text_brings_one_along() {
        assert_eq!(good("yes").to_string(), "\u{1b}[32myes\u{1b}[0m");
        assert_eq!(Painted::from("as it is").to_string(), "as it is");
        assert_eq!(bad("\u{1b}[0m").text, "\u{fffd}[0m");
    }
}
