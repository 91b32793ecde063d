//! `tidehold log`: the flight record, that is each request that was sent upstream.

use clap::Args;
use tidehold::oci::Registry;
use tidehold::proto::v1;

use super::control::{Control, answered};
use super::paint::{Painted, bad, faint, good, odd, strong};
use super::refused::{Refused, said};
use super::{Failed, print, words};

#[derive(Args)]
pub(crate) struct Log {
    /// Go on with each new request, until interrupted
    #[arg(long, short)]
    follow: bool,
    /// Only the last so many of those that are remembered; 0, with -f, for the new ones alone
    #[arg(long, short = 'n', value_name = "NUMBER", default_value_t = 50)]
    last: u32,
    /// Only of this registry, such as docker.io
    #[arg(long, value_name = "REGISTRY")]
    registry: Option<Registry>,
    /// Only of repositories that contain this
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    repository: String,
    /// Only those that a registry with a pull limit counts
    #[arg(long)]
    counted: bool,
    /// Write one JSON object for each
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    control: Control,
}

impl Log {
    pub(crate) fn run(self) -> Result<(), Failed> {
        super::runtime()?.block_on(async {
            let mut hold = self.control.hold().await?;
            let Self { follow, last, registry, repository, counted, json, .. } = self;
            let narrowed = registry.is_some() || !repository.is_empty() || counted;
            let registry = registry.map(|registry| registry.to_string()).unwrap_or_default();
            let request = v1::LogRequest { follow, last: Some(last), registry, repository, counted };
            let mut requests = answered(hold.log(request).await)?;
            let mut any = false;
            loop {
                match requests.message().await {
                    Ok(Some(request)) => {
                        any = true;
                        print(&if json { words::json(&request)? } else { line(&request) })?;
                    }
                    Ok(None) if follow => {
                        return Err(anyhow::anyhow!(
                            "the daemon has ended: start this again once it is back"
                        )
                        .into());
                    }
                    Ok(None) => {
                        if !any && !json && last > 0 {
                            super::complain(nothing(narrowed));
                        }
                        return Ok(());
                    }
                    Err(status) if follow => {
                        return Err(anyhow::anyhow!(
                            "the daemon has ended ({}): start this again",
                            said(&status)
                        )
                        .into());
                    }
                    Err(status) => return Err(Refused::from(&status).into()),
                }
            }
        })
    }
}

/// What a person is told who might think that something is wrong.
fn nothing(narrowed: bool) -> &'static str {
    match narrowed {
        true => "no such request is remembered",
        false => "nothing was sent upstream yet",
    }
}

/// When, what, for whom.
fn line(request: &v1::UpstreamRequest) -> String {
    let asked_by = faint(format!("for {}", request.asked_by));
    format!("{}  {}  {asked_by}", faint(words::time(request.at)), in_short(request))
}

/// What was asked, and what came of it.
pub(super) fn in_short(request: &v1::UpstreamRequest) -> String {
    let v1::UpstreamRequest { method, registry, repository, kind, target, host, took, counted, .. } = request;
    let joined = if target.contains(':') { '@' } else { ':' };
    let what = match kind.as_str() {
        "token" => format!("token for {registry}/{repository}"),
        "login" => format!("login at {registry}"),
        "manifest" => format!("{registry}/{repository}{joined}{target}"),
        kind => format!("{kind} {registry}/{repository}{joined}{target}"),
    };
    let counted = if *counted { strong(" counted").to_string() } else { String::new() };
    let left = request.remaining.map(|left| format!(", {left} left")).unwrap_or_default();
    let milliseconds = words::milliseconds(*took);
    format!(
        "{} {method:<4} {}{counted} {}",
        outcome(request),
        Painted::from(what),
        faint(format!("at {host} in {milliseconds}{left}"))
    )
}

fn outcome(request: &v1::UpstreamRequest) -> String {
    let v1::UpstreamRequest { status, failure, .. } = request;
    match status {
        0 => bad(format!("--- {failure}")).to_string(),
        200..=399 => good(status.to_string()).to_string(),
        401 => faint(status.to_string()).to_string(),
        429 | 500.. => bad(status.to_string()).to_string(),
        _ => odd(status.to_string()).to_string(),
    }
}
