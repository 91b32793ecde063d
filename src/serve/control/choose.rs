//! Which manifests of an index are wanted. Pure.

use std::collections::BTreeSet;

use super::problem::Problem;
use crate::oci::{Child, Platform, PlatformError};
use crate::proto::MOST_PLATFORMS;

/// How many platforms an error lists.
const LISTED: usize = 20;

/// What is wanted of an index.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// Every manifest.
    All,
    /// The best fit for each of these, at least one.
    Platforms(Vec<Platform>),
}

impl Wanted {
    pub(super) fn parse(platforms: &[String], all: bool) -> Result<Self, Problem> {
        if platforms.len() > MOST_PLATFORMS {
            return Err(Problem::malformed(format!("more than {MOST_PLATFORMS} platforms")));
        }
        match (platforms, all) {
            ([], true) => Ok(Self::All),
            ([], false) => Ok(Self::Platforms(vec![Platform::of_this_machine()])),
            ([_, ..], true) => {
                Err(Problem::malformed("all platforms are wanted, and some by name".to_owned()))
            }
            ([_, ..], false) => {
                platforms.iter().map(|text| platform(text)).collect::<Result<_, _>>().map(Self::Platforms)
            }
        }
    }

    /// The manifests of an index that are wanted, in its order; some may be the same. An index that does not say what
    /// a manifest is made for leaves it open that it fits.
    pub(super) fn of<'a>(&self, index: &'a [Child]) -> Result<Vec<&'a Child>, Problem> {
        let platforms = match self {
            Self::All => return Ok(index.iter().collect()),
            Self::Platforms(platforms) => platforms,
        };
        let mut wanted = Vec::new();
        for platform in platforms {
            match best(index, platform) {
                Some(child) => wanted.push(child),
                None => {
                    let before = wanted.len();
                    wanted.extend(index.iter().filter(|child| child.platform.is_none()));
                    if wanted.len() == before {
                        return Err(without(index, platform));
                    }
                }
            }
        }
        Ok(wanted)
    }
}

pub(super) fn platform(text: &str) -> Result<Platform, Problem> {
    text.parse().map_err(|error: PlatformError| Problem::malformed(error.to_string()))
}

/// The manifest of an index that fits a platform best, the first of equals.
pub(super) fn best<'a>(index: &'a [Child], platform: &Platform) -> Option<&'a Child> {
    let fits =
        index.iter().filter_map(|child| Some((platform.distance_to(child.platform.as_ref()?)?, child)));
    fits.min_by_key(|(distance, _)| *distance).map(|(_, child)| child)
}

/// That an index has nothing for a platform, and what it has instead.
pub(super) fn without(index: &[Child], platform: &Platform) -> Problem {
    let others: BTreeSet<String> =
        index.iter().filter_map(|child| child.platform.as_ref().map(ToString::to_string)).collect();
    let mut listed: Vec<&str> = others.iter().map(String::as_str).take(LISTED).collect();
    if others.len() > LISTED {
        listed.push("…");
    }
    Problem::missing(if listed.is_empty() {
        format!("it has nothing for {platform}")
    } else {
        format!("it has nothing for {platform}, only for {}", listed.join(", "))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::Digest;

    fn index(platforms: &[&str]) -> Vec<Child> {
        let child = |(index, platform): (usize, &&str)| Child {
            digest: Digest::of(&[u8::try_from(index).unwrap()]),
            size: index as u64,
            media_type: String::new(),
            platform: platform.parse().ok(),
            has_urls: false,
        };
        platforms.iter().enumerate().map(child).collect()
    }

    fn chosen(platforms: &[&str], wanted: &[&str]) -> Result<Vec<u64>, String> {
        let wanted: Vec<String> = wanted.iter().map(ToString::to_string).collect();
        let index = index(platforms);
        let chosen =
            Wanted::parse(&wanted, false).unwrap().of(&index).map_err(|problem| problem.message())?;
        Ok(chosen.iter().map(|child| child.size).collect())
    }

    #[test]
    fn the_best_fit_for_each_platform_is_wanted_and_nothing_else() {
        let index = ["linux/arm/v5", "linux/amd64", "linux/arm/v6", "unknown/unknown", "linux/amd64"];
        assert_eq!(chosen(&index, &["linux/amd64"]), Ok(vec![1]));
        assert_eq!(chosen(&index, &["linux/arm/v7"]), Ok(vec![2]));
        assert_eq!(chosen(&index, &["linux/arm/v5", "linux/amd64"]), Ok(vec![0, 1]));
        let own = Platform::of_this_machine().to_string();
        assert_eq!(chosen(&["plan9/386", &own], &[]), Ok(vec![1]));
    }

    #[test]
    fn what_says_nothing_of_its_platform_may_fit_where_nothing_else_does() {
        assert_eq!(chosen(&["", "linux/arm64", ""], &["linux/amd64"]), Ok(vec![0, 2]));
        assert_eq!(chosen(&["", "linux/arm64", ""], &["linux/arm64"]), Ok(vec![1]));
    }

    #[test]
    fn an_index_without_the_platform_says_what_it_has() {
        let index = ["linux/arm64", "linux/amd64", "linux/arm64"];
        let said = chosen(&index, &["linux/amd64", "linux/s390x"]).unwrap_err();
        assert_eq!(said, "it has nothing for linux/s390x, only for linux/amd64, linux/arm64");
        assert_eq!(chosen(&[], &["linux/amd64"]).unwrap_err(), "it has nothing for linux/amd64");
    }

    #[test]
    fn all_platforms_and_some_exclude_each_other() {
        assert_eq!(Wanted::parse(&[], true).unwrap(), Wanted::All);
        assert!(Wanted::parse(&["linux/amd64".to_owned()], true).is_err());
        assert!(Wanted::parse(&["linux".to_owned()], false).is_err());
        assert!(Wanted::parse(&vec!["linux/amd64".to_owned(); MOST_PLATFORMS + 1], false).is_err());
    }
}
