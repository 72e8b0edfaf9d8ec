//! The manual page: one for all commands, with a section for each.

use std::io;

use clap::Command;
use clap_mangen::Man;

/// The page in the language of man(7).
pub(super) fn manual(command: Command) -> io::Result<Vec<u8>> {
    // What is only for the long help is told here.
    let mut command = command.mut_args(|arg| arg.hide_short_help(false));
    command.build();
    let mut page = Vec::new();
    let whole = Man::new(command.clone());
    whole.render_title(&mut page)?;
    whole.render_name_section(&mut page)?;
    whole.render_synopsis_section(&mut page)?;
    whole.render_description_section(&mut page)?;
    whole.render_options_section(&mut page)?;
    whole.render_extra_section(&mut page)?;
    for command in command
        .get_subcommands()
        .filter(|command| !command.is_hide_set())
    {
        section(command, &mut page)?;
    }
    Ok(page)
}

fn section(command: &Command, page: &mut Vec<u8>) -> io::Result<()> {
    let nested: Vec<&Command> = command
        .get_subcommands()
        .filter(|command| !command.is_hide_set())
        .collect();
    if !nested.is_empty() {
        return nested
            .into_iter()
            .try_for_each(|command| section(command, page));
    }
    // What works everywhere is told once.
    let own = command.clone().mut_args(|arg| {
        let everywhere = arg.is_global_set() || arg.get_id() == "help";
        if everywhere { arg.hide(true) } else { arg }
    });
    let name = command
        .get_bin_name()
        .unwrap_or(command.get_name())
        .to_owned();
    let man = Man::new(own.clone());
    let mut parts = Vec::new();
    man.render_synopsis_section(&mut parts)?;
    man.render_description_section(&mut parts)?;
    if own.get_arguments().any(|arg| !arg.is_hide_set()) {
        man.render_options_section(&mut parts)?;
    }
    if own.get_after_help().is_some() {
        man.render_extra_section(&mut parts)?;
    }
    // What are sections of a page of its own are parts of a section here.
    let parts = String::from_utf8_lossy(&parts)
        .replace("\n.SH EXTRA", "\n.SH NOTES")
        .replace("\n.SH ", "\n.SS ");
    page.extend_from_slice(format!(".SH \"{}\"\n{parts}", name.to_uppercase()).as_bytes());
    Ok(())
}
