//! The registry: who is let in, what it costs, what is given. It hands out no blob itself unless it is set to, and
//! leaves faults, counters and the wire to others.

use http::header::{CONTENT_TYPE, ETAG, IF_NONE_MATCH, LINK, LOCATION};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use serde_json::{Value, json};

use super::budget::{Spent, Terms, source_of};
use super::cdn::ranged;
use super::config::{BlobStyle, HeadStyle, HeaderStyle};
use super::contents::{Accepts, Stored};
use super::exchange::Ask;
use super::image::MediaTypes;
use super::reply::{self, Answer, TokenState};
use super::shared::Shared;
use super::target::{Role, Target, cdn_path, parameter};
use super::token;

const DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");
const FILTERS_APPLIED: HeaderName = HeaderName::from_static("oci-filters-applied");
const API_VERSION: HeaderName = HeaderName::from_static("docker-distribution-api-version");

/// Answers a request at the registry's listener.
pub(super) fn answer(hub: &Shared, ask: &Ask) -> Answer {
    let read = [Method::GET, Method::HEAD].contains(&ask.method);
    let answer = match &ask.target {
        _ if !read => reply::method_not_allowed("GET, HEAD"),
        Target::Ping => ping(hub, ask),
        Target::Manifest { repository, reference } => manifest(hub, ask, repository, reference),
        Target::Blob { repository, digest } => blob(hub, ask, repository, digest),
        Target::Tags { repository } => tags(hub, ask, repository),
        Target::Referrers { .. } if !hub.config.referrers => reply::not_found(),
        Target::Referrers { repository, subject } => referrers(hub, ask, repository, subject),
        Target::CdnBlob { .. } | Target::Token | Target::Admin(_) | Target::Unknown => reply::not_found(),
    };
    answer.with(API_VERSION, "registry/2.0")
}

/// The 429 of the pull limit, where a fault asks for it: as if a window had just begun with nothing in it.
pub(super) fn forced_limit(hub: &Shared, ask: &Ask) -> Answer {
    refused(hub, &anonymous(hub, ask), Spent { retry_after: hub.config.window })
        .with(API_VERSION, "registry/2.0")
}

fn ping(hub: &Shared, ask: &Ask) -> Answer {
    let answer = Answer::json(StatusCode::OK, &json!({}));
    if !hub.config.auth {
        return answer;
    }
    match bearer(&ask.headers) {
        None => challenge(hub, ask, None, TokenState::None),
        Some(token) if token::check(hub, token).is_none() => challenge(hub, ask, None, TokenState::Invalid),
        Some(_) => answer,
    }
}

fn manifest(hub: &Shared, ask: &Ask, repository: &str, reference: &str) -> Answer {
    let client = match admit(hub, ask, repository) {
        Ok(client) => client,
        Err(refusal) => return *refusal,
    };
    let head = ask.method == Method::HEAD;
    if head && hub.config.head == HeadStyle::MethodNotAllowed {
        return reply::method_not_allowed("GET");
    }
    let accepts = Accepts::read(&ask.headers);
    let otherwise = hub.config.without_accept;
    let found = hub.with(|state| state.contents.manifest(repository, reference, &accepts, otherwise));
    let counts = !head && !client.sponsored && (found.is_ok() || hub.config.counts_not_found);
    if counts && hub.config.always_limited.iter().any(|limited| limited == repository) {
        return refused(hub, &client, Spent { retry_after: hub.config.window });
    }
    if let Some(terms) = client.terms.filter(|_| counts)
        && let Err(spent) = spend(hub, &client, terms)
    {
        return refused(hub, &client, spent);
    }
    let answer = match found {
        Ok(stored) => given(hub, ask, &stored, head),
        Err(unknown) => {
            let detail = json!({ "Tag": reference });
            Answer::error(StatusCode::NOT_FOUND, "MANIFEST_UNKNOWN", unknown.message(), detail)
        }
    };
    let answer = answer.with_all(limit_headers(hub, &client));
    if counts { answer.counted() } else { answer }
}

fn given(hub: &Shared, ask: &Ask, stored: &Stored, head: bool) -> Answer {
    let unchanged = ask.headers.get_all(IF_NONE_MATCH).into_iter().any(|tags| names(tags, &stored.digest));
    let status = if unchanged { StatusCode::NOT_MODIFIED } else { StatusCode::OK };
    let answer = Answer::new(status).with(CONTENT_TYPE, &stored.media_type).body(stored.bytes.clone());
    if !hub.config.names_digests || head && hub.config.head == HeadStyle::WithoutDigest {
        return answer;
    }
    answer.with(DIGEST, &stored.digest).with(ETAG, &format!("\"{}\"", stored.digest))
}

