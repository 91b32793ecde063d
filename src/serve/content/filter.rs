//! The filters that a client may send with `List` and `ListStatuses`: read once, then asked of every object.
//!
//! A request carries any number of filters and an object passes if one of them lets it through; no filter, or
//! an empty one, lets everything through. A filter is a list of selectors joined by commas, all of which must
//! hold: `field`, `field==value`, `field!=value` or `field~=pattern`, where a field is a path of names joined
//! by dots (`labels."a name in quotes"`). Knows no object: whoever asks says what a field of its own holds.
//!
//! The language is the one of containerd's `pkg/filters`, its corners included: blanks may stand before a
//! name, an operator or a value and nowhere else; a value may not begin with `.`; `/…/` and `|…|` quote
//! patterns only; in quotes, `\d` is no escape and `\\d` is meant; a field that is absent counts as empty for
//! `!=` and `~=`; a pattern that cannot be read matches nothing and is no fault of the filter.
//!
//! It differs on purpose in four points. Sizes are bounded, so that no filter costs much memory. `\U` beyond
//! Unicode is always refused, where containerd lets half of the range through as single bytes. Invisible
//! format characters may stand in a value without quotes. And patterns are those of the `regex` crate, near
//! to Go's: `\d`, `\w`, `\s`, `\b` also know letters and digits beyond ASCII, `\<` and `\>` are word
//! boundaries; `\Q…\E`, a lone `{` and `[[]` cannot be read, whereas `a**` and `\u0041` can.

use regex::{Regex, RegexBuilder};

/// Most bytes of all filters of a request, each counted with one byte more, so that many empty ones count.
const MAX_BYTES: usize = 64 * 1024;
/// Most selectors of a request: what one object can cost.
const MAX_SELECTORS: usize = 256;
/// Most patterns of a request.
const MAX_PATTERNS: usize = 16;
/// Longest pattern: its tree can take some thousand times as many bytes for a moment.
const MAX_PATTERN_BYTES: usize = 4 * 1024;
/// Most bytes of one compiled pattern, and of its cache.
const MAX_COMPILED_BYTES: usize = 1 << 20;
/// How much of a filter an error shows, in characters on each side of the place.
const EXCERPT: usize = 32;

/// Why filters are refused; for the client all of it is an invalid argument.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum FilterError {
    /// A filter is not in the language.
    #[error("filter {excerpt:?}, byte {at}: {problem}")]
    Syntax {
        /// The filter around the place.
        excerpt: String,
        /// The byte of the filter where reading stopped.
        at: usize,
        /// What is wrong there.
        problem: &'static str,
    },
    /// The request asks for more than is allowed.
    #[error("filters beyond the limit of {limit} {what}")]
    TooMuch {
        /// What there is too much of.
        what: &'static str,
        /// How much is allowed.
        limit: usize,
    },
}

/// The filters of one request.
#[derive(Debug, Clone, Default)]
pub(super) struct Filters {
    /// One of these must hold, where there are any.
    any_of: Vec<Vec<Selector>>,
}

impl Filters {
    /// Reads all filters of a request.
    ///
    /// # Errors
    /// That one is not in the language, or that they are larger than anyone needs.
    pub(super) fn parse(filters: &[String]) -> Result<Self, FilterError> {
        let bytes = filters.iter().fold(0_usize, |sum, filter| sum.saturating_add(filter.len() + 1));
        if bytes > MAX_BYTES {
            return Err(FilterError::TooMuch { what: "bytes", limit: MAX_BYTES });
        }
        let mut budget = Budget { selectors: MAX_SELECTORS, patterns: MAX_PATTERNS };
        let any_of = filters.iter().map(|filter| Reader::new(filter).filter(&mut budget));
        Ok(Self { any_of: any_of.collect::<Result<_, _>>()? })
    }

    /// Whether an object passes. `field` answers what it holds at a path, and nothing where it has no such
    /// field; the path is never empty.
    pub(super) fn matches<V: AsRef<str>>(&self, field: impl Fn(&[&str]) -> Option<V>) -> bool {
        let holds = |selectors: &Vec<Selector>| selectors.iter().all(|selector| selector.holds(&field));
        self.any_of.is_empty() || self.any_of.iter().any(holds)
    }

