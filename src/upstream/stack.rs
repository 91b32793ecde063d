//! The stack itself: the order in which a request passes through the layers.

use tower::ServiceBuilder;
use tower::util::BoxCloneSyncService;

use super::asked::{Answer, Request};
use super::authorize::Authorize;
use super::failure::Failure;
use super::gates::{Gated, Gates};
use super::logins::Credentials;
use super::record::Record;
use super::retry::Retry;
use super::settings::Timeouts;
use super::time_out::TimeOut;
use super::tokens::Tokens;
use super::transport::Transport;
use super::trial::Trials;

/// All the layers as one service; its clones share connections and tokens.
pub(super) type Stack = BoxCloneSyncService<Request, Answer, Failure>;

/// Puts the layers on top of each other: gate · authorize · retry · record · time out · transport. What is recorded is
/// what is sent, each request by itself: a challenge, its answer with a token, and a second try. Tokens are asked for
/// through the same layers without the ones that need them, and so are logins tried.
pub(super) fn stack(
    timeouts: Timeouts,
    gates: Gates,
    credentials: Credentials,
    record: crate::record::Record,
) -> (Stack, Trials) {
    let transport = Transport::new(timeouts.connect);
    let time_out = move |inner| TimeOut::new(inner, timeouts.headers);
    let of_tokens = record.clone();
    let for_tokens: Stack = BoxCloneSyncService::new(
        ServiceBuilder::new()
            .layer_fn(Retry::new)
            .layer_fn(move |inner| Record::new(inner, of_tokens.clone()))
            .layer_fn(time_out)
            .service(transport.clone()),
    );
    let tokens = Tokens::new(for_tokens.clone(), timeouts.idle);
    let trials = Trials::new(for_tokens, tokens.clone(), credentials.clone());
    let whole = ServiceBuilder::new()
        .layer_fn(move |inner| Gated::new(inner, gates.clone()))
        .layer_fn(move |inner| Authorize::new(inner, tokens.clone(), credentials.clone()))
        .layer_fn(Retry::new)
        .layer_fn(move |inner| Record::new(inner, record.clone()))
        .layer_fn(time_out)
        .service(transport);
    (BoxCloneSyncService::new(whole), trials)
}