/// Whether a list of entity tags names the digest, with or without the quotes that some clients leave out.
fn names(tags: &HeaderValue, digest: &str) -> bool {
    let tags = tags.to_str().unwrap_or_default().split(',').map(str::trim);
    tags.map(|tag| tag.strip_prefix("W/").unwrap_or(tag).trim_matches('"'))
        .any(|tag| tag == "*" || tag == digest)
}

fn blob(hub: &Shared, ask: &Ask, repository: &str, digest: &str) -> Answer {
    if let Err(refusal) = admit(hub, ask, repository) {
        return *refusal;
    }
    let Some(bytes) = hub.with(|state| state.contents.blob(repository, digest)) else {
        let (status, detail) = (StatusCode::NOT_FOUND, json!({ "digest": digest }));
        return Answer::error(status, "BLOB_UNKNOWN", "blob unknown to registry", detail);
    };
    let stored = |answer: Answer| match hub.config.names_digests {
        true => answer.with(DIGEST, digest).with(ETAG, &format!("\"{digest}\"")),
        false => answer,
    };
    let redirect = match hub.config.blobs {
        _ if ask.method == Method::HEAD => return stored(ranged(bytes, &HeaderMap::new(), "")),
        BlobStyle::Inline => return stored(ranged(bytes, &ask.headers, digest)),
        BlobStyle::Redirect307 => StatusCode::TEMPORARY_REDIRECT,
        BlobStyle::Redirect302 => StatusCode::FOUND,
    };
    let expires = hub.clock.unix() + hub.config.address_lifetime.as_secs();
    let signature = hub.seal.address(digest, &expires.to_string());
    let cdn = hub.addresses.url(Role::Cdn, ask.host());
    Answer::new(redirect).with(LOCATION, &format!("{cdn}{}", cdn_path(digest, expires, &signature)))
}

fn tags(hub: &Shared, ask: &Ask, repository: &str) -> Answer {
    if let Some(refusal) = refuses_to_list(hub, ask, repository) {
        return refusal;
    }
    if !hub.with(|state| state.contents.has(repository)) {
        let detail = json!({ "name": repository });
        let message = "repository name not known to registry";
        return Answer::error(StatusCode::NOT_FOUND, "NAME_UNKNOWN", message, detail);
    }
    let all = hub.with(|state| state.contents.tags(repository));
    let (page, link) = page(hub, ask, all, |tag| tag);
    linked(Answer::json(StatusCode::OK, &json!({ "name": repository, "tags": page })), link)
}

fn referrers(hub: &Shared, ask: &Ask, repository: &str, subject: &str) -> Answer {
    if let Some(refusal) = refuses_to_list(hub, ask, repository) {
        return refusal;
    }
    let wanted = parameter(&ask.query, "artifactType");
    let all = hub.with(|state| state.contents.referrers(repository, subject, wanted.as_deref()));
    let (page, link) = page(hub, ask, all, |entry| entry["digest"].as_str().unwrap_or_default());
    let media_type = MediaTypes::Oci.index();
    let index = json!({ "schemaVersion": 2, "mediaType": media_type, "manifests": page });
    let answer = linked(Answer::json(StatusCode::OK, &index).with(CONTENT_TYPE, media_type), link);
    if wanted.is_some() { answer.with(FILTERS_APPLIED, "artifactType") } else { answer }
}

fn refuses_to_list(hub: &Shared, ask: &Ask, repository: &str) -> Option<Answer> {
    let admitted = if hub.config.open_lists { Ok(()) } else { admit(hub, ask, repository).map(drop) };
    admitted.err().map(|refusal| *refusal)
}

/// As many entries as were asked for and may be given, after the last one that the client has; and where to go on.
fn page<T: Clone>(
    hub: &Shared,
    ask: &Ask,
    all: Vec<T>,
    name: impl Fn(&T) -> &str,
) -> (Vec<T>, Option<String>) {
    let after = parameter(&ask.query, "last").unwrap_or_default();
    let asked = parameter(&ask.query, "n").and_then(|number| number.parse().ok());
    let most: usize = asked.unwrap_or(hub.config.page).min(hub.config.page);
    let mut rest = all.into_iter().filter(|entry| name(entry) > after.as_str());
    let page: Vec<T> = rest.by_ref().take(most).collect();
    let last = page.last().filter(|_| rest.next().is_some());
    let link = last.map(|last| {
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        query.append_pair("last", name(last)).append_pair("n", &most.to_string());
        // A host of its own, as behind a proxy: nobody who takes the mirror for its registry may go there.
        format!("<http://registry.invalid{}?{}>; rel=\"next\"", ask.path, query.finish())
    });
    (page, link)
}

