//! Upstream registries: everything that asks them for something.
//!
//! A request passes through one stack of layers, each in its file: `record` (a line in the log) · `gates`
//! (whether it may go at all) · `authorize` (tokens) · `retry` (once, for a broken connection) · `time_out` · `transport` (pooled connections). Around it
//! stand `upstreams` (what can be asked, and following redirects), `settings` (where a registry stands),
//! `redirect` (where one leads) and `body` (reading what comes). Beneath it `dial` makes connections and applies
//! `reach`, the rule of which addresses may be gone to. Beside it `challenge`, `token` and `tokens` know how a
//! token is had and kept.
//!
//! This part decides nothing about freshness, keeps no bytes and verifies no digest. Invariants: a token is shown
//! to the upstream that it was obtained for and to nobody else; no connection is made to an address that whoever
//! named it may not lead to; nothing that comes from the network is waited for, or kept, without a bound.

mod asked;
mod asker;
mod authorize;
mod bearer;
mod body;
mod challenge;
#[allow(dead_code, reason = "the stack asks as nobody so far")]
mod credentials;
mod dial;
#[allow(dead_code, reason = "the stack asks as nobody so far")]
mod docker_config;
mod failure;
mod gate;
mod gates;
#[allow(dead_code, reason = "the stack asks as nobody so far")]
mod helper;
mod limits;
#[allow(dead_code, reason = "the stack asks as nobody so far")]
mod login;
#[allow(dead_code, reason = "the stack asks as nobody so far")]
mod login_file;
mod reach;
mod record;
mod redirect;
mod retry;
mod retry_after;
mod settings;
mod stack;
#[cfg(test)]
mod tests;
mod time_out;
mod token;
mod tokens;
mod transport;
mod upstreams;

pub use asker::{Account, Asker, ClientToken, Cost, Credential};
pub use bearer::{BearerChallenge, NoBearerChallenge};
pub use body::BlobBody;
pub use failure::{Cause, Failure, Forbidden, LoginName, Wait};
pub use gate::Because;
pub use limits::Left;
pub use reach::Standing;
pub use retry_after::whole_seconds;
pub use settings::{Listed, Settings, SettingsError, Timeouts};
pub use upstreams::{Described, Open, Upstreams};
