//! Connections under churn, overload and attack, on production's own slot, flow and scan code.

use lb_tests::simulation::{Mutation, Outcome, SCENARIOS, Scenario, run};

#[test]
fn no_connection_breaks_in_any_scenario() {
    run_all(8);
}

#[test]
#[ignore = "long: a hundred runs of each scenario"]
fn no_connection_breaks_in_a_hundred_runs_of_any_scenario() {
    run_all(100);
}

fn run_all(runs: u64) {
    for scenario in SCENARIOS {
        let start = std::time::Instant::now();
        for seed in 0..runs {
            let scenario = Scenario { seed, ..*scenario };
            let outcome = run(&scenario, None);
            if seed == 0 {
                println!("{}: {outcome:?}", scenario.name);
            }
            let met = outcome.most_tracked > 0 && outcome.exceptions > 0 && outcome.connections > 1000;
            assert!(outcome.is_clean() && met, "{}, seed {seed}: {outcome:?}", scenario.name);
        }
        println!("{runs} runs in {:?}", start.elapsed());
    }
}

#[test]
fn each_rule_taken_away_breaks_something() {
    let mut harmless = Vec::new();
    for mutation in Mutation::ALL {
        let mut runs =
            (0..3).flat_map(|seed| SCENARIOS.iter().map(move |scenario| Scenario { seed, ..*scenario }));
        let broken = runs.find_map(|scenario| {
            let outcome = run(&scenario, Some(mutation));
            is_noticed(&outcome).then_some((scenario, outcome))
        });
        match broken {
            Some((scenario, outcome)) => {
                println!("{mutation:?} in {}, seed {}: {:?}", scenario.name, scenario.seed, outcome.first);
            }
            None => harmless.push(mutation),
        }
    }
    assert!(harmless.is_empty(), "nobody notices {harmless:?}");
}

const fn is_noticed(outcome: &Outcome) -> bool {
    outcome.broken + outcome.misplaced + outcome.starved > 0
}
