//! Who asks, as whom its registry is asked for that, and what the answer says of who may read.
//!
//! The rule itself is [`admit`]'s. Here stands what it is applied to: whose proof counts, where it is kept, and in
//! which order somebody's ways of being let in are tried. Invariant: a client's token is in memory for as long as its
//! request, and only its hash is remembered.

use std::collections::BTreeSet;
use std::num::NonZeroUsize;
use std::time::{Duration, SystemTime};

use super::{Inner, Refusal};
use crate::access::{self, Admission, Said, admit};
use crate::clock;
use crate::oci::{Digest, Registry, Repository};
use crate::store::{Readers, StoreError};
use crate::upstream::{Account, Asker, BearerChallenge, ClientToken, Cost, Credential, Failure};

/// How long it is remembered that a repository is only for those who prove themselves, where nothing of it is held, and
/// of how many; anything may be asked for.
pub(super) const CLOSED_FOR: Duration = Duration::from_secs(60 * 60);
pub(super) const MOST_CLOSED: NonZeroUsize = NonZeroUsize::new(4096).unwrap();

/// How often proofs that are too old for anything are removed.
pub(super) const PRUNE_EVERY: Duration = Duration::from_secs(10 * 60);

/// How long after its registry has served somebody without credentials a repository is fetched from with the hold's own
/// login for such a one: for the manifests of one pull.
const JUST: Duration = Duration::from_secs(60);

/// How long a note that somebody may read is not written down anew.
const NOTED_FOR: Duration = Duration::from_secs(20);

/// Who wants an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Client {
    /// Whoever runs this node: over the control socket, or containerd by its own.
    Operator,
    /// Somebody without credentials.
    Anyone,
    /// Somebody with a token of the registry.
    Token(ClientToken),
}

/// A client with one request, and what that has taken of registries so far.
#[derive(Debug, Clone)]
pub struct Caller {
    pub(super) client: Client,
    pub(super) account: Account,
}

impl Caller {
    /// Somebody who has just come, in words too.
    pub fn new(client: Client, asked_by: impl Into<String>) -> Self {
        Self { client, account: Account::of(asked_by) }
    }

    /// A command of the operator's, by its name.
    pub fn operator(command: &str) -> Self {
        Self { client: Client::Operator, account: Account::of_operator(command) }
    }

    /// What the answer took; nothing where somebody else's request was waited for.
    pub fn cost(&self) -> Cost {
        self.account.cost()
    }
}

/// Who may have what.
#[derive(Debug, Clone)]
pub struct Access {
    /// For how long a proof is good.
    pub ages: access::Ages,
    /// The registries of which everybody may have what the hold's own login can read.
    pub shared: BTreeSet<Registry>,
}

/// As whom a registry is asked for somebody.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Guise {
    pub(super) credential: Credential,
    /// Whether what is held may be had without the registry's word.
    pub(super) trusted: bool,
}

impl Guise {
    fn new(credential: Credential) -> Self {
        Self { credential, trusted: false }
    }

    /// Whose proof it is.
    pub(super) fn who(&self) -> Option<Digest> {
        match &self.credential {
            Credential::Anonymous => None,
            Credential::Own => Some(own_login()),
            Credential::Client(token) => Some(token.hash().clone()),
        }
    }
}

/// What stands for the hold's own logins where proofs are kept.
fn own_login() -> Digest {
    Digest::of(b"the hold's own login")
}

impl Inner {
    /// The guises to ask in, one after the other, until one is let in. A client's token is kept for what not anyone
    /// may read: what is everybody's is asked for once for all.
    pub(super) fn guises(&self, client: &Client, repository: &Repository) -> Result<Vec<Guise>, StoreError> {
        let shared = self.access.shared.contains(repository.registry());
        // A login that its registry refuses keeps nobody from what is everybody's.
        let everybody =
            |credentials: &[Credential]| credentials.iter().cloned().map(Guise::new).collect::<Vec<_>>();
        let everybody = match shared {
            true => everybody(&[Credential::Own, Credential::Anonymous]),
            false => everybody(&[Credential::Anonymous]),
        };
        Ok(match client {
            Client::Operator => {
                let trusted = |credential| Guise { credential, trusted: true };
                let nobody = trusted(Credential::Anonymous);
                let own = trusted(Credential::Own);
                match (self.upstreams.has_login(repository.registry()), self.readers(repository)?) {
                    (false, _) => vec![nobody],
                    (true, Some(Readers::Proven { .. })) => vec![own],
                    // As nobody first: that it is everybody's is worth knowing in the next outage.
                    (true, Some(Readers::Anyone { .. }) | None) => vec![nobody, own],
                }
            }
            Client::Anyone => everybody,
            Client::Token(token) => {
                let own = Guise::new(Credential::Client(token.clone()));
                match self.readers(repository)? {
                    Some(Readers::Proven { .. }) if !shared => vec![own],
                    Some(Readers::Proven { .. } | Readers::Anyone { .. }) | None => {
                        everybody.into_iter().chain([own]).collect()
                    }
                }
            }
        })
    }

