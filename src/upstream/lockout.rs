//! Logins that were refused: for how long they are not shown again.
//!
//! A login endpoint that is hit too often with a wrong password locks the account out for minutes (see Docker Hub),
//! and every pull would hit it. Knows no network and is handed the time. Invariant: what is remembered is bounded.

use std::collections::HashSet;
use std::num::NonZeroUsize;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use lru::LruCache;
use url::Origin;

use super::grant::Grant;
use super::logins::{Login, LoginName};
use crate::oci::Registry;

/// How many refusals are remembered.
const MOST: NonZeroUsize = NonZeroUsize::new(1024).unwrap();

/// For how long a login is not shown after its first refusal; each further one doubles it.
const FIRST: Duration = Duration::from_secs(10);

/// The longest that doubling leads to.
const LONGEST: Duration = Duration::from_secs(5 * 60);

/// For how long a refusal is told of.
const LATELY: Duration = Duration::from_secs(6 * 60 * 60);

/// Logins that are not to be shown for now.
pub(super) struct Lockouts(Mutex<LruCache<Key, Lockout>>);

/// What of a login is not shown.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Key {
    login: Login,
    to: Origin,
    /// For which token, where it is refused for that one alone.
    grant: Option<Grant>,
}

struct Lockout {
    registry: Registry,
    status: u16,
    times: u32,
    since: Instant,
    until: Instant,
}

/// How a login was refused.
pub(super) struct Refusal<'a> {
    /// For which registry.
    pub(super) registry: &'a Registry,
    /// With what.
    pub(super) status: u16,
    /// How much patience the other side asked for.
    pub(super) pause: Option<Duration>,
}

/// A login of the hold's own that was refused when it was shown last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefusedLogin {
    /// For which registry it was shown.
    pub registry: Registry,
    /// Which one.
    pub login: LoginName,
    /// What it was refused with.
    pub status: u16,
    /// How long ago.
    pub ago: Duration,
}

/// A login that is not to be shown now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LockedOut {
    /// What it was refused with.
    pub(super) status: u16,
    /// For how long it is not to be shown.
    pub(super) left: Duration,
}

impl Lockouts {
    /// None yet.
    pub(super) fn new() -> Self {
        Self(Mutex::new(LruCache::new(MOST)))
    }

    /// Whether this login is locked out there, for this token or for all.
    pub(super) fn locked(
        &self,
        login: &Login,
        to: &Origin,
        grant: Option<&Grant>,
        now: Instant,
    ) -> Option<LockedOut> {
        let mut all = self.lock();
        let mut look = |grant: Option<&Grant>| {
            let lockout = all.get(&Key::new(login, to, grant))?;
            let left = lockout.until.checked_duration_since(now).filter(|left| !left.is_zero())?;
            Some(LockedOut { status: lockout.status, left })
        };
        look(None).or_else(|| look(Some(grant?)))
    }

    /// Takes note of a refusal. 401 and 429 are about the login; anything else may be about what it was shown for
    /// alone. Answers for how long it is locked out.
    pub(super) fn refused(
        &self,
        login: &Login,
        to: &Origin,
        grant: Option<&Grant>,
        Refusal { registry, status, pause: asked }: Refusal<'_>,
        now: Instant,
    ) -> Duration {
        let grant = grant.filter(|_| !matches!(status, 401 | 429));
        let key = Key::new(login, to, grant);
        let mut all = self.lock();
        let times = all.peek(&key).map_or(0, |lockout| lockout.times);
        let pause = FIRST.saturating_mul(1 << times.min(16)).min(LONGEST);
        let pause = pause.max(asked.unwrap_or_default());
        let (registry, times) = (registry.clone(), times.saturating_add(1));
        all.put(key, Lockout { registry, status, times, since: now, until: now + pause });
        pause
    }

    /// Takes note that it was accepted: what the same entry of its file had before does not matter any more.
    pub(super) fn accepted(&self, login: &Login, to: &Origin, grant: Option<&Grant>) {
        let mut all = self.lock();
        let over = |key: &&Key| {
            let about = key.grant.is_none() || key.grant.as_ref() == grant;
            about && key.to == *to && key.login.name() == login.name()
        };
        let over: Vec<Key> = all.iter().map(|(key, _)| key).filter(over).cloned().collect();
        over.iter().for_each(|key| drop(all.pop(key)));
    }

