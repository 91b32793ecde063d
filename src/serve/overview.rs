//! What is told of the daemon: the same to its operator's commands and on the status page.
//!
//! Puts together what the hold, the record and the gates know, and changes nothing.

mod image;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use futures_util::FutureExt as _;
use tokio::sync::watch;

use crate::evict::{Keeper, Limits};
use crate::oci::{Digest, ImageName, NameError, Reference, Registry, Repository};
use crate::proto::v1;
use crate::record::{Ending, Gauges, Named, Record};
use crate::resolve::{Failure, RefusedLogin, Resolver, shown};
use crate::serve::beside::Place;
use crate::store::{Hold, Pin, SeenIn, StoreError, Unkept, Usage};

/// What of the configuration is told.
#[derive(Debug, Clone)]
pub struct Facts {
    /// Where blobs and the index are.
    pub data_dir: PathBuf,
    /// The containerds, by the name and the socket of each one's listener.
    pub containerds: Vec<(String, String)>,
    /// The listeners beside theirs.
    pub places: Places,
    /// The proxy that the environment names, which nothing uses.
    pub unused_proxy: Option<String>,
}

/// Where the listeners are that may come late.
#[derive(Debug, Clone)]
pub struct Places {
    /// The mirror's.
    pub mirror: watch::Receiver<Place>,
    /// The control socket.
    pub control: watch::Receiver<Place>,
    /// The status page's.
    pub web: watch::Receiver<Place>,
}

impl Places {
    fn all(&self) -> [Place; 3] {
        [&self.mirror, &self.control, &self.web].map(|place| place.borrow().clone())
    }
}

/// What is told. Cheap to clone.
#[derive(Clone)]
pub struct Overview {
    resolver: Resolver,
    keeper: Keeper,
    facts: Arc<Facts>,
}

impl Overview {
    /// Of this resolver, and the keeper of the hold that it is over.
    pub fn new(resolver: Resolver, keeper: Keeper, facts: Facts) -> Self {
        Self { resolver, keeper, facts: Arc::new(facts) }
    }

    /// What is held.
    pub fn hold(&self) -> &Hold {
        self.keeper.hold()
    }

    /// Whoever keeps and evicts.
    pub fn keeper(&self) -> &Keeper {
        &self.keeper
    }

    /// Whoever decides.
    pub fn resolver(&self) -> &Resolver {
        &self.resolver
    }

    /// What happened.
    pub fn record(&self) -> &Record {
        self.resolver.record()
    }

    /// Whether the index could not be written: nothing new is kept until the daemon starts anew.
    pub fn index_lost(&self) -> bool {
        self.hold().index_lost().now_or_never().is_some()
    }

    /// Whether the hold has to be opened anew: its folder is not there any more.
    pub fn hold_replaced(&self) -> bool {
        matches!(self.hold().can_write(), Err(StoreError::Replaced(_)))
    }

    /// Why nothing new can be kept, and what to do about it; none where it can be.
    pub fn unkept(&self) -> Option<v1::Unwritable> {
        match self.hold().can_keep() {
            Ok(()) => None,
            Err(Unkept::NoRoom) => Some(v1::Unwritable {
                why: "the disk is full".to_owned(),
                mend: "make room on it".to_owned(),
            }),
            Err(Unkept::Unwritable(error)) => Some(unwritable(&error)),
        }
    }

    /// The listeners that could not be had yet.
    pub fn missing(&self) -> Vec<v1::MissingListener> {
        self.facts.places.all().into_iter().filter_map(missing).collect()
    }

