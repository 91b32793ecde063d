//! The stand-in's own pages under `/_hub/`, for people and scripts: what [`Hub`](super::Hub) offers to a test, over
//! HTTP. Nothing asked here is counted, logged or broken.

use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::fault::{Fault, Kind, Script};
use super::reply::{Answer, method_not_allowed};
use super::shared::Shared;
use super::target::{Role, parameter};

const HELP: &str = "\
GET  /_hub/counters   what was asked, and what it cost
GET  /_hub/log        every request
GET  /_hub/images     repositories, their tags and the images to move them to
POST /_hub/reset      counters to zero, log empty
POST /_hub/tag?repository=&tag=&digest=
POST /_hub/budget?remaining=    GETs left for every source; without a number, full windows
POST /_hub/expire     ends every token and signed address given out so far
POST /_hub/advance?seconds=     moves the clock ahead
POST /_hub/fault?kind=&mode=&bytes=&times=&only=
     kind   manifest-head, manifest-get, blob, list, cdn, token; none: every kind
     mode   none, pull-limit, abuse-limit, unavailable, captive-portal, reset, hang, refuse, wrong-bytes,
            and with bytes=: cut, hold (an offset each), slow (a rate per second)
     times  how many requests meet it; none: until mode=none
     only   part of the path of those that do
";

/// Answers a request under `/_hub/`.
pub(super) async fn answer(hub: &Shared, method: &Method, what: &str, query: &str) -> Answer {
    let read = *method == Method::GET;
    let write = *method == Method::POST;
    let done = match what {
        "" if read => return Answer::text(StatusCode::OK, HELP),
        "counters" if read => return found(json!(hub.with(|state| state.ledger.counters()))),
        "log" if read => return found(json!(hub.with(|state| state.ledger.log()))),
        "images" if read => return found(hub.with(|state| state.contents.listing())),
        "reset" if write => {
            hub.record(|ledger| ledger.reset());
            Ok(())
        }
        "expire" if write => {
            hub.seal.revoke_tokens();
            hub.seal.expire_addresses();
            Ok(())
        }
        "advance" if write => number(query, "seconds").map(|seconds| hub.clock.advance(seconds.unwrap_or(0))),
        "tag" if write => tag(hub, query),
        "budget" if write => budget(hub, query),
        "fault" if write => fault(hub, query).await,
        "" | "counters" | "log" | "images" => return method_not_allowed("GET"),
        "reset" | "expire" | "advance" | "tag" | "budget" | "fault" => return method_not_allowed("POST"),
        _ => return Answer::json(StatusCode::NOT_FOUND, &json!({ "error": "no such page; see /_hub/" })),
    };
    match done {
        Ok(()) => found(json!({ "done": true })),
        Err(error) => Answer::json(StatusCode::BAD_REQUEST, &json!({ "error": error })),
    }
}

fn found(value: Value) -> Answer {
    Answer::json(StatusCode::OK, &value)
}

fn tag(hub: &Shared, query: &str) -> Result<(), String> {
    let (repository, tag) = (required(query, "repository")?, required(query, "tag")?);
    let digest = required(query, "digest")?;
    hub.with(|state| state.contents.tag(&repository, &tag, &digest))
}

fn budget(hub: &Shared, query: &str) -> Result<(), String> {
    match number::<i64>(query, "remaining")? {
        Some(remaining) => hub.with(|state| state.budgets.preset(remaining)),
        None => hub.with(|state| state.budgets.refill()),
    }
    Ok(())
}

async fn fault(hub: &Shared, query: &str) -> Result<(), String> {
    let kinds = match parameter(query, "kind") {
        Some(kind) => vec![kind.parse::<Kind>()?],
        None => Kind::ALL.to_vec(),
    };
    let bytes = || number::<u64>(query, "bytes")?.ok_or_else(|| "this mode needs bytes=".to_owned());
    let fault = match required(query, "mode")?.as_str() {
        "none" => None,
        "pull-limit" => Some(Fault::PullLimit),
        "abuse-limit" => Some(Fault::AbuseLimit),
        "forbidden" => Some(Fault::Forbidden),
        "unavailable" => Some(Fault::Unavailable),
        "captive-portal" => Some(Fault::CaptivePortal),
        "reset" => Some(Fault::Reset),
        "hang" => Some(Fault::Hang),
        "refuse" => Some(Fault::Refuse),
        "wrong-bytes" => Some(Fault::WrongBytes),
        "cut" => Some(Fault::CutAfter(bytes()?)),
        "hold" => Some(Fault::HoldAt(bytes()?)),
        "slow" => Some(Fault::Slow(bytes()?)),
        other => return Err(format!("no mode {other}; see /_hub/")),
    };
    let closes_this = |kind| Role::of(kind) == Role::Registry;
    if fault == Some(Fault::Refuse) && kinds.iter().copied().any(closes_this) {
        return Err(
            "refusing on the registry's listener would shut /_hub/ as well: end the program".to_owned()
        );
    }
    for kind in kinds {
        match fault {
            None => hub.clear(kind).await,
            Some(fault) => hub.fault(kind, script(fault, query)?).await,
        }
    }
    Ok(())
}

fn script(fault: Fault, query: &str) -> Result<Script, String> {
    let script = match number::<u32>(query, "times")? {
        Some(times) => fault.next(times),
        None => Script::from(fault),
    };
    Ok(match parameter(query, "only") {
        Some(part) => script.only(&part),
        None => script,
    })
}

fn required(query: &str, name: &str) -> Result<String, String> {
    parameter(query, name).filter(|value| !value.is_empty()).ok_or_else(|| format!("{name}= is missing"))
}

fn number<N: std::str::FromStr>(query: &str, name: &str) -> Result<Option<N>, String> {
    let parse = |text: String| text.parse().map_err(|_| format!("{name}= is not a number: {text}"));
    parameter(query, name).map(parse).transpose()
}
