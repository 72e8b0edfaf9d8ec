//! A repository of another machine.

use std::fs;
use std::io;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};

use gix::protocol::handshake::Ref;
use gix::protocol::transport::client::blocking_io::http;
use gix::remote::{Direction, fetch};
use gix::url::Scheme;
use gix::{ObjectId, Repository};
use immbuild_cas::digest::{Digest, TreeId};
use immbuild_cas::path::RelPath;
use immbuild_cas::store::{Record, Store, StoreError};
use immbuild_cas::tree::Tree;

use super::import::{Import, Module, Modules, check};
use super::local::{committed, find_commit, open};
use super::{GitError, GitTree, cause};
use crate::resolve::http::{Policy, client_builder};

/// What is wanted from a repository of another machine.
#[derive(Clone, Copy, Debug)]
pub struct Remote<'a> {
    /// `https`, `http`, `ssh` (also `user@host:path`), `git` or `file`.
    pub url: &'a str,
    /// Where else it may come from, tried in order after `url`.
    pub mirrors: &'a [String],
    /// Branch, tag or full commit id; the remote's `HEAD` if there is none. Read only when locking.
    pub rev: Option<&'a str>,
    /// The part that is wanted, from the root of the repository.
    pub subdir: &'a RelPath,
    /// Take the files of submodules, fetched from the URLs that `.gitmodules` names.
    pub submodules: bool,
    /// The command line that stands for `ssh`, as `GIT_SSH_COMMAND` gives one to git.
    pub ssh: Option<&'a str>,
}

/// What fetching may use.
#[derive(Clone, Copy, Debug)]
pub struct Means<'a> {
    /// A directory for bare repositories. Whatever is in it can be deleted at any time.
    pub cache: &'a Path,
    /// Refuse the network; `file` URLs and what is in the cache still work.
    pub offline: bool,
}

/// What the lock says about a remote repository.
#[derive(Clone, Copy, Debug)]
pub struct Pin<'a> {
    /// The commit in lower-case hex.
    pub commit: &'a str,
    /// The tree it holds.
    pub tree: TreeId,
}

/// Asks the remote what `rev` is now, and brings what it holds into the store.
pub fn lock_remote(
    request: &Remote<'_>,
    means: &Means<'_>,
    store: &dyn Store,
) -> Result<GitTree, GitError> {
    let fetcher = Fetcher::new(request, means);
    first_that_works(request, |url| {
        let (repo, id) = fetcher.by_rev(url, request.rev)?;
        take(request, url, &repo, id, fetcher, store)
    })
}

/// Kind of the records that keep the tree of a pin, by its digest.
const RECORD: &str = "git-pin";

/// Brings what the locked commit holds into the store, unless it is there.
///
/// # Errors
/// [`GitError::Mismatch`] when that is not what was locked.
pub fn fetch_remote(
    request: &Remote<'_>,
    pin: &Pin<'_>,
    means: &Means<'_>,
    store: &dyn Store,
) -> Result<Tree, GitError> {
    let key = pin.tree.digest();
    if store.record(RECORD, key)?.is_some()
        && let Ok(tree) = store.tree(&pin.tree)
    {
        return Ok(tree);
    }
    let id = ObjectId::from_hex(pin.commit.as_bytes()).map_err(|_| GitError::Rev {
        repository: request.url.to_owned(),
        rev: pin.commit.to_owned(),
    })?;
    let fetcher = Fetcher::new(request, means);
    first_that_works(request, |url| {
        let repo = fetcher.by_id(url, id)?;
        let taken = take(request, url, &repo, id, fetcher, store)?;
        check(&taken.tree, &pin.tree, pin.commit)?;
        keep(&pin.tree, store)?;
        Ok(taken.tree)
    })
}

/// Remembers that a tree which some commit holds is in the store with all it reaches.
pub fn keep(tree: &TreeId, store: &dyn Store) -> Result<(), StoreError> {
    let record = Record {
        trees: vec![*tree],
        ..Record::default()
    };
    store.put_record(RECORD, tree.digest(), &record)
}

/// Tries the URL and its mirrors in order. Bytes that are not what was locked end it at once.
fn first_that_works<T>(
    request: &Remote<'_>,
    attempt: impl Fn(&Address) -> Result<T, GitError>,
) -> Result<T, GitError> {
    let urls = std::iter::once(request.url).chain(request.mirrors.iter().map(String::as_str));
    let urls = urls.map(Address::parse).collect::<Result<Vec<_>, _>>()?;
    let mut attempts = Vec::new();
    let mut last = None;
    for url in &urls {
        match attempt(url) {
            Err(GitError::Unreachable(causes)) => attempts.extend(causes),
            Err(
                error @ (GitError::Offline { .. }
                | GitError::Rev { .. }
                | GitError::NotFound { .. }),
            ) => {
                attempts.push((url.shown(), error.to_string()));
                last = Some(error);
            }
            result => return result,
        }
    }
    match last {
        Some(error) if attempts.len() == 1 => Err(error),
        Some(error @ GitError::Offline { .. }) => Err(error),
        _ => Err(GitError::Unreachable(attempts)),
    }
}

