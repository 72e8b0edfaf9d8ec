//! `immbuild login HOST`: a credential is tried, then kept where Docker and podman look for it.

use std::sync::atomic::AtomicBool;

use super::failure::{Exit, Failure};
use crate::diag::Diagnostic;
use crate::registry::credentials::{Credential, KeepError, keep};
use crate::registry::{Access, Client, Patience, RegistryError};
use crate::spec::image_name::is_host;

/// What became of a credential.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoggedIn {
    /// Where it is now: a file or a helper.
    pub kept: String,
    /// Did the registry want to know? One that lets everybody in says nothing about the password.
    pub asked: bool,
}

/// Tries a credential, and keeps it when the registry lets its user in.
///
/// # Errors
/// The registry does not let this user in, or the credential cannot be kept. Then nothing was changed.
pub fn login(
    access: &Access,
    cancel: &AtomicBool,
    host: &str,
    user: &str,
    password: &str,
) -> Result<LoggedIn, Failure> {
    let usage = |message: String| Failure::new(Exit::Usage, Diagnostic::error(message));
    // A name without a dot or a port is no registry to anybody else either, but for Docker's own.
    if !is_host(host) {
        return Err(usage(format!("`{}` is no registry", host.escape_debug())).hint(
            "name its host as image names do, such as `registry.example.com` or `localhost:5000`",
        ));
    }
    if user.is_empty() || user.contains([':', '\n']) {
        return Err(usage(format!("`{}` is no user", user.escape_debug())));
    }
    if password.is_empty() {
        return Err(usage("the password is empty".into()));
    }
    let credential = Credential::Password {
        user: user.to_owned(),
        password: password.to_owned(),
    };
    let client = Client::new(access, Patience::default(), cancel).with(credential);
    let asked = client.check(host).map_err(|error| match error {
        // To log in is what is being done.
        error @ RegistryError::Unauthorized { .. } => Failure::of(Exit::Unreachable, &error),
        error => error.into(),
    })?;
    let kept = keep(&access.credentials, host, user, password).map_err(|error| {
        let exit = match error {
            KeepError::Helper { .. } => Exit::Unreachable,
            _ => Exit::Local,
        };
        Failure::of(exit, &error)
    })?;
    Ok(LoggedIn { kept, asked })
}
