//! A first spec for what lies in a directory. Reads that directory and writes two files.
#![allow(
    clippy::disallowed_methods,
    reason = "what a directory lists is sorted, or only counted"
)]

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use super::failure::{Exit, Failure};
use super::project::io_failure;
use crate::diag::Diagnostic;
use crate::spec::schema::schema;

/// How to begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Template {
    /// One program on nothing.
    Static,
    /// Files on a base image.
    Site,
    /// Compile in one stage, ship from another.
    Compile,
}

/// What lies here, as far as a spec can use it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Here {
    /// Name for the image: the directory's, in lower case.
    pub name: String,
    /// A program that can be executed, by its path from here.
    pub program: Option<Program>,
    /// What builds it.
    pub builder: Option<Builder>,
    /// The directory with files to serve.
    pub site: Option<String>,
}

/// An ELF program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// Where it is, from here.
    pub path: String,
    /// The platform it is for, if images are made for it.
    pub platform: Option<&'static str>,
    /// Does it want an interpreter, so that it does not run on nothing?
    pub dynamic: bool,
}

/// What compiles the program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Builder {
    /// A `Makefile`.
    Make,
    /// A `Cargo.toml` of a package of this name.
    Cargo(String),
}

/// What was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InitReport {
    /// How the spec begins.
    pub template: Template,
    /// The spec, and the schema beside it.
    pub written: Vec<PathBuf>,
    /// What to do before it can be built.
    pub next: Vec<String>,
}

/// Name of the schema, beside the spec.
pub const SCHEMA_FILE: &str = "spec.schema.json";

/// Writes a spec, and the schema that editors complete it by. Never over anything.
pub fn init(spec: &Path, template: Option<Template>) -> Result<InitReport, Failure> {
    let directory = match spec.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    if spec.symlink_metadata().is_ok() {
        return Err(in_the_way(spec));
    }
    let here = look(directory).map_err(|error| io_failure("look at", directory, &error))?;
    let template = template.unwrap_or_else(|| here.template());
    let schema_path = spec.with_file_name(SCHEMA_FILE);
    let mut written = Vec::new();
    if write_new(&schema_path, &schema())? {
        written.push(schema_path);
    }
    if !write_new(spec, &text(template, &here))? {
        return Err(in_the_way(spec));
    }
    written.insert(0, spec.to_owned());
    Ok(InitReport {
        template,
        written,
        next: next(template, &here),
    })
}

fn in_the_way(path: &Path) -> Failure {
    Failure::new(
        Exit::Local,
        Diagnostic::error(format!("there is a file `{}` already", path.display())).hint(
            "`init` never writes over anything: move it away, or name another with `-f FILE`",
        ),
    )
}

/// Says whether it wrote: not when a file with the same text is there. Another text is an error.
fn write_new(path: &Path, text: &str) -> Result<bool, Failure> {
    match fs::File::create_new(path) {
        Ok(mut file) => {
            file.write_all(text.as_bytes())
                .map_err(|error| io_failure("write", path, &error))?;
            Ok(true)
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            if fs::read(path).is_ok_and(|found| found == text.as_bytes()) {
                Ok(false)
            } else {
                Err(in_the_way(path))
            }
        }
        Err(error) => Err(io_failure("write", path, &error)),
    }
}

impl Here {
    /// What fits best.
    pub fn template(&self) -> Template {
        if self.builder.is_some() {
            Template::Compile
        } else if self.program.is_some() || self.site.is_none() {
            Template::Static
        } else {
            Template::Site
        }
    }
}

