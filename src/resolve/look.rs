//! A look at what a reference stands for, which no registry counts: it is asked by a HEAD at most, nothing is fetched, and
//! nothing of it is noted.

use std::sync::{Arc, Mutex};

use super::asking::{Unanswered, reply_of};
use super::callers::{Caller, Guise};
use super::decide::{Ask, Standing, Step, decide};
use super::manifests::{ANSWER_DEADLINE, shown};
use super::{Inner, Refusal, Resolver};
use crate::clock;
use crate::oci::{Digest, Reference, Repository};
use crate::upstream::{Failure, Wait};

/// What was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Looked {
    /// What the reference stands for; none where its registry does not say so without giving it.
    pub digest: Option<Digest>,
    /// In what way it would be answered with what is held; none where it would have to be fetched first.
    pub standing: Option<Standing>,
}

impl Resolver {
    /// What a reference stands for now, and whether that is held.
    ///
    /// # Errors
    /// When there would be nothing to answer with.
    pub async fn look(
        &self,
        caller: &Caller,
        repository: &Repository,
        reference: &Reference,
    ) -> Result<Looked, Refusal> {
        let inner = &self.inner;
        let looking = async {
            let guises = inner.guises(&caller.client, repository)?;
            let look = |guise| async move { inner.look(caller, &guise, repository, reference).await };
            Inner::in_turn(guises, look).await
        };
        tokio::time::timeout(ANSWER_DEADLINE, looking).await.unwrap_or_else(|_| {
            let failure = Failure::TimedOut(Wait::Headers);
            Err(Refusal::Unanswered { what: shown(repository, reference), failure })
        })
    }
}

impl Inner {
    async fn look(
        self: &Arc<Self>,
        caller: &Caller,
        guise: &Guise,
        repository: &Repository,
        reference: &Reference,
    ) -> Result<Looked, Refusal> {
        let mut question = self.question(guise, repository, reference).await?;
        let first = decide(&question, None, self.gates(&question, guise, repository), clock::now());
        if matches!(first, Step::Ask(_))
            && let Some(refusal) = self.still_denied(|| shown(repository, reference), repository, guise)
        {
            return Err(refusal);
        }
        let (reply, failure) = match first {
            Step::Ask(_) => {
                let (kept, what) = (Mutex::default(), (repository, reference));
                let errand = self.errand(caller, guise, question.admission(), what, &kept);
                match self.ask_again(&errand, &Ask::Head, &question).await {
                    Ok(reply) => {
                        question = question.granted();
                        (Some(reply), None)
                    }
                    Err(Unanswered::Upstream(failure)) => {
                        (Some(reply_of(&failure, &Ask::Head)), Some(failure))
                    }
                    Err(Unanswered::Store(error)) => return Err(error.into()),
                }
            }
            Step::Serve(..) | Step::Refuse(_) => (None, None),
        };
        let gates = self.gates(&question, guise, repository);
        match decide(&question, reply.as_ref(), gates, clock::now()) {
            Step::Serve(digest, standing) => Ok(Looked { digest: Some(digest), standing: Some(standing) }),
            Step::Ask(Ask::GetDigest(digest)) => Ok(Looked { digest: Some(digest), standing: None }),
            Step::Ask(Ask::Get | Ask::Head | Ask::List) => {
                let digest = match reference {
                    Reference::Digest(digest) => Some(digest.clone()),
                    Reference::Tag(_) => None,
                };
                Ok(Looked { digest, standing: None })
            }
            Step::Refuse(why) => Err(self.refusal(&question, why, failure, guise, repository, reference)),
        }
    }
}
