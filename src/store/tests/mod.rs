//! The store under trial: what a crash, a loss of power and a bad disk leave of it.

mod damage;
mod trial;

pub(super) use trial::Trial;
