//! A few frames written down byte by byte, in and out. They tie the wire format down to numbers that neither the model
//! nor a frame builder makes: hashes and checksums were computed apart (see `packet_golden.txt`).

use anyhow::{Context, Result, bail, ensure};
use lb_tests::model::{Decision, Verdict};
use lb_tests::packet::fixture::world;
use lb_tests::packet::{World, hex};
use lb_tests::require_root;

const FRAMES: &str = include_str!("packet_golden.txt");

#[test]
fn written_down_frames_leave_as_written_down() -> Result<()> {
    require_root!(Ok(()));
    let mut world = world()?;
    let cases: Vec<_> = FRAMES.split("\n# ").skip(1).collect();
    assert!(cases.len() >= 6, "{} cases", cases.len());
    for case in cases {
        let (description, body) = case.split_once('\n').context("a case has more than a title")?;
        run(&mut world, body).with_context(|| description.to_owned())?;
    }
    world.audit()
}

/// `in` and `out` blocks of hex; the word behind `out` is the verdict.
fn run(world: &mut World, body: &str) -> Result<()> {
    let (input, output) = body.split_once("\nout ").context("a case has an `out`")?;
    let (_comment, input) = input.split_once("in\n").context("a case has an `in`")?;
    let input = bytes(input)?;
    let (verdict, output) = output.split_once('\n').unwrap_or((output, ""));
    let output = bytes(output)?;
    let model = lb_tests::model::decide(&world.state, &input);
    let verdict = match verdict {
        "transmit" => Verdict::Transmit(output),
        "redirect" => Verdict::Redirect(output),
        "pass" => Verdict::Pass,
        _ => bail!("no verdict: {verdict}"),
    };
    ensure!(model.verdict == verdict, "the model says\n{}", describe(&model.verdict));
    world.expect(&input, 0, &Decision { verdict, ..model })
}

fn describe(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Transmit(frame) | Verdict::Redirect(frame) => hex(frame),
        other => format!("{other:?}"),
    }
}

/// Hex with any white space, and comments behind `;`.
fn bytes(text: &str) -> Result<Vec<u8>> {
    let digits: String = text
        .lines()
        .map(|line| line.split(';').next().unwrap_or_default())
        .collect::<String>()
        .split_whitespace()
        .collect();
    ensure!(digits.len().is_multiple_of(2), "half a byte in {digits}");
    (0..digits.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&digits[at..at + 2], 16).with_context(|| digits[at..at + 2].to_owned()))
        .collect()
}