fn take(
    request: &Remote<'_>,
    url: &Address,
    repo: &Repository,
    id: ObjectId,
    fetcher: Fetcher<'_>,
    store: &dyn Store,
) -> Result<GitTree, GitError> {
    let commit = find_commit(repo, Some(&id.to_string()), &url.shown())?;
    let modules = RemoteModules {
        parent: url.clone(),
        fetcher,
    };
    let import = Import {
        store,
        modules: request.submodules.then_some(&modules as &dyn Modules),
        omit: &std::collections::BTreeSet::new(),
    };
    Ok(GitTree {
        tree: import.tree(repo, &commit, request.subdir)?,
        commit: commit.id.to_string(),
        time: committed(&commit)?,
        dirty: false,
    })
}

/// A URL that may be fetched from.
#[derive(Clone, Debug)]
struct Address(gix::Url);

impl Address {
    fn parse(text: &str) -> Result<Self, GitError> {
        // What is no URL may still hold a password, so it is cut before it is shown.
        let tail = text.rsplit('@').next().unwrap_or_default();
        let refuse = |reason: &str| GitError::Url {
            url: tail.to_owned(),
            reason: reason.to_owned(),
        };
        let url = gix::url::parse(text).map_err(|error| refuse(&cause(&error)))?;
        match url.scheme {
            Scheme::Https | Scheme::Http | Scheme::Git if url.user().is_some() => {
                Err(refuse("a user name or password in a URL ends up in logs"))
            }
            Scheme::Ssh if url.password().is_some() => {
                Err(refuse("a password in a URL ends up in logs"))
            }
            // ssh would read such a host as an option (CVE-2017-1000117).
            Scheme::Ssh if url.host().is_none_or(|host| host.starts_with('-')) => {
                Err(refuse("it names no host"))
            }
            Scheme::Https | Scheme::Http | Scheme::Git | Scheme::Ssh | Scheme::File => {
                Ok(Self(url))
            }
            _ => Err(refuse(
                "only `https`, `http`, `ssh`, `git` and `file` are known",
            )),
        }
    }

    fn shown(&self) -> String {
        self.0.to_bstring().to_string()
    }

    /// The repository's directory, when it is on this machine after all.
    fn as_path(&self) -> Option<PathBuf> {
        use std::os::unix::ffi::OsStrExt as _;
        (self.0.scheme == Scheme::File)
            .then(|| PathBuf::from(std::ffi::OsStr::from_bytes(&self.0.path)))
    }
}

/// Keeps bare repositories, one for each URL, and brings commits into them.
#[derive(Clone, Copy)]
struct Fetcher<'a> {
    cache: &'a Path,
    offline: bool,
    ssh: Option<&'a str>,
}

impl<'a> Fetcher<'a> {
    fn new(request: &Remote<'a>, means: &Means<'a>) -> Self {
        Self {
            cache: means.cache,
            offline: means.offline,
            ssh: request.ssh,
        }
    }

    /// A repository that has this commit.
    fn by_id(&self, url: &Address, id: ObjectId) -> Result<Repository, GitError> {
        if let Some(path) = url.as_path() {
            return open(&path);
        }
        let repo = self.repository(url)?;
        if has_whole(&repo, id) {
            return Ok(repo);
        }
        if self.offline {
            return Err(GitError::Offline {
                url: url.shown(),
                commit: id.to_string(),
            });
        }
        // One process at a time fetches into a repository. What another has fetched meanwhile is seen by opening again.
        let _guard = lock(&repo.path().with_extension("lock"))?;
        let repo = self.repository(url)?;
        if has_whole(&repo, id) {
            return Ok(repo);
        }
        if fetch_commit(&repo, url, id).is_err() {
            // Servers may refuse a commit that no branch or tag points at; it comes with the whole history then.
            fetch_all(&repo, url)?;
        }
        let repo = self.repository(url)?;
        if has_whole(&repo, id) {
            return Ok(repo);
        }
        Err(GitError::Rev {
            repository: url.shown(),
            rev: id.to_string(),
        })
    }