fn linked(answer: Answer, link: Option<String>) -> Answer {
    match link {
        Some(link) => answer.with(LINK, &link),
        None => answer,
    }
}

/// Who asks, as far as the limit is concerned.
struct Client {
    /// What `docker-ratelimit-source` tells, and what is charged.
    source: String,
    /// `None`: no limit and no headers.
    terms: Option<Terms>,
    sponsored: bool,
}

/// Lets a client into a repository, or says how to ask.
fn admit(hub: &Shared, ask: &Ask, repository: &str) -> Result<Client, Box<Answer>> {
    let token = bearer(&ask.headers);
    let grant = token.and_then(|token| token::check(hub, token));
    let private = hub.with(|state| state.private.iter().any(|private| private.repository == repository));
    if !hub.config.auth && !private {
        if !hub.with(|state| state.contents.has(repository)) {
            let detail = json!({ "name": repository });
            let message = "repository name not known to registry";
            return Err(Box::new(Answer::error(StatusCode::NOT_FOUND, "NAME_UNKNOWN", message, detail)));
        }
    } else if !grant.as_ref().is_some_and(|grant| grant.covers(repository)) {
        let state = match (ask.headers.get(http::header::AUTHORIZATION), &grant) {
            (None, _) => TokenState::None,
            (Some(_), None) => TokenState::Invalid,
            (Some(_), Some(_)) => TokenState::Insufficient,
        };
        return Err(Box::new(challenge(hub, ask, Some(repository), state)));
    }
    let account = grant.and_then(|grant| grant.account);
    let sponsored = hub.config.sponsored.iter().any(|name| name == repository);
    let source = account.as_deref().map_or_else(|| source_of(ask.peer), token::id_of);
    let terms = terms(hub, account.as_deref()).filter(|_| !sponsored);
    Ok(Client { source, terms, sponsored })
}

fn anonymous(hub: &Shared, ask: &Ask) -> Client {
    Client { source: source_of(ask.peer), terms: terms(hub, None), sponsored: false }
}

fn terms(hub: &Shared, account: Option<&str>) -> Option<Terms> {
    let config = &hub.config;
    let limit = token::limit_of(hub, account)?;
    Some(Terms { limit, window: config.window, late_by: config.enforced_late_by, drops: config.drops })
}

fn spend(hub: &Shared, client: &Client, terms: Terms) -> Result<(), Spent> {
    let now = hub.clock.now();
    hub.with(|state| state.budgets.spend(&client.source, terms, now))
}

fn refused(hub: &Shared, client: &Client, spent: Spent) -> Answer {
    let config = &hub.config;
    reply::pull_limit(config.refusal, config.retry_after, spent.retry_after, hub.clock.wall())
        .with_all(limit_headers(hub, client))
}

fn limit_headers(hub: &Shared, client: &Client) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let Some(terms) = client.terms.filter(|_| hub.config.headers != HeaderStyle::Absent) else {
        return headers;
    };
    let now = hub.clock.now();
    let remaining = hub.with(|state| state.budgets.remaining(&client.source, terms, now));
    let window = terms.window.as_secs();
    let mut put = |name: &'static str, text: String| {
        let value = HeaderValue::from_str(&text).expect("numbers and addresses are visible ASCII");
        headers.insert(HeaderName::from_static(name), value);
    };
    put("ratelimit-limit", format!("{};w={window}", terms.limit));
    put("ratelimit-remaining", format!("{remaining};w={window}"));
    put("docker-ratelimit-source", client.source.clone());
    headers
}

fn challenge(hub: &Shared, ask: &Ask, repository: Option<&str>, state: TokenState) -> Answer {
    let realm = format!("{}/token", hub.addresses.url(Role::Token, ask.host()));
    reply::unauthorized(&realm, repository, state)
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    headers.get(http::header::AUTHORIZATION)?.to_str().ok()?.strip_prefix("Bearer ")
}
