//! What upstreams are asked, and what becomes of their answers: real connections to small servers on loopback.
//!
//! One file a subject; `site` is the server they share.

mod answers;
mod bodies;
mod connections;
mod lists;
mod logins;
mod redirects;
mod site;
mod tokens;
mod trials;