/// Looks at a directory.
pub fn look(directory: &Path) -> io::Result<Here> {
    let is_file = |name: &str| directory.join(name).is_file();
    let name = fs::canonicalize(directory)?;
    let name = name
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    let builder = if is_file("Cargo.toml") {
        let manifest = fs::read_to_string(directory.join("Cargo.toml"))?;
        Some(Builder::Cargo(
            package_name(&manifest).unwrap_or_else(|| image_name(&name)),
        ))
    } else if is_file("Makefile") || is_file("GNUmakefile") {
        Some(Builder::Make)
    } else {
        None
    };
    let mut program: Option<Program> = None;
    for place in ["", "dist", "bin"] {
        for found in programs(directory, place)? {
            // One that runs on nothing is better than one that does not.
            if program
                .as_ref()
                .is_none_or(|known| known.dynamic && !found.dynamic)
            {
                program = Some(found);
            }
        }
    }
    let has_files = |name: &&str| {
        let mut entries = fs::read_dir(directory.join(name)).into_iter().flatten();
        entries.next().is_some()
    };
    let site = ["public", "dist", "site", "www"]
        .into_iter()
        .find(has_files);
    let site = site.or_else(|| is_file("index.html").then_some("."));
    Ok(Here {
        name: image_name(&name),
        program,
        builder,
        site: site.map(str::to_owned),
    })
}

/// The directory's name as a name for an image.
fn image_name(directory: &str) -> String {
    let name: String = directory
        .to_ascii_lowercase()
        .chars()
        .map(|c| {
            if c.is_ascii_lowercase() || c.is_ascii_digit() {
                c
            } else {
                '-'
            }
        })
        .collect();
    match name.trim_matches('-') {
        "" => "app".into(),
        name => name.into(),
    }
}

/// `name` of `[package]`, as Cargo writes it.
fn package_name(manifest: &str) -> Option<String> {
    let mut lines = manifest.lines().map(str::trim);
    lines.find(|line| *line == "[package]")?;
    let mut lines = lines.take_while(|line| !line.starts_with('['));
    let value = lines.find_map(|line| line.strip_prefix("name")?.trim_start().strip_prefix('='))?;
    let name = value.trim().strip_prefix('"')?.split('"').next()?;
    Some(name.to_owned())
}

fn programs(directory: &Path, place: &str) -> io::Result<Vec<Program>> {
    let mut paths = match fs::read_dir(directory.join(place)) {
        Ok(entries) => entries
            .map(|entry| entry.map(|entry| entry.path()))
            .collect::<io::Result<Vec<PathBuf>>>()?,
        Err(_) if !place.is_empty() => Vec::new(),
        Err(error) => return Err(error),
    };
    paths.sort();
    let program = |path: &PathBuf| {
        let metadata = path.metadata().ok()?;
        if !metadata.is_file() || metadata.permissions().mode() & 0o111 == 0 {
            return None;
        }
        let mut head = Vec::new();
        // Program headers follow the first header.
        fs::File::open(path)
            .ok()?
            .take(4096)
            .read_to_end(&mut head)
            .ok()?;
        let name = path.file_name()?.to_str()?;
        let from_here = if place.is_empty() {
            name.to_owned()
        } else {
            format!("{place}/{name}")
        };
        elf(&head, from_here)
    };
    Ok(paths.iter().filter_map(program).collect())
}

/// Reads the head of a little-endian ELF file (System V ABI, chapters 4 and 5).
fn elf(head: &[u8], path: String) -> Option<Program> {
    const PT_INTERP: u32 = 3;
    let half = |at: usize| Some(u16::from_le_bytes(head.get(at..at + 2)?.try_into().ok()?));
    let word = |at: usize| Some(u32::from_le_bytes(head.get(at..at + 4)?.try_into().ok()?));
    if !head.starts_with(b"\x7fELF") || head.get(5) != Some(&1) {
        return None;
    }
    // The low half of a 64-bit offset: the headers of a program are at its beginning.
    let (offset, size, count) = match head[4] {
        2 => (word(32)?, half(54)?, half(56)?),
        _ => (word(28)?, half(42)?, half(44)?),
    };
    // ET_EXEC or ET_DYN: an object file is no program.
    if !matches!(half(16)?, 2 | 3) {
        return None;
    }
    let mut headers = (0..usize::from(count)).map(|n| offset as usize + n * usize::from(size));
    Some(Program {
        path,
        platform: match half(18)? {
            62 => Some("linux/amd64"),
            183 => Some("linux/arm64"),
            _ => None,
        },
        dynamic: headers.any(|at| word(at) == Some(PT_INTERP)),
    })
}

