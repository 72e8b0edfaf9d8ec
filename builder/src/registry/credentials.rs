//! Who we are to a registry: credentials where Docker and podman keep them, and helpers that keep them elsewhere.
//!
//! EFFECT: reads and writes files of the user, runs helpers. The only home of `docker_credential` and `base64`. What is secret is
//! in no message and in no process's arguments: helpers get it, and give it, by pipe.

use std::fmt;
use std::fs::{self, File, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use docker_credential::{CredentialRetrievalError, DockerCredential, get_credential_from_reader};
use serde_json::{Map, Value, json};

use super::RegistryError;
use super::access::credential_key;
use crate::spec::image_name::ImageRepository;

/// The files credentials are in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CredentialFiles {
    /// Asked in turn: the first that knows the registry decides. One that is not there knows none.
    pub read: Vec<PathBuf>,
    /// Where `login` puts a new one.
    pub write: Option<PathBuf>,
}

/// What says who we are.
#[derive(Clone, PartialEq, Eq)]
pub enum Credential {
    /// A token that others are got with.
    Token(String),
    /// A user with a password.
    Password {
        /// Who.
        user: String,
        /// What only they know.
        password: String,
    },
}

/// Never with what is secret.
impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Token(_) => f.write_str("Token(…)"),
            Self::Password { user, .. } => write!(f, "Password({user:?}, …)"),
        }
    }
}

/// Why a credential was not kept.
#[derive(Debug, thiserror::Error)]
pub enum KeepError {
    /// Nothing says where it would be kept.
    #[error("neither `DOCKER_CONFIG` nor `HOME` says where credentials are kept")]
    NoPlace,
    /// The file that has the others cannot be read or written.
    #[error("cannot {action} `{}`", path.display())]
    Io {
        /// What was being done, as a verb.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file is there and has another form.
    #[error("`{}` has another form than Docker's: {cause}", path.display())]
    Form {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        cause: String,
    },
    /// The helper that keeps them does not keep it.
    #[error("`{helper}` does not keep it: {cause}")]
    Helper {
        /// The program.
        helper: String,
        /// Why, without what it said: that may be secret.
        cause: String,
    },
}

impl CredentialFiles {
    /// What the files have for a repository, the most exact first: podman's may say who we are for a part of a registry.
    ///
    /// # Errors
    /// A file cannot be read, or a helper fails.
    pub fn find(&self, repository: &ImageRepository) -> Result<Option<Credential>, RegistryError> {
        let host = repository.host();
        for path in &self.read {
            let failed = |cause: String| RegistryError::Credential {
                host: host.to_owned(),
                cause,
            };
            let shown = path.display();
            let bytes = match fs::read(path) {
                Ok(bytes) => bytes,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(failed(format!("`{shown}` cannot be read: {error}"))),
            };
            let json: Value = serde_json::from_slice(&bytes)
                // What the parser says may quote the file.
                .map_err(|error| failed(format!("`{shown}` is no JSON, line {}", error.line())))?;
            let exact = exact_key(&json, repository);
            let key = exact.as_deref().unwrap_or(credential_key(host));
            match get_credential_from_reader(&bytes[..], key) {
                Ok(DockerCredential::IdentityToken(token)) => {
                    return Ok(Some(Credential::Token(token)));
                }
                Ok(DockerCredential::UsernamePassword(user, password)) => {
                    return Ok(Some(Credential::Password { user, password }));
                }
                Err(CredentialRetrievalError::NoCredentialConfigured) => {}
                Err(CredentialRetrievalError::HelperFailure { stdout, .. })
                    if stdout.contains("credentials not found") => {}
                Err(error) => return Err(failed(format!("{} ({shown})", said(&error)))),
            }
        }
        Ok(None)
    }
}

/// The longest part of the repository's name that the file has a credential for, where it is more than the host.
fn exact_key(json: &Value, repository: &ImageRepository) -> Option<String> {
    let auths = json.get("auths")?.as_object()?;
    let mut name = repository.to_string();
    while name.contains('/') {
        if auths.contains_key(&name) {
            return Some(name);
        }
        name.truncate(name.rfind('/')?);
    }
    None
}

/// Without anything that was read.
fn said(error: &CredentialRetrievalError) -> String {
    match error {
        CredentialRetrievalError::HelperFailure { helper, .. } => format!("`{helper}` failed"),
        CredentialRetrievalError::HelperCommunicationError => {
            "the credential helper cannot be run".into()
        }
        CredentialRetrievalError::MalformedHelperResponse => {
            "the credential helper answers with something else".into()
        }
        CredentialRetrievalError::CredentialDecodingError => "it cannot be decoded".into(),
        CredentialRetrievalError::CredentialMismatchError => {
            "it says two different things about who we are".into()
        }
        _ => "it has another form than Docker's".into(),
    }
}

/// The value of `Authorization` for a user with a password (RFC 7617 §2).
pub(super) fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
}

