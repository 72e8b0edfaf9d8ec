//! From the command line to a use case and back: arguments, standard output, exit status. The only home of `clap`.
#![allow(
    clippy::disallowed_methods,
    reason = "the imperative shell: environment, clock and streams are read here and handed down"
)]

#[allow(
    unreachable_pub,
    clippy::doc_markdown,
    reason = "its comments are the help texts; it is public to its siblings only"
)]
mod args;
mod images;
mod manual;
mod registry;
mod report;
mod run;
mod supervise;
mod tell;
mod trace;
mod workshop;

use std::io::IsTerminal as _;
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser as _};

use crate::app::{Exit, Failure};
use crate::diag::{Diagnostic, Report, Style, render_all};
use crate::ui;
use args::{Cli, Color};

/// Does what the command line says and gives the exit status of SPEC C.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // `--help` and `--version` come this way too; they go to stdout and succeed.
            let _ = error.print();
            return if error.use_stderr() {
                ExitCode::from(Exit::Usage as u8)
            } else {
                ExitCode::SUCCESS
            };
        }
    };
    let style = style(cli.global.color);
    match run::run(&cli, style) {
        Ok(code) => match ui::lost() {
            None => code,
            Some(error) => {
                let error =
                    Diagnostic::error("cannot write to standard output").because(error.to_string());
                tell(&Failure::new(Exit::Local, error), false, style)
            }
        },
        Err(failure) => tell(&failure, cli.global.json, style),
    }
}

/// Writes every sentence of a failure and gives its exit status.
fn tell(failure: &Failure, json: bool, style: Style) -> ExitCode {
    if json {
        let errors: Vec<Report> = failure.diagnostics.iter().map(Report::from).collect();
        let value = serde_json::json!({
            "event": "result",
            "ok": false,
            "exit": failure.exit as u8,
            "diagnostics": errors,
        });
        report::data(&value.to_string());
    }
    report::say(render_all(&failure.diagnostics, style).trim_end());
    ExitCode::from(failure.exit as u8)
}

fn style(color: Color) -> Style {
    let coloured = match color {
        Color::Always => true,
        Color::Never => false,
        // https://no-color.org: set and not empty.
        Color::Auto => {
            std::io::stderr().is_terminal()
                && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
                && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
        }
    };
    if coloured {
        Style::Coloured
    } else {
        Style::Plain
    }
}

/// The commands as `clap` knows them, for completions and the manual page.
fn command() -> clap::Command {
    Cli::command()
}