    /// Everything at a glance. Waits for the disk.
    ///
    /// # Errors
    /// When the index cannot be read.
    pub fn status(&self, now: SystemTime) -> Result<v1::StatusResponse, StoreError> {
        let record = self.record();
        let sums = record.sums();
        let usage = self.hold().usage();
        let Facts { data_dir, places, .. } = &*self.facts;
        let [mirror, control, web] = places.all();
        Ok(v1::StatusResponse {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started_at: Some(record.started_at().into()),
            data_dir: data_dir.display().to_string(),
            hold: Some(self.held(&usage)?),
            disk: Some(self.disk()?),
            containerds: self.containerds(&usage),
            registries: self.budgets(None, Named::Dearest, now),
            answered: record.totals(),
            history: record.history(now),
            bytes_from_hold: sums.from_hold,
            bytes_from_upstream: sums.from_upstream,
            upstream_requests: sums.requests,
            upstream_counted: sums.counted,
            counted_without: sums.counted_without,
            counted_by_operator: sums.counted_by_operator,
            mirror: at(&mirror),
            web: at(&web),
            missing: [mirror, control, web].into_iter().filter_map(missing).collect(),
            bytes_downloaded: sums.downloaded,
            unwritable: self.hold().can_write().err().as_ref().map(unwritable),
            kept_out: record.all_kept_out(now),
            unused_proxy: self.facts.unused_proxy.clone().unwrap_or_default(),
        })
    }

    /// What each registry allows, or only this one, and what was spent there.
    ///
    /// # Errors
    /// When that is no name of a registry, or nothing is known of it.
    pub fn budget(
        &self,
        only: Option<&str>,
        named: Named,
        now: SystemTime,
    ) -> Result<v1::BudgetResponse, AskError> {
        let only = only.map(str::parse::<Registry>).transpose()?;
        let registries = self.budgets(only.as_ref().map(Registry::as_str), named, now);
        match only {
            Some(only) if registries.is_empty() => Err(AskError::Unasked(only)),
            Some(_) | None => Ok(v1::BudgetResponse { registries }),
        }
    }

    fn budgets(&self, only: Option<&str>, named: Named, now: SystemTime) -> Vec<v1::RegistryBudget> {
        let mut budgets = self.record().budget(only, named, now);
        for budget in &mut budgets {
            let Some(shut) = self.gate_of(&budget.registry) else { continue };
            budget.gate_open = false;
            match shut {
                Failure::Shut { because, opens_in } => {
                    budget.shut_because = because.to_string();
                    budget.opens_at = now.checked_add(opens_in).map(Into::into);
                }
                other => budget.shut_because = other.to_string(),
            }
        }
        self.add_refused_logins(&mut budgets, only, now);
        budgets
    }

    /// A registry may have been asked for nothing yet when its login was tried.
    fn add_refused_logins(&self, budgets: &mut Vec<v1::RegistryBudget>, only: Option<&str>, now: SystemTime) {
        for RefusedLogin { registry, login, status, ago } in self.resolver.refused_logins() {
            if only.is_some_and(|only| only != registry.as_str()) {
                continue;
            }
            let refused = v1::RefusedLogin {
                entry: login.entry.to_string(),
                file: login.file.display().to_string(),
                status: status.into(),
                refused_at: now.checked_sub(ago).map(Into::into),
            };
            match budgets.iter_mut().find(|budget| budget.registry == registry.as_str()) {
                Some(budget) => budget.refused_logins.push(refused),
                None => budgets.push(v1::RegistryBudget {
                    registry: registry.to_string(),
                    gate_open: true,
                    refused_logins: vec![refused],
                    ..v1::RegistryBudget::default()
                }),
            }
        }
    }

