//! Lists that a registry makes up when it is asked: the tags of a repository, and what refers to a manifest (OCI
//! distribution specification, "Content Discovery").
//!
//! A [`List`] is what one request asks for, one page. Its text is its address below its repository, the same text for
//! the same question however a client spelt it, so that it is a key as well.

use std::borrow::Cow;
use std::fmt;

use oci_spec::image::Descriptor;
use serde::Deserialize;
use url::form_urlencoded;

use super::Digest;

/// The most entries of a page that may be asked for: more than any registry gives at once.
const MOST_ENTRIES: u16 = 10_000;

/// The longest `last=`, in bytes: with some registries it is no tag, but a long text of their own.
const LONGEST_LAST: usize = 2048;

/// The longest media type, in bytes (RFC 6838, section 4.2).
const LONGEST_TYPE: usize = 255;

/// The longest of what `OCI-Filters-Applied` says, in bytes.
const LONGEST_FILTERS: usize = 128;

/// A page of a list of a repository.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct List {
    of: ListOf,
    most: Option<u16>,
    last: Option<String>,
    /// Quay's own word for where a page begins, before it knew `last=` (its release 3.12).
    next_page: Option<String>,
}

/// Of what a list is.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum ListOf {
    /// The tags of the repository.
    Tags,
    /// The manifests that refer to one by its digest.
    Referrers {
        /// The manifest that they refer to.
        subject: Digest,
        /// The only type of artifact that is wanted.
        artifact_type: Option<String>,
    },
}

impl List {
    /// The tags of a repository; the query may hold `n=` and `last=`, and whatever else is not read.
    ///
    /// # Errors
    /// When a parameter is malformed or there twice.
    pub fn tags(query: &str) -> Result<Self, ListError> {
        Self::read(ListOf::Tags, query)
    }

    /// What refers to a manifest; the query may hold `artifactType=` beside.
    ///
    /// # Errors
    /// When a parameter is malformed or there twice.
    pub fn referrers(subject: Digest, query: &str) -> Result<Self, ListError> {
        let artifact_type = parameter(query, "artifactType")?.map(artifact_type).transpose()?;
        Self::read(ListOf::Referrers { subject, artifact_type }, query)
    }

    fn read(of: ListOf, query: &str) -> Result<Self, ListError> {
        let most = parameter(query, "n")?.map(|number| entries(&number)).transpose()?;
        let last = parameter(query, "last")?.map(place).transpose()?;
        let next_page = parameter(query, "next_page")?.map(place).transpose()?;
        Ok(Self { of, most, last, next_page })
    }

    /// Of what it is.
    pub fn of(&self) -> &ListOf {
        &self.of
    }

    /// The page that a registry's link leads to from this one, by the query of the link.
    ///
    /// # Errors
    /// When the link says where that page begins in no way that is known here, or leads back to this one.
    pub fn next(&self, query: &str) -> Result<Self, ListError> {
        let most = parameter(query, "n")?.and_then(|number| entries(&number).ok());
        let place = |name| parameter(query, name)?.map(place).transpose();
        let (last, next_page) = (place("last")?, place("next_page")?);
        let next = Self { of: self.of.clone(), most: most.or(self.most), last, next_page };
        let begins = |list: &Self| (list.last.clone(), list.next_page.clone());
        if begins(&next) == (None, None) || begins(&next) == begins(self) {
            return Err(ListError::LeadsNowhere);
        }
        Ok(next)
    }

    /// The parameters of its address; none where there is nothing to say.
    pub fn parameters(&self) -> Vec<(&'static str, String)> {
        let artifact_type = match &self.of {
            ListOf::Referrers { artifact_type, .. } => artifact_type.clone(),
            ListOf::Tags => None,
        };
        let most = self.most.map(|most| most.to_string());
        let all = [
            ("artifactType", artifact_type),
            ("n", most),
            ("last", self.last.clone()),
            ("next_page", self.next_page.clone()),
        ];
        all.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
    }

    /// Its path below its repository.
    pub fn path(&self) -> String {
        match &self.of {
            ListOf::Tags => "tags/list".to_owned(),
            ListOf::Referrers { subject, .. } => format!("referrers/{subject}"),
        }
    }

    /// The media type of such a list.
    pub fn media_type(&self) -> &'static str {
        match self.of {
            ListOf::Tags => "application/json",
            ListOf::Referrers { .. } => "application/vnd.oci.image.index.v1+json",
        }
    }

    /// Looks whether these bytes are such a list. What they are is told by the bytes themselves, as with manifests.
    ///
    /// # Errors
    /// When they are not.
    pub fn check(&self, bytes: &[u8]) -> Result<(), ListError> {
        match self.of {
            ListOf::Tags => {
                let _: Tags<'_> = serde_json::from_slice(bytes).map_err(ListError::NotTags)?;
            }
            ListOf::Referrers { .. } => {
                let index: Referrers = serde_json::from_slice(bytes).map_err(ListError::NotReferrers)?;
                let is_index = index.media_type.as_deref().is_none_or(|found| found == self.media_type());
                let image = index.config.is_some() || index.layers.is_some();
                if index.schema_version != 2 || !is_index || image {
                    return Err(ListError::NotAnIndex);
                }
            }
        }
        Ok(())
    }
}

