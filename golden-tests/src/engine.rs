//! Podman runs what was built, as it was built: what a program prints, what a server answers over loopback.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};

use crate::machine::run;

/// What an image says when it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Says {
    /// It ends, and has printed this among other things.
    Prints(&'static str),
    /// It listens on port 8080: to this path, it answers with this among other things.
    Answers(&'static str, &'static str),
}

/// A container has the network of nobody: who asks it, enters its own. crun refuses hosts that mount cgroups of both
/// versions, so it sees one of its own.
const SCRIPT: &str = r#"
set -e
mount --make-rprivate /
umount -R -l /sys/fs/cgroup
mount -t cgroup2 none /sys/fs/cgroup
place=$1 archive=$2 path=$3
engine() {
  podman --root="$place/root" --runroot="$place/run" --storage-driver=overlay --cgroup-manager=cgroupfs \
    --events-backend=none "$@"
}
start() {
  engine run --quiet --network=none --cgroups=disabled --ulimit=nofile=1024:1024 --ulimit=nproc=1024:1024 \
    "$@" "oci-archive:$archive"
}
trap 'engine rm --all --force --time 0 > "$place/removed"' EXIT
if [ -z "$path" ]; then
  start
  exit
fi
id=$(start --detach)
process=$(engine inspect --format '{{.State.Pid}}' "$id")
for second in $(seq 30); do
  if nsenter --target "$process" --net busybox wget -q -O - "http://127.0.0.1:8080$path" 2> "$place/refused"; then
    exit
  fi
  sleep 1
done
engine logs "$id" >&2
cat "$place/refused" >&2
exit 1
"#;

impl Says {
    /// Runs the OCI archive and wants it to say this. Podman has a storage of its own.
    pub fn check(self, archive: &Path) -> Result<()> {
        // Podman refuses long names.
        let storage = tempfile::Builder::new().prefix("engine-").tempdir()?;
        let script = storage.path().join("script");
        std::fs::write(&script, SCRIPT).context("podman needs a place")?;
        let (path, wanted) = match self {
            Self::Prints(wanted) => ("", wanted),
            Self::Answers(path, wanted) => (path, wanted),
        };
        let text = |path: &Path| path.display().to_string();
        let said = run(
            "unshare",
            &[
                "--mount",
                "sh",
                &text(&script),
                &text(storage.path()),
                &text(archive),
                path,
            ],
        )?;
        ensure!(said.contains(wanted), "it says {said:?}, not {wanted:?}");
        Ok(())
    }
}
