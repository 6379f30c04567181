//! Text that is committed and has to be what the code makes of it now.

use std::{env, fs, path::PathBuf};

/// Set to write down what the code makes now.
const UPDATE: &str = "BALLAST_UPDATE_SNAPSHOT";

/// Compares a whole file of the repository with `found`.
pub(crate) fn check(path: &str, found: &str) {
    let committed = fs::read_to_string(place(path)).unwrap_or_default();
    compare(path, &committed, found, found);
}

/// Compares the block of a page between ` ```text ` after the line `<!-- NAME -->` and its end with `found`.
pub(crate) fn check_part(path: &str, name: &str, found: &str) {
    let page = fs::read_to_string(place(path)).unwrap_or_default();
    let begin = format!("<!-- {name} -->\n```text\n");
    let parts = page.split_once(&begin).and_then(|(before, rest)| Some((before, rest.split_once("```\n")?)));
    let (before, (committed, after)) =
        parts.unwrap_or_else(|| panic!("{path} has no block after <!-- {name} -->"));
    compare(path, committed, found, &format!("{before}{begin}{found}```\n{after}"));
}

fn compare(path: &str, committed: &str, found: &str, page: &str) {
    if committed == found {
        return;
    }
    if env::var_os(UPDATE).is_some() {
        let path = place(path);
        let directory = path.parent().expect("a file is in a directory");
        fs::create_dir_all(directory).expect("make the directory of a snapshot");
        fs::write(&path, page).expect("write a snapshot");
        return;
    }
    let same = committed.lines().zip(found.lines()).take_while(|(old, new)| old == new);
    let differing = same.count();
    let line = |text: &str| text.lines().nth(differing).unwrap_or("(nothing)").to_owned();
    panic!(
        "{path} is not what the code makes: look at the difference and run this test with {UPDATE}=1\n\
         line {}\n-{}\n+{}",
        differing + 1,
        line(committed),
        line(found)
    );
}

fn place(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}