/// Keeps a credential as Docker does: with the helper that its configuration names, else in the file, which only the user can
/// read. Gives where.
///
/// # Errors
/// The file or the helper does not take it; then what was there is as it was.
pub fn keep(
    files: &CredentialFiles,
    host: &str,
    user: &str,
    password: &str,
) -> Result<String, KeepError> {
    let path = files.write.as_ref().ok_or(KeepError::NoPlace)?;
    let io = |action| {
        move |source| KeepError::Io {
            action,
            path: path.clone(),
            source,
        }
    };
    let form = |cause: &str| KeepError::Form {
        path: path.clone(),
        cause: cause.to_owned(),
    };
    let mut json = match fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes).map_err(|_| form("it is no JSON"))?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Value::Object(Map::new()),
        Err(error) => return Err(io("read")(error)),
    };
    let key = credential_key(host);
    let top = json
        .as_object_mut()
        .ok_or_else(|| form("it is no object"))?;
    if let Some(name) = helper(top, key) {
        tell_helper(&name, key, user, password)?;
        return Ok(format!("`{name}`"));
    }
    let auths = top
        .entry("auths")
        .or_insert_with(|| Value::Object(Map::new()))
        .as_object_mut()
        .ok_or_else(|| form("`auths` is no object"))?;
    let encoded = STANDARD.encode(format!("{user}:{password}"));
    auths.insert(key.to_owned(), json!({ "auth": encoded }));
    let mut text = serde_json::to_vec_pretty(&json).expect("a value that was parsed");
    text.push(b'\n');
    write_for_user(path, &text).map_err(io("write"))?;
    Ok(format!("`{}`", path.display()))
}

/// The program that keeps the credential of a registry.
fn helper(top: &Map<String, Value>, key: &str) -> Option<String> {
    let own = top.get("credHelpers").and_then(|helpers| helpers.get(key));
    let name = own.or_else(|| top.get("credsStore"))?.as_str()?;
    (!name.is_empty()).then(|| format!("docker-credential-{name}"))
}

fn tell_helper(helper: &str, key: &str, user: &str, password: &str) -> Result<(), KeepError> {
    let failed = |cause: String| KeepError::Helper {
        helper: helper.to_owned(),
        cause,
    };
    let io = |error: io::Error| failed(error.to_string());
    let mut process = Command::new(helper)
        .arg("store")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(io)?;
    let said = json!({ "ServerURL": key, "Username": user, "Secret": password }).to_string();
    let written = process
        .stdin
        .take()
        .expect("it was asked for")
        .write_all(said.as_bytes());
    let status = process.wait().map_err(io)?;
    // Why it went away before it had read all says its status.
    if status.success() {
        written.map_err(io)
    } else {
        Err(failed(format!("it ended with {status}")))
    }
}

