//! The hold's own logins: files in docker's format, the credential helpers that they name, and which of them is for
//! which repository.
//!
//! [`Credentials`] answers with the login for a repository at an upstream. `docker_config` knows the file's format,
//! `login_file` keeps what is read of it, `helper` runs programs, and `login` is what comes of it all. Shows a login to
//! nobody: whoever asked decides where it may go. Invariant: what proves a login is in no error and no line of the log.

mod credentials;
mod docker_config;
mod helper;
mod login;
mod login_file;

pub(super) use credentials::{Credentials, Unread};
pub use login::LoginName;
pub(super) use login::{Login, Proof};