    /// The patterns that cannot be read and so match nothing: worth a line in the log.
    pub(super) fn unreadable_patterns(&self) -> impl Iterator<Item = &str> {
        self.any_of.iter().flatten().filter_map(|selector| match &selector.test {
            Test::Unreadable(pattern) => Some(pattern.as_str()),
            Test::Present | Test::Equal(_) | Test::NotEqual(_) | Test::Matches(_) => None,
        })
    }
}

#[derive(Debug, Clone)]
struct Selector {
    /// Nothing where a name is no UTF-8, as an escape can make it: no field is called so.
    path: Option<Vec<String>>,
    test: Test,
}

/// What a field is asked. Values are bytes because an escape can make ones that are no UTF-8.
#[derive(Debug, Clone)]
enum Test {
    Present,
    Equal(Vec<u8>),
    NotEqual(Vec<u8>),
    Matches(Regex),
    Unreadable(String),
}

impl Selector {
    fn holds<V: AsRef<str>>(&self, field: &impl Fn(&[&str]) -> Option<V>) -> bool {
        let held = self.path.as_ref().and_then(|path| {
            let path: Vec<&str> = path.iter().map(String::as_str).collect();
            field(&path)
        });
        let present = held.is_some();
        let held = held.as_ref().map_or("", AsRef::as_ref);
        match &self.test {
            Test::Present => present,
            Test::Equal(value) => present && held.as_bytes() == value,
            Test::NotEqual(value) => held.as_bytes() != value,
            Test::Matches(pattern) => pattern.is_match(held),
            Test::Unreadable(_) => false,
        }
    }
}

/// What the filters of a request may still use.
struct Budget {
    selectors: usize,
    patterns: usize,
}

/// Takes one from what is left.
fn spend(left: &mut usize, what: &'static str, limit: usize) -> Result<(), FilterError> {
    *left = left.checked_sub(1).ok_or(FilterError::TooMuch { what, limit })?;
    Ok(())
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Operator {
    Equal,
    NotEqual,
    Matches,
}

/// Steps through one filter, character by character.
struct Reader<'f> {
    filter: &'f str,
    rest: &'f str,
}

impl<'f> Reader<'f> {
    fn new(filter: &'f str) -> Self {
        Self { filter, rest: filter }
    }

    /// `selector ("," selector)*`, or nothing at all.
    fn filter(mut self, budget: &mut Budget) -> Result<Vec<Selector>, FilterError> {
        // Both mean broken text where containerd reads: the end of a C string, and bytes that are no UTF-8.
        if let Some(at) = self.filter.find(['\0', char::REPLACEMENT_CHARACTER]) {
            return Err(self.syntax_at(at, "a character that is not allowed"));
        }
        let mut selectors = Vec::new();
        if self.filter.is_empty() {
            return Ok(selectors);
        }
        loop {
            spend(&mut budget.selectors, "selectors", MAX_SELECTORS)?;
            selectors.push(self.selector(budget)?);
            match self.peek() {
                None => return Ok(selectors),
                Some(',') => self.skip(','),
                Some(_) => return Err(self.syntax("expected a comma or the end")),
            }
        }
    }

    /// `path (operator value)?`. A blank after the path announces an operator.
    fn selector(&mut self, budget: &mut Budget) -> Result<Selector, FilterError> {
        let path = self.path()?;
        if matches!(self.peek(), None | Some(',')) {
            return Ok(Selector { path, test: Test::Present });
        }
        let test = match self.operator()? {
            Operator::Equal => Test::Equal(self.value(Operator::Equal)?),
            Operator::NotEqual => Test::NotEqual(self.value(Operator::NotEqual)?),
            Operator::Matches => {
                spend(&mut budget.patterns, "patterns", MAX_PATTERNS)?;
                pattern(self.value(Operator::Matches)?)?
            }
        };
        Ok(Selector { path, test })
    }

    /// `name ("." name)*`
    fn path(&mut self) -> Result<Option<Vec<String>>, FilterError> {
        let mut path = Some(Vec::new());
        loop {
            let name = String::from_utf8(self.name()?).ok();
            path = path.zip(name).map(|(mut path, name)| {
                path.push(name);
                path
            });
            if self.peek() != Some('.') {
                return Ok(path);
            }
            self.skip('.');
        }
    }

