//! The same question again: what an answer from the hold rests on, and whether it still stands.
//!
//! What is remembered is what was *looked up*, not what was decided: the admission and the step are made anew from it,
//! by the same rules and with the time of the new question. It holds while nothing in the index was written, and the
//! file is looked at each time, as for any other answer. Only answers to those without credentials are remembered, so
//! that no token ever is.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use super::callers::Guise;
use super::decide::{Question, Standing, Step};
use super::manifests::{age, whatever_the_gates};
use super::{Caller, Client, Inner, Resolver};
use crate::access::{Admission, Said};
use crate::clock;
use crate::oci::{Digest, Repository};
use crate::record::{Latency, Told};
use crate::store::{Readers, StoreError};
use crate::upstream::Credential;

/// How long it is before everything is looked up again, whether it was written or not: what an answer sets off, such as
/// fetching ahead, is set off at least that often.
const LOOK_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// What an answer from the hold rests on.
#[derive(Debug)]
pub struct Grounds {
    /// The hold's number of changes before anything was looked up.
    changes: u64,
    looked_up_at: SystemTime,
    repository: Repository,
    guise: Guise,
    said: Said,
    question: Question,
    digest: Digest,
    standing: Standing,
    /// Where it is told that it was decided so again.
    told: OnceLock<Told>,
}

impl Grounds {
    /// Who answers on these grounds again tells so by this.
    pub(super) fn tell_again_by(&self, told: Told) {
        let _ = self.told.set(told);
    }
}

impl Resolver {
    /// Whether what was answered on these grounds would be answered again now, in the same way; and if so, how long ago
    /// its registry confirmed it. `None` where that is to be found out by asking for the manifest.
    pub fn still_stands(&self, grounds: &Grounds) -> Option<Duration> {
        self.inner.still_stands(grounds, clock::now())
    }
}

impl Inner {
    fn still_stands(&self, grounds: &Grounds, now: SystemTime) -> Option<Duration> {
        let Grounds { repository, guise, said, question, digest, standing, .. } = grounds;
        let asked_at = clock::instant();
        let looked_up_ago = now.duration_since(grounds.looked_up_at).ok()?;
        if looked_up_ago >= LOOK_AGAIN_AFTER || self.hold.changes() != grounds.changes {
            return None;
        }
        if self.admit(guise, repository, *said, None, now) != question.admission() {
            return None;
        }
        if whatever_the_gates(question, now)? != Step::Serve(digest.clone(), *standing) {
            return None;
        }
        self.hold.open_still(digest)?;
        if let Some(told) = grounds.told.get() {
            told.again(now);
        }
        self.record.took(Latency::Resolve, clock::instant().duration_since(asked_at));
        Some(age(question, digest, *standing, now))
    }

    /// The grounds of an answer that was just decided on, where it may be given again on them. `changes` was asked
    /// before the question was made.
    pub(super) fn grounds(
        &self,
        caller: &Caller,
        guise: &Guise,
        repository: &Repository,
        question: Question,
        (digest, standing): (&Digest, Standing),
        (changes, now): (u64, SystemTime),
    ) -> Result<Option<Arc<Grounds>>, StoreError> {
        // With a login that is shared, that one would be tried first.
        let anyone = caller.client == Client::Anyone
            && guise.credential == Credential::Anonymous
            && !guise.trusted
            && !self.access.shared.contains(repository.registry());
        if !anyone || question.admission() != Admission::Granted {
            return Ok(None);
        }
        let Some(Readers::Anyone { said_at }) = self.hold.readers(repository)? else { return Ok(None) };
        Ok(Some(Arc::new(Grounds {
            changes,
            looked_up_at: now,
            repository: repository.clone(),
            guise: guise.clone(),
            said: Said::Anyone { at: said_at },
            question,
            digest: digest.clone(),
            standing,
            told: OnceLock::new(),
        })))
    }
}
