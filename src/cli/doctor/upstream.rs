//! The way to the registries: can one be reached from here, does the daemon get an answer for an image, and may it pull?

use std::time::SystemTime;

use tidehold::proto::v1::{KeptOutRegistry, RegistryBudget};
use tonic::Status;

use super::finding::{Finding, bad, ok, warn};
use crate::cli::words;

/// How asking a registry directly went.
#[derive(Debug)]
pub(super) struct Direct {
    /// Who was asked.
    pub(super) url: String,
    pub(super) ended: Ended,
}

/// How far it came.
#[derive(Debug)]
pub(super) enum Ended {
    /// An answer with this status, and the time that it carries.
    Answered(u16, Option<SystemTime>),
    /// Its name is not known here.
    Unresolved(String),
    /// The connection was not made.
    Unreachable(String),
    /// It was made, and its certificate is not good, or it speaks no TLS.
    Tls(String),
}

/// What a request as containerd makes it was answered by the mirror.
#[derive(Debug)]
pub(super) enum Head {
    /// The status, the standing and the digest that it carries.
    Answered { status: u16, standing: Option<String>, problem: String },
    /// Its registry has it, and it would have to be fetched first.
    NotHeld,
    /// There was no answer.
    Failed(String),
}

/// The registry itself, asked past the daemon. Where others on the node go by a proxy, that no name is resolved is no fault
/// of the name server.
pub(super) fn direct(direct: &Direct, by_proxy: bool) -> Finding {
    let url = &direct.url;
    match &direct.ended {
        Ended::Unresolved(why) if by_proxy => bad(
            "upstream.name",
            format!("the name of {url} is not resolved: {why}"),
            "others on this node ask a proxy, which resolves it for them: see what is said of that below",
        ),
        Ended::Answered(status, _) if *status >= 500 => warn(
            "upstream.failing",
            format!("{url} answers {status}: the registry is in trouble, or something in between"),
            "look again later; what is held is served meanwhile",
        ),
        Ended::Answered(..) => ok("upstream.reachable", format!("{url} can be reached")),
        Ended::Unresolved(why) => bad(
            "upstream.name",
            format!("the name of {url} is not resolved: {why}"),
            "look at: resolvectl status (or /etc/resolv.conf), and: getent hosts registry-1.docker.io",
        ),
        Ended::Unreachable(why) => bad(
            "upstream.unreachable",
            format!("{url} cannot be reached from this node: {why}"),
            "let the node out to it (firewall, route), or name a mirror that it can reach as upstream in the \
             configuration",
        ),
        Ended::Tls(why) => bad(
            "upstream.tls",
            format!("the certificate of {url} is not accepted: {why}"),
            "apt-get install ca-certificates, or add the CA of whoever stands in between: update-ca-certificates",
        ),
    }
}

/// What the request for an image came to, by the way that containerd takes.
pub(super) fn head(reference: &str, head: &Head) -> Finding {
    match head {
        Head::Answered { status: 200, standing: Some(standing), .. } if standing == "stale" => warn(
            "mirror.stale",
            format!(
                "a request for {reference} arrives, and is answered with what is held: its registry cannot be asked"
            ),
            format!("tidehold explain {reference}"),
        ),
        Head::Answered { status: 200, standing: Some(standing), .. } => ok(
            "mirror.head",
            format!("a request for {reference} as containerd makes it is answered: {standing}"),
        ),
        Head::NotHeld => ok(
            "mirror.head",
            format!(
                "a request for {reference} as containerd makes it reaches its registry, which has it; nothing is held of it yet"
            ),
        ),
        Head::Answered { status: 200, standing: None, .. } => bad(
            "mirror.other",
            format!("a request for {reference} was answered by something else than Tidehold"),
            "see who has the mirror's port: ss -ltnp",
        ),
        Head::Answered { status: status @ (401 | 403), problem, .. } => warn(
            "mirror.denied",
            format!("{reference} is not for everybody ({status}): {problem}"),
            "a client with credentials of its own may still get it; name a public image with --reference",
        ),
        Head::Answered { status: 404, problem, .. } => warn(
            "mirror.unknown",
            format!("its registry has no {reference}: {problem}"),
            "name an image that is there with --reference",
        ),
        Head::Answered { status, problem, .. } => bad(
            "mirror.refused",
            format!("a request for {reference} is answered {status}: {problem}"),
            "see what went to it, and what is left of its limit: tidehold log; tidehold budget",
        ),
        Head::Failed(why) => bad(
            "mirror.silent",
            format!("a request for {reference} gets no answer: {why}"),
            "journalctl -u tidehold -n 50",
        ),
    }
}