    /// Letters, digits and `_`, all ASCII; or anything, in double quotes.
    fn name(&mut self) -> Result<Vec<u8>, FilterError> {
        self.skip_blanks();
        match self.peek() {
            Some('"') => self.quoted('"'),
            Some('/' | '|') => Err(self.syntax("these quotes are for patterns only")),
            _ => {
                let name = self.take_while(|char| char.is_ascii_alphanumeric() || char == '_');
                if name.is_empty() { Err(self.syntax("expected a field")) } else { Ok(name.into()) }
            }
        }
    }

    fn operator(&mut self) -> Result<Operator, FilterError> {
        self.skip_blanks();
        let before = self.rest;
        match self.take_while(|char| matches!(char, '=' | '!' | '~')) {
            "==" => Ok(Operator::Equal),
            "!=" => Ok(Operator::NotEqual),
            "~=" => Ok(Operator::Matches),
            _ => {
                self.rest = before;
                Err(self.syntax("expected one of ==, != and ~="))
            }
        }
    }

    /// Everything up to a comma or a blank; or anything, in quotes.
    fn value(&mut self, operator: Operator) -> Result<Vec<u8>, FilterError> {
        self.skip_blanks();
        match self.peek() {
            Some('"') => self.quoted('"'),
            Some(quote @ ('/' | '|')) if operator == Operator::Matches => self.quoted(quote),
            Some('/' | '|') => Err(self.syntax("these quotes are for patterns only")),
            None | Some(',' | '.' | '=' | '!' | '~') => Err(self.syntax("expected a value")),
            Some(first) => {
                let start = self.rest;
                self.skip(first);
                self.take_while(|char| char != ',' && !char.is_whitespace() && !char.is_control());
                let taken = start.len() - self.rest.len();
                Ok(start.as_bytes().iter().copied().take(taken).collect())
            }
        }
    }

    /// Text between quotes with Go's escapes, of which the quote's own is only for the quote in use.
    fn quoted(&mut self, quote: char) -> Result<Vec<u8>, FilterError> {
        let opening = self.at();
        let unclosed = "the quotes are not closed";
        let mut bytes = Vec::new();
        self.skip(quote);
        loop {
            match self.next().filter(|char| *char != '\n') {
                None => return Err(self.syntax_at(opening, unclosed)),
                Some(char) if char == quote => return Ok(bytes),
                Some('\\') => self.escape(quote, &mut bytes)?,
                Some(char) => push(char, &mut bytes),
            }
        }
    }

    /// What follows a backslash.
    fn escape(&mut self, quote: char, bytes: &mut Vec<u8>) -> Result<(), FilterError> {
        let at = self.at();
        let unknown = "no such escape";
        match self.next() {
            Some('a') => bytes.push(0x07),
            Some('b') => bytes.push(0x08),
            Some('f') => bytes.push(0x0c),
            Some('n') => bytes.push(b'\n'),
            Some('r') => bytes.push(b'\r'),
            Some('t') => bytes.push(b'\t'),
            Some('v') => bytes.push(0x0b),
            Some('\\') => bytes.push(b'\\'),
            Some(char) if char == quote => push(char, bytes),
            Some(first @ '0'..='7') => {
                let first = first.to_digit(8).unwrap_or_default();
                let byte = u8::try_from(first * 64 + self.digits(8, 2)?);
                bytes.push(byte.map_err(|_| self.syntax_at(at, "an octal escape is at most \\377"))?);
            }
            // Two hexadecimal digits fit a byte.
            Some('x') => bytes.push(u8::try_from(self.digits(16, 2)?).unwrap_or_default()),
            Some(long @ ('u' | 'U')) => {
                let point = self.digits(16, if long == 'u' { 4 } else { 8 })?;
                if point > char::MAX.into() {
                    return Err(self.syntax_at(at, "beyond the last character"));
                }
                // Only half of a surrogate pair is left, and Go replaces those.
                push(char::from_u32(point).unwrap_or(char::REPLACEMENT_CHARACTER), bytes);
            }
            _ => return Err(self.syntax_at(at, unknown)),
        }
        Ok(())
    }

    /// Exactly `count` digits, at most 8.
    fn digits(&mut self, radix: u32, count: usize) -> Result<u32, FilterError> {
        let mut number = 0_u32;
        for _ in 0..count {
            let digit = self.peek().and_then(|char| char.to_digit(radix));
            let digit = digit.ok_or_else(|| self.syntax("expected another digit"))?;
            number = number.wrapping_mul(radix).wrapping_add(digit);
            self.next();
        }
        Ok(number)
    }

