//! Asking a registry's upstreams, one after the other, each of them with all its redirects.
//!
//! Invariant: what the last one says holds, since it is the registry itself; an answer of one before it that makes no
//! sense is no answer.

use http::{Method, StatusCode};
use tokio::time::{Instant, timeout_at};
use tower::ServiceExt;

use super::asked::{Answer, Asked, Kind, Place, standing_of};
use super::asker::Asker;
use super::failure::{Failure, Wait};
use super::redirect;
use super::settings::{Role, Upstream};
use super::span::Span;
use super::upstreams::Upstreams;
use crate::clock;
use crate::oci::Repository;

impl Upstreams {
    /// Asks until one has an answer that can be read: 200, or 206 to a request for some of the bytes.
    pub(super) async fn ask<T, R>(
        &self,
        asker: &Asker,
        method: Method,
        repository: &Repository,
        kind: Kind,
        span: Span,
        read: impl Fn(Answer, Role) -> Result<R, Failure>,
    ) -> Result<T, Failure>
    where
        R: Future<Output = Result<T, Failure>>,
    {
        let mut failure = Failure::unusable("no upstream to ask");
        let mirrors_until = Instant::now() + self.settings.timeouts.mirrors;
        for upstream in self.settings.upstreams(repository.registry())? {
            if !upstream.answers(&asker.credential, asker.only_registry) {
                continue;
            }
            let asked = Asked {
                repository: repository.clone(),
                kind: kind.clone(),
                place: Place::Upstream,
                reach: upstream.reach,
                asker: asker.clone(),
            };
            let asking = async {
                let answer = self.ask_one(&upstream, asked, &method, span).await?;
                read(answer, upstream.role)?.await
            };
            let answered = match upstream.role {
                Role::Home => asking.await,
                // There is another one to ask, and somebody waits.
                Role::Mirror => {
                    let until = mirrors_until.min(Instant::now() + self.settings.timeouts.mirror);
                    timeout_at(until, asking).await.unwrap_or(Err(Failure::TimedOut(Wait::Headers)))
                }
            };
            match answered {
                Ok(answer) => return Ok(answer),
                Err(failed) => {
                    if upstream.role == Role::Mirror {
                        tracing::debug!(%repository, %kind, why = %failed, "the next upstream is asked");
                    }
                    failure = failed;
                }
            }
        }
        Err(failure)
    }

    /// Asks one upstream and goes where it sends us.
    async fn ask_one(
        &self,
        upstream: &Upstream,
        mut asked: Asked,
        method: &Method,
        span: Span,
    ) -> Result<Answer, Failure> {
        let mut url = upstream.address(&asked.repository, &asked.kind);
        for _ in 0..=redirect::MOST {
            let request = asked.request(method.clone(), &url, span)?;
            let answer = self.stack.clone().oneshot(request).await?;
            if let Some(next) = redirect::next(&url, answer.status(), answer.headers())? {
                asked = asked.moved(&url, &next, standing_of(&answer));
                url = next;
                continue;
            }
            return match answer.status() {
                StatusCode::OK => Ok(answer),
                StatusCode::PARTIAL_CONTENT if span != Span::WHOLE => Ok(answer),
                status => {
                    let (headers, now) = (answer.headers(), clock::now());
                    Err(Failure::of_status(method, asked.place, status, headers, now))
                }
            };
        }
        Err(Failure::unusable(format!("more than {} redirects", redirect::MOST)))
    }
}
