//! Objects: members in the order of their keys' bytes.

use super::Value;

/// The members of a JSON object, unique and sorted by the bytes of their keys.
///
/// A sorted vector, because events have few members and are read far more often than they are changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Object(Vec<(Box<str>, Value)>);

impl Object {
    /// An object without members.
    #[must_use]
    pub fn new() -> Object {
        Object(Vec::new())
    }

    /// Members in the order in which they were read; of equal keys the last one stays.
    pub(super) fn from_unsorted(mut members: Vec<(Box<str>, Value)>) -> Object {
        if !members.is_sorted_by(|a, b| a.0 < b.0) {
            // The sort is stable, so among equal keys the one written last comes last.
            members.sort_by(|a, b| a.0.cmp(&b.0));
            members.dedup_by(|later, earlier| {
                let same = later.0 == earlier.0;
                if same {
                    // `dedup_by` removes `later`; its value is the one to keep.
                    std::mem::swap(later, earlier);
                }
                same
            });
        }
        Object(members)
    }

    fn find(&self, key: &str) -> Result<usize, usize> {
        self.0
            .binary_search_by(|(candidate, _)| (**candidate).cmp(key))
    }

    /// The value of `key`.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.find(key)
            .ok()
            .and_then(|index| self.0.get(index))
            .map(|(_, value)| value)
    }

    /// The value of `key`, to change it.
    pub fn get_mut(&mut self, key: &str) -> Option<&mut Value> {
        self.find(key)
            .ok()
            .and_then(|index| self.0.get_mut(index))
            .map(|(_, value)| value)
    }

    /// Whether there is such a key, also where its value is `null`.
    #[must_use]
    pub fn contains_key(&self, key: &str) -> bool {
        self.find(key).is_ok()
    }

    /// Sets `key` and returns the value it had.
    pub fn insert(&mut self, key: impl Into<Box<str>>, value: impl Into<Value>) -> Option<Value> {
        let (key, value) = (key.into(), value.into());
        // Callers often insert in order.
        if self.0.last().is_none_or(|(last, _)| *last < key) {
            self.0.push((key, value));
            return None;
        }
        match self.find(&key) {
            Ok(index) => self
                .0
                .get_mut(index)
                .map(|(_, present)| std::mem::replace(present, value)),
            Err(index) => {
                self.0.insert(index, (key, value));
                None
            }
        }
    }

    /// Removes `key` and returns its value.
    pub fn remove(&mut self, key: &str) -> Option<Value> {
        self.find(key).ok().map(|index| self.0.remove(index).1)
    }

    /// Members in the order of their keys.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &Value)> + DoubleEndedIterator {
        self.0.iter().map(|(key, value)| (&**key, value))
    }

    /// Keys in order.
    pub fn keys(&self) -> impl ExactSizeIterator<Item = &str> {
        self.0.iter().map(|(key, _)| &**key)
    }

    /// Values in the order of their keys.
    pub fn values(&self) -> impl ExactSizeIterator<Item = &Value> {
        self.0.iter().map(|(_, value)| value)
    }

    /// Number of members.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is no member.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<K: Into<Box<str>>, V: Into<Value>> FromIterator<(K, V)> for Object {
    /// Of equal keys the last one stays.
    fn from_iter<I: IntoIterator<Item = (K, V)>>(members: I) -> Object {
        Object::from_unsorted(
            members
                .into_iter()
                .map(|(key, value)| (key.into(), value.into()))
                .collect(),
        )
    }
}

impl IntoIterator for Object {
    type Item = (Box<str>, Value);
    type IntoIter = std::vec::IntoIter<(Box<str>, Value)>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_equal_keys_the_last_one_stays() {
        let object: Object = [
            ("b", 1_i64),
            ("a", 2),
            ("b", 3),
            ("a", 4),
            ("b", 5),
            ("c", 6),
        ]
        .into_iter()
        .collect();
        assert_eq!(Value::Object(object).to_json(), r#"{"a":4,"b":5,"c":6}"#);
    }

    #[test]
    fn members_are_found_changed_and_removed_in_key_order() {
        let mut object = Object::new();
        for key in ["m", "z", "a", "é", "Z"] {
            assert_eq!(object.insert(key, 1_i64), None);
        }
        assert_eq!(object.keys().collect::<Vec<_>>(), ["Z", "a", "m", "z", "é"]);
        assert_eq!(object.insert("m", 2_i64), Some(Value::from(1_i64)));
        assert_eq!(object.get("m"), Some(&Value::from(2_i64)));
        assert_eq!(object.remove("m"), Some(Value::from(2_i64)));
        assert_eq!(object.remove("m"), None);
        assert!(!object.contains_key("m") && object.contains_key("z"));
        assert_eq!(object.len(), 4);
    }
}