/// What is not for everybody, asked for with the hold's own login.
pub(super) fn own_login(registry: &str, reference: &str, asked: &Result<(), Status>) -> Finding {
    match asked {
        Ok(()) => ok(
            "logins.image",
            format!("{reference} is for the hold's own login for {registry}: tidehold warm"),
        ),
        Err(status) => warn(
            "logins.image",
            format!(
                "{reference} cannot be had with the hold's own login for {registry} either: {}",
                words::plain(status.message())
            ),
            format!("tidehold log --registry {registry}"),
        ),
    }
}

/// The registries that clients ask for in vain, since they are at addresses to which only a listed one may be gone.
pub(super) fn kept_out(file: &str, all: &[KeptOutRegistry]) -> Option<Finding> {
    if all.is_empty() {
        return None;
    }
    let what = all.iter().map(|kept| {
        let KeptOutRegistry { registry, address, standing, last_at, times } = kept;
        format!(
            "{registry} is at {address}, {standing}, where only a registry that is listed may be: what is asked of it is answered \
             403 ({times} times, {} ago at last), clients go on to it by themselves, and nothing of it is held",
            words::since(*last_at)
        )
    });
    let lines = all.iter().map(|KeptOutRegistry { registry, .. }| {
        format!("\n  [registries.{registry:?}]\n  upstream = \"https://{registry}\"")
    });
    Some(warn(
        "upstream.private",
        what.collect::<Vec<_>>().join("\n"),
        format!(
            "put into {file} those that are yours (http:// where one speaks no TLS), and: systemctl restart tidehold{}",
            lines.collect::<String>()
        ),
    ))
}

/// Whether pulls are let through to each registry now, and how many are left.
pub(super) fn budgets(registries: &[RegistryBudget]) -> Vec<Finding> {
    let shut = registries.iter().filter(|registry| !registry.gate_open).map(|registry| {
        let name = &registry.registry;
        let because = words::plain(&registry.shut_because);
        let until = match registry.opens_at {
            Some(_) => format!("; the next is tried in {}", words::until(registry.opens_at)),
            None => String::new(),
        };
        warn(
            "upstream.held-back",
            format!("pulls from {name} are held back: {because}{until}"),
            "what is held is served meanwhile; see: tidehold budget. A login of its own has a limit of its own: \
             credentials under [registries]",
        )
    });
    let low = registries.iter().filter(|registry| registry.gate_open).filter_map(|registry| {
        let limit = registry.limits.first()?;
        let most = limit.limit?;
        (limit.remaining.saturating_mul(10) < most).then(|| {
            warn(
                "upstream.low",
                format!("{} pulls of {most} are left at {}", limit.remaining.max(0), registry.registry),
                "see who spends them: tidehold budget. A login of its own has a limit of its own: credentials under \
                 [registries]",
            )
        })
    });
    shut.chain(low).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::doctor::finding::Level;
    use tidehold::proto::v1::Limit;

    #[test]
    fn each_way_to_fail_has_a_mend() {
        let ends = [
            (Ended::Answered(401, None), Level::Ok),
            (Ended::Answered(503, None), Level::Warn),
            (Ended::Unresolved("no".into()), Level::Bad),
            (Ended::Unreachable("no".into()), Level::Bad),
            (Ended::Tls("no".into()), Level::Bad),
        ];
        for (ended, level) in ends {
            let found = direct(&Direct { url: "https://r".into(), ended }, false);
            assert_eq!((found.level, found.mend.is_empty()), (level, level == Level::Ok));
        }
        let answer = |status, standing: Option<&str>| {
            head(
                "x",
                &Head::Answered { status, standing: standing.map(str::to_owned), problem: String::new() },
            )
            .name
        };
        assert_eq!(answer(200, Some("unchanged")), "mirror.head");
        assert_eq!(answer(200, Some("stale")), "mirror.stale");
        assert_eq!(answer(200, None), "mirror.other");
        assert_eq!(head("x", &Head::NotHeld).level, Level::Ok);
        assert_eq!(answer(401, None), "mirror.denied");
        assert_eq!(answer(404, None), "mirror.unknown");
        assert_eq!(answer(429, None), "mirror.refused");
    }

    #[test]
    fn a_shut_gate_and_a_small_rest_are_told() {
        let of = |gate_open, remaining| RegistryBudget {
            registry: "docker.io".into(),
            gate_open,
            limits: vec![Limit { remaining, limit: Some(100), ..Limit::default() }],
            ..RegistryBudget::default()
        };
        let names = |budget| budgets(&[budget]).iter().map(|finding| finding.name).collect::<Vec<_>>();
        assert_eq!(names(of(true, 10)), [""; 0]);
        assert_eq!(names(of(true, 9)), ["upstream.low"]);
        assert_eq!(names(of(false, 9)), ["upstream.held-back"]);
    }
}
