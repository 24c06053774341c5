//! The worker with a bug planted everywhere in it, as `PLANTED_BUG` says (empty or absent: none). Tests run it; it is in no image.

#[path = "main.rs"]
mod worker;

use std::process::ExitCode;
use tidemill_core::planted::{Bug, plant_everywhere};

fn main() -> ExitCode {
    let name = std::env::var("PLANTED_BUG").unwrap_or_default();
    match Bug::named(&name) {
        Some(bug) => plant_everywhere(bug),
        None if name.is_empty() => {}
        None => {
            eprintln!("tidemill-worker-planted: there is no bug {name}");
            return ExitCode::FAILURE;
        }
    }
    worker::main()
}