impl fmt::Display for List {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.path())?;
        let query = form_urlencoded::Serializer::new(String::new()).extend_pairs(self.parameters()).finish();
        if query.is_empty() { Ok(()) } else { write!(f, "?{query}") }
    }
}

/// Which filters a registry says to have applied (`OCI-Filters-Applied`), as far as that can be handed on.
pub fn filters_applied(said: &str) -> Option<&str> {
    let said = said.trim();
    let sound = said.len() <= LONGEST_FILTERS && said.bytes().all(|byte| matches!(byte, b' '..=b'~'));
    (sound && !said.is_empty()).then_some(said)
}

/// A parameter's value; one that is empty says nothing.
fn parameter<'a>(query: &'a str, name: &'static str) -> Result<Option<Cow<'a, str>>, ListError> {
    let mut found = form_urlencoded::parse(query.as_bytes()).filter(|(key, _)| key == name);
    let first = found.next().map(|(_, value)| value);
    if found.next().is_some() {
        return Err(ListError::Twice(name));
    }
    Ok(first.filter(|value| !value.is_empty()))
}

fn entries(number: &str) -> Result<u16, ListError> {
    let digits = number.bytes().all(|byte| byte.is_ascii_digit());
    let parsed = number.parse().ok().filter(|entries| digits && *entries <= MOST_ENTRIES);
    parsed.ok_or_else(|| ListError::Entries(shortened(number)))
}

/// Usually a tag, but each registry may have its own way to say where a page begins.
fn place(text: Cow<'_, str>) -> Result<String, ListError> {
    let sound = text.len() <= LONGEST_LAST && text.bytes().all(|byte| byte.is_ascii_graphic());
    if sound { Ok(text.into_owned()) } else { Err(ListError::Last(shortened(&text))) }
}

/// A media type without parameters (RFC 6838, section 4.2).
fn artifact_type(text: Cow<'_, str>) -> Result<String, ListError> {
    let name = |name: &str| {
        name.bytes().next().is_some_and(|first| first.is_ascii_alphanumeric())
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$&-^_.+".contains(&byte))
    };
    let sound =
        text.len() <= LONGEST_TYPE && text.split_once('/').is_some_and(|(main, sub)| name(main) && name(sub));
    if sound { Ok(text.into_owned()) } else { Err(ListError::ArtifactType(shortened(&text))) }
}

fn shortened(text: &str) -> String {
    text.chars().take(100).collect()
}

/// As far as it has to be understood; registries written in Go have `null` for no tags.
#[derive(Deserialize)]
struct Tags<'a> {
    #[serde(borrow, rename = "name")]
    _name: Cow<'a, str>,
    #[serde(borrow, rename = "tags", deserialize_with = "present")]
    _tags: Option<Vec<Cow<'a, str>>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Referrers {
    schema_version: u64,
    media_type: Option<String>,
    #[serde(rename = "manifests", deserialize_with = "present")]
    _manifests: Option<Vec<Descriptor>>,
    config: Option<serde::de::IgnoredAny>,
    layers: Option<serde::de::IgnoredAny>,
}

/// `null` will do, but the key has to be there.
fn present<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Deserialize<'de>,
{
    Option::deserialize(deserializer)
}