/// Replaces a file at once with one that only its owner can read. A link stays, and what it names is replaced.
fn write_for_user(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let path = match fs::canonicalize(path) {
        Ok(path) => path,
        Err(error) if error.kind() == io::ErrorKind::NotFound => path.to_owned(),
        Err(error) => return Err(error),
    };
    let directory = path.parent().unwrap_or(Path::new("."));
    if !directory.is_dir() {
        fs::create_dir_all(directory)?;
        fs::set_permissions(directory, Permissions::from_mode(0o700))?;
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let staged = directory.join(format!(".{name}.{}", std::process::id()));
    let write = |file: &mut File| {
        // A umask may have taken more than it should.
        file.set_permissions(Permissions::from_mode(0o600))?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    let written = File::options()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&staged)
        .and_then(|mut file| write(&mut file))
        .and_then(|()| fs::rename(&staged, &path));
    if written.is_err() {
        let _ = fs::remove_file(&staged);
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(directory: &Path, all: &[(&str, &str)]) -> CredentialFiles {
        let mut read = Vec::new();
        for (name, text) in all {
            let path = directory.join(name);
            fs::write(&path, text).expect("written");
            read.push(path);
        }
        CredentialFiles {
            write: read.first().cloned(),
            read,
        }
    }

    fn password(user: &str, password: &str) -> Credential {
        Credential::Password {
            user: user.into(),
            password: password.into(),
        }
    }

    fn of(files: &CredentialFiles, name: &str) -> Option<Credential> {
        files
            .find(&name.parse().expect("a name"))
            .expect("no error")
    }

    #[test]
    fn the_first_file_that_knows_a_registry_decides_and_the_longest_name_in_it() {
        let directory = tempfile::tempdir().expect("a directory");
        // a:1, b:2, c:3, d:4
        let files = files(
            directory.path(),
            &[
                (
                    "docker",
                    r#"{"auths":{"r.example.com":{"auth":"YToxaW4="},"https://index.docker.io/v1/":{"auth":"Yjoy"}}}"#,
                ),
                (
                    "podman",
                    r#"{"auths":{"r.example.com":{"auth":"Yzoz"},"s.example.com/team":{"auth":"Yzoz"},"s.example.com":{"auth":"ZDo0"}}}"#,
                ),
                (
                    "token",
                    r#"{"auths":{"t.example.com":{"auth":"YTo=","identitytoken":"secret"}}}"#,
                ),
            ],
        );
        assert_eq!(of(&files, "r.example.com/x"), Some(password("a", "1in")));
        assert_eq!(of(&files, "docker.io/library/x"), Some(password("b", "2")));
        assert_eq!(of(&files, "s.example.com/team/x"), Some(password("c", "3")));
        assert_eq!(
            of(&files, "s.example.com/teams/x"),
            Some(password("d", "4"))
        );
        assert_eq!(
            of(&files, "t.example.com/x"),
            Some(Credential::Token("secret".into()))
        );
        assert_eq!(of(&files, "u.example.com/x"), None);
        let said = format!(
            "{:?} {:?}",
            of(&files, "t.example.com/x"),
            of(&files, "r.example.com/x")
        );
        assert!(!said.contains("secret") && !said.contains("1in"), "{said}");
    }

    #[test]
    fn a_file_that_cannot_be_read_is_named_and_not_quoted() {
        let directory = tempfile::tempdir().expect("a directory");
        for text in [
            "{\"auths\": {\"r.example.com\": {\"auth\": \"c2VjcmV0\"",
            "{\"auths\":{\"r.example.com\":{\"auth\":\"c2VjcmV0\"}}}",
            "{\"auths\":[\"c2VjcmV0\"]}",
        ] {
            let files = files(directory.path(), &[("config.json", text)]);
            let error = files
                .find(&"r.example.com/x".parse().expect("a name"))
                .expect_err("it cannot be used");
            let said = format!("{error} {error:?}");
            assert!(said.contains("config.json"), "{said}");
            assert!(!said.contains("c2Vj") && !said.contains("secret"), "{said}");
        }
    }

    #[test]
    fn what_is_kept_is_found_again_by_the_user_alone() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("deep/config.json");
        let files = CredentialFiles {
            read: vec![path.clone()],
            write: Some(path.clone()),
        };
        keep(&files, "r.example.com", "me", "p:w").expect("kept");
        keep(&files, "docker.io", "you", "pw").expect("kept");
        assert_eq!(of(&files, "r.example.com/x"), Some(password("me", "p:w")));
        assert_eq!(of(&files, "docker.io/x/y"), Some(password("you", "pw")));
        let mode = |path: &Path| fs::metadata(path).expect("there").permissions().mode() & 0o777;
        assert_eq!(mode(&path), 0o600);
        assert_eq!(mode(path.parent().expect("a directory")), 0o700);
    }

    #[test]
    fn the_rest_of_the_file_stays() {
        let directory = tempfile::tempdir().expect("a directory");
        let before =
            r#"{"auths":{"s.example.com":{"auth":"Yzoz"}},"proxies":{"default":{"noProxy":"x"}}}"#;
        let files = files(directory.path(), &[("config.json", before)]);
        keep(&files, "r.example.com", "a", "1").expect("kept");
        let text = fs::read(directory.path().join("config.json")).expect("there");
        let json: Value = serde_json::from_slice(&text).expect("JSON");
        let expected = json!({
            "auths": { "s.example.com": { "auth": "Yzoz" }, "r.example.com": { "auth": "YTox" } },
            "proxies": { "default": { "noProxy": "x" } },
        });
        assert_eq!(json, expected);
        fs::write(directory.path().join("config.json"), "[]").expect("written");
        assert!(matches!(
            keep(&files, "r.example.com", "a", "1"),
            Err(KeepError::Form { .. })
        ));
        assert_eq!(
            fs::read(directory.path().join("config.json")).expect("there"),
            b"[]"
        );
    }
}