    /// The story of a reference. Waits for the disk.
    ///
    /// # Errors
    /// When that is no reference, nothing is known of it, or the index cannot be read.
    pub fn explain(&self, reference: &str) -> Result<v1::ExplainResponse, AskError> {
        let name: ImageName = reference.parse()?;
        let reference = shown(&name.repository, &name.reference);
        let decisions = self.record().decisions(&reference);
        let mut history = Vec::new();
        let (mut ages, mut root) = (None, None);
        match &name.reference {
            Reference::Tag(tag) => {
                ages = Some(self.resolver.ages_of(tag));
                for entry in self.hold().tag(&name.repository, tag)? {
                    let held = self.hold().blob(&entry.digest)?.is_some();
                    let confirmed_at = Some(entry.confirmed_at.into());
                    root.get_or_insert_with(|| entry.digest.clone());
                    history.push(v1::TagPoint { digest: entry.digest.to_string(), confirmed_at, held });
                }
            }
            Reference::Digest(digest) => {
                if self.hold().seen_in(digest, &name.repository)? {
                    let held = self.hold().blob(digest)?.is_some();
                    root = Some(digest.clone());
                    history.push(v1::TagPoint { digest: digest.to_string(), confirmed_at: None, held });
                }
            }
        }
        if decisions.is_empty() && history.is_empty() {
            let seen = self.hold().count_seen_in(&name.repository)?;
            return Err(AskError::Unknown(unknown(&reference, &name.repository, seen)));
        }
        let (fresh_for, stale_for) = match ages {
            Some(ages) => (ages.fresh_for.try_into().ok(), ages.stale_for.try_into().ok()),
            None => (None, None),
        };
        let summary = summary(&reference, &decisions, &history);
        let pinned = self.hold().is_pinned(&name)?;
        let image = root.map(|root| self.image(&root, &decisions)).transpose()?;
        Ok(v1::ExplainResponse {
            reference,
            summary,
            history,
            decisions,
            pinned,
            fresh_for,
            stale_for,
            image,
        })
    }

    fn image(&self, root: &Digest, decisions: &[v1::Decision]) -> Result<v1::ImageStory, StoreError> {
        image::told((self.hold(), self.record()), root, &self.keeper.pinned()?, decisions)
    }

    /// The tags that are known, those alone whose references contain this. Waits for the disk.
    ///
    /// # Errors
    /// When the index cannot be read.
    pub fn tags(&self, contains: &str) -> Result<Vec<v1::HeldTag>, StoreError> {
        let tags = self.keeper.tags(contains)?.into_iter().map(|tag| {
            let standing = self.record().standing(&shown(&tag.name.repository, &tag.name.reference));
            v1::HeldTag {
                reference: tag.name.to_string(),
                digest: tag.digest.to_string(),
                confirmed_at: Some(tag.confirmed_at.into()),
                standing: standing.map(Ending::as_str).unwrap_or_default().to_owned(),
                pinned: tag.pinned,
                held_bytes: tag.held_bytes,
                own_bytes: tag.own_bytes,
                whole: tag.whole,
                adopted_by: tag.adopted_by,
                used_at: tag.used_at.map(Into::into),
            }
        });
        Ok(tags.collect())
    }

    /// The metrics, in Prometheus's text form. Waits for the disk.
    ///
    /// # Errors
    /// When the index cannot be read.
    pub fn metrics(&self, now: SystemTime) -> Result<String, StoreError> {
        let usage = self.hold().usage();
        let disk = self.disk()?;
        let gauges = Gauges {
            adopted_bytes: usage.adopted.bytes,
            cached_bytes: usage.cached.bytes,
            ingest_bytes: self.hold().ingesting()?.bytes,
            cache_limit_bytes: disk.max_cached_bytes,
            disk_free_bytes: disk.free_bytes,
            disk_reserve_bytes: disk.reserve_bytes,
        };
        Ok(self.record().metrics(&self.budgets(None, Named::Dearest, now), &gauges))
    }

    fn gate_of(&self, registry: &str) -> Option<Failure> {
        self.resolver.gate_of(&registry.parse().ok()?)
    }

