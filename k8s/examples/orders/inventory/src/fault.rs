//! Faults on request, for tests of those who call a participant. All are off unless switched on.

use std::collections::HashMap;
use std::time::Duration;

#[derive(clap::Args)]
#[command(next_help_heading = "Faults, for tests (off by default)")]
pub(crate) struct FaultArgs {
    /// Share of attempts answered 503 with nothing done, 0 to 1
    #[arg(long, default_value_t = 0.0, value_parser = rate, value_name = "0..1")]
    fail_rate: f64,
    /// Share of attempts whose work is done and whose answer is lost, 0 to 1
    #[arg(long, default_value_t = 0.0, value_parser = rate, value_name = "0..1")]
    drop_rate: f64,
    /// Do the work, answer so much later, in milliseconds
    #[arg(long, default_value_t = 0, value_name = "MS")]
    delay_ms: u64,
    /// Which attempts are hit
    #[arg(long, default_value_t = 0, value_name = "N")]
    fault_seed: u64,
}

fn rate(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(rate) if (0.0..=1.0).contains(&rate) => Ok(rate),
        _ => Err("expected a number from 0 to 1".into()),
    }
}

/// What goes wrong with one attempt.
#[derive(Debug, PartialEq)]
pub(crate) struct Fault {
    pub(crate) fail: bool,
    pub(crate) drop: bool,
    pub(crate) delay: Duration,
}

/// Decides by seed, command id and how often that id was seen in this process, so that the same run fails
/// in the same places whatever the order of requests.
pub(crate) struct Faults {
    fail_rate: f64,
    drop_rate: f64,
    delay: Duration,
    seed: u64,
    attempts: HashMap<String, u64>,
}

impl Faults {
    pub(crate) fn new(args: &FaultArgs) -> Self {
        Self {
            fail_rate: args.fail_rate,
            drop_rate: args.drop_rate,
            delay: Duration::from_millis(args.delay_ms),
            seed: args.fault_seed,
            attempts: HashMap::new(),
        }
    }

    pub(crate) fn next(&mut self, command: &str) -> Fault {
        let mut fault = Fault {
            fail: false,
            drop: false,
            delay: self.delay,
        };
        if self.fail_rate > 0.0 || self.drop_rate > 0.0 {
            let attempt = self.attempts.entry(command.to_owned()).or_default();
            *attempt += 1;
            let roll = |kind| share(&format!("{}/{kind}/{command}/{attempt}", self.seed));
            fault.fail = roll("fail") < self.fail_rate;
            fault.drop = roll("drop") < self.drop_rate;
        }
        fault
    }
}

/// A number from 0 to 1 that looks random and depends on the text alone: FNV-1a, then the finisher of
/// SplitMix64, because FNV's high bits hardly move for texts that differ at their end.
fn share(text: &str) -> f64 {
    let mut hash = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^= hash >> 31;
    // 53 bits are what a double holds exactly.
    (hash >> 11) as f64 / (1_u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(seed: u64) -> Faults {
        Faults {
            fail_rate: 0.3,
            drop_rate: 0.1,
            delay: Duration::ZERO,
            seed,
            attempts: HashMap::new(),
        }
    }

    #[test]
    fn the_same_seed_hits_the_same_attempts_at_about_the_rate() {
        let run = |seed| {
            let mut faults = faults(seed);
            (0..2000)
                .map(|n| faults.next(&format!("command/{}", n % 500)))
                .collect::<Vec<_>>()
        };
        let first = run(7);
        assert_eq!(first, run(7));
        assert_ne!(first, run(8));
        let failed = first.iter().filter(|fault| fault.fail).count();
        assert!((500..700).contains(&failed), "{failed} of 2000 at 0.3");
    }
}
