//! Percentiles of measured latencies.

use serde::Serialize;

/// Percentiles in milliseconds.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Percentiles {
    /// Half were quicker.
    pub p50_ms: f64,
    /// 95 of 100 were.
    pub p95_ms: f64,
    /// 99 of 100 were.
    pub p99_ms: f64,
}

impl Percentiles {
    /// Percentiles of these microseconds (nearest rank).
    pub fn of(mut micros: Vec<u64>) -> Self {
        micros.sort_unstable();
        let at = |percent: usize| {
            let rank = (micros.len() * percent).div_ceil(100).max(1) - 1;
            micros
                .get(rank)
                .map_or(0.0, |micros| *micros as f64 / 1000.0)
        };
        Percentiles {
            p50_ms: at(50),
            p95_ms: at(95),
            p99_ms: at(99),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearest_rank() {
        let percentiles = Percentiles::of((1..=100).map(|n| n * 1000).collect());
        assert_eq!(
            (percentiles.p50_ms, percentiles.p95_ms, percentiles.p99_ms),
            (50.0, 95.0, 99.0)
        );
        assert_eq!(Percentiles::of(vec![7000]).p99_ms, 7.0);
        assert_eq!(Percentiles::of(Vec::new()).p50_ms, 0.0);
    }
}
