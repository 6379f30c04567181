use crate::config::{
    key::{Key, List},
    reference::Section,
    report::{Report, Wrong},
    table::Table,
    values,
};

/// A program, by its absolute path, and its arguments.
pub(super) fn read(table: &mut Table<'_>, report: &mut Report<'_>) -> Option<Vec<String>> {
    let item = table.require(&COMMAND, report)?;
    if !item.is_array() {
        item.array(HINT, report);
        return None;
    }
    let elements = item.array(HINT, report);
    let Some((program, arguments)) = elements.split_first() else {
        report.error(item.place, Wrong::new("`command` is empty", HINT));
        return None;
    };
    if arguments.len() > MAX_ARGUMENTS {
        let message = format!("`command` has {} arguments", arguments.len());
        report.error(item.place, Wrong::new(message, format!("at most {MAX_ARGUMENTS}")));
        return None;
    }
    let program = program.parse(report, values::path).map(|path| path.value.display().to_string());
    let mut command = vec![program];
    for argument in arguments {
        command.push(argument.parse(report, values::printable(0..=1024)).map(|argument| argument.value));
    }
    command.into_iter().collect()
}

const HINT: &str = "a program and its arguments, such as [\"/usr/lib/ballast/check\", \"--fast\"]";
const MAX_ARGUMENTS: usize = 64;

pub(in crate::config) const EXEC: Section = Section { heading: "### `exec`", says: "", keys: &[&COMMAND] };

const COMMAND: Key<List> = Key {
    name: "command",
    takes: List("1 to 65 texts"),
    default: "required",
    means: "a program, by its absolute path, and its arguments: `[\"/usr/lib/ballast/check\", \"--fast\"]`",
};
