//! Page by page, command by command.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Instant;
use std::{env, fs};

use anyhow::{Context, Result, ensure};
use lb_tests::lab::{Output, require_root};

use super::markdown::{Action, Command, steps};
use super::not_run::{ELSEWHERE, NOT_RUN, reason};
use super::scenes::{self, FIRST};
use super::world::World;

#[test]
fn every_command_of_the_documentation_is_run() -> Result<()> {
    require_root!(Ok(()));
    let mut world = World::new()?;
    let only = env::var("BALLAST_PAGE").ok();
    for page in pages()?.into_iter().filter(|page| only.as_ref().is_none_or(|only| page == only)) {
        let started = Instant::now();
        follow(&mut world, &page).with_context(|| page.clone())?;
        println!("{page}: {:.1} s", started.elapsed().as_secs_f32());
    }
    Ok(())
}

#[test]
fn what_is_not_run_stands_in_its_page() -> Result<()> {
    for (page, command, _) in NOT_RUN {
        let steps = steps(&read(page)?).context(page)?;
        let has = |action: &Action| matches!(action, Action::Run(found) if found.bare() == command);
        ensure!(steps.iter().any(|step| has(&step.action)), "{page} has no `{command}`");
    }
    for (page, _) in ELSEWHERE {
        // Whoever runs them reads no words behind a block's language.
        let is_plain = |line: &&str| !line.starts_with("```sh ") && !line.starts_with("```console");
        ensure!(read(page)?.lines().all(|line| is_plain(&line)), "{page}");
    }
    Ok(())
}

/// Those with commands, as a reader takes them.
fn pages() -> Result<Vec<String>> {
    let mut pages: BTreeSet<String> = BTreeSet::new();
    for entry in fs::read_dir(root().join("docs"))? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name.ends_with(".md") {
            pages.insert(format!("docs/{name}"));
        }
    }
    pages.retain(|page| ELSEWHERE.iter().all(|(of, _)| of != page) && !FIRST.contains(&page.as_str()));
    let first = FIRST.iter().map(|page| (*page).to_owned());
    let mut wanted = Vec::new();
    for page in first.chain(pages) {
        let steps = steps(&read(&page)?).with_context(|| page.clone())?;
        if steps.iter().any(|step| matches!(step.action, Action::Run(_))) {
            wanted.push(page);
        }
    }
    Ok(wanted)
}

fn follow(world: &mut World, page: &str) -> Result<()> {
    scenes::begin(world, page)?;
    for step in steps(&read(page)?)? {
        let done = match &step.action {
            Action::Write { path, text } => world.write(path, text),
            Action::Insert { below, text } => world.insert(below, text),
            Action::Run(command) => run(world, page, command),
        };
        done.with_context(|| format!("line {}", step.line))?;
    }
    scenes::end(world, page);
    Ok(())
}

fn run(world: &mut World, page: &str, command: &Command) -> Result<()> {
    let bare = command.bare();
    if reason(page, bare).is_some() {
        return Ok(());
    }
    scenes::before(world, page, bare).context("before it")?;
    let text = placed(&command.text);
    if bare.ends_with("ballast run") {
        let _daemon = world.root.spawn(&text)?;
        return scenes::after(world, page, bare);
    }
    let started = Instant::now();
    for output in world.run(&command.on, &text, command.is_interrupted)? {
        is_as_said(command, &output)?;
    }
    scenes::after(world, page, bare).context("after it")?;
    println!("({:.1} s)", started.elapsed().as_secs_f32());
    Ok(())
}

fn is_as_said(command: &Command, output: &Output) -> Result<()> {
    let Output { status, stdout, stderr } = output;
    let printed = format!("{stdout}{stderr}");
    // Whoever wants to write it down runs this with --nocapture.
    println!("$ {}\n{printed}", command.text);
    ensure!(
        status.code() == Some(command.exit),
        "`{}` ended with {status} instead of {}:\n{printed}",
        command.text,
        command.exit
    );
    let found: BTreeSet<_> = printed.lines().map(shape).collect();
    for line in &command.shown {
        ensure!(found.contains(&shape(line)), "`{}` did not print\n{line}\nbut\n{printed}", command.text);
    }
    Ok(())
}

/// A line without what differs from run to run: numbers, and how wide columns are.
fn shape(line: &str) -> String {
    let words = line.split_whitespace().map(|word| {
        let mut shape = String::new();
        for letter in word.chars() {
            match letter {
                '0'..='9' if shape.ends_with('0') => {}
                '0'..='9' => shape.push('0'),
                letter => shape.push(letter),
            }
        }
        shape
    });
    words.collect::<Vec<_>>().join(" ")
}

/// What a page leaves to its reader to put in.
fn placed(text: &str) -> String {
    let text = text.replace("VIP/32", "203.0.113.10/32").replace("VIP/128", "2001:db8::10/128");
    text.replace("via LOAD_BALANCER", "via 10.0.0.1")
}

fn read(page: &str) -> Result<String> {
    let path = root().join(page);
    fs::read_to_string(&path).with_context(|| path.display().to_string())
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}
