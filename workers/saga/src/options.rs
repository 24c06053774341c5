//! What may be set about how a saga's worker works.

use std::time::Duration;

/// What may be set about how a worker works; nothing here changes what becomes of its instances.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Options {
    /// Instances running in this worker beyond which none are started from streams, and at twice as many none by request: memory and
    /// participants have limits. What is on its way by then (some 1,000) still starts. 20,000.
    pub running_max: u64,
    /// How often it is looked whether a stream is on a request's subject. A minute.
    pub look_interval: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            running_max: 20_000,
            look_interval: Duration::from_secs(60),
        }
    }
}

impl Options {
    /// With so many instances that may run.
    #[must_use]
    pub fn with_running_max(mut self, instances: u64) -> Self {
        self.running_max = instances;
        self
    }

    /// With another time between two looks at the subjects of requests.
    #[must_use]
    pub fn with_look_interval(mut self, interval: Duration) -> Self {
        self.look_interval = interval;
        self
    }
}
