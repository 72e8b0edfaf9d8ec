//! What wheels are chosen for: an interpreter on a platform, as tags and as an environment of markers.

use std::collections::BTreeSet;

use super::name::WheelName;
use crate::platform::Platform;
use crate::spec::model::{Interpreter, Libc};

/// What wheels are chosen for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// The interpreter, which is `CPython`.
    pub interpreter: Interpreter,
    /// What it runs on.
    pub platform: Platform,
    /// Its C library.
    pub libc: Libc,
}

impl Target {
    /// What a marker's variable is here; nothing when there is no such variable.
    pub fn variable(&self, name: &str) -> Option<String> {
        Some(match name {
            "os_name" => "posix".into(),
            "sys_platform" => "linux".into(),
            "platform_system" => "Linux".into(),
            "platform_machine" => self.platform.machine().into(),
            "platform_python_implementation" => "CPython".into(),
            "implementation_name" => "cpython".into(),
            "python_version" => {
                let Interpreter { major, minor, .. } = self.interpreter;
                format!("{major}.{minor}")
            }
            "python_full_version" | "implementation_version" => self.full_version(),
            // Of a kernel, which is no part of an image.
            "platform_release" | "platform_version" => String::new(),
            _ => return None,
        })
    }

    /// `3.11.0`, where the spec does not say more than `3.11`.
    pub fn full_version(&self) -> String {
        let Interpreter {
            major,
            minor,
            patch,
        } = self.interpreter;
        format!("{major}.{minor}.{}", patch.unwrap_or(0))
    }

    /// The tags of wheels that fit, the best first: as `packaging` orders them.
    pub fn tags(&self) -> Vec<String> {
        let Interpreter { major, minor, .. } = self.interpreter;
        let own = format!("cp{major}{minor}");
        let platforms = self.platforms();
        let on_each = |python: &str, abi: &str| -> Vec<String> {
            let tag = |platform: &String| format!("{python}-{abi}-{platform}");
            platforms.iter().map(tag).collect()
        };
        let mut tags = on_each(&own, &own);
        tags.extend(on_each(&own, "abi3"));
        tags.extend(on_each(&own, "none"));
        for older in (2..minor).rev() {
            tags.extend(on_each(&format!("cp{major}{older}"), "abi3"));
        }
        let mut generic = vec![format!("py{major}{minor}"), format!("py{major}")];
        generic.extend((0..minor).rev().map(|older| format!("py{major}{older}")));
        for python in &generic {
            tags.extend(on_each(python, "none"));
        }
        tags.push(format!("{own}-none-any"));
        tags.extend(generic.iter().map(|python| format!("{python}-none-any")));
        tags
    }

    /// The platforms of wheels that run here, the best first (PEP 600, PEP 656).
    fn platforms(&self) -> Vec<String> {
        let machine = match self.platform.machine() {
            // Wheels are built for the oldest that is in use.
            "armv5l" | "armv6l" => return vec![format!("linux_{}", self.platform.machine())],
            machine => machine,
        };
        let mut platforms = Vec::new();
        match self.libc {
            Libc::Glibc { minor } => {
                let oldest = match machine {
                    "x86_64" | "i686" => 5,
                    _ => 17,
                };
                for minor in (oldest..=minor).rev() {
                    platforms.push(format!("manylinux_2_{minor}_{machine}"));
                    let old = match minor {
                        17 => "manylinux2014",
                        12 => "manylinux2010",
                        5 => "manylinux1",
                        _ => continue,
                    };
                    platforms.push(format!("{old}_{machine}"));
                }
            }
            Libc::Musl { minor } => {
                platforms.extend(
                    (0..=minor)
                        .rev()
                        .map(|minor| format!("musllinux_1_{minor}_{machine}")),
                );
            }
        }
        platforms.push(format!("linux_{machine}"));
        platforms
    }
}

/// How well a wheel fits: less is better. Nothing when it does not.
pub fn rank(wheel: &WheelName, tags: &[String]) -> Option<usize> {
    let own: BTreeSet<&str> = wheel.tags.iter().map(String::as_str).collect();
    tags.iter().position(|tag| own.contains(tag.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(libc: Libc) -> Target {
        Target {
            interpreter: Interpreter {
                major: 3,
                minor: 11,
                patch: None,
            },
            platform: "linux/amd64".parse().expect("a platform"),
            libc,
        }
    }

    fn best(libc: Libc, files: &[&str]) -> Option<String> {
        let tags = target(libc).tags();
        let ranked = files.iter().filter_map(|file| {
            let wheel = WheelName::parse(file).expect("a wheel");
            Some((rank(&wheel, &tags)?, *file))
        });
        ranked.min().map(|(_, file)| file.to_owned())
    }

    #[test]
    fn the_most_specific_wheel_that_fits_is_the_best() {
        let files = [
            "a-1-py3-none-any.whl",
            "a-1-cp38-abi3-manylinux_2_28_x86_64.whl",
            "a-1-cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64.whl",
            "a-1-cp311-cp311-manylinux_2_28_x86_64.whl",
            "a-1-cp311-cp311-manylinux_2_36_x86_64.whl",
            "a-1-cp312-cp312-manylinux_2_17_x86_64.whl",
            "a-1-cp311-cp311-musllinux_1_2_x86_64.whl",
            "a-1-cp311-cp311-manylinux_2_28_aarch64.whl",
        ];
        let glibc = |minor| Libc::Glibc { minor };
        assert_eq!(best(glibc(28), &files).as_deref(), Some(files[3]));
        assert_eq!(best(glibc(36), &files).as_deref(), Some(files[4]));
        assert_eq!(best(glibc(17), &files).as_deref(), Some(files[2]));
        assert_eq!(best(glibc(28), &files[..2]).as_deref(), Some(files[1]));
        assert_eq!(best(glibc(28), &files[..1]).as_deref(), Some(files[0]));
        assert_eq!(
            best(Libc::Musl { minor: 2 }, &files).as_deref(),
            Some(files[6])
        );
        assert_eq!(best(glibc(28), &files[5..]), None);
    }
}
