//! docs/cli.md: what the commands and options are, as the program itself says it. A command that is new, or says something
//! else, is written down by `BALLAST_UPDATE_SNAPSHOT=1 cargo test -p lb-userspace --lib reference`.

#![allow(clippy::unwrap_used, reason = "a test that can't go on has failed")]

use std::fmt::Write as _;

use clap::{Command, CommandFactory, Parser};

use super::{Cli, EXIT_CODES, examples::EXAMPLES};
use crate::snapshot;

#[test]
fn the_committed_reference_is_what_the_program_says() {
    snapshot::check("docs/cli.md", &reference());
}

#[test]
fn every_command_and_option_says_what_it_is_for() {
    each(&root(), &mut |command| {
        let name = name_of(command);
        assert!(command.get_about().is_some(), "{name} does not say what it does");
        for argument in command.get_arguments() {
            assert!(argument.get_help().is_some(), "{name}: {} does not say what it is", argument.get_id());
        }
    });
}

#[test]
fn examples_are_understood() {
    for example in EXAMPLES {
        let parsed = Cli::try_parse_from(example.line.split_whitespace());
        assert!(parsed.is_ok(), "{}: {}", example.line, parsed.unwrap_err());
    }
}

#[test]
fn every_command_has_an_example() {
    // Those that say all there is to say themselves.
    const NONE: [&str; 7] = [
        "ballast backend disable",
        "ballast backend remove",
        "ballast detach",
        "ballast run",
        "ballast service remove",
        "ballast service show",
        "ballast service",
    ];
    each(&root(), &mut |command| {
        let name = name_of(command);
        let has = EXAMPLES.iter().any(|example| example.is_of(name));
        assert!(has || NONE.contains(&name), "no example of {name}");
    });
}

fn root() -> Command {
    let mut root = Cli::command().disable_help_subcommand(true);
    root.build();
    root
}

/// `ballast backend drain`.
fn name_of(command: &Command) -> &str {
    command.get_bin_name().unwrap_or_else(|| command.get_name())
}

/// The command and all below it.
fn each(command: &Command, visit: &mut impl FnMut(&Command)) {
    visit(command);
    command.get_subcommands().for_each(|one| each(one, visit));
}

fn reference() -> String {
    let mut page = String::from(
        "# Command reference\n\n\
         Made from the program itself; `ballast man DIR` writes the same as manual pages, `ballast help COMMAND` prints it.\n\n",
    );
    let root = root();
    each(&root, &mut |command| {
        let name = name_of(command);
        let depth = name.matches(' ').count();
        let _ =
            write!(page, "{} {name}\n\n```text\n{}\n```\n\n", "#".repeat(2 + depth.min(2)), help(command));
        // Those of a group are at its commands.
        let examples =
            EXAMPLES.iter().filter(|example| depth > 0 && !command.has_subcommands() && example.is_of(name));
        for (number, example) in examples.enumerate() {
            let head = if number == 0 { "Examples:\n\n" } else { "" };
            let _ = writeln!(page, "{head}- `{}`: {}", example.line, example.says);
        }
        if !page.ends_with("\n\n") {
            page.push('\n');
        }
        if depth == 0 {
            page += "Exit codes:\n\n";
            for (code, meaning) in EXIT_CODES {
                let _ = writeln!(page, "- {code}: {meaning}");
            }
            page.push('\n');
        }
    });
    page.trim_end().to_owned() + "\n"
}

/// Without the options that every command has: the first heading tells of these.
fn help(command: &Command) -> String {
    let is_root = !name_of(command).contains(' ');
    let hide = |argument: clap::Arg| {
        let everywhere = argument.is_global_set() || argument.get_id() == "help";
        argument.hide(everywhere && !is_root)
    };
    let mut command = command.clone().mut_args(hide).term_width(100).after_help("");
    let text = command.render_long_help().to_string();
    let lines: Vec<_> = text.lines().map(str::trim_end).collect();
    lines.join("\n").trim_end().to_owned()
}