    /// Tries one guise after the other, until one is let in or it makes no difference who asks.
    pub(super) async fn in_turn<T, F>(guises: Vec<Guise>, attempt: impl Fn(Guise) -> F) -> Result<T, Refusal>
    where
        F: Future<Output = Result<T, Refusal>>,
    {
        let mut refused = Refusal::Internal;
        for guise in guises {
            match attempt(guise).await {
                Err(refusal) if refusal.may_differ_for_others() => refused = refusal,
                answered => return answered,
            }
        }
        Err(refused)
    }

    /// Whether somebody in this guise may have what is held of a repository.
    pub(super) fn admission(
        &self,
        guise: &Guise,
        repository: &Repository,
        now: SystemTime,
    ) -> Result<Admission, StoreError> {
        if guise.trusted {
            return Ok(Admission::Granted);
        }
        let said = match self.readers(repository)? {
            None => Said::Nothing,
            Some(Readers::Anyone { said_at }) => Said::Anyone { at: said_at },
            Some(Readers::Proven { .. }) => Said::Proven,
        };
        let proven_at = match guise.who() {
            Some(who) => self.hold.proven_at(repository, &who)?,
            None => None,
        };
        Ok(self.admit(guise, repository, said, proven_at, now))
    }

    /// The rule, applied to what is known of somebody in this guise.
    pub(super) fn admit(
        &self,
        guise: &Guise,
        repository: &Repository,
        said: Said,
        proven_at: Option<SystemTime>,
        now: SystemTime,
    ) -> Admission {
        let admission = admit(said, proven_at, self.access.ages, now);
        let shared =
            guise.credential == Credential::Own && self.access.shared.contains(repository.registry());
        match (admission, proven_at) {
            // What everybody may have by our login was as good as public.
            (Admission::Lapsed | Admission::Barred, Some(_)) if shared => Admission::WasPublic,
            _ => admission,
        }
    }

    /// As whom bytes are fetched for somebody who may have them: what anyone may read, by the hold's own login where
    /// it has one, whose limit is larger; and as nobody while that one's limit is reached.
    pub(super) fn fetching(
        &self,
        guise: &Guise,
        admission: Admission,
        repository: &Repository,
    ) -> Credential {
        let just_said = || match self.hold.readers(repository) {
            Ok(Some(Readers::Anyone { said_at })) => {
                clock::now().duration_since(said_at).is_ok_and(|age| age < JUST)
            }
            Ok(Some(Readers::Proven { .. }) | None) | Err(_) => false,
        };
        let own = Credential::Own;
        if guise.credential == Credential::Anonymous
            && admission == Admission::Granted
            && self.upstreams.has_login(repository.registry())
            && (guise.trusted || just_said())
            && self.upstreams.open(&own, repository).pulls.is_ok()
        {
            return own;
        }
        guise.credential.clone()
    }

    /// Whether a registry that has mirrors is to be asked itself: nobody else can say who may read.
    pub(super) fn asks_registry_alone(&self, admission: Admission, repository: &Repository) -> bool {
        admission != Admission::Granted && self.upstreams.has_mirrors(repository.registry())
    }

    /// Remembers what an answer shows of who may read.
    pub(super) fn note_answered(&self, asker: &Asker, guise: &Guise, repository: &Repository) {
        let by_registry = asker.only_registry || !self.upstreams.has_mirrors(repository.registry());
        if by_registry && asker.credential == guise.credential {
            self.note_reader(guise, repository, clock::now());
        }
    }

    /// Remembers that the registry has let somebody read.
    fn note_reader(&self, guise: &Guise, repository: &Repository, now: SystemTime) {
        let recent = |at: SystemTime| now.duration_since(at).is_ok_and(|age| age < NOTED_FOR);
        let note = || match guise.who() {
            None => match self.hold.readers(repository)? {
                Some(Readers::Anyone { said_at }) if recent(said_at) => Ok(()),
                Some(Readers::Anyone { .. } | Readers::Proven { .. }) | None => {
                    self.hold.note_readers(repository, &Readers::Anyone { said_at: now }, now)
                }
            },
            Some(who) => match self.hold.proven_at(repository, &who)? {
                Some(at) if recent(at) => Ok(()),
                Some(_) | None => {
                    self.prune_proofs(now)?;
                    // From now on something of it may be held.
                    if self.hold.readers(repository)?.is_none() {
                        let unknown = || Readers::Proven { challenge: String::new() };
                        let closed = self.readers(repository)?.unwrap_or_else(unknown);
                        self.hold.note_readers(repository, &closed, now)?;
                    }
                    self.hold.note_proof(repository, &who, now)
                }
            },
        };
        self.unnoted.tell(note());
    }

