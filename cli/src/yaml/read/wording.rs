//! Words for what is wrong.

use crate::yaml::scalar::Reading;

pub(super) fn shorten(text: &str) -> String {
    const SHOWN_MAX: usize = 60;
    if text.chars().count() <= SHOWN_MAX {
        return text.to_owned();
    }
    let mut short: String = text.chars().take(SHOWN_MAX).collect();
    short.push('…');
    short
}

pub(super) fn cure(text: &str, kubectl: &Reading, other: &Reading) -> String {
    let mut forms = Vec::new();
    for reading in [kubectl, other] {
        let form = match reading {
            Reading::Bool(value) => value.to_string(),
            Reading::Int(value) => value.to_string(),
            // What is too large for a number can be meant as text only.
            Reading::Float(value) if !value.is_finite() => continue,
            Reading::Float(value) => value.to_string(),
            Reading::Null | Reading::Special | Reading::Text => continue,
        };
        if !forms.contains(&form) {
            forms.push(form);
        }
    }
    match forms.as_slice() {
        [] => format!("write \"{text}\""),
        forms => format!("write {}, or \"{text}\" for the text", forms.join(" or ")),
    }
}

/// What a number becomes as a double, if that has other digits.
pub(super) fn rounded(text: &str, value: f64) -> Option<String> {
    let significant = |text: &str| -> String {
        let mantissa = text.split(['e', 'E']).next().unwrap_or_default();
        let digits: String = mantissa.chars().filter(char::is_ascii_digit).collect();
        digits
            .trim_start_matches('0')
            .trim_end_matches('0')
            .to_owned()
    };
    let other = value.is_finite() && significant(text) != significant(&format!("{value:e}"));
    other.then(|| format!("{value}"))
}

/// What would do, as far as a line that can't be read tells. `column`: where reading ended in it, from 1.
pub(super) fn syntax_hint(error: &str, line: &str, column: usize) -> &'static str {
    let indentation = line.len() - line.trim_start().len();
    if error.contains("tab") || line[..indentation].contains('\t') {
        "; YAML is indented with spaces, not with tabs"
    } else if error.contains("block") && column == indentation + 1 {
        "; is this line indented as far as those above that it belongs with?"
    } else {
        quoting_hint(line)
    }
}

/// Expressions often hold what YAML has a use for; a person who wrote one without quotes is told.
fn quoting_hint(line: &str) -> &'static str {
    let value = line.split_once(": ").map_or("", |(_, value)| value.trim());
    let begins = value.starts_with(['!', '&', '*', '@', '`', '%', '"', '\'', '[', '{', '|', '>']);
    if begins || value.contains(": ") || value.contains(" #") || value.ends_with(':') {
        "; if this line holds an expression or text with one of : # ! & * \" ' { [ in it, put the whole of it in quotes"
    } else {
        ""
    }
}
