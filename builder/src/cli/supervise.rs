//! `immbuild supervise`: the tracer alone, in front of any command.

use std::process::ExitCode;

use immbuild_cas::digest::Digest;

use super::args::Supervise;
use super::run::Context;
use super::{report, trace};
use crate::app::{Exit, Failure};
use crate::diag::Diagnostic;
use crate::exec::sandbox::NAMES;
use crate::exec::tracer::{Metadata, Virtual, supervise};

/// 2020-01-01T00:00:00Z, as for a spec without a dated source.
const EPOCH: i64 = 1_577_836_800;

#[expect(clippy::unused_self, reason = "as every command")]
impl Context<'_> {
    /// The exit code is the command's, or 128 and the signal that killed it.
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
        let ended = supervise(&arguments.command, what, NAMES).map_err(|error| {
            let name = arguments.command[0].to_string_lossy();
            let told = Diagnostic::error(format!("cannot run `{name}` under the supervisor"));
            Failure::new(Exit::Machine, told.because(error.to_string()))
                .hint(
                    "`immbuild doctor` says what this machine can do; a container of Docker's must be started with \
                     `--security-opt seccomp=seccomp.json`, the profile that is in the book",
                )
        })?;
        if arguments.sources {
            report::say(&trace::evidence_lines(&ended.evidence).join("\n"));
        }
        if let Some(spin) = ended.spin {
            let told = Diagnostic::error(format!(
                "thread {} (`{}`) runs without end at {:#x}",
                spin.thread, spin.name, spin.instruction
            ));
            let cause = "other threads of its process wait for their turn";
            return Err(Failure::new(Exit::Step, told.because(cause)));
        }
        let code = match ended.status {
            Ok(code) => code,
            Err(signal) => 128 + signal,
        };
        Ok(ExitCode::from(u8::try_from(code & 0xff).unwrap_or(1)))
    }
}
