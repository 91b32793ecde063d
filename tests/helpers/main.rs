//! Credential helpers, run for real.
//!
//! In a process of their own rather than beside the code: for the moment until it runs, a program that is started
//! shares every file that its parent has open, the lock of an index among them, and the store's tests open thousands
//! of those. So the files at hand are compiled in here as well.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test may panic")]

#[path = "../support/script.rs"]
mod script;

use tidehold::{clock, oci};

#[allow(dead_code, unreachable_pub, reason = "not all of it is tried here, and nothing is seen from outside")]
#[path = "../../src/upstream/logins"]
mod logins {
    #[path = "../../../tests/helpers/answers.rs"]
    mod answers;
    mod credentials;
    mod docker_config;
    mod helper;
    mod login;
    mod login_file;
    #[path = "../../../tests/helpers/running.rs"]
    mod running;
}
