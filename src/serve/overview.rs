//! What is told of the daemon: the same to its operator's commands and on the status page.
//!
//! Puts together what the hold, the record and the gates know, and changes nothing.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use crate::oci::{ImageName, Reference};
use crate::proto::v1;
use crate::record::{Ending, Gauges, Record};
use crate::resolve::{Failure, Resolver, shown};
use crate::store::{Hold, StoreError};

/// What of the configuration is told.
pub struct Facts {
    /// Where blobs and the index are.
    pub data_dir: PathBuf,
    /// The containerds, by the name and the socket of each one's listener.
    pub containerds: Vec<(String, String)>,
    /// Where the mirror listens.
    pub mirror: String,
    /// Where the status page is.
    pub web: String,
    /// The most that may be cached, in bytes.
    pub max_cached_bytes: u64,
    /// How much of a disk of so many bytes is to stay free.
    pub reserve: Box<dyn Fn(u64) -> u64 + Send + Sync>,
}

/// What is told. Cheap to clone.
#[derive(Clone)]
pub struct Overview {
    hold: Hold,
    resolver: Resolver,
    facts: Arc<Facts>,
}

impl Overview {
    /// Of this hold and this resolver.
    pub fn new(hold: Hold, resolver: Resolver, facts: Facts) -> Self {
        Self { hold, resolver, facts: Arc::new(facts) }
    }

    /// What is held.
    pub fn hold(&self) -> &Hold {
        &self.hold
    }

    /// What happened.
    pub fn record(&self) -> &Record {
        self.resolver.record()
    }

    /// Everything at a glance. Waits for the disk.
    ///
    /// # Errors
    /// When the index cannot be read.
    pub fn status(&self, now: SystemTime) -> Result<v1::StatusResponse, StoreError> {
        let record = self.record();
        let sums = record.sums();
        let Facts { data_dir, mirror, web, .. } = &*self.facts;
        Ok(v1::StatusResponse {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started_at: Some(record.started_at().into()),
            data_dir: data_dir.display().to_string(),
            hold: Some(v1::HoldUsage::default()),
            disk: Some(self.disk()),
            containerds: self.containerds(),
            registries: self.budget(None, now),
            answered: record.totals(),
            history: record.history(now),
            bytes_from_hold: sums.from_hold,
            bytes_from_upstream: sums.from_upstream,
            upstream_requests: sums.requests,
            upstream_counted: sums.counted,
            counted_without: sums.counted_without,
            mirror: mirror.clone(),
            web: web.clone(),
        })
    }

    /// What each registry allows, or only this one, and what was spent there.
    pub fn budget(&self, registry: Option<&str>, now: SystemTime) -> Vec<v1::RegistryBudget> {
        let mut budgets = self.record().budget(registry, now);
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
        budgets
    }

    /// The story of a reference; nothing where none is known.
    ///
    /// # Errors
    /// When the index cannot be read.
    pub fn explain(&self, name: &ImageName) -> Result<Option<v1::ExplainResponse>, StoreError> {
        let reference = shown(&name.repository, &name.reference);
        let decisions = self.record().decisions(&reference);
        let mut history = Vec::new();
        let mut ages = None;
        match &name.reference {
            Reference::Tag(tag) => {
                ages = Some(self.resolver.ages_of(tag));
                for entry in self.hold.tag(&name.repository, tag)? {
                    let held = self.hold.blob(&entry.digest)?.is_some();
                    let confirmed_at = Some(entry.confirmed_at.into());
                    history.push(v1::TagPoint { digest: entry.digest.to_string(), confirmed_at, held });
                }
            }
            Reference::Digest(digest) => {
                if self.hold.seen_in(digest, &name.repository)? {
                    let held = self.hold.blob(digest)?.is_some();
                    history.push(v1::TagPoint { digest: digest.to_string(), confirmed_at: None, held });
                }
            }
        }
        if decisions.is_empty() && history.is_empty() {
            return Ok(None);
        }
        let (fresh_for, stale_for) = match ages {
            Some(ages) => (ages.fresh_for.try_into().ok(), ages.stale_for.try_into().ok()),
            None => (None, None),
        };
        let summary = summary(&reference, &decisions, &history);
        let pinned = false;
        Ok(Some(v1::ExplainResponse { reference, summary, history, decisions, pinned, fresh_for, stale_for }))
    }

    /// The metrics, in Prometheus's text form. Waits for the disk.
    pub fn metrics(&self, now: SystemTime) -> String {
        let shut = self.record().budget(None, now).into_iter().map(|budget| budget.registry);
        let shut = shut.filter(|registry| self.gate_of(registry).is_some()).collect();
        let gauges = Gauges { shut, ..Gauges::default() };
        self.record().metrics(&gauges, now)
    }

    fn gate_of(&self, registry: &str) -> Option<Failure> {
        self.resolver.gate_of(&registry.parse().ok()?)
    }

    fn containerds(&self) -> Vec<v1::ContainerdStatus> {
        let told = self.facts.containerds.iter().map(|(name, socket)| v1::ContainerdStatus {
            name: name.clone(),
            socket: socket.clone(),
            called_at: self.record().called_at(name).map(Into::into),
            ..v1::ContainerdStatus::default()
        });
        told.collect()
    }

    fn disk(&self) -> v1::DiskUsage {
        let Facts { data_dir, max_cached_bytes, reserve, .. } = &*self.facts;
        let max_cached_bytes = *max_cached_bytes;
        match rustix::fs::statvfs(data_dir.as_path()) {
            Ok(disk) => {
                let total_bytes = disk.f_blocks.saturating_mul(disk.f_frsize);
                let free_bytes = disk.f_bavail.saturating_mul(disk.f_frsize);
                let reserve_bytes = reserve(total_bytes);
                v1::DiskUsage { total_bytes, free_bytes, reserve_bytes, max_cached_bytes }
            }
            Err(error) => {
                tracing::warn!(%error, data_dir = %data_dir.display(), "the disk does not say how full it is");
                v1::DiskUsage { max_cached_bytes, ..v1::DiskUsage::default() }
            }
        }
    }
}

/// What is to be said first, in one sentence.
fn summary(reference: &str, decisions: &[v1::Decision], history: &[v1::TagPoint]) -> String {
    let Some(last) = decisions.first() else {
        return format!("{reference} is held, and nobody has asked for it lately.");
    };
    match Ending::parse(&last.standing) {
        Some(Ending::Refused) => format!("{reference} was refused: {}.", last.reason),
        _ => {
            let held = history.iter().any(|point| point.digest == last.digest && point.held);
            let gone = if held || history.is_empty() { "" } else { "; its manifest is not held any more" };
            format!("{reference} was answered as {}: {}{gone}.", last.standing, last.reason)
        }
    }
}
