//! The fronts: what this node's clients speak to. Each turns its protocol into calls of the hold and the
//! resolver, and their answers and errors back; none of them decides anything about a tag or a blob.

pub mod beside;
pub mod content;
pub mod control;
pub mod differ;
pub mod http;
pub mod listen;
pub mod mirror;
pub mod overview;
pub mod web;
