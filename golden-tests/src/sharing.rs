//! A cache that machines share: Debian's `docker-registry` on this one, and a user who is believed.

use std::ffi::OsString;
use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use crate::world::World;

/// An empty cache in a registry that ends with it.
#[derive(Debug)]
pub struct SharedCache {
    registry: Child,
    repository: String,
    configuration: PathBuf,
}

/// What a build said of its steps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Built {
    /// Digest of the image.
    pub digest: String,
    /// How many ops executed something.
    pub executed: u64,
    /// How many results came from the cache.
    pub taken: u64,
    /// How many it sent, or found there.
    pub sent: u64,
}

impl SharedCache {
    /// Starts the registry and makes a key, both below `place`.
    pub fn start(place: &Path) -> Result<Self> {
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let settings = place.join("registry.yml");
        let text = format!(
            "version: 0.1\nlog: {{ level: error }}\nstorage: {{ filesystem: {{ rootdirectory: \"{}\" }} }}\nhttp: {{ addr: \"{address}\" }}\n",
            place.join("registry").display()
        );
        fs::write(&settings, text)?;
        let registry = Command::new("docker-registry")
            .arg("serve")
            .arg(&settings)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("cannot run docker-registry")?;
        let configuration = place.join("config");
        let cache = Self {
            registry,
            repository: format!("{address}/cache"),
            configuration,
        };
        fs::create_dir_all(cache.configuration.join("immbuild"))?;
        let key = cache.configuration.join("key");
        let made = Command::new(crate::immbuild())
            .args(["cache", "key", "--quiet"])
            .arg(&key)
            .output()?;
        ensure!(made.status.success(), "no key was made");
        fs::write(
            cache.configuration.join("immbuild/config.toml"),
            format!("[cache]\nkey = \"{}\"\n", key.display()),
        )?;
        for _ in 0..200 {
            if TcpStream::connect(address).is_ok() {
                return Ok(cache);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        bail!("docker-registry does not listen");
    }

    /// Builds with `--cache-to` or `--cache-from`.
    pub fn build(
        &self,
        world: &World<'_>,
        directory: &Path,
        store: &Path,
        flags: &[&str],
        how: &str,
    ) -> Result<Built> {
        let spec = directory.join("spec.toml").display().to_string();
        let store = store.display().to_string();
        let words = [
            "build",
            &spec,
            "--store",
            &store,
            "--json",
            how,
            &self.repository,
        ];
        let arguments: Vec<OsString> = words.iter().chain(flags).map(Into::into).collect();
        let output = world
            .command(&arguments, directory)?
            .env("XDG_CONFIG_HOME", &self.configuration)
            .output()?;
        let text = String::from_utf8_lossy(&output.stdout);
        let last = text.lines().last().unwrap_or_default();
        ensure!(output.status.success(), "{how}: {last}");
        let result: Value = serde_json::from_str(last)?;
        let number = |value: &Value| value.as_u64().unwrap_or_default();
        let shared = &result["shared"][&self.repository];
        Ok(Built {
            digest: result["digest"].as_str().context("a digest")?.to_owned(),
            executed: result["ops"]["executed"].as_u64().context("a number")?,
            taken: number(&result["ops"]["taken"]),
            sent: number(&shared["sent"]) + number(&shared["there"]),
        })
    }
}

impl Drop for SharedCache {
    fn drop(&mut self) {
        let _ = self.registry.kill();
        let _ = self.registry.wait();
    }
}
