//! Whether Tidehold can run, and does, before anybody is told of it.

use std::io;
use std::net::TcpListener;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, anyhow};
use tidehold::config::Config;
use tidehold::node::files::seen;
use tidehold::proto::v1::StatusRequest;
use tidehold::proto::v1::hold_client::HoldClient;

use super::super::doctor::{self, Presence};
use super::super::{Failed, control, print};
use super::Setup;

/// How long a daemon that was just started may take to answer: it looks through what it holds first.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long between two tries.
const PAUSE: Duration = Duration::from_millis(200);

/// That nobody else has its ports, where it does not run yet.
pub(super) fn ports_are_free(setup: &Setup, config: &Config) -> Result<(), Failed> {
    let elsewhere = setup.root != Path::new("/");
    if elsewhere || UnixStream::connect(&config.control.socket).is_ok() {
        return Ok(());
    }
    let is_taken = |address| {
        // Whether it may be had otherwise is the daemon's business.
        TcpListener::bind(address).is_err_and(|error| error.kind() == io::ErrorKind::AddrInUse)
    };
    let taken = |name, address: std::net::SocketAddr| {
        format!(
            "{address} is taken by another program (ss -ltnp 'sport = :{}' names it): end that, or give Tidehold another \
             address by listen under [{name}] in its configuration",
            address.port()
        )
    };
    if is_taken(config.web.listen) {
        print(&format!("{}; until then there is no status page", taken("web", config.web.listen)))?;
    }
    if is_taken(config.mirror.listen) {
        return Err(anyhow!("{}; nothing was changed", taken("mirror", config.mirror.listen)).into());
    }
    Ok(())
}

/// Whether the daemon runs, before it is started or asked for something.
pub(super) fn presence(setup: &Setup, config: &Config) -> Result<Presence, Failed> {
    Ok(super::super::runtime()?.block_on(doctor::presence(&setup.root, config)))
}

/// That nobody need wait for one that answers nobody.
pub(super) fn silent(what: &str, mend: &str, so: &str) -> Failed {
    let mend = mend.replace('\n', "\n  ");
    anyhow!("{what}; {so}. Mend that, and run this again:\n  {mend}").into()
}

/// Waits until the daemon answers.
pub(super) fn answers(setup: &Setup, config: &Config) -> Result<(), Failed> {
    let socket = seen(&setup.root, &config.control.socket);
    super::super::runtime()?.block_on(async {
        let asked = tokio::time::timeout(PATIENCE, async {
            loop {
                match ask(&socket).await {
                    Ok(()) => return Ok(()),
                    // Nobody is about to start it.
                    Err(error) if !socket.exists() && setup.restart_with.is_some() => return Err(error),
                    Err(_) => tokio::time::sleep(PAUSE).await,
                }
            }
        });
        let answered = asked.await.unwrap_or_else(|_| Err(anyhow!("it does not answer in time")));
        answered.with_context(|| {
            format!(
                "Tidehold does not answer at {}: start `tidehold serve`, whose log says what is wrong, and run this again",
                socket.display()
            )
        })
    })?;
    Ok(())
}

async fn ask(socket: &Path) -> anyhow::Result<()> {
    let channel = control::channel(tokio::net::UnixStream::connect(socket).await?).await?;
    HoldClient::new(channel).status(StatusRequest {}).await?;
    Ok(())
}
