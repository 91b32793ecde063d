//! The stand-in for Docker Hub as a program of its own, for the quickstart and for trying things out by hand.

#[path = "mod.rs"]
mod hub;

use std::io::Write as _;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Parser, ValueEnum};
use tokio::signal::unix::{SignalKind, signal};

use hub::{
    Account, BlobStyle, HeadStyle, HeaderStyle, Hub, HubConfig, MediaTypes, Private, Refusal, RetryAfter,
    Rootfs,
};

/// A stand-in for Docker Hub on loopback: a registry with a pull limit, its token service and its CDN.
#[derive(Parser)]
#[command(name = "hub")]
struct Args {
    /// Where the registry listens; port 0 takes a free one
    #[arg(long, default_value = "127.0.0.1:5000")]
    listen: SocketAddr,
    /// Where the token service listens
    #[arg(long, default_value = "127.0.0.1:0")]
    token: SocketAddr,
    /// Where the CDN listens
    #[arg(long, default_value = "127.0.0.2:0")]
    cdn: SocketAddr,
    /// Manifest GETs that an anonymous address may make in a window
    #[arg(long, default_value_t = 100)]
    limit: u64,
    /// The length of a window
    #[arg(long, default_value = "6h", value_parser = humantime::parse_duration)]
    window: Duration,
    /// How long a token is good for
    #[arg(long, default_value = "5m", value_parser = humantime::parse_duration)]
    token_lifetime: Duration,
    /// Let anyone read public repositories without a token
    #[arg(long)]
    no_auth: bool,
    /// An account that may log in, with 200 GETs in a window
    #[arg(long = "account", value_name = "NAME:PASSWORD", value_parser = account)]
    accounts: Vec<Account>,
    /// A repository that one account alone may read
    #[arg(long = "private", value_name = "REPOSITORY=ACCOUNT", value_parser = private)]
    private: Vec<Private>,
    /// What the 429 of the pull limit looks like
    #[arg(long, value_enum, default_value_t)]
    refusal: RefusalArg,
    /// How Retry-After is written on it; left out: as that style has it
    #[arg(long, value_enum)]
    retry_after: Option<RetryAfterArg>,
    /// How the headers on the limit are spelt
    #[arg(long, value_enum, default_value_t)]
    headers: HeadersArg,
    /// What a HEAD of a manifest is answered
    #[arg(long, value_enum, default_value_t)]
    head: HeadArg,
    /// How a blob is handed out
    #[arg(long, value_enum, default_value_t)]
    blobs: BlobsArg,
    /// Whose media types the images use
    #[arg(long, value_enum, default_value_t)]
    media: MediaArg,
    /// Serve images that hold a marker file only, where there is no busybox to be had
    #[arg(long)]
    no_busybox: bool,
}

/// Declares the words of a flag and what each stands for.
macro_rules! words {
    ($name:ident => $target:ident { $first:ident = $first_value:ident $(, $word:ident = $value:ident)* $(,)? }) => {
        #[derive(Clone, Copy, Default, ValueEnum)]
        enum $name { #[default] $first $(, $word)* }

        impl From<$name> for $target {
            fn from(word: $name) -> Self {
                match word {
                    $name::$first => Self::$first_value,
                    $($name::$word => Self::$value,)*
                }
            }
        }
    };
}

words!(RefusalArg => Refusal { Toomanyrequests = TooManyRequests, Denied = Denied });
words!(RetryAfterArg => RetryAfter { Absent = Absent, Seconds = Seconds, Date = HttpDate, Unix = UnixTimestamp });
words!(HeadersArg => HeaderStyle { Lowercase = Lowercase, Titlecase = Titlecase, Absent = Absent });
words!(HeadArg => HeadStyle { Digest = WithDigest, NoDigest = WithoutDigest, NotAllowed = MethodNotAllowed });
words!(BlobsArg => BlobStyle { Redirect307 = Redirect307, Redirect302 = Redirect302, Inline = Inline });
words!(MediaArg => MediaTypes { Oci = Oci, Docker = Docker });

impl From<Args> for HubConfig {
    fn from(args: Args) -> Self {
        Self {
            registry: args.listen,
            token: args.token,
            cdn: args.cdn,
            limit: Some(args.limit),
            window: args.window,
            token_lifetime: args.token_lifetime,
            auth: !args.no_auth,
            accounts: args.accounts,
            private: args.private,
            refusal: args.refusal.into(),
            retry_after: args.retry_after.map(Into::into),
            headers: args.headers.into(),
            head: args.head.into(),
            blobs: args.blobs.into(),
            media: args.media.into(),
            rootfs: if args.no_busybox { Rootfs::Marker } else { Rootfs::Busybox },
            ..Self::default()
        }
    }
}

fn account(text: &str) -> Result<Account, String> {
    let (name, password) = text.split_once(':').ok_or("an account is written NAME:PASSWORD")?;
    Ok(Account::free(name, password))
}

fn private(text: &str) -> Result<Private, String> {
    let (repository, account) =
        text.split_once('=').ok_or("a private repository is written REPOSITORY=ACCOUNT")?;
    Ok(Private { repository: repository.to_owned(), account: account.to_owned() })
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("SIGTERM can't be listened for")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("SIGINT can't be listened for")?;
    let hub = Hub::try_start(HubConfig::from(Args::parse())).await?;
    announce(&hub).context("standard output can't be written to")?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}

fn announce(hub: &Hub) -> std::io::Result<()> {
    let url = hub.registry_url();
    let mut out = std::io::stdout().lock();
    writeln!(out, "token service on {}, CDN on {}", hub.token_url(), hub.cdn_url())?;
    writeln!(out, "an image   {}/library/tide:latest", hub.registry_address())?;
    writeln!(out, "counters   curl {url}/_hub/counters")?;
    writeln!(out, "the rest   curl {url}/_hub/")?;
    writeln!(out, "hub ready on {url}")?;
    out.flush()
}
