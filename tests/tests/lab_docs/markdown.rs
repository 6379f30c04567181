//! What a page asks its reader to do.

use anyhow::{Context, Result, bail, ensure};

/// Something to do, and the line of the page that says so.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Step {
    pub(super) line: usize,
    pub(super) action: Action,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// Write a file.
    Write {
        path: String,
        text: String,
    },
    /// Add lines to the file that was written last, below a line of it.
    Insert {
        below: String,
        text: String,
    },
    Run(Command),
}

#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Command {
    /// `web-1`, `backends`, `client`; empty is the load balancer.
    pub(super) on: String,
    /// For the shell, with what its block has set before it.
    pub(super) text: String,
    /// How it has to end.
    pub(super) exit: i32,
    pub(super) is_interrupted: bool,
    /// Lines that it has to print.
    pub(super) shown: Vec<String>,
}

impl Command {
    /// Without what the page says about it.
    pub(super) fn bare(&self) -> &str {
        self.text.split(" # ").next().unwrap_or_default().trim_end()
    }
}

struct Block<'a> {
    /// Of the first line in it.
    line: usize,
    language: &'a str,
    words: Vec<&'a str>,
    lines: Vec<&'a str>,
}

/// Everything a page asks for, in its order.
pub(super) fn steps(page: &str) -> Result<Vec<Step>> {
    let mut steps = Vec::new();
    for block in blocks(page)? {
        let at = block.line;
        block.read(&mut steps).with_context(|| format!("the block at line {at}"))?;
    }
    Ok(steps)
}

fn blocks(page: &str) -> Result<Vec<Block<'_>>> {
    let mut blocks = Vec::new();
    let mut open: Option<Block> = None;
    for (number, line) in (1..).zip(page.lines()) {
        match (line.trim_start().strip_prefix("```"), &mut open) {
            (Some(_), Some(_)) => blocks.extend(open.take()),
            (Some(info), None) => {
                let mut words = info.split_whitespace();
                let language = words.next().unwrap_or_default();
                open = Some(Block { line: number + 1, language, words: words.collect(), lines: Vec::new() });
            }
            (None, Some(block)) => block.lines.push(line),
            (None, None) => {}
        }
    }
    ensure!(open.is_none(), "the last block does not end");
    Ok(blocks)
}

impl Block<'_> {
    fn read(&self, steps: &mut Vec<Step>) -> Result<()> {
        match self.language {
            "sh" => self.commands(steps),
            "console" => self.session(steps),
            "toml" => self.file(steps),
            "" | "text" | "sql" | "json" | "yaml" | "ini" => {
                let is_command =
                    |line: &&&str| ["$ ", "sudo ", "ballast "].iter().any(|word| line.starts_with(word));
                // The screens and the help of the program begin with its name, too.
                match self.lines.iter().find(|line| is_command(line) && self.language != "text") {
                    Some(line) => bail!("`{line}` is a command: name the block `sh` or `console`"),
                    None => Ok(()),
                }
            }
            other => bail!("a block of `{other}`: commands are in `sh` and `console`"),
        }
    }

    fn word(&self, name: &str) -> Option<&str> {
        self.words.iter().find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
    }

    fn command(&self, text: String) -> Result<Command> {
        let exit = match text.split_once("# exit code ").map(|(_, rest)| rest.split_once(": ")) {
            Some(Some((code, _))) => code.parse().with_context(|| format!("the exit code of `{text}`"))?,
            _ => 0,
        };
        Ok(Command { on: self.word("on").unwrap_or_default().to_owned(), text, exit, ..Command::default() })
    }

    fn commands(&self, steps: &mut Vec<Step>) -> Result<()> {
        // Variables that later commands of the block go by.
        let mut set = String::new();
        let mut lines = (self.line..).zip(&self.lines);
        while let Some((line, first)) = lines.next() {
            let mut text = (*first).to_owned();
            while text.ends_with('\\') {
                let (_, next) = lines.next().context("the last command does not end")?;
                text = format!("{text}\n{next}");
            }
            if text.trim().is_empty() || text.starts_with('#') {
                continue;
            }
            let name = text.split_once('=').map_or("", |(name, _)| name);
            if !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_lowercase()) && !text.contains(' ') {
                set = format!("{set}{text}\n");
                continue;
            }
            let action = Action::Run(self.command(format!("{set}{text}"))?);
            steps.push(Step { line, action });
        }
        Ok(())
    }

    fn session(&self, steps: &mut Vec<Step>) -> Result<()> {
        let is_example = self.words.contains(&"example");
        let mut commands: Vec<(usize, Command)> = Vec::new();
        for (line, text) in (self.line..).zip(&self.lines) {
            if let Some(text) = text.strip_prefix("$ ") {
                commands.push((line, self.command(text.to_owned())?));
                continue;
            }
            let (_, command) = commands.last_mut().context("it begins with what no command has printed")?;
            command.is_interrupted |= text.contains("^C");
            let shown = text.replace("^C", "");
            if !is_example && !shown.trim().is_empty() {
                command.shown.push(shown);
            }
        }
        steps.extend(commands.into_iter().map(|(line, command)| Step { line, action: Action::Run(command) }));
        Ok(())
    }

    fn file(&self, steps: &mut Vec<Step>) -> Result<()> {
        let text = self.lines.join("\n") + "\n";
        let action = match (self.word("file"), self.word("into")) {
            (Some(path), None) => Action::Write { path: path.to_owned(), text },
            (None, Some(below)) => Action::Insert { below: below.to_owned(), text },
            (None, None) => return Ok(()),
            (Some(_), Some(_)) => bail!("it can't be a file and go into one"),
        };
        steps.push(Step { line: self.line, action });
        Ok(())
    }
}

#[test]
fn a_page_is_read_as_its_writer_meant_it() {
    let page = "text\n```sh on=backends\n# why\nip link  # exit code 3: since\ncaps=+all\nsetpriv $caps \\\n  true\n```\n\
                ```toml file=/a into\nx = 1\n```\n```toml into=[[service]]\ny = 2\n```\n```toml\nz = 3\n```\n\
                ```console\n$ one # 1\na 1\n\n$ two\n^C\n```\n```console example\n$ three\nb\n```\n```text\nballast  revision 1\n```\n";
    let run = |line, on: &str, text: &str, exit, is_interrupted, shown: &[&str]| {
        let (on, text) = (on.to_owned(), text.to_owned());
        let shown = shown.iter().map(|line| (*line).to_owned()).collect();
        Step { line, action: Action::Run(Command { on, text, exit, is_interrupted, shown }) }
    };
    let expected = [
        run(4, "backends", "ip link  # exit code 3: since", 3, false, &[]),
        run(6, "backends", "caps=+all\nsetpriv $caps \\\n  true", 0, false, &[]),
        Step { line: 10, action: Action::Write { path: "/a".into(), text: "x = 1\n".into() } },
        Step { line: 13, action: Action::Insert { below: "[[service]]".into(), text: "y = 2\n".into() } },
        run(19, "", "one # 1", 0, false, &["a 1"]),
        run(22, "", "two", 0, true, &[]),
        run(26, "", "three", 0, false, &[]),
    ];
    let found = steps(page).expect("a page");
    assert_eq!(found, expected);
    let Action::Run(first) = &found[0].action else { panic!("{found:?}") };
    assert_eq!(first.bare(), "ip link");
    for wrong in
        ["```bash\nls\n```", "```\n$ ls\n```", "```sh\nls\n", "```console\nprinted\n```", "```sh\nls \\\n```"]
    {
        assert!(steps(wrong).is_err(), "{wrong}");
    }
}