    fn peek(&self) -> Option<char> {
        self.rest.chars().next()
    }

    fn next(&mut self) -> Option<char> {
        let mut chars = self.rest.chars();
        let next = chars.next();
        self.rest = chars.as_str();
        next
    }

    /// Steps over a character that was seen.
    fn skip(&mut self, char: char) {
        self.rest = self.rest.strip_prefix(char).unwrap_or(self.rest);
    }

    fn skip_blanks(&mut self) {
        self.rest = self.rest.trim_start();
    }

    fn take_while(&mut self, wanted: impl Fn(char) -> bool) -> &'f str {
        let end = self.rest.find(|char| !wanted(char)).unwrap_or(self.rest.len());
        let (taken, rest) = self.rest.split_at(end);
        self.rest = rest;
        taken
    }

    /// The byte that comes next.
    fn at(&self) -> usize {
        self.filter.len() - self.rest.len()
    }

    fn syntax(&self, problem: &'static str) -> FilterError {
        self.syntax_at(self.at(), problem)
    }

    fn syntax_at(&self, at: usize, problem: &'static str) -> FilterError {
        let (before, after) = self.filter.split_at_checked(at).unwrap_or((self.filter, ""));
        let first = before.char_indices().rev().take(EXCERPT).last().map_or(at, |(index, _)| index);
        let before = before.get(first..).unwrap_or_default();
        let excerpt = before.chars().chain(after.chars().take(EXCERPT)).collect();
        FilterError::Syntax { excerpt, at, problem }
    }
}

fn push(char: char, bytes: &mut Vec<u8>) {
    bytes.extend_from_slice(char.encode_utf8(&mut [0; 4]).as_bytes());
}