    /// The logins that were refused when they were shown last, the latest first. Neither a lack of patience nor a refusal that
    /// may be about one repository alone is one.
    pub(super) fn lately(&self, now: Instant) -> Vec<RefusedLogin> {
        let all = self.lock();
        let about_all = |key: &Key| key.grant.as_ref().is_none_or(|grant| grant.scope.is_empty());
        let told = all.iter().filter(|(key, lockout)| lockout.status != 429 && about_all(key));
        let told = told.map(|(key, lockout)| RefusedLogin {
            registry: lockout.registry.clone(),
            login: key.login.name().clone(),
            status: lockout.status,
            ago: now.saturating_duration_since(lockout.since),
        });
        let mut told: Vec<_> = told.filter(|refused| refused.ago < LATELY).collect();
        told.sort_by_key(|refused| refused.ago);
        let mut known = HashSet::new();
        told.retain(|refused| known.insert((refused.registry.clone(), refused.login.clone())));
        told
    }

    fn lock(&self) -> MutexGuard<'_, LruCache<Key, Lockout>> {
        // Nothing that is done under this lock can leave it half done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Key {
    fn new(login: &Login, to: &Origin, grant: Option<&Grant>) -> Self {
        Self { login: login.clone(), to: to.clone(), grant: grant.cloned() }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::clock;
    use crate::upstream::reach::Reach;

    fn login(password: &str) -> Login {
        let name = LoginName { file: Path::new("/f").into(), entry: "reg.test".into() };
        Login::of_user(name, "me", password)
    }

    fn grant(scope: &str) -> Grant {
        let realm = "https://t.test/token".parse().unwrap();
        Grant { realm, service: None, scope: scope.to_owned(), reach: Reach::Public }
    }

    fn registry() -> &'static Registry {
        static ONE: std::sync::LazyLock<Registry> = std::sync::LazyLock::new(|| "reg.test".parse().unwrap());
        &ONE
    }

    fn of(status: u16, pause: Option<Duration>) -> Refusal<'static> {
        Refusal { registry: registry(), status, pause }
    }

    #[test]
    fn a_refusal_is_told_of_until_the_login_is_accepted_or_another_in_its_place() {
        let (lockouts, grant, now) = (Lockouts::new(), grant("a"), clock::instant());
        let to = grant.realm.origin();
        let told = |now| lockouts.lately(now).iter().map(|refused| refused.status).collect::<Vec<_>>();
        lockouts.refused(&login("p"), &to, Some(&grant), of(401, None), now);
        lockouts.refused(&login("p"), &to, Some(&grant), of(403, None), now + FIRST);
        assert_eq!(told(now + FIRST), [401], "the other is of one repository");
        lockouts.refused(&login("p"), &to, Some(&self::grant("")), of(403, None), now + FIRST);
        assert_eq!(told(now + FIRST), [403], "once for each login");
        assert_eq!(told(now + LATELY), [403]);
        assert_eq!(told(now + FIRST + LATELY), [0; 0]);
        lockouts.accepted(&login("newer"), &to, Some(&self::grant("")));
        assert_eq!(told(now + FIRST), [0; 0]);
        lockouts.refused(&login("p"), &to, Some(&grant), of(429, None), now);
        assert_eq!(told(now), [0; 0], "that says nothing of the login");
    }

    #[test]
    fn a_refused_login_waits_longer_each_time_until_it_is_accepted() {
        let (lockouts, me, grant) = (Lockouts::new(), login("p"), grant("a"));
        let to = grant.realm.origin();
        let mut now = clock::instant();
        let mut pauses = Vec::new();
        for _ in 0..8 {
            let pause = lockouts.refused(&me, &to, Some(&grant), of(401, None), now);
            let locked = lockouts.locked(&me, &to, Some(&grant), now).unwrap();
            assert_eq!(locked, LockedOut { status: 401, left: pause });
            now += pause;
            assert_eq!(lockouts.locked(&me, &to, Some(&grant), now), None);
            pauses.push(pause.as_secs());
        }
        assert_eq!(pauses, [10, 20, 40, 80, 160, 300, 300, 300]);
        lockouts.accepted(&me, &to, Some(&grant));
        assert_eq!(lockouts.refused(&me, &to, Some(&grant), of(401, None), now), FIRST);
        let asked = Duration::from_secs(3600);
        assert_eq!(lockouts.refused(&me, &to, Some(&grant), of(429, Some(asked)), now), asked);
    }

    #[test]
    fn a_refusal_holds_for_what_it_is_about() {
        let now = clock::instant();
        let (a, b) = (grant("a"), grant("b"));
        let (here, there) = (a.realm.origin(), url::Url::parse("https://t.test:444").unwrap().origin());
        for (status, for_others) in [(401, true), (429, true), (403, false)] {
            let (lockouts, me) = (Lockouts::new(), login("p"));
            lockouts.refused(&me, &here, Some(&a), of(status, None), now);
            let locked = |login: &Login, to, grant| lockouts.locked(login, to, Some(grant), now).is_some();
            assert!(locked(&me, &here, &a), "{status}");
            assert_eq!(locked(&me, &here, &b), for_others, "{status}");
            assert!(!locked(&login("newer"), &here, &a), "{status}");
            assert!(!locked(&me, &there, &a), "{status}");
        }
    }
}
