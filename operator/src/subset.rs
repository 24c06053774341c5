//! Whether what is there already says everything that is wanted: then nothing is written.
//!
//! The API server adds defaults to what is applied, and other controllers add fields of their own. So an object is as wanted when every
//! field that is wanted has the value wanted; lists are compared place by place.

use serde_json::Value;

/// Whether `present` says everything that `wanted` says.
pub fn says(present: &Value, wanted: &Value) -> bool {
    match (present, wanted) {
        // Nothing is asked of it, and what is empty may be left out.
        (_, Value::Null) => true,
        (Value::Null, wanted) => is_empty(wanted),
        (Value::Object(present), Value::Object(wanted)) => wanted.iter().all(|(key, wanted)| {
            let present = present.get(key).unwrap_or(&Value::Null);
            says(present, wanted)
        }),
        (Value::Array(present), Value::Array(wanted)) => {
            present.len() == wanted.len()
                && present
                    .iter()
                    .zip(wanted)
                    .all(|(present, wanted)| says(present, wanted))
        }
        (present, wanted) => present == wanted,
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(values) => values.is_empty(),
        Value::Object(fields) => fields.values().all(is_empty),
        Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn defaults_and_others_fields_are_no_difference() {
        for (present, wanted, expected) in [
            (json!({"a": 1, "b": 2}), json!({"a": 1}), true),
            (json!({"b": 2}), json!({"a": 1}), false),
            (json!({"a": 2}), json!({"a": 1}), false),
            (
                json!({}),
                json!({"a": null, "b": {}, "c": [], "d": {"e": {}}}),
                true,
            ),
            (json!({}), json!({"a": false}), false),
            (
                json!({"a": [{"x": 1, "y": 2}]}),
                json!({"a": [{"x": 1}]}),
                true,
            ),
            (json!({"a": [1, 2]}), json!({"a": [1]}), false),
            (json!({"a": []}), json!({"a": [1]}), false),
        ] {
            assert_eq!(says(&present, &wanted), expected, "{present} {wanted}");
        }
    }

    proptest! {
        /// What was applied is as wanted, whatever fields are added to objects.
        #[test]
        fn what_is_there_says_itself(keys in proptest::collection::vec("[a-c]{1,2}", 0..6), added in "[x-z]{1,2}") {
            let mut wanted = json!(1);
            for key in &keys {
                wanted = json!({ key: wanted, "list": [wanted] });
            }
            prop_assert!(says(&wanted, &wanted));
            let mut present = wanted.clone();
            if let Some(object) = present.as_object_mut() {
                object.insert(added, json!("default"));
            }
            prop_assert!(says(&present, &wanted));
        }
    }
}
