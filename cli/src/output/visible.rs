//! Text that came from outside, as a person may see it.

use std::borrow::Cow;

/// The same text with everything written out that would steer a terminal, begin a line or turn the order of what follows: `\n`,
/// `\u{1b}`, `\u{202e}`.
pub(crate) fn visible(text: &str) -> Cow<'_, str> {
    if !text.contains(steers) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 8);
    for character in text.chars() {
        if steers(character) {
            shown.extend(character.escape_default());
        } else {
            shown.push(character);
        }
    }
    Cow::Owned(shown)
}

fn steers(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_steers_a_terminal_is_written_out() {
        for (text, shown) in [
            ("a\u{1b}[31mb\u{7}\u{7f}", r"a\u{1b}[31mb\u{7}\u{7f}"),
            ("\u{9b}31m\u{85}", r"\u{9b}31m\u{85}"),
            ("one\r\n\ttwo", r"one\r\n\ttwo"),
            (
                "\u{202a}\u{202e}\u{2066}\u{2069}",
                r"\u{202a}\u{202e}\u{2066}\u{2069}",
            ),
            ("\u{2028}\u{2029}", r"\u{2028}\u{2029}"),
        ] {
            assert_eq!(visible(text), shown);
        }
        let harmless = "a\\b \"ä\" 日本 שלום e\u{301} \u{2027}\u{202f}\u{2065}\u{206a}";
        assert!(matches!(visible(harmless), Cow::Borrowed(same) if same == harmless));
    }
}