/// The spec.
pub fn text(template: Template, here: &Here) -> String {
    let body = match template {
        Template::Static => static_spec(here),
        Template::Site => site_spec(here),
        Template::Compile => compile_spec(here),
    };
    format!("#:schema ./{SCHEMA_FILE}\n{body}")
}

fn static_spec(here: &Here) -> String {
    let program = here.program.as_ref();
    let path = program.map_or("program", |program| program.path.as_str());
    let name = path.rsplit('/').next().unwrap_or(path);
    let platforms = match program.and_then(|program| program.platform) {
        None | Some("linux/amd64") => String::new(),
        Some(platform) => format!("platforms = [\"{platform}\"]\n"),
    };
    format!(
        r#"# One program on nothing: no files but its own.
immbuild = 1
source.program.path = {path}

[image]
name = "localhost/{image}"
{platforms}steps = [
  {{ copy = "program", to = {to}, mode = "0755" }},
]
entrypoint = [{to}]
user = "65532"

[[output]]
kind = "oci-archive"
file = "out/{image}.tar"
"#,
        path = quoted(path),
        to = quoted(&format!("/{name}")),
        image = here.name,
    )
}

fn site_spec(here: &Here) -> String {
    let site = here.site.as_deref().unwrap_or("public");
    // The base and the outputs are never served.
    let exclude = match site {
        "." => format!("exclude = [\"/base\", \"/{SCHEMA_FILE}\"]\n"),
        _ => String::new(),
    };
    format!(
        r#"# Files on a base image. Nothing is executed, so any machine can build it.
# `./base` is an OCI layout with the server in it, for example made by `skopeo copy … oci:base`.
immbuild = 1
source.base.image = "./base"

[source.site]
path = {path}
{exclude}
[image]
name = "localhost/{image}"
from = "base"
steps = [
  {{ copy = "site", to = "/srv/www" }},
]

[[output]]
kind = "oci-archive"
file = "out/{image}.tar"
"#,
        path = quoted(site),
        image = here.name,
    )
}

