//! The commands about images that are there: `inspect`, `compare`, `verify`, `load`, `manifest`.

use std::path::Path;
use std::process::ExitCode;

use serde_json::{Value, json};

use super::args;
use super::report;
use super::run::{Context, not_yet, pairs, secrets};
use super::tell::{comparison, comparison_json, inspection, inspection_json, listing_json};
use crate::app::locate::{self, ImageAt};
use crate::app::project::{io_failure, write_atomically};
use crate::app::realise::Options;
use crate::app::verify::{self, Parts};
use crate::app::{Exit, Failure, Project, Session, compare, inspect, load, manifest};
use crate::compare::Verdict;
use crate::diag::Diagnostic;
use crate::exec::sandbox::IdMap;
use crate::output::Engine;

impl Context<'_> {
    /// The image that was named; else what the spec built last.
    pub(super) fn image<'s>(
        &self,
        session: &'s Session<'_>,
        named: Option<&str>,
    ) -> Result<ImageAt<'s>, Failure> {
        match named {
            Some(text) => locate::image(session, text),
            None => locate::last_of(session, &self.project(None)?),
        }
    }

    pub(super) fn inspect(&self, arguments: &args::Inspect) -> Result<ExitCode, Failure> {
        let settings = self.settings(IdMap::Single)?;
        let progress = self.progress();
        let session = Session::open(&settings, &progress, &self.cancel)?;
        let at = self.image(&session, arguments.image.as_deref())?;
        let documents = at.documents()?;
        if self.cli.global.json {
            let mut value = inspection_json(&documents);
            if arguments.files {
                for (number, one) in documents.images.iter().enumerate() {
                    let files = inspect::files(&at, one)?;
                    value["images"][number]["files"] = listing_json(&files)?;
                }
            }
            report::data(&value.to_string());
            return Ok(ExitCode::SUCCESS);
        }
        if !arguments.files {
            report::data(inspection(&documents).trim_end());
            return Ok(ExitCode::SUCCESS);
        }
        for one in &documents.images {
            let files = inspect::files(&at, one)?;
            if documents.images.len() > 1 {
                report::data(&format!("# {}", one.platform));
            }
            let listing = immbuild_cas::tree::to_listing(&files.directories, &files.tree)?;
            report::data(listing.trim_end());
        }
        Ok(ExitCode::SUCCESS)
    }

    pub(super) fn compare(&self, arguments: &args::Compare) -> Result<ExitCode, Failure> {
        let settings = self.settings(IdMap::Single)?;
        let progress = self.progress();
        let session = Session::open(&settings, &progress, &self.cancel)?;
        let left = locate::image_or_directory(&session, &arguments.a)?;
        let right = locate::image_or_directory(&session, &arguments.b)?;
        let compared = compare::compare(&session, &left, &right)?;
        let exit = verify::exit_of(compared.verdict, Verdict::Identical);
        if self.cli.global.json {
            report::data(&result(exit, comparison_json(&compared)).to_string());
        } else {
            report::data(comparison(&compared).trim_end());
            if compared.without_owners && !self.cli.global.quiet {
                report::say(
                    "owners were not compared: a directory of somebody who is not root has no others",
                );
            }
        }
        Ok(code(exit))
    }

    pub(super) fn verify(&self, arguments: &args::Verify) -> Result<ExitCode, Failure> {
        if arguments.policy.is_some() {
            return Err(not_yet("`--policy`"));
        }
        let project = self.spec_to_verify(arguments)?;
        let executes = project.as_ref().is_some_and(Project::executes);
        let settings = self.settings(Self::ids(executes)?)?;
        let progress = self.progress();
        let session = Session::open(&settings, &progress, &self.cancel)?;
        let at = locate::image(&session, &arguments.image)?;
        let parts = verify::structure(&session, &at)?;
        if !self.cli.global.quiet && !self.cli.global.json {
            tell_parts(&parts);
        }
        if arguments.structure_only {
            if self.cli.global.json {
                report::data(
                    &result(
                        None,
                        json!({ "verdict": "structure", "structure": parts_json(&parts) }),
                    )
                    .to_string(),
                );
            } else if let Some(digest) = parts.digest {
                report::data(&digest.to_string());
            }
            return Ok(ExitCode::SUCCESS);
        }
        let Some(project) = project else {
            return Err(no_spec(&at));
        };
        let options = Options {
            args: pairs(&arguments.args, "--arg")?,
            secrets: secrets(&arguments.secret)?,
            allow_downgrade: arguments.tiers.allow_tier_downgrade,
            ..Options::default()
        };
        self.listen_for_signals();
        let rebuilt = verify::rebuild(&session, &at, &project, &options)
            .map_err(|failure| self.or_interrupted(failure))?;
        let exit = verify::exit_of(rebuilt.compared.verdict, accepted(arguments.accept));
        if self.cli.global.json {
            let mut value = comparison_json(&rebuilt.compared);
            value["structure"] = parts_json(&parts);
            value["rebuilt"] = json!(rebuilt.digest.to_string());
            report::data(&result(exit, value).to_string());
        } else {
            if !self.cli.global.quiet {
                report::say(&format!("rebuilt   {}", rebuilt.digest));
            }
            report::data(comparison(&rebuilt.compared).trim_end());
        }
        Ok(code(exit))
    }

    /// The spec to rebuild from: the one of `-f`, or the one that names the image. Never one that merely lies here: it may be
    /// another image's.
    fn spec_to_verify(&self, arguments: &args::Verify) -> Result<Option<Project>, Failure> {
        if arguments.structure_only {
            return Ok(None);
        }
        if self.cli.global.spec.is_some() {
            return self.project(None).map(Some);
        }
        match locate::spec_at(Path::new(&arguments.image)) {
            Some(path) => Project::open(&path).map(Some),
            None => Ok(None),
        }
    }

    pub(super) fn load(&self, arguments: &args::Load) -> Result<ExitCode, Failure> {
        let settings = self.settings(IdMap::Single)?;
        let progress = self.progress();
        let session = Session::open(&settings, &progress, &self.cancel)?;
        let at = self.image(&session, arguments.image.as_deref())?;
        let engine = match arguments.engine {
            args::Engine::Podman => Engine::Podman,
            args::Engine::Docker => Engine::Docker,
            args::Engine::Containerd => Engine::Containerd,
        };
        let loaded = load::load(&session, engine, &at, arguments.tag.as_deref())?;
        if self.cli.global.json {
            let value = json!({
                "engine": engine.name(),
                "manifest": loaded.manifest.to_string(),
                "config": loaded.config.to_string(),
                "platform": loaded.chosen.map(|platform| platform.to_string()),
                "references": loaded.references,
            });
            report::data(&result(None, value).to_string());
            return Ok(ExitCode::SUCCESS);
        }
        if !self.cli.global.quiet {
            if let Some(platform) = loaded.chosen {
                report::say(&format!(
                    "platform  {platform}, this machine's: an engine takes one"
                ));
            }
            for reference in &loaded.references {
                report::say(&format!("loaded    {reference}"));
            }
            if loaded.references.is_empty() {
                report::say(
                    "loaded    without a name: `name` in `[image]` or `--tag NAME:TAG` gives it one",
                );
            }
        }
        // By this id every engine knows it.
        report::data(&loaded.config.to_string());
        Ok(ExitCode::SUCCESS)
    }
}