fn pattern(value: Vec<u8>) -> Result<Test, FilterError> {
    if value.len() > MAX_PATTERN_BYTES {
        return Err(FilterError::TooMuch { what: "bytes of a pattern", limit: MAX_PATTERN_BYTES });
    }
    let text = match String::from_utf8(value) {
        Ok(text) => text,
        Err(error) => return Ok(Test::Unreadable(String::from_utf8_lossy(error.as_bytes()).into_owned())),
    };
    let mut builder = RegexBuilder::new(&text);
    builder.size_limit(MAX_COMPILED_BYTES).dfa_size_limit(MAX_COMPILED_BYTES).octal(true);
    match builder.build() {
        Ok(pattern) => Ok(Test::Matches(pattern)),
        Err(regex::Error::CompiledTooBig(limit)) => {
            Err(FilterError::TooMuch { what: "bytes of a compiled pattern", limit })
        }
        Err(_) => Ok(Test::Unreadable(text)),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    /// Things with a name and labels, told apart by their number.
    const THINGS: [(&str, &[(&str, &str)]); 6] = [
        ("pear", &[("ripe", "yes")]),
        ("plum", &[]),
        ("pear", &[("ripe", "no"), ("picked by hand", "yes")]),
        ("quince", &[(r#"a \ and a ""#, "yes"), ("size", "a_1.b-2")]),
        ("fig", &[(r#"a \ and a ".end"#, "yes"), ("note", "two, or three")]),
        ("", &[("io.test/ref", "ü")]),
    ];

    fn parse(filters: &[&str]) -> Result<Filters, FilterError> {
        Filters::parse(&filters.iter().map(|filter| (*filter).to_owned()).collect::<Vec<_>>())
    }

    /// The numbers of the things that pass.
    fn pass(filters: &[&str]) -> Vec<usize> {
        let filters = parse(filters).unwrap_or_else(|error| panic!("{error}"));
        let passes = |(name, labels): (&str, &[(&str, &str)])| {
            let labels: BTreeMap<&str, &str> = labels.iter().copied().collect();
            filters.matches(|path| match path {
                ["name"] => Some(name.to_owned()).filter(|name| !name.is_empty()),
                ["labels", label @ ..] => {
                    labels.get(label.join(".").as_str()).map(|value| (*value).to_owned())
                }
                _ => None,
            })
        };
        (0..THINGS.len()).filter(|number| passes(THINGS[*number])).collect()
    }

    #[test]
    fn filters_choose_as_containerd_does() {
        let all: &[usize] = &[0, 1, 2, 3, 4, 5];
        for (filter, chosen) in [
            ("", all),
            ("name", &[0, 1, 2, 3, 4]),
            ("colour", &[]),
            ("labels.ripe", &[0, 2]),
            ("labels.ripe,name", &[0, 2]),
            ("name==pear", &[0, 2]),
            ("name==pear,labels.ripe==no", &[2]),
            ("name==pear,labels.ripe==perhaps", &[]),
            ("name!=pear", &[1, 3, 4, 5]),
            ("labels.ripe!=yes", &[1, 2, 3, 4, 5]),
            ("labels.size==a_1.b-2", &[3]),
            (r#"labels."picked by hand""#, &[2]),
            (r#"labels."a \\ and a \""==yes"#, &[3]),
            (r#"labels."a \\ and a \"".end==yes"#, &[4]),
            (r#"labels."io.test/ref"==ü"#, &[5]),
            (r#"labels."io.test/ref"=="\u00fc""#, &[5]),
            (r#"labels."io.test/ref"=="\xc3\274""#, &[5]),
            (r#"labels.note=="two, or three""#, &[4]),
            (r#""name"==plum"#, &[1]),
            ("name==p/um|", &[]),
            ("labels.colour==\"\"", &[]),
            ("labels.colour!=\"\"", &[]),
        ] {
            assert_eq!(pass(&[filter]), chosen, "{filter}");
        }
    }

    #[test]
    fn patterns_are_searched_for() {
        for (filter, chosen) in [
            ("name~=^p", &[0, 1, 2][..]),
            ("name~=u,name!=plum", &[3]),
            ("name~=/^p.{2,3}$/", &[0, 1, 2]),
            ("name~=|^p.{2,3}$|", &[0, 1, 2]),
            (r#"name~="^p.{2,3}$""#, &[0, 1, 2]),
            (r"labels.size~=\d\.", &[3]),
            (r"labels.size~=/\\d\\./", &[3]),
            ("labels.colour~=/.*/", &[0, 1, 2, 3, 4, 5]),
            (r#"name~=/"\//"#, &[]),
        ] {
            assert_eq!(pass(&[filter]), chosen, "{filter}");
        }
    }

    #[test]
    fn one_of_several_filters_is_enough() {
        assert_eq!(pass(&[]), [0, 1, 2, 3, 4, 5]);
        assert_eq!(pass(&["name==fig", "name==plum,name"]), [1, 4]);
        assert_eq!(pass(&["name==fig", ""]), [0, 1, 2, 3, 4, 5]);
    }

    #[test]
    fn blanks_may_come_before_a_part_and_not_after_it() {
        for filter in
            [" name==plum", "name ==plum", "name == plum", "name==plum, name", "\tname\n==\u{a0}plum"]
        {
            assert_eq!(pass(&[filter]), [1], "{filter:?}");
        }
        assert_eq!(pass(&["labels. ripe"]), [0, 2]);
        for filter in ["name ", "name==plum ", "name==plum ,name", "labels .ripe", " "] {
            assert!(parse(&[filter]).is_err(), "{filter:?}");
        }
    }

    #[test]
    fn what_is_not_in_the_language_is_shown_with_its_place() {
        let quotes = "these quotes are for patterns only";
        let operator = "expected one of ==, != and ~=";
        for (filter, at, problem) in [
            ("name==pear,", 11, "expected a field"),
            (",name", 0, "expected a field"),
            ("labels.", 7, "expected a field"),
            ("labels..ripe", 7, "expected a field"),
            ("labels.?x", 7, "expected a field"),
            ("ünder==x", 0, "expected a field"),
            ("==x", 0, "expected a field"),
            ("labels.|ripe|==yes", 7, quotes),
            ("labels.io/key==x", 9, operator),
            ("name==/pear/", 6, quotes),
            ("name=pear", 4, operator),
            ("name===pear", 4, operator),
            ("name<pear", 4, operator),
            ("name pear", 5, operator),
            ("name==", 6, "expected a value"),
            ("name~=,x", 6, "expected a value"),
            ("name==.x", 6, "expected a value"),
            ("name== =x", 7, "expected a value"),
            ("name==a b", 7, "expected a comma or the end"),
            (r#"name=="a"b"#, 9, "expected a comma or the end"),
            (r#"name=="a"#, 6, "the quotes are not closed"),
            ("name==\"a\nb\"", 6, "the quotes are not closed"),
            ("name~=/a", 6, "the quotes are not closed"),
            (r#"name=="\g""#, 8, "no such escape"),
            (r#"name=="\'""#, 8, "no such escape"),
            (r"name~=/\|/", 8, "no such escape"),
            (r"name~=/\d/", 8, "no such escape"),
            ("name~=.*", 6, "expected a value"),
            (r#"name=="\"#, 8, "no such escape"),
            (r#"name=="\xaz""#, 10, "expected another digit"),
            (r#"name=="\08""#, 9, "expected another digit"),
            (r#"name=="\400""#, 8, "an octal escape is at most \\377"),
            (r#"name=="\U00110000""#, 8, "beyond the last character"),
            (r#"name=="\UFFFFFFFF""#, 8, "beyond the last character"),
            ("name==a\0b", 7, "a character that is not allowed"),
            ("name==\u{fffd}", 6, "a character that is not allowed"),
        ] {
            match parse(&[filter]) {
                Err(FilterError::Syntax { at: found, problem: said, .. }) => {
                    assert_eq!((found, said), (at, problem), "{filter:?}");
                }
                other => panic!("{filter:?}: {other:?}"),
            }
        }
    }

    #[test]
    fn an_error_shows_only_what_is_around_its_place() {
        let filter = format!("{}ü?{}", "a".repeat(100), "b".repeat(100));
        let error = parse(&[&filter]).unwrap_err().to_string();
        assert!(error.starts_with("filter \"aaa") && error.len() < 160, "{error}");
    }

    #[test]
    fn text_that_is_no_utf8_equals_nothing_and_is_no_field() {
        assert_eq!(pass(&[r#"name=="\xff""#]), [0; 0]);
        assert_eq!(pass(&[r#"name!="\xff""#]), [0, 1, 2, 3, 4, 5]);
        assert_eq!(pass(&[r#"labels."\xff""#]), [0; 0]);
        assert_eq!(pass(&[r#"labels."\xff"!=x"#]), [0, 1, 2, 3, 4, 5]);
        assert_eq!(pass(&[r#"name~="\xff""#]), [0; 0]);
        assert_eq!(pass(&[r#"name=="\ud800""#]), [0; 0]);
    }

    #[test]
    fn a_pattern_that_cannot_be_read_matches_nothing_and_is_told() {
        assert_eq!(pass(&["name~=(", "name==fig"]), [4]);
        let filters = parse(&["name~=(,name~=a"]).unwrap();
        assert_eq!(filters.unreadable_patterns().collect::<Vec<_>>(), ["("]);
    }

    #[test]
    fn filters_beyond_any_need_are_refused() {
        let too_much = |filters: &[&str]| match parse(filters) {
            Err(FilterError::TooMuch { what, .. }) => what,
            other => panic!("{other:?}"),
        };
        assert_eq!(too_much(&[&"a".repeat(MAX_BYTES)]), "bytes");
        assert_eq!(too_much(&vec![""; MAX_BYTES + 1]), "bytes");
        assert_eq!(too_much(&[&vec!["a"; MAX_SELECTORS + 1].join(",")]), "selectors");
        assert_eq!(too_much(&["a~=a"; MAX_PATTERNS + 1]), "patterns");
        assert_eq!(too_much(&[&format!("a~={}", "a".repeat(MAX_PATTERN_BYTES + 1))]), "bytes of a pattern");
        assert_eq!(too_much(&[r"a~=/(\\w{90}){90}/"]), "bytes of a compiled pattern");
        assert!(parse(&[&vec!["a"; MAX_SELECTORS].join(",")]).is_ok());
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(filters in prop::collection::vec("\\PC{0,40}", 0..4)) {
            let _ = Filters::parse(&filters).map(|filters| filters.matches(|path| path.first().map(|name| (*name).to_owned())));
        }

        #[test]
        fn no_near_filter_makes_it_panic(filter in r#"([a-z_]{0,4}[.,=!~ "/|\\xuU07n\n]{0,3}[\{\[(ü*+]{0,2}){0,8}"#) {
            let _ = Filters::parse(&[filter]).map(|filters| filters.matches(|_| Some("value")));
        }

        #[test]
        fn any_value_can_be_asked_for_in_quotes(value in "[^\0\u{fffd}]{0,20}") {
            let quoted: String = value.bytes().map(|byte| format!("\\x{byte:02x}")).collect();
            let filters = Filters::parse(&[format!("name==\"{quoted}\"")]).unwrap();
            prop_assert!(filters.matches(|_| Some(value.as_str())));
        }
    }
}