    fn held(&self, usage: &Usage) -> Result<v1::HoldUsage, StoreError> {
        let ingesting = self.hold().ingesting()?;
        let pins = self.hold().pins()?;
        let is_digest = |pin: &&Pin| matches!(pin.name.reference, Reference::Digest(_));
        Ok(v1::HoldUsage {
            adopted_blobs: usage.adopted.blobs,
            adopted_bytes: usage.adopted.bytes,
            cached_blobs: usage.cached.blobs,
            cached_bytes: usage.cached.bytes,
            ingests: ingesting.blobs,
            ingest_bytes: ingesting.bytes,
            tags: self.hold().count_tags(),
            pins: pins.len() as u64,
            pinned_digests: pins.iter().filter(is_digest).count() as u64,
        })
    }

    fn containerds(&self, usage: &Usage) -> Vec<v1::ContainerdStatus> {
        let told = self.facts.containerds.iter().map(|(name, socket)| {
            let adopted = usage.by_containerd.get(name).copied().unwrap_or_default();
            v1::ContainerdStatus {
                name: name.clone(),
                socket: socket.clone(),
                adopted_blobs: adopted.blobs,
                adopted_bytes: adopted.bytes,
                called_at: self.record().called_at(name).map(Into::into),
            }
        });
        told.collect()
    }

    fn disk(&self) -> Result<v1::DiskUsage, StoreError> {
        let space = self.hold().disk_space()?;
        let Limits { max_cached_bytes, reserve_bytes } = self.keeper.limits();
        let (total_bytes, free_bytes) = (space.total_bytes, space.free_bytes);
        Ok(v1::DiskUsage { total_bytes, free_bytes, reserve_bytes, max_cached_bytes })
    }
}

fn unwritable(error: &StoreError) -> v1::Unwritable {
    v1::Unwritable { why: error.to_string(), mend: error.mend().unwrap_or_default() }
}

/// Empty where it is nowhere yet.
fn at(place: &Place) -> String {
    place.missing.as_ref().map_or_else(|| place.address.clone(), |_| String::new())
}

fn missing(place: Place) -> Option<v1::MissingListener> {
    let Place { name, address, missing } = place;
    missing.map(|why| v1::MissingListener { name: name.to_owned(), address, why })
}

/// Why there is nothing to tell.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// What was asked about has no such name.
    #[error(transparent)]
    Malformed(#[from] NameError),
    /// A registry of which nothing is known.
    #[error("nothing was asked of {0} in the last six hours")]
    Unasked(Registry),
    /// A reference of which nothing is known, and what is known beside it.
    #[error("nothing is known of {0}")]
    Unknown(String),
    /// The index could not be read.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What is said of a reference that nobody has asked for: what was taken over from a containerd has no name here.
fn unknown(reference: &str, repository: &Repository, seen: SeenIn) -> String {
    let blobs = match seen {
        SeenIn::Exactly(0) | SeenIn::AtLeast(0) => {
            return format!("{reference}: nobody has asked for it here");
        }
        SeenIn::Exactly(blobs) => blobs.to_string(),
        SeenIn::AtLeast(blobs) => format!("at least {blobs}"),
    };
    format!(
        "{reference}: nobody has asked for it here; {blobs} blobs of {repository} were, under other names, or were taken over \
         from a containerd, which knows by which names it has them: ctr -n NAMESPACE images ls"
    )
}

/// What is to be said first, in one sentence.
fn summary(reference: &str, decisions: &[v1::Decision], history: &[v1::TagPoint]) -> String {
    let Some(last) = decisions.first() else {
        return format!("{reference} is held, and nobody has asked for it lately.");
    };
    match Ending::parse(&last.standing) {
        Some(Ending::Challenged) => format!("{reference} wants a login: {}.", last.reason),
        Some(Ending::Refused) => format!("{reference} was refused: {}.", last.reason),
        _ => {
            let held = history.iter().any(|point| point.digest == last.digest && point.held);
            let gone = if held || history.is_empty() { "" } else { "; its manifest is not held any more" };
            format!("{reference} was answered as {}: {}{gone}.", last.standing, last.reason)
        }
    }
}