impl Context<'_> {
    pub(super) fn manifest(&self, arguments: &args::Manifest) -> Result<ExitCode, Failure> {
        let settings = self.settings(IdMap::Single)?;
        let progress = self.progress();
        let session = Session::open(&settings, &progress, &self.cancel)?;
        let (args::Manifest::K8s { of, .. } | args::Manifest::Oci { of }) = arguments;
        let at = self.image(&session, of.image.as_deref())?;
        let document = match arguments {
            args::Manifest::K8s { name, .. } => manifest::pod(&at, name.as_deref())?,
            args::Manifest::Oci { .. } => manifest::oci(&at)?,
        };
        match &of.output {
            Some(path) => write_atomically(path, document.text.as_bytes())
                .map_err(|error| io_failure("write", path, &error))?,
            None if self.cli.global.json => report::data(&document.value.to_string()),
            None => report::raw(document.text.as_bytes()),
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn accepted(grade: args::Grade) -> Verdict {
    match grade {
        args::Grade::Bit => Verdict::Identical,
        args::Grade::DiffId => Verdict::DiffIdIdentical,
        args::Grade::Tree => Verdict::TreeIdentical,
    }
}

fn code(exit: Option<Exit>) -> ExitCode {
    exit.map_or(ExitCode::SUCCESS, |exit| ExitCode::from(exit as u8))
}

/// The last line of `--json`.
fn result(exit: Option<Exit>, mut value: Value) -> Value {
    value["event"] = json!("result");
    value["ok"] = json!(exit.is_none());
    value["exit"] = json!(exit.map_or(0, |exit| exit as u8));
    value
}

fn no_spec(at: &ImageAt<'_>) -> Failure {
    Failure::new(
        Exit::CannotSay,
        Diagnostic::error(format!(
            "cannot say whether `{}` can be built again: there is no spec to build it from",
            at.name
        ))
        .because("every digest and size in it is right; what was built from it is another question")
        .hint(
            "name the spec with `-f SPEC`, or ask for the structure alone with `--structure-only`",
        ),
    )
}

fn tell_parts(parts: &Parts) {
    let count = |number: usize, word: &str| {
        format!("{number} {word}{}", if number == 1 { "" } else { "s" })
    };
    report::say(&format!(
        "structure {}, {}: every digest and size is right",
        count(parts.manifests, "manifest"),
        count(parts.layers, "layer")
    ));
    for digest in &parts.foreign_documents {
        report::say(&format!(
            "foreign   document {digest}: another tool wrote it"
        ));
    }
    for digest in &parts.foreign_layers {
        report::say(&format!(
            "foreign   layer {digest}: a base's, or another tool's tar"
        ));
    }
}

fn parts_json(parts: &Parts) -> Value {
    let documents: Vec<String> = parts
        .foreign_documents
        .iter()
        .map(ToString::to_string)
        .collect();
    let layers: Vec<String> = parts
        .foreign_layers
        .iter()
        .map(ToString::to_string)
        .collect();
    json!({
        "digest": parts.digest.map(|digest| digest.to_string()),
        "manifests": parts.manifests,
        "layers": parts.layers,
        "foreign-documents": documents,
        "foreign-layers": layers,
    })
}
