//! `immbuild supervise`: the tracer alone, in front of any command.

use std::process::ExitCode;

use immbuild_cas::digest::Digest;

use super::args::Supervise;
use super::run::Context;
use super::{report, trace};
use crate::app::{Exit, Failure};
use crate::diag::{Diagnostic, render};
use crate::exec::sandbox::NAMES;
use crate::exec::tracer::{AloneError, Metadata, Virtual, supervise};

/// 2020-01-01T00:00:00Z, as for a spec without a dated source.
const EPOCH: i64 = 1_577_836_800;

impl Context<'_> {
    /// The exit code is the command's, or 128 and the signal that killed it; as with a shell, 127 says that there is no
    /// such program, and 126 that it cannot be executed.
    pub(super) fn supervise(&self, arguments: &Supervise) -> Result<ExitCode, Failure> {
        let from_environment = || {
            let text = std::env::var("SOURCE_DATE_EPOCH").ok()?;
            text.parse().ok()
        };
        let what = Virtual {
            epoch: arguments.epoch.or_else(from_environment).unwrap_or(EPOCH),
            seed: Digest::of(arguments.seed.as_bytes()),
            metadata: if arguments.clamp {
                Metadata::Clamp
            } else {
                Metadata::Virtual
            },
            strict: arguments.strict,
            owners: false,
        };
        let name = arguments.command[0].to_string_lossy();
        let ended = match supervise(&arguments.command, what, NAMES) {
            Ok(ended) => ended,
            Err(AloneError::Program(error)) => {
                let told = Diagnostic::error(format!("cannot execute `{name}`"));
                let told = render(&told.because(error.to_string()), self.style);
                report::say(told.trim_end());
                let is_missing = error.kind() == std::io::ErrorKind::NotFound;
                return Ok(ExitCode::from(if is_missing { 127 } else { 126 }));
            }
            Err(AloneError::Machine(error)) => {
                let told = Diagnostic::error(format!("cannot run `{name}` under the supervisor"));
                return Err(Failure::new(Exit::Machine, told.because(error.to_string()))
                    .hint(
                    "`immbuild doctor` says what this machine can do; a container of Docker's must be started with \
                     `--security-opt seccomp=seccomp.json`, the profile that is in the book",
                ));
            }
        };
        if arguments.sources {
            report::say(&trace::evidence_lines(&ended.evidence).join("\n"));
        }
        if let Some(spin) = ended.spin {
            let told = Diagnostic::error(format!("`{name}` was killed"));
            return Err(Failure::new(Exit::Step, told.because(spin.to_string())));
        }
        let code = match ended.status {
            Ok(code) => code,
            Err(signal) => 128 + signal,
        };
        Ok(ExitCode::from(u8::try_from(code & 0xff).unwrap_or(1)))
    }
}