    /// A repository that has the commit which `rev` names at the remote now, and that commit.
    fn by_rev(&self, url: &Address, rev: Option<&str>) -> Result<(Repository, ObjectId), GitError> {
        if let Some(path) = url.as_path() {
            let repo = open(&path)?;
            let id = find_commit(&repo, rev, &url.shown())?.id;
            return Ok((repo, id));
        }
        let id = match rev.and_then(|rev| ObjectId::from_hex(rev.as_bytes()).ok()) {
            Some(id) => id,
            None if self.offline => {
                return Err(GitError::Offline {
                    url: url.shown(),
                    commit: rev.unwrap_or("HEAD").to_owned(),
                });
            }
            None => ask(&self.repository(url)?, url, rev.unwrap_or("HEAD"))?,
        };
        // The id may be that of an annotated tag, if the server did not say what it points at.
        let repo = self.by_id(url, id)?;
        let commit = find_commit(&repo, Some(&id.to_string()), &url.shown())?.id;
        Ok((repo, commit))
    }

    fn repository(&self, url: &Address) -> Result<Repository, GitError> {
        let path = self.cache.join(Digest::of(&url.0.to_bstring()).to_hex());
        if path.join("HEAD").exists() {
            return self.open(&path);
        }
        // Made aside and moved into place, so that a half-made repository is never found.
        let io = |action, path: &Path| {
            let path = path.to_owned();
            move |source| GitError::Io {
                action,
                path,
                source,
            }
        };
        fs::create_dir_all(self.cache).map_err(io("create", self.cache))?;
        let aside = tempfile::Builder::new()
            .prefix("new-")
            .tempdir_in(self.cache)
            .map_err(io("create", self.cache))?;
        gix::ThreadSafeRepository::init_opts(
            aside.path(),
            gix::create::Kind::Bare,
            gix::create::Options::default(),
            gix::open::Options::isolated(),
        )
        .map_err(|error| GitError::Open {
            path: aside.path().to_owned(),
            cause: cause(&error),
        })?;
        match fs::rename(aside.path(), &path) {
            Ok(()) => drop(aside.keep()),
            // Another was quicker.
            Err(_) if path.join("HEAD").exists() => {}
            Err(error) => return Err(io("create", &path)(error)),
        }
        self.open(&path)
    }

    fn open(&self, path: &Path) -> Result<Repository, GitError> {
        let ssh = self.ssh.map(|line| format!("core.sshCommand={line}"));
        let options = gix::open::Options::isolated().config_overrides(ssh);
        gix::open_opts(path, options).map_err(|error| GitError::Open {
            path: path.to_owned(),
            cause: cause(&error),
        })
    }
}

/// Waits until no other has this lock, and holds it until dropped.
fn lock(path: &Path) -> Result<fs::File, GitError> {
    fs::File::create(path)
        .and_then(|file| file.lock().map(|()| file))
        .map_err(|source| GitError::Io {
            action: "lock",
            path: path.to_owned(),
            source,
        })
}

/// Is the commit here with its tree? A pack arrives whole or not at all, so what a commit holds comes with it.
fn has_whole(repo: &Repository, id: ObjectId) -> bool {
    let commit = repo.find_object(id).and_then(gix::Object::peel_to_commit);
    commit.is_ok_and(|commit| commit.tree().is_ok())
}

/// What the remote says `rev` is: by git's rules a tag before a branch.
fn ask(repo: &Repository, url: &Address, rev: &str) -> Result<ObjectId, GitError> {
    let missing = || GitError::Rev {
        repository: url.shown(),
        rev: rev.to_owned(),
    };
    let names = match rev {
        "HEAD" => vec![rev.to_owned()],
        _ if rev.starts_with("refs/") => vec![rev.to_owned()],
        _ => ["refs/", "refs/tags/", "refs/heads/"]
            .map(|prefix| format!("{prefix}{rev}"))
            .to_vec(),
    };
    let is_name = |name: &String| gix::refs::FullName::try_from(name.as_str()).is_ok();
    if !names.iter().all(is_name) {
        return Err(missing());
    }
    let remote = remote(repo, url, &names)?;
    let connection = connect(&remote, url)?;
    let (map, _) = connection
        .ref_map(
            gix::progress::Discard,
            gix::remote::ref_map::Options::default(),
        )
        .map_err(|error| unreachable_by(url, &error))?;
    let find = |name: &String| {
        map.remote_refs
            .iter()
            .find_map(|reference| match reference {
                Ref::Peeled {
                    full_ref_name,
                    object,
                    ..
                }
                | Ref::Direct {
                    full_ref_name,
                    object,
                }
                | Ref::Symbolic {
                    full_ref_name,
                    object,
                    ..
                } => (full_ref_name == name.as_str()).then_some(*object),
                Ref::Unborn { .. } => None,
            })
    };
    names.iter().find_map(find).ok_or_else(missing)
}

/// Fetches one commit without its history.
fn fetch_commit(repo: &Repository, url: &Address, id: ObjectId) -> Result<(), GitError> {
    let depth = fetch::Shallow::DepthAtRemote(NonZeroU32::MIN);
    receive(repo, url, &[format!("+{id}:refs/immbuild/{id}")], depth)
}

