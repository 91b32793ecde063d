//! The way out: the registries, asked directly and through the daemon, and the logins for them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use futures_util::future::join_all;
use tidehold::clock;
use tidehold::config::Config;
use tidehold::oci::{ImageName, Reference};
use url::Url;

use super::daemon::{self, Answerer};
use super::finding::Finding;
use super::look::Node;
use super::{ask, disk, egress, logins, upstream};
use crate::cli::DEFAULT_CONFIG;

/// Whether the registries of these images can be reached, and whether the images can be had.
pub(super) async fn registries(
    node: &Node,
    offline: bool,
    images: &[ImageName],
    facts: &daemon::Facts,
    proxies: &[egress::Told],
) -> Vec<Finding> {
    let mut findings = Vec::new();
    let (mut date, mut reached) = (None, None);
    if !offline {
        let mut urls: Vec<Url> = Vec::new();
        for image in images {
            let url = upstream_of(&facts.config, image.repository.registry().as_str());
            urls.extend(url.filter(|url| !urls.contains(url)));
        }
        for (url, ended) in urls.iter().zip(join_all(urls.iter().map(ask::direct)).await) {
            if let upstream::Ended::Answered(_, Some(said)) = &ended {
                date = Some(*said);
            }
            let came = matches!(ended, upstream::Ended::Answered(..));
            reached = Some(came && reached.unwrap_or(true));
            findings.push(upstream::direct(
                &upstream::Direct { url: url.to_string(), ended },
                !proxies.is_empty(),
            ));
        }
    }
    findings.extend(egress::judge(proxies, reached, &facts.file()));
    let written =
        [facts.config.data_dir.as_path(), facts.file.as_deref().unwrap_or(Path::new(DEFAULT_CONFIG))];
    let written = written.into_iter().filter_map(|path| node.written(path)).max();
    findings.push(disk::clock(clock::now(), date, written));
    let mut asked = Vec::new();
    if !offline && facts.mirror == Answerer::Ours {
        asked = join_all(images.iter().map(|image| one_image(node, facts, image))).await;
    }
    if !facts.answers() {
        findings.extend(asked.into_iter().flatten());
        return findings;
    }
    // What was asked just now is among what it tells of.
    let status = ask::status(&node.at(&facts.control.0)).await.unwrap_or_default();
    let kept_out = |image: &ImageName| {
        status.kept_out.iter().any(|kept| kept.registry == image.repository.registry().as_str())
    };
    let told = images.iter().zip(asked).flat_map(|(image, found)| {
        // Why that one is denied is said of its registry.
        found.into_iter().filter(move |finding| !(finding.name == "mirror.denied" && kept_out(image)))
    });
    findings.extend(told);
    findings.extend(upstream::kept_out(&facts.file(), &status.kept_out));
    findings.extend(upstream::budgets(&status.registries));
    findings
}

async fn one_image(node: &Node, facts: &daemon::Facts, image: &ImageName) -> Vec<Finding> {
    let registry = image.repository.registry().as_str();
    let reference = match &image.reference {
        Reference::Tag(tag) => tag.to_string(),
        Reference::Digest(digest) => digest.to_string(),
    };
    let head = ask::head(ask::reachable(facts.at.0), registry, image.repository.name(), &reference).await;
    let mut findings = vec![upstream::head(&image.to_string(), &head)];
    let has_login =
        facts.config.registries.listed.get(registry).is_some_and(|listed| listed.credentials.is_some());
    let denied = matches!(head, upstream::Head::Answered { status: 401 | 403, .. });
    if has_login && denied && facts.answers() {
        let resolved = ask::resolve(&node.at(&facts.control.0), &image.to_string()).await;
        findings.push(upstream::own_login(registry, &image.to_string(), &resolved));
    }
    findings
}

/// The registry itself.
fn upstream_of(config: &Config, registry: &str) -> Option<Url> {
    if let Some(listed) = config.registries.listed.get(registry) {
        return listed.upstreams.last().cloned();
    }
    let host = if registry == tidehold::config::DOCKER_HUB { "registry-1.docker.io" } else { registry };
    Url::parse(&format!("https://{host}")).ok()
}

/// Whether the files and helpers of the logins are of use, and whether the registries take them.
pub(super) async fn logins(node: &Node, offline: bool, facts: &daemon::Facts) -> Vec<Finding> {
    let (mut findings, tried) = tokio::join!(files(node, &facts.config), tried(node, offline, facts));
    findings.extend(tried);
    findings
}

/// What the daemon finds when it shows each login to whom it is for.
async fn tried(node: &Node, offline: bool, facts: &daemon::Facts) -> Vec<Finding> {
    let listed = facts.config.registries.listed.iter();
    let files: BTreeMap<&str, &Path> = listed
        .filter_map(|(name, registry)| Some((name.as_str(), registry.credentials.as_deref()?)))
        .collect();
    if files.is_empty() {
        return Vec::new();
    }
    let why = if offline {
        "with --offline no registry is asked".to_owned()
    } else if !facts.answers() {
        "the daemon, which shows them, does not answer".to_owned()
    } else {
        match ask::try_logins(&node.at(&facts.control.0)).await {
            Ok(all) => return logins::tried(&files, &all),
            Err(why) => why,
        }
    };
    vec![logins::untried(&files, &why)]
}

async fn files(node: &Node, config: &Config) -> Vec<Finding> {
    let mut files: Vec<(PathBuf, Vec<String>)> = Vec::new();
    for (name, registry) in &config.registries.listed {
        let Some(path) = &registry.credentials else { continue };
        match files.iter_mut().find(|(known, _)| known == path) {
            Some((_, registries)) => registries.push(name.clone()),
            None => files.push((path.clone(), vec![name.clone()])),
        }
    }
    let mut findings = Vec::new();
    for (path, registries) in files {
        let at = node.at(&path);
        let file = std::fs::metadata(&at).and_then(|found| {
            let mode = std::os::unix::fs::MetadataExt::mode(&found) & 0o777;
            Ok((mode, std::fs::read_to_string(&at)?))
        });
        let file = file.map_err(|error| error.to_string());
        let named = file.as_ref().ok().and_then(|(_, text)| logins::helpers(text).ok()).unwrap_or_default();
        let mut helpers = Vec::new();
        for (program, server) in named {
            let folders: Vec<PathBuf> =
                std::env::split_paths(logins::SEARCH).map(|folder| node.at(&folder)).collect();
            let own = std::env::var_os("PATH").unwrap_or_default();
            let own: Vec<PathBuf> =
                std::env::split_paths(&own).filter(|folder| folder.is_absolute()).collect();
            let all = own.iter().chain(&folders).map(PathBuf::as_path);
            let did = match logins::found_in(all, &program) {
                Some(path) => ask::helper(&path, &server).await,
                None => logins::Helper::Missing(logins::SEARCH.to_owned()),
            };
            helpers.push((program, did));
        }
        findings.extend(logins::judge(&logins::Facts { path, registries, file, helpers }));
    }
    findings
}
