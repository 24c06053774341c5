//! What happens in JetStream without a word to us: all streams are listed every now and then, in pages, and compared with the last time.
//! One operator asks little, however many resources there are.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;
use tidemill_nats::{ApiError, Nats, StreamState};

/// How often all streams are listed. Servers also tell of changes at once (advisories); this finds what was told while nobody listened.
pub const INTERVAL: Duration = Duration::from_secs(10);

/// What is different about a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Difference {
    /// It came, went, was made anew, or has other settings.
    Settings,
    /// It has other messages.
    Figures,
}

/// What is remembered of each stream: digests, not the streams.
#[derive(Clone, Debug, Default)]
pub struct Sightings(HashMap<String, Sighting>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Sighting {
    settings: u64,
    figures: u64,
}

impl Sighting {
    fn of(stream: &StreamState) -> Sighting {
        // Compared within this process only.
        let digest = |what: &dyn Fn(&mut DefaultHasher)| {
            let mut hasher = DefaultHasher::new();
            what(&mut hasher);
            hasher.finish()
        };
        Sighting {
            settings: digest(&|hasher| {
                (&stream.incarnation, stream.created.to_string()).hash(hasher);
                stream.config.to_string().hash(hasher);
            }),
            figures: digest(&|hasher| {
                (stream.messages, stream.bytes, stream.first, stream.last).hash(hasher);
            }),
        }
    }
}

impl Sightings {
    /// Remembers these.
    pub fn of<'a>(streams: impl IntoIterator<Item = &'a StreamState>) -> Sightings {
        let streams = streams.into_iter();
        Sightings(
            streams
                .map(|stream| (stream.name.clone(), Sighting::of(stream)))
                .collect(),
        )
    }

    /// What is different now, by the streams' names.
    pub fn differences(&self, now: &Sightings) -> Vec<(String, Difference)> {
        let gone = self.0.keys().filter(|name| !now.0.contains_key(*name));
        let gone = gone.map(|name| (name.clone(), Difference::Settings));
        let here = now.0.iter().filter_map(|(name, sighting)| {
            let difference = match self.0.get(name) {
                Some(before) if before == sighting => return None,
                Some(before) if before.settings == sighting.settings => Difference::Figures,
                _ => Difference::Settings,
            };
            Some((name.clone(), difference))
        });
        gone.chain(here).collect()
    }
}

/// Lists all streams of the account.
///
/// # Errors
/// [`ApiError`]: a page can't be had. Nothing is known then.
pub async fn survey(nats: &Nats) -> Result<Sightings, ApiError> {
    let mut all = Sightings::default();
    let mut offset = 0;
    loop {
        let page = nats.streams_from(offset).await?;
        if page.is_empty() {
            return Ok(all);
        }
        offset += page.len();
        all.0.extend(Sightings::of(&page).0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use tidemill_core::timestamp::Timestamp;

    fn stream(name: &str, incarnation: &str, limit: u64, last: u64) -> StreamState {
        StreamState {
            name: name.to_owned(),
            incarnation: incarnation.to_owned(),
            created: Timestamp::from_millis(0),
            first: 1,
            last,
            messages: last,
            bytes: last * 100,
            subjects_count: 1,
            last_stored_at: Timestamp::from_millis(0),
            server_time: None,
            config: json!({"max_msgs": limit}),
        }
    }

    #[test]
    fn what_came_went_or_changed_is_told_and_nothing_else() {
        let before = Sightings::of(&[
            stream("same", "1", 1, 1),
            stream("grown", "1", 1, 1),
            stream("changed", "1", 1, 1),
            stream("anew", "1", 1, 1),
            stream("gone", "1", 1, 1),
        ]);
        let now = Sightings::of(&[
            stream("same", "1", 1, 1),
            stream("grown", "1", 1, 2),
            stream("changed", "1", 2, 2),
            stream("anew", "2", 1, 1),
            stream("new", "1", 1, 1),
        ]);
        let mut differences = before.differences(&now);
        differences.sort_by(|a, b| a.0.cmp(&b.0));
        let differences: Vec<(&str, Difference)> = differences
            .iter()
            .map(|(name, difference)| (name.as_str(), *difference))
            .collect();
        assert_eq!(
            differences,
            [
                ("anew", Difference::Settings),
                ("changed", Difference::Settings),
                ("gone", Difference::Settings),
                ("grown", Difference::Figures),
                ("new", Difference::Settings),
            ]
        );
        assert!(now.differences(&now).is_empty());
    }
}
