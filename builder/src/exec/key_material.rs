//! Private keys among what a step left, made with random bytes that anyone can make again.
//!
//! Under a virtual generator a key depends on the spec alone: it is no secret. Must never know how a process was traced.

use std::collections::BTreeMap;

use immbuild_cas::path::RelPath;
use immbuild_cas::store::{BlobSource, DirectorySource, StoreError};
use immbuild_cas::tree::{Change, Delta, Entry, File, Tree, TreeBuilder, TreeError};

use super::tracer::evidence::{Evidence, Process, Source};

/// Why files cannot be looked at.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// A file could not be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The tree below could not be read.
    #[error(transparent)]
    Tree(#[from] TreeError),
}

/// A predictable key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Predictable<'a> {
    /// The file it is in.
    pub path: RelPath,
    /// Who wrote it; none where the file was renamed and nobody can tell.
    pub process: Option<&'a Process>,
}

/// A larger file holds no key by itself.
const LARGEST: u64 = 1 << 20;

/// A file that nobody is known to have written is looked into up to this size, if only its owner can read it.
const LARGEST_UNKNOWN: u64 = 64 << 10;

/// The files of a change that hold a private key and were written by a process that used virtual random bytes.
pub fn predictable_keys<'a>(
    changes: &Delta,
    evidence: &'a Evidence,
    below: &Tree,
    directories: &dyn DirectorySource,
    blobs: &dyn BlobSource,
) -> Result<Vec<Predictable<'a>>, KeyError> {
    let writers = Writers::new(evidence);
    let mut found = Vec::new();
    for (path, change) in &changes.changes {
        let Change::File(file) = change else {
            continue;
        };
        let process = match writers.suspect(path, file) {
            Suspect::No => continue,
            Suspect::Of(process) => Some(process),
            Suspect::OfSomebody => None,
        };
        if holds_private_key(&blobs.read(&file.blob)?)
            && !was_there(path, file, below, directories)?
        {
            found.push(Predictable {
                path: path.clone(),
                process,
            });
        }
    }
    Ok(found)
}

/// The mode bits of all who do not own a file.
const OTHERS: u32 = 0o077;

/// Who wrote what.
struct Writers<'a> {
    /// By absolute path.
    by_path: BTreeMap<&'a [u8], Vec<&'a Process>>,
    /// Did any process use random bytes?
    any_random: bool,
}

impl<'a> Writers<'a> {
    fn new(evidence: &'a Evidence) -> Self {
        let mut by_path: BTreeMap<&[u8], Vec<&Process>> = BTreeMap::new();
        for process in &evidence.processes {
            for path in &process.written {
                by_path.entry(path).or_default().push(process);
            }
        }
        Self {
            by_path,
            any_random: evidence.processes.iter().any(is_random),
        }
    }

    /// Is a file worth reading, and who wrote it?
    fn suspect(&self, path: &RelPath, file: &File) -> Suspect<'a> {
        let absolute = [b"/", path.as_bytes()].concat();
        if let Some(writers) = self.by_path.get(absolute.as_slice()) {
            return match writers.iter().find(|process| is_random(process)) {
                Some(process) if file.size <= LARGEST => Suspect::Of(process),
                _ => Suspect::No,
            };
        }
        let private = file.meta.mode.bits() & OTHERS == 0;
        if self.any_random && private && file.size <= LARGEST_UNKNOWN {
            Suspect::OfSomebody
        } else {
            Suspect::No
        }
    }
}

/// Can a file hold a predictable key?
enum Suspect<'a> {
    No,
    /// This process wrote it.
    Of(&'a Process),
    /// Nobody is known to have written it.
    OfSomebody,
}

fn is_random(process: &Process) -> bool {
    process.sources.contains_key(&Source::Random)
}

/// Had the file this content before? Then only its mode or owner is new.
fn was_there(
    path: &RelPath,
    file: &File,
    below: &Tree,
    directories: &dyn DirectorySource,
) -> Result<bool, KeyError> {
    let before = TreeBuilder::from_tree(directories, below).get(path)?;
    Ok(matches!(before, Some(Entry::File(before)) if before.blob == file.blob))
}

/// Is there a private key in these bytes, in one of the forms that tools write: PEM (RFC 7468), OpenSSH, PGP (RFC
/// 9580)?
fn holds_private_key(bytes: &[u8]) -> bool {
    bytes.starts_with(b"openssh-key-v1\0")
        || bytes
            .split(|byte| *byte == b'\n')
            .any(|line| is_header(line.trim_ascii_end()))
}

