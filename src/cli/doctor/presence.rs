//! Whether the daemon runs, for whoever is about to start it: judged by what an examination sees, and told in its words.

use std::path::Path;
use std::time::SystemTime;

use tidehold::config::Config;

use super::daemon::{self, Door, Facts};
use super::examine::daemon_facts;
use super::look::Node;

/// What is at the daemon's control socket.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::cli) enum Presence {
    /// Nobody who answers, as far as can be seen; it may be about to.
    NotYet,
    /// The daemon, which was started then.
    Since(SystemTime),
    /// One that answers nobody, and will not: what is so, and how it is mended.
    Silent { what: String, mend: String },
}

/// Waits for nobody for long.
pub(in crate::cli) async fn presence(root: &Path, config: &Config) -> Presence {
    let node = Node { root: root.to_owned() };
    match node.door(&config.control.socket).await {
        Door::Open { .. } => judge(&daemon_facts(&node, None, config.clone()).await),
        Door::Missing | Door::NoSocket | Door::Stale | Door::Denied | Door::Failed(_) => Presence::NotYet,
    }
}

/// Pure.
fn judge(facts: &Facts) -> Presence {
    match &facts.status {
        Some(Ok(status)) => {
            let since = status.started_at.and_then(|at| SystemTime::try_from(at).ok());
            Presence::Since(since.unwrap_or(SystemTime::UNIX_EPOCH))
        }
        Some(Err(why)) if facts.hangs() => {
            let told = daemon::silent(facts, why);
            Presence::Silent { what: told.what, mend: told.mend }
        }
        Some(Err(_)) | None => Presence::NotYet,
    }
}

#[cfg(test)]
mod tests {
    use super::super::daemon::Answerer;
    use super::super::finding::Level;
    use super::super::hosts::Mirror;
    use super::*;

    fn unanswered(opening: bool, mirror: Answerer) -> Facts {
        let config = Config::default();
        let at = Mirror(config.mirror.listen);
        let control = (config.control.socket.clone(), Door::Open { mode: 0o600, owner: 0 });
        Facts {
            file: None,
            config,
            control,
            contents: Vec::new(),
            status: Some(Err("no answer within 5 s".to_owned())),
            told_by_page: Vec::new(),
            opening,
            mirror,
            at,
            mirror_holder: None,
            web_holder: None,
        }
    }

    fn mute() -> Answerer {
        Answerer::Mute("no answer within 5 s".to_owned())
    }

    #[test]
    fn one_that_answers_nobody_is_told_with_its_mend() {
        let Presence::Silent { what, mend } = judge(&unanswered(false, mute())) else { panic!() };
        assert!(
            what.contains("/run/tidehold/control.sock, nor at http://127.0.0.1:789: no answer"),
            "{what}"
        );
        assert!(mend.starts_with("systemctl restart tidehold"), "{mend}");
        assert_eq!(judge(&unanswered(false, Answerer::Ours)), Presence::NotYet, "it may be about to answer");
    }

    #[test]
    fn one_that_opens_its_hold_is_waited_for() {
        let facts = unanswered(true, mute());
        assert_eq!(judge(&facts), Presence::NotYet);
        let told = daemon::silent(&facts, "no answer within 5 s");
        assert_eq!((told.level, told.mend.contains("restart")), (Level::Warn, false), "{told:?}");
    }
}
