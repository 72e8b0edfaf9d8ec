//! How registries are reached from this machine: plain or safe, trusting whom, as whom.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::RegistryError;
use super::credentials::CredentialFiles;
use crate::resolve::http::exchange::Trust;

/// What the user and the machine say about registries. Reaches no lock and no byte of any image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Access {
    /// By host, as references name it: `localhost:5000`.
    pub hosts: BTreeMap<String, HostAccess>,
    /// Directories with one directory for each host, as Docker and podman have them: `*.crt` are roots, `*.cert` with its
    /// `*.key` is who we are.
    pub certificates: Vec<PathBuf>,
    /// Where credentials are.
    pub credentials: CredentialFiles,
}

/// What the user says about one registry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostAccess {
    /// Is it spoken to without TLS? Nothing said: only on this machine itself.
    pub plain: Option<bool>,
    /// Roots that its certificate may go back to besides the machine's own.
    pub roots: Option<PathBuf>,
    /// Certificate and key that say who we are.
    pub identity: Option<(PathBuf, PathBuf)>,
}

/// The registry that `docker.io` stands for, and the name its credentials are kept by.
const DOCKER: &str = "docker.io";
const DOCKER_HOST: &str = "registry-1.docker.io";
const DOCKER_KEY: &str = "https://index.docker.io/v1/";

/// The largest certificate or key that is read.
const PEM_MAX: u64 = 4 << 20;

impl Access {
    /// Is this host spoken to without TLS? Only when it is this machine and nothing is said about certificates, or when told.
    pub fn is_plain(&self, host: &str) -> bool {
        let told = self.hosts.get(host);
        told.and_then(|told| told.plain).unwrap_or_else(|| {
            let has_certificates = told
                .is_some_and(|told| told.roots.is_some() || told.identity.is_some())
                || self.directories(host).next().is_some();
            is_loopback(host) && !has_certificates
        })
    }

    /// What URLs of this host begin with.
    pub fn base(&self, host: &str) -> String {
        let scheme = if self.is_plain(host) { "http" } else { "https" };
        let host = if host == DOCKER { DOCKER_HOST } else { host };
        format!("{scheme}://{host}")
    }

    /// Whom connections to this host trust.
    pub fn trust(&self, host: &str) -> Result<Trust, RegistryError> {
        let mut trust = Trust {
            direct: is_loopback(host),
            ..Trust::default()
        };
        if self.is_plain(host) {
            return Ok(trust);
        }
        if let Some(told) = self.hosts.get(host) {
            if let Some(path) = &told.roots {
                trust.roots.push(pem(host, path)?);
            }
            if let Some((certificate, key)) = &told.identity {
                trust.identity = Some(joined(host, certificate, key)?);
            }
        }
        for directory in self.directories(host) {
            for path in names(host, &directory)? {
                match path.extension().and_then(|extension| extension.to_str()) {
                    Some("crt") => trust.roots.push(pem(host, &path)?),
                    Some("cert") if trust.identity.is_none() => {
                        let key = path.with_extension("key");
                        trust.identity = Some(joined(host, &path, &key)?);
                    }
                    _ => {}
                }
            }
        }
        Ok(trust)
    }

    fn directories<'a>(&'a self, host: &'a str) -> impl Iterator<Item = PathBuf> + 'a {
        self.certificates
            .iter()
            .map(move |directory| directory.join(host))
            .filter(|directory| directory.is_dir())
    }
}

/// The name that a host's credentials are kept by.
pub(super) fn credential_key(host: &str) -> &str {
    if host == DOCKER { DOCKER_KEY } else { host }
}

/// Is it this machine by its own name or address? Names are not looked up: an answer could be anybody's.
pub fn is_loopback(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    name == "localhost"
        || name
            .parse::<std::net::IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

fn failed(host: &str, path: &Path) -> impl Fn(String) -> RegistryError {
    move |cause| RegistryError::Access {
        host: host.to_owned(),
        path: path.display().to_string(),
        cause,
    }
}

fn pem(host: &str, path: &Path) -> Result<Vec<u8>, RegistryError> {
    let failed = failed(host, path);
    let size = fs::metadata(path)
        .map_err(|error| failed(error.to_string()))?
        .len();
    if size > PEM_MAX {
        return Err(failed(format!(
            "it has {size} bytes, which no certificate has"
        )));
    }
    fs::read(path).map_err(|error| failed(error.to_string()))
}

fn joined(host: &str, certificate: &Path, key: &Path) -> Result<Vec<u8>, RegistryError> {
    let mut both = pem(host, certificate)?;
    both.push(b'\n');
    both.extend(pem(host, key)?);
    Ok(both)
}

#[allow(clippy::disallowed_methods, reason = "sorted before it is used")]
fn names(host: &str, directory: &Path) -> Result<Vec<PathBuf>, RegistryError> {
    let failed = failed(host, directory);
    let entries = fs::read_dir(directory).map_err(|error| failed(error.to_string()))?;
    let mut names = Vec::new();
    for entry in entries {
        names.push(entry.map_err(|error| failed(error.to_string()))?.path());
    }
    names.sort();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_is_spoken_to_without_tls() {
        let access = Access::default();
        for host in [
            "localhost",
            "localhost:5000",
            "127.0.0.1:5000",
            "127.1.2.3",
            "[::1]:5000",
        ] {
            assert!(access.is_plain(host), "{host}");
        }
        for host in [
            "registry.example.com",
            "localhost.example.com",
            "10.0.0.1:5000",
            "127.0.0.1.example.com",
            "[::2]:5000",
        ] {
            assert!(!access.is_plain(host), "{host}");
        }
        assert_eq!(access.base("localhost:5000"), "http://localhost:5000");
        assert_eq!(access.base("r.example.com"), "https://r.example.com");
        assert_eq!(access.base("docker.io"), "https://registry-1.docker.io");
    }

    #[test]
    fn what_is_said_about_a_host_decides() {
        let mut access = Access::default();
        let host = |plain, roots: Option<&str>| HostAccess {
            plain,
            roots: roots.map(PathBuf::from),
            identity: None,
        };
        access
            .hosts
            .insert("10.0.0.1:5000".into(), host(Some(true), None));
        access
            .hosts
            .insert("localhost:5001".into(), host(Some(false), None));
        access
            .hosts
            .insert("localhost:5002".into(), host(None, Some("/ca.pem")));
        assert!(access.is_plain("10.0.0.1:5000"));
        assert!(!access.is_plain("localhost:5001"));
        assert!(!access.is_plain("localhost:5002"));
        assert!(access.is_plain("localhost:5003"));
        let error = access
            .trust("localhost:5002")
            .expect_err("there is no such file");
        assert!(error.to_string().contains("/ca.pem"), "{error}");
    }
}
