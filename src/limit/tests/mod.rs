//! The proof of the core, by simulation: many instances, a bad network, a forgetful store, and one who sees everything and holds
//! each admission to the bound. All of it follows from a seed. `TACHO_SIM_SEEDS` says how many seeds to run.
#![expect(
    clippy::as_conversions,
    clippy::float_arithmetic,
    reason = "a simulation may measure and roll dice as it likes"
)]

mod books;
mod chaos;
mod dice;
mod liveness;
mod plan;
mod promises;
mod protocol;
mod room;
mod single;
mod weather;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;

use super::config::Rules;
use super::rule::Rule;

/// Rules as they stand in the configuration.
fn rules(text: &str) -> Vec<Arc<Rule>> {
    #[derive(serde::Deserialize)]
    struct Section {
        limit: Rules,
    }
    let section: Section = toml::from_str(text).unwrap_or_else(|error| panic!("{error}\n{text}"));
    section.limit.0.into_iter().map(Arc::new).collect()
}

/// Runs a world for each seed; a failure names its seed. `TACHO_SIM_SEED` runs that one alone.
fn for_seeds(few: u64, mut run: impl FnMut(u64)) {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
    let seeds = match number("TACHO_SIM_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("TACHO_SIM_SEEDS").unwrap_or(few),
    };
    for seed in seeds {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| run(seed))) {
            tell(&format!("failed with TACHO_SIM_SEED={seed}"));
            resume_unwind(panic);
        }
    }
}

#[expect(clippy::print_stderr, reason = "a test says with which seed it failed, and what it measured")]
fn tell(text: &str) {
    eprintln!("{text}");
}
