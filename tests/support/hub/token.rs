//! The token service, and the check of its tokens at the registry. A token looks like a JWT and carries what Docker
//! Hub's carry; its signature is the stand-in's own. Who may read a repository is decided here, once, when the token
//! is made.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use http::{HeaderMap, Method, StatusCode};
use serde_json::{Value, json};

use super::clock::Clock;
use super::config::{Account, Private};
use super::image::digest_of;
use super::reply::{Answer, SERVICE, method_not_allowed};
use super::shared::Shared;
use super::target::{parameter, parameters};

/// What a good token allows.
pub(super) struct Grant {
    /// The account's name; `None` for an anonymous client.
    pub(super) account: Option<String>,
    repositories: Vec<String>,
}

impl Grant {
    pub(super) fn covers(&self, repository: &str) -> bool {
        self.repositories.iter().any(|granted| granted == repository)
    }
}

/// Answers a request for a token. `form` is the body of a POST.
pub(super) fn answer(hub: &Shared, method: &Method, query: &str, form: &str, headers: &HeaderMap) -> Answer {
    let (asked, login) = match *method {
        Method::GET => (query, basic(headers)),
        Method::POST => (form, parameter(form, "username").zip(parameter(form, "password"))),
        _ => return method_not_allowed("GET, POST"),
    };
    let account = match login {
        None => None,
        Some((name, password)) => match account(hub, &name, &password) {
            Some(account) => Some(account),
            None => {
                let details = json!({ "details": "incorrect username or password" });
                return Answer::json(StatusCode::UNAUTHORIZED, &details);
            }
        },
    };
    let service = parameter(asked, "service").unwrap_or_default();
    let scopes: Vec<String> = parameters(asked, "scope")
        .flat_map(|scopes| scopes.split(' ').map(str::to_owned).collect::<Vec<_>>())
        .filter_map(|scope| repository_to_pull(&scope))
        .filter(|repository| readable(hub, repository, account))
        .collect();
    let issued = hub.clock.unix();
    let lifetime = hub.config.token_lifetime.as_secs();
    let token = mint(hub, account, &service, &scopes, issued, issued + lifetime);
    Answer::json(
        StatusCode::OK,
        &json!({
            "token": token,
            "access_token": token,
            "expires_in": lifetime,
            "issued_at": rfc3339(&hub.clock),
        }),
    )
}

/// Reads a token back: its signature, its audience and its time must be right.
pub(super) fn check(hub: &Shared, token: &str) -> Option<Grant> {
    let (signed, signature) = token.rsplit_once('.')?;
    if signature != hub.seal.token(signed) {
        return None;
    }
    let (_, payload) = signed.split_once('.')?;
    let claims: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).ok()?).ok()?;
    let expires = claims.get("exp").and_then(Value::as_u64)?;
    let audience = claims.get("aud").and_then(Value::as_str)?;
    if expires <= hub.clock.unix() || audience != SERVICE {
        return None;
    }
    let access = claims.get("access").and_then(Value::as_array)?;
    let names = access.iter().filter_map(|entry| entry.get("name").and_then(Value::as_str));
    let account = claims.get("sub").and_then(Value::as_str).filter(|name| !name.is_empty());
    Some(Grant { account: account.map(str::to_owned), repositories: names.map(str::to_owned).collect() })
}

/// The scheme of an `Authorization` header, and the account that it says it is of.
pub(super) fn whose(authorization: &str) -> String {
    let (scheme, rest) = authorization.split_once(' ').unwrap_or((authorization, ""));
    let claims =
        || serde_json::from_slice::<Value>(&URL_SAFE_NO_PAD.decode(rest.split('.').nth(1)?).ok()?).ok();
    let name = match scheme {
        "Basic" => login_of(rest).map(|(name, _)| name),
        _ => claims().and_then(|claims| claims.get("sub").and_then(Value::as_str).map(str::to_owned)),
    };
    format!("{scheme} {}", name.unwrap_or_default()).trim_end().to_owned()
}

/// The limit that a client of this account has; without one, the anonymous limit.
pub(super) fn limit_of(hub: &Shared, account: Option<&str>) -> Option<u64> {
    let known = account.and_then(|name| hub.config.accounts.iter().find(|account| account.name == name));
    known.map_or(hub.config.limit, |account| account.limit)
}

/// The account's id, as `docker-ratelimit-source` tells it.
pub(super) fn id_of(account: &str) -> String {
    let digest = digest_of(account.as_bytes());
    let part = |from: usize, to: usize| digest.get(7 + from..7 + to).unwrap_or_default();
    format!("{}-{}-{}-{}-{}", part(0, 8), part(8, 12), part(12, 16), part(16, 20), part(20, 32))
}

fn mint(
    hub: &Shared,
    account: Option<&Account>,
    service: &str,
    repositories: &[String],
    issued: u64,
    expires: u64,
) -> String {
    let name = account.map(|account| account.name.as_str());
    let access: Vec<Value> = repositories
        .iter()
        .map(|repository| {
            let free = hub.config.sponsored.contains(repository);
            let parameters = match limit_of(hub, name).filter(|_| !free) {
                Some(limit) => json!({
                    "pull_limit": limit.to_string(),
                    "pull_limit_interval": hub.config.window.as_secs().to_string(),
                }),
                None => json!({}),
            };
            json!({ "type": "repository", "name": repository, "actions": ["pull"], "parameters": parameters })
        })
        .collect();
    let header = json!({ "alg": "RS256", "typ": "JWT", "kid": "stand-in" });
    let claims = json!({
        "iss": "auth.docker.io",
        "aud": service,
        "sub": name.unwrap_or_default(),
        "iat": issued,
        "nbf": issued,
        "exp": expires,
        "access": access,
    });
    let encode = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let signed = format!("{}.{}", encode(header), encode(claims));
    let signature = hub.seal.token(&signed);
    format!("{signed}.{signature}")
}

/// Whether a client may read a repository. One that is missing is as one that is private to somebody else.
fn readable(hub: &Shared, repository: &str, account: Option<&Account>) -> bool {
    hub.with(|state| {
        let mut owners = state.private.iter().filter(|private| private.repository == repository).peekable();
        let public = owners.peek().is_none();
        let own = |private: &Private| account.is_some_and(|account| account.name == private.account);
        state.contents.has(repository) && (public || owners.any(own))
    })
}

/// The repository of a scope such as `repository:library/tide:pull`.
fn repository_to_pull(scope: &str) -> Option<String> {
    let (kind, rest) = scope.split_once(':')?;
    let (name, actions) = rest.rsplit_once(':')?;
    let pull = actions.split(',').any(|action| action == "pull" || action == "*");
    (kind == "repository" && pull).then(|| name.to_owned())
}

fn account<'a>(hub: &'a Shared, name: &str, password: &str) -> Option<&'a Account> {
    hub.config.accounts.iter().find(|account| account.name == name && account.password == password)
}

/// A login in the `Authorization` header. One that cannot be read is nobody's.
fn basic(headers: &HeaderMap) -> Option<(String, String)> {
    let value = headers.get(http::header::AUTHORIZATION)?.to_str().unwrap_or_default();
    Some(value.strip_prefix("Basic ").and_then(login_of).unwrap_or_default())
}

fn login_of(encoded: &str) -> Option<(String, String)> {
    let login = String::from_utf8(STANDARD.decode(encoded).ok()?).ok()?;
    let (name, password) = login.split_once(':')?;
    Some((name.to_owned(), password.to_owned()))
}

fn rfc3339(clock: &Clock) -> String {
    humantime::format_rfc3339_seconds(clock.wall()).to_string()
}