/// `-----BEGIN PRIVATE KEY-----`, with any words before `PRIVATE` and at most `BLOCK` after `KEY`, alone on its line.
fn is_header(line: &[u8]) -> bool {
    let label = line
        .strip_prefix(b"-----BEGIN ")
        .and_then(|rest| rest.strip_suffix(b"-----"));
    let Some(label) = label else {
        return false;
    };
    let kind = label
        .strip_suffix(b" BLOCK")
        .unwrap_or(label)
        .strip_suffix(b"PRIVATE KEY");
    let word = |byte: &u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || *byte == b' ';
    kind.is_some_and(|kind| (kind.is_empty() || kind.ends_with(b" ")) && kind.iter().all(word))
}

#[cfg(test)]
mod tests {
    use immbuild_cas::store::MemoryStore;
    use immbuild_cas::tree::{delta, tree_of_listing};

    use super::*;

    const KEY: &str = r#""-----BEGIN EC PRIVATE KEY-----\nMHc=\n""#;

    fn process(argv: &str, sources: &[Source], written: &[&str]) -> Process {
        Process {
            argv: argv
                .split(' ')
                .map(|word| word.as_bytes().to_vec())
                .collect(),
            sources: sources.iter().map(|source| (*source, 1)).collect(),
            written: written
                .iter()
                .map(|path| path.as_bytes().to_vec())
                .collect(),
            ..Process::default()
        }
    }

    /// Path and program of each predictable key in what turns `below` into `above`.
    fn found(below: &str, above: &str, processes: Vec<Process>) -> Vec<String> {
        let store = MemoryStore::default();
        let below = tree_of_listing(below, &store).unwrap();
        let above = tree_of_listing(above, &store).unwrap();
        let changes = delta(&store, &below, &above).unwrap();
        let evidence = Evidence {
            processes,
            ..Evidence::default()
        };
        let found = predictable_keys(&changes, &evidence, &below, &store, &store).unwrap();
        found
            .into_iter()
            .map(|key| match key.process {
                Some(process) => {
                    let program = String::from_utf8_lossy(&process.argv[0]).into_owned();
                    format!("{} {program}", key.path)
                }
                None => key.path.to_string(),
            })
            .collect()
    }

    #[test]
    fn a_key_is_told_with_the_process_that_made_it() {
        let tree =
            format!("f 0644 0:0 /key {KEY}\nf 0644 0:0 /public \"-----BEGIN PUBLIC KEY-----\\n\"");
        let openssl = process(
            "openssl genpkey",
            &[Source::Clock, Source::Random],
            &["/key", "/public"],
        );
        let shell = process("sh", &[Source::Random], &[]);
        assert_eq!(found("", &tree, vec![shell, openssl]), ["/key openssl"]);
    }

    #[test]
    fn a_key_that_was_only_copied_is_none_of_ours() {
        let tree = format!("f 0600 0:0 /key {KEY}");
        let copied = process("cp", &[Source::Files], &["/key"]);
        let other = process("uuidgen", &[Source::Random], &["/id"]);
        assert_eq!(found("", &tree, vec![copied, other]), Vec::<String>::new());
    }

    #[test]
    fn a_renamed_file_is_known_by_its_mode() {
        let tree = format!("f 0600 0:0 /key {KEY}\nf 0644 0:0 /readable {KEY}");
        let keygen = process("ssh-keygen", &[Source::Random], &["/key.XYZ"]);
        assert_eq!(found("", &tree, vec![keygen]), ["/key"]);
        let nobody = process("ssh-keygen", &[Source::Clock], &["/key.XYZ"]);
        assert_eq!(found("", &tree, vec![nobody]), Vec::<String>::new());
    }

    #[test]
    fn a_key_of_the_root_below_with_another_mode_is_as_old_as_it_was() {
        let below = format!("f 0644 0:0 /key {KEY}");
        let above = format!("f 0600 0:0 /key {KEY}");
        let shell = process("sh", &[Source::Random], &[]);
        assert_eq!(found(&below, &above, vec![shell]), Vec::<String>::new());
    }

    #[test]
    fn forms_of_keys_are_known_and_talk_about_keys_is_not() {
        for key in [
            "-----BEGIN PRIVATE KEY-----\n",
            "Subject: x\n-----BEGIN RSA PRIVATE KEY-----\r\n",
            "-----BEGIN ENCRYPTED PRIVATE KEY-----",
            "-----BEGIN OPENSSH PRIVATE KEY-----\n",
            "-----BEGIN PGP PRIVATE KEY BLOCK-----\n",
            "openssh-key-v1\0none",
        ] {
            assert!(holds_private_key(key.as_bytes()), "{key}");
        }
        for text in [
            "-----BEGIN PUBLIC KEY-----\n",
            "-----BEGIN CERTIFICATE-----\n",
            "print(\"-----BEGIN PRIVATE KEY-----\")\n",
            "-----BEGIN %s PRIVATE KEY-----\n",
            "-----BEGIN NOTPRIVATE KEY-----\n",
            "about openssh-key-v1\0",
        ] {
            assert!(!holds_private_key(text.as_bytes()), "{text}");
        }
    }
}