/// Why something is no list, or no way to ask for one.
#[derive(Debug, thiserror::Error)]
pub enum ListError {
    /// A parameter that is there more than once.
    #[error("{0}= is there twice")]
    Twice(&'static str),
    /// Not a number of entries.
    #[error("n={0:?} is not a number of entries from 0 to {MOST_ENTRIES}")]
    Entries(String),
    /// Not where a page can begin.
    #[error("last={0:?} is not where a page begins: up to {LONGEST_LAST} visible ASCII characters")]
    Last(String),
    /// Not a media type.
    #[error("artifactType={0:?} is not a media type")]
    ArtifactType(String),
    /// A link to a next page that is none.
    #[error("a link to a next page that says in no known way where that begins, or leads back")]
    LeadsNowhere,
    /// Not JSON, or not with the fields of a list of tags.
    #[error("not a list of tags: {0}")]
    NotTags(#[source] serde_json::Error),
    /// Not JSON, or not with the fields of an index.
    #[error("not an index of referrers: {0}")]
    NotReferrers(#[source] serde_json::Error),
    /// JSON, but not an index.
    #[error("not an index of schema version 2")]
    NotAnIndex,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn referrers(query: &str) -> Result<List, ListError> {
        List::referrers(Digest::of(b"subject"), query)
    }

    #[test]
    fn a_question_has_one_text_however_it_was_spelt() {
        for (query, text) in [
            ("", "tags/list"),
            ("ns=docker.io&x=y", "tags/list"),
            ("n=&last=", "tags/list"),
            ("last=v1.0&n=010&artifactType=a/b", "tags/list?n=10&last=v1.0"),
            ("last=a%2Fb%2B%3D&ns=x", "tags/list?last=a%2Fb%2B%3D"),
            ("next_page=gAAA%3D&n=50", "tags/list?n=50&next_page=gAAA%3D"),
        ] {
            assert_eq!(List::tags(query).unwrap().to_string(), text, "{query}");
        }
        let digest = Digest::of(b"subject");
        assert_eq!(
            referrers("artifactType=application%2Fspdx%2Bjson").unwrap().to_string(),
            format!("referrers/{digest}?artifactType=application%2Fspdx%2Bjson")
        );
    }

    #[test]
    fn what_cannot_be_asked_is_refused() {
        for query in [
            "n=x",
            "n=-1",
            "n=+1",
            "n=10001",
            "n=1e3",
            "n=99999999999",
            "n=1&n=2",
            "last=a&last=a",
            "last=a%20b",
            "last=a%0d%0ab",
            "last=%00",
            "last=%C3%BC",
        ] {
            assert!(List::tags(query).is_err(), "{query} was taken");
        }
        assert!(List::tags(&format!("last={}", "t".repeat(LONGEST_LAST + 1))).is_err());
        for query in ["artifactType=a", "artifactType=a/b/c", "artifactType=a/b;c=d", "artifactType=*/*"] {
            assert!(referrers(query).is_err(), "{query} was taken");
        }
        assert!(List::tags("n=0").is_ok() && List::tags("n=10000").is_ok());
    }

    #[test]
    fn a_link_leads_on_and_keeps_what_it_does_not_say() {
        let first = List::tags("n=2").unwrap();
        let second = first.next("last=b").unwrap();
        assert_eq!(second.to_string(), "tags/list?n=2&last=b");
        assert_eq!(second.next("n=50&last=d&orderby=").unwrap().to_string(), "tags/list?n=50&last=d");
        assert_eq!(first.next("n=20000&next_page=x").unwrap().to_string(), "tags/list?n=2&next_page=x");
        let filtered = referrers("artifactType=a/b").unwrap();
        assert!(filtered.next("last=z").unwrap().to_string().ends_with("?artifactType=a%2Fb&last=z"));
        for query in ["", "n=2", "page=2", "last=b", "last=b%20", "last=b&last=c"] {
            assert!(second.next(query).is_err(), "{query} leads somewhere");
        }
    }

    #[test]
    fn a_list_is_told_by_its_bytes() {
        let (tags, referrers) = (List::tags("").unwrap(), referrers("").unwrap());
        for list in [
            r#"{"name":"a","tags":[]}"#,
            r#"{"name":"a","tags":null}"#,
            r#"{"name":"a\u002fb","tags":["1","\u0061"],"more":{}}"#,
        ] {
            assert!(tags.check(list.as_bytes()).is_ok(), "{list}");
            assert!(referrers.check(list.as_bytes()).is_err(), "{list}");
        }
        let entry = format!(r#"{{"mediaType":"a/b","digest":"{}","size":2}}"#, Digest::of(b"x"));
        let media_type = r#""mediaType":"application/vnd.oci.image.index.v1+json""#;
        for list in [
            format!(r#"{{"schemaVersion":2,{media_type},"manifests":[{entry}]}}"#),
            format!(r#"{{"schemaVersion":2,{media_type},"manifests":null}}"#),
            r#"{"schemaVersion":2,"manifests":[]}"#.to_owned(),
        ] {
            assert!(referrers.check(list.as_bytes()).is_ok(), "{list}");
            assert!(tags.check(list.as_bytes()).is_err(), "{list}");
        }
        let deep = format!(r#"{{"name":"a","tags":{}{}}}"#, "[".repeat(500_000), "]".repeat(500_000));
        for bytes in [
            "",
            "<html>log in</html>",
            "[]",
            "{}",
            "null",
            r#"{"name":"a"}"#,
            r#"{"tags":[]}"#,
            r#"{"name":"a","tags":[1]}"#,
            r#"{"name":"a","tags":"b"}"#,
            r#"{"schemaVersion":2}"#,
            r#"{"schemaVersion":1,"manifests":[]}"#,
            r#"{"schemaVersion":2,"manifests":[{}]}"#,
            r#"{"schemaVersion":2,"manifests":[],"layers":[]}"#,
            r#"{"schemaVersion":2,"mediaType":"application/json","manifests":[]}"#,
            &deep,
        ] {
            assert!(tags.check(bytes.as_bytes()).is_err(), "{bytes:.80}");
            assert!(referrers.check(bytes.as_bytes()).is_err(), "{bytes:.80}");
        }
    }

    #[test]
    fn what_filters_were_applied_is_handed_on_only_as_a_header_can_hold_it() {
        assert_eq!(filters_applied(" artifactType "), Some("artifactType"));
        for said in ["", " ", "a\r\nb: c", "\u{fc}", &"a".repeat(200)] {
            assert_eq!(filters_applied(said), None, "{said:?}");
        }
    }
}