/// Fetches all branches and tags.
fn fetch_all(repo: &Repository, url: &Address) -> Result<(), GitError> {
    let specs = ["+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*"].map(String::from);
    receive(repo, url, &specs, fetch::Shallow::undo())
}

fn receive(
    repo: &Repository,
    url: &Address,
    specs: &[String],
    shallow: fetch::Shallow,
) -> Result<(), GitError> {
    let remote = remote(repo, url, specs)?;
    connect(&remote, url)?
        .prepare_fetch(
            gix::progress::Discard,
            gix::remote::ref_map::Options::default(),
        )
        .and_then(|prepared| {
            prepared
                .with_shallow(shallow)
                .receive(gix::progress::Discard, &AtomicBool::new(false))
        })
        .map_err(|error| unreachable_by(url, &error))?;
    Ok(())
}

fn remote<'r>(
    repo: &'r Repository,
    url: &Address,
    specs: &[String],
) -> Result<gix::Remote<'r>, GitError> {
    repo.remote_at_without_url_rewrite(url.0.clone())
        .and_then(|remote| {
            remote
                .with_fetch_tags(fetch::Tags::None)
                .with_refspecs(specs.iter().map(String::as_bytes), Direction::Fetch)
        })
        .map_err(|error| unreachable_by(url, &error))
}

type Connection<'a, 'r> = gix::remote::Connection<
    'a,
    'static,
    'r,
    Box<dyn gix::protocol::transport::client::blocking_io::Transport + Send>,
>;

fn connect<'a, 'r>(
    remote: &'a gix::Remote<'r>,
    url: &Address,
) -> Result<Connection<'a, 'r>, GitError> {
    let mut connection = remote
        .connect(Direction::Fetch)
        .map_err(|error| unreachable_by(url, &error))?;
    // No credential helper is run and nobody is asked for a password.
    connection.set_credentials(|_| {
        Err(gix::Error::from_error(io::Error::new(
            io::ErrorKind::PermissionDenied,
            "it wants authentication (HTTP status 401, or ssh's own)",
        )))
    });
    let client = http::reqwest::Options {
        configure_client: Some(Box::new(|builder| {
            Ok(client_builder(builder, &Policy::default()))
        })),
        configure_request: None,
    };
    if matches!(url.0.scheme, Scheme::Http | Scheme::Https) {
        connection.set_transport_options(Box::new(http::Options {
            backend: Some(Arc::new(Mutex::new(client))),
            ..http::Options::default()
        }));
    }
    Ok(connection)
}

fn unreachable_by(url: &Address, error: &gix::Error) -> GitError {
    GitError::Unreachable(vec![(url.shown(), cause(error))])
}

/// Submodules as `.gitmodules` names them, fetched like everything else.
struct RemoteModules<'a> {
    parent: Address,
    fetcher: Fetcher<'a>,
}

impl Modules for RemoteModules<'_> {
    fn open(
        &self,
        at: &RelPath,
        module: &Module,
        commit: ObjectId,
    ) -> Result<(Repository, Box<dyn Modules + '_>), GitError> {
        let refuse = |reason: String| GitError::Submodule {
            path: at.clone(),
            reason,
        };
        let url = resolve(&self.parent.shown(), &module.url)
            .ok_or_else(|| refuse(format!("`{}` leads nowhere", module.url)))?;
        let url = Address::parse(&url)?;
        if url.as_path().is_some() && self.parent.as_path().is_none() {
            return Err(refuse(
                "a repository of another machine names a path of this one".into(),
            ));
        }
        let repo = self.fetcher.by_id(&url, commit)?;
        let modules = RemoteModules {
            parent: url,
            fetcher: self.fetcher,
        };
        Ok((repo, Box::new(modules)))
    }
}

/// A submodule's URL; one that begins with `./` or `../` counts from the URL of the repository that names it
/// (gitmodules(5)).
pub(super) fn resolve(parent: &str, url: &str) -> Option<String> {
    if !url.starts_with("./") && !url.starts_with("../") {
        return Some(url.to_owned());
    }
    let mut base = parent.trim_end_matches('/').to_owned();
    let mut rest = url;
    loop {
        if let Some(tail) = rest.strip_prefix("./") {
            rest = tail;
        } else if let Some(tail) = rest.strip_prefix("../") {
            rest = tail;
            // In `host:path` the last name may follow the colon.
            let cut = base.rfind(['/', ':'])?;
            base.truncate(if base.as_bytes()[cut] == b':' {
                cut + 1
            } else {
                cut
            });
        } else {
            break;
        }
    }
    let separator = if base.ends_with(':') { "" } else { "/" };
    Some(format!("{base}{separator}{rest}"))
}