    /// Remembers that the registry has turned somebody away.
    pub(super) fn note_denial(
        &self,
        guise: &Guise,
        repository: &Repository,
        failure: &Failure,
        now: SystemTime,
    ) {
        let (challenge, by_registry) = match failure {
            Failure::Denied { status: 401, challenge } => (challenge, true),
            // Perhaps of this one thing alone (403, 451): it says nothing of the rest that is known to be everybody's.
            Failure::Denied { challenge, .. } => (challenge, false),
            // A token service that is locked out says so of everything: it takes nothing back.
            Failure::NoToken { challenge, .. } => (challenge, false),
            _ => return,
        };
        if by_registry {
            let place = (repository.clone(), guise.clone());
            self.turned_away.note(place, challenge.clone(), clock::instant());
        }
        let note = || match guise.who() {
            None => {
                let known = self.hold.readers(repository)?.is_some();
                if !by_registry && known {
                    return Ok(());
                }
                let challenge = challenge.as_ref().map(ToString::to_string).unwrap_or_default();
                if known {
                    return self.hold.note_readers(repository, &Readers::Proven { challenge }, now);
                }
                self.closed.note(repository.clone(), challenge, clock::instant());
                Ok(())
            }
            Some(who) if matches!(failure, Failure::Denied { .. }) => {
                self.hold.forget_proof(repository, &who)
            }
            Some(_) => Ok(()),
        };
        self.unnoted.tell(note());
    }

    /// A refusal to somebody whom the registry turned away, now or when it could last be asked, with the way to prove
    /// oneself.
    pub(super) fn denied(&self, what: String, repository: &Repository, failure: Option<&Failure>) -> Refusal {
        let said = match failure {
            Some(Failure::Denied { challenge, .. } | Failure::NoToken { challenge, .. }) => challenge.clone(),
            Some(_) | None => None,
        };
        self.denied_with(what, repository, said)
    }

    /// The same to somebody whom it turned away a short while ago: it would not say anything else now.
    pub(super) fn still_denied(
        &self,
        what: impl FnOnce() -> String,
        repository: &Repository,
        guise: &Guise,
    ) -> Option<Refusal> {
        let place = (repository.clone(), guise.clone());
        let said = self.turned_away.find(&place, clock::instant())?;
        Some(self.denied_with(what(), repository, said))
    }

    fn denied_with(&self, what: String, repository: &Repository, said: Option<BearerChallenge>) -> Refusal {
        let kept = || match self.readers(repository) {
            Ok(Some(Readers::Proven { challenge })) => challenge.parse().ok(),
            Ok(Some(Readers::Anyone { .. }) | None) | Err(_) => None,
        };
        Refusal::Denied { what, challenge: said.or_else(kept) }
    }

    /// Who may read a repository, as its registry said last.
    pub(super) fn readers(&self, repository: &Repository) -> Result<Option<Readers>, StoreError> {
        let closed = || self.closed.find(repository, clock::instant());
        let kept = self.hold.readers(repository)?;
        Ok(kept.or_else(|| closed().map(|challenge| Readers::Proven { challenge })))
    }

    fn prune_proofs(&self, now: SystemTime) -> Result<(), StoreError> {
        let instant = clock::instant();
        if self.pruned.find(&(), instant).is_some() {
            return Ok(());
        }
        self.pruned.note((), (), instant);
        let longest = self.access.ages.stale_for.max(self.access.ages.fresh_for);
        now.checked_sub(longest).map_or(Ok(()), |moment| self.hold.forget_proofs_before(moment, &own_login()))
    }

    /// Whether anyone may read a repository, as far as its registry has said.
    pub(super) fn is_everybodys(&self, repository: &Repository) -> Result<bool, StoreError> {
        Ok(!matches!(self.readers(repository)?, Some(Readers::Proven { .. })))
    }

    /// Whether there is no use in asking a registry without a client: only its clients may read this.
    pub(super) fn is_clients_alone(&self, repository: &Repository) -> Result<bool, StoreError> {
        let proven = matches!(self.readers(repository)?, Some(Readers::Proven { .. }));
        Ok(proven && !self.upstreams.has_login(repository.registry()))
    }

    pub(super) fn asker(caller: &Caller, credential: Credential, only_registry: bool) -> Asker {
        Asker { credential, account: caller.account.clone(), only_registry }
    }
}