fn compile_spec(here: &Here) -> String {
    let (command, exclude, program) = match &here.builder {
        Some(Builder::Cargo(package)) => (
            r#"["cargo", "build", "--release", "--locked", "--offline"]"#,
            "\"/target\", ",
            format!("target/release/{package}"),
        ),
        Some(Builder::Make) | None => (r#"["make"]"#, "", here.name.clone()),
    };
    let name = program.rsplit('/').next().unwrap_or(&program);
    format!(
        r#"# Compile where the tools are, ship only what came out.
# `./tools` is an OCI layout with the compiler in it, for example made by `skopeo copy … oci:tools`.
immbuild = 1
source.tools.image = "./tools"

[source.src]
path = "."
exclude = [{exclude}"/tools", "/{SCHEMA_FILE}"]

[stage.build]
from = "tools"
steps = [
  {{ copy = "src", to = "/src" }},
  {{ run = {command}, in = "/src" }},
]

# It starts from nothing, so the program has to be linked statically; if it is not, start `from` an image with its
# libraries.
[image]
name = "localhost/{image}"
steps = [
  {{ copy = {from}, to = {to} }},
]
entrypoint = [{to}]
user = "65532"

[[output]]
kind = "oci-archive"
file = "out/{image}.tar"
"#,
        image = here.name,
        from = quoted(&format!("build:/src/{program}")),
        to = quoted(&format!("/{name}")),
    )
}

/// What is still to be done by hand.
fn next(template: Template, here: &Here) -> Vec<String> {
    let mut next = Vec::new();
    match (template, &here.program) {
        (Template::Static, None) => {
            next.push("put the program there as `program`, or change `source.program.path`".into());
        }
        (Template::Static, Some(program)) if program.dynamic => next.push(format!(
            "`{}` is linked dynamically and does not run on nothing: link it statically, or start `from` an image with its libraries",
            program.path
        )),
        (Template::Static, Some(_)) => {}
        (Template::Site, _) => {
            next.push("put a base image there as `base`, an OCI layout".into());
            if here.site.is_none() {
                next.push("put the files into `public`, or change `source.site.path`".into());
            }
        }
        (Template::Compile, _) => {
            next.push("put an image with the compiler there as `tools`, an OCI layout".into());
            next.push("check the command and the path of what it makes".into());
        }
    }
    next.push("immbuild build".into());
    next
}

/// A basic string of TOML 1.0 in which nothing is substituted (SPEC A).
fn quoted(text: &str) -> String {
    use std::fmt::Write as _;

    let mut out = String::from('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => {
                out.push('\\');
                out.push(c);
            }
            c if c.is_control() => {
                let _ = write!(out, "\\u{:04X}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out.replace("${", "$${")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn here() -> Here {
        Here {
            name: "shop".into(),
            ..Here::default()
        }
    }

    #[test]
    fn every_template_is_a_spec_without_warnings() {
        let program = Program {
            path: "dist/a \"b\\${c}".into(),
            platform: Some("linux/arm64"),
            dynamic: false,
        };
        let variants = [
            here(),
            Here {
                program: Some(program),
                builder: Some(Builder::Make),
                site: Some(".".into()),
                ..here()
            },
            Here {
                builder: Some(Builder::Cargo("shop-server".into())),
                site: Some("public".into()),
                ..here()
            },
        ];
        for here in &variants {
            for template in [Template::Static, Template::Site, Template::Compile] {
                let text = text(template, here);
                assert!(text.starts_with("#:schema ./spec.schema.json\n"));
                let spec = crate::spec::parse(&text, "spec.toml");
                let spec = spec.unwrap_or_else(|found| panic!("{text}\n{found:?}"));
                assert!(spec.warnings().is_empty(), "{text}\n{:?}", spec.warnings());
                let arguments = spec.arguments(&std::collections::BTreeMap::new()).unwrap();
                spec.resolve_each(spec.platforms(), &arguments).unwrap();
            }
        }
    }

    #[test]
    fn what_lies_here_chooses_the_template() {
        let program = Program {
            path: "dist/server".into(),
            platform: None,
            dynamic: true,
        };
        let table = [
            (here(), Template::Static),
            (
                Here {
                    site: Some("public".into()),
                    ..here()
                },
                Template::Site,
            ),
            (
                Here {
                    program: Some(program.clone()),
                    site: Some("dist".into()),
                    ..here()
                },
                Template::Static,
            ),
            (
                Here {
                    builder: Some(Builder::Make),
                    program: Some(program),
                    ..here()
                },
                Template::Compile,
            ),
        ];
        for (here, template) in table {
            assert_eq!(here.template(), template, "{here:?}");
        }
    }

    #[test]
    fn an_elf_file_says_what_it_runs_on() {
        let head = |machine: u8, kind: u8, first: u8| {
            let mut head = vec![0; 64 + 56];
            head[..6].copy_from_slice(b"\x7fELF\x02\x01");
            (head[16], head[18], head[32], head[54], head[56]) = (kind, machine, 64, 56, 1);
            head[64] = first;
            elf(&head, "p".into())
        };
        let program = |platform, dynamic| {
            Some(Program {
                path: "p".into(),
                platform,
                dynamic,
            })
        };
        assert_eq!(head(62, 2, 1), program(Some("linux/amd64"), false));
        assert_eq!(head(183, 3, 3), program(Some("linux/arm64"), true));
        assert_eq!(head(243, 2, 1), program(None, false));
        assert_eq!(head(62, 1, 1), None);
        assert_eq!(elf(b"#!/bin/sh\n", "p".into()), None);
        assert_eq!(elf(b"\x7fELF\x02\x01", "p".into()), None);
    }

    #[test]
    fn names_fit_where_they_go() {
        assert_eq!(image_name("My App_2"), "my-app-2");
        assert_eq!(image_name("--"), "app");
        let manifest = "[lints]\nname = \"x\"\n[package]\nversion = \"1\"\nname = \"shop\"\n";
        assert_eq!(package_name(manifest).as_deref(), Some("shop"));
        assert_eq!(package_name("[workspace]\n"), None);
    }
}
