//! Upstream registries: everything that asks them for something.
//!
//! A request passes through one stack of layers, each in its file: `gates` (whether it may go at all) · `authorize`
//! (tokens and logins) · `retry` (once, for a broken connection) · `record` (a line in the log for each that is sent) ·
//! `time_out` · `transport` (pooled connections). Around it stand `upstreams` (what can be asked), `in_order` (one upstream after the other, and following redirects),
//! `settings` (where a registry stands), `redirect` (where one leads), `link` (where a list goes on) and `body`
//! (reading what comes). Beneath it `dial` makes connections and applies `reach`, the rule of which addresses may be
//! gone to.
//!
//! Beside it `challenge`, `grant`, `token`, `tokens` and `ways` know how a token is had and kept, `bearer` what of a
//! challenge is handed on, `logins/` which login is the hold's own, `lockout` keeps one that was refused from being
//! shown again and again, and `trial` tries them all where somebody wants to know.
//!
//! This part decides nothing about freshness, keeps no bytes and verifies no digest. Invariants: a token or a login
//! is shown to the upstream that it is for, a login to its token service too, and neither to anybody else; no
//! connection is made to an address that whoever named it may not lead to; nothing that comes from the network is
//! waited for, or kept, without a bound.

mod asked;
mod asker;
mod authorize;
mod bearer;
mod body;
mod challenge;
mod dial;
mod failure;
mod gate;
mod gates;
mod grant;
mod in_order;
mod limits;
mod link;
mod lockout;
mod logins;
mod pace;
mod reach;
mod record;
mod redirect;
mod retry;
mod retry_after;
mod settings;
mod span;
mod stack;
#[cfg(test)]
mod tests;
mod time_out;
mod token;
mod tokens;
mod transport;
mod trial;
mod upstreams;
mod ways;

pub use asker::{Account, Asker, ClientToken, Cost, Credential};
pub use bearer::{BearerChallenge, NoBearerChallenge};
pub use body::BlobBody;
pub use failure::{Cause, Failure, Forbidden, Wait};
pub use gate::Because;
pub use limits::Left;
pub use lockout::RefusedLogin;
pub use logins::LoginName;
pub use reach::Standing;
pub use retry_after::whole_seconds;
pub use settings::{Listed, Settings, SettingsError, Timeouts};
pub use trial::{Outcome, Tried};
pub use upstreams::{Described, Listing, Open, Upstreams};
