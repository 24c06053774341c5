//! What Kubernetes takes for keys of labels and annotations, and for values of labels.

use std::ops::RangeInclusive;

/// Characters of the name in a key, and of a label's value.
const NAME: RangeInclusive<usize> = 1..=63;

/// Characters of the part of a key before its `/`: a DNS name.
const PREFIX: RangeInclusive<usize> = 1..=253;

/// Most bytes of all annotations of a resource, keys included.
pub(super) const ANNOTATIONS_BYTES_MAX: usize = 256 * 1024;

/// What a key must be, unless it is.
pub(super) fn wrong_key(key: &str) -> Option<&'static str> {
    let (prefix, name) = match key.split_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, key),
    };
    if prefix.is_none_or(is_dns_name) && is_name(name) {
        return None;
    }
    Some(
        "no key that Kubernetes takes: at most 63 letters, digits, `-`, `_` and `.`, beginning and ending with a letter or digit, such as `team`; before it there may be a DNS name in lower case and a `/`, such as `example.com/team`",
    )
}

/// What a label's value must be, unless it is.
pub(super) fn wrong_value(value: &str) -> Option<&'static str> {
    if value.is_empty() || is_name(value) {
        return None;
    }
    Some(
        "no value that Kubernetes takes for a label: empty, or at most 63 letters, digits, `-`, `_` and `.`, beginning and ending with a letter or digit; what is longer or has spaces is an annotation",
    )
}

fn is_name(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    NAME.contains(&text.len()) && text.bytes().all(inner) && has_ends(text)
}

fn is_dns_name(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let is_part = |part: &str| has_ends(part) && part.bytes().all(inner);
    PREFIX.contains(&text.len()) && text.split('.').all(is_part)
}

/// Whether it begins and ends with a letter or digit.
fn has_ends(text: &str) -> bool {
    let ends = [text.as_bytes().first(), text.as_bytes().last()];
    ends.iter()
        .all(|end| end.is_some_and(u8::is_ascii_alphanumeric))
}
