//! Where YAML 1.2 (which our parser reads) and kubectl's reader part: whatever they don't read alike is refused. Most of it was found by
//! giving random documents to both.

use super::wording::shorten;
use super::{Reader, place};
use crate::yaml::{Place, Problem};
use granit_parser::{ScalarStyle, Span, StructureStyle, Tag};

/// What YAML 1.1 counts as not printable; kubectl refuses the whole file for it.
pub(super) fn forbidden_character(text: &str) -> Option<Problem> {
    let allowed = |c: char| {
        matches!(c, '\t' | '\n' | '\r' | '\u{85}' | '\u{20}'..='\u{7e}' | '\u{a0}'..='\u{fffd}' | '\u{10000}'..)
            && c != '\u{feff}'
    };
    let (at, character) = text.char_indices().find(|(_, c)| !allowed(*c))?;
    let before = text.get(..at).unwrap_or_default();
    let line = before.matches('\n').count() + 1;
    let column = before
        .rsplit('\n')
        .next()
        .unwrap_or_default()
        .chars()
        .count()
        + 1;
    let code = u32::from(character);
    Some(Problem {
        place: Place { line, column },
        path: String::new(),
        message: format!(
            "character U+{code:04X} may not stand in YAML; write it as an escape in double quotes, or remove it"
        ),
    })
}

/// kubectl cuts a file into documents by lines, before it reads any YAML.
pub(super) fn separator_with_content(text: &str) -> Option<Problem> {
    let with_content = |line: &str| {
        let rest = line.strip_prefix("---").map(str::trim);
        rest.is_some_and(|rest| !rest.is_empty() && !rest.starts_with('#'))
    };
    let line = text.lines().position(with_content)? + 1;
    Some(Problem {
        place: Place { line, column: 1 },
        path: String::new(),
        message: "a line that begins with `---` parts documents and may hold nothing else; put the rest into the next line".to_owned(),
    })
}

impl Reader<'_> {
    pub(super) fn refuse_tag(&mut self, place: Place, tag: Option<&Tag>, natural: &str) {
        if let Some(tag) = tag.filter(|tag| tag.core_suffix() != Some(natural)) {
            let shown = shorten(&tag.original());
            self.problem(
                place,
                format!(
                    "YAML takes `{shown}` for a tag, not for text; put the whole value in quotes"
                ),
            );
        }
    }

    /// Syntax that YAML 1.2 allows and kubectl's reader refuses or understands otherwise; found by comparing both on random files.
    pub(super) fn refuse_what_only_1_2_has(&mut self, text: &str, style: ScalarStyle, span: &Span) {
        let place = place(&span.start);
        if matches!(style, ScalarStyle::Literal | ScalarStyle::Folded) {
            // From the line of the `|` to the last one of the text.
            for line in span.start.line().saturating_sub(1).max(1)..span.end.line() {
                self.refuse_tab_before(Place {
                    line,
                    column: usize::MAX,
                });
            }
        } else {
            self.refuse_tab_before(place);
        }
        let flow = self
            .frames
            .last()
            .is_some_and(|frame| frame.style == StructureStyle::Flow);
        let message = if style == ScalarStyle::DoubleQuoted
            && span.slice(self.text).is_some_and(escapes_a_slash)
        {
            "YAML 1.1 has no escape `\\/`; write `/`"
        } else if self.wants_key() && span.end.line() > span.start.line() {
            "a key must stand in one line"
        } else if flow && style == ScalarStyle::Plain && span.is_empty() {
            "a value is missing here; write null if that is meant"
        } else if flow
            && style == ScalarStyle::Plain
            && (text.starts_with(':') || text.contains(" :") || text.contains(":#"))
        {
            "unquoted text in braces or brackets may not begin with `:` nor hold ` :` or `:#`; put it in quotes"
        } else if flow && style == ScalarStyle::Plain && text.ends_with(" ?") {
            "unquoted text in braces or brackets may not hold ` ?` before a comma; put it in quotes"
        } else {
            return;
        };
        self.problem(place, message.to_owned());
    }

    pub(super) fn refuse_tab_before(&mut self, place: Place) {
        let line = self
            .lines
            .get(place.line.saturating_sub(1))
            .copied()
            .unwrap_or_default();
        let before = line.chars().take(place.column.saturating_sub(1));
        let mut indentation = before.take_while(|c| matches!(c, ' ' | '\t' | '-' | '?' | ':'));
        if let Some(column) = indentation.position(|c| c == '\t') {
            let place = Place {
                line: place.line,
                column: column + 1,
            };
            self.problem(
                place,
                "a tab may not indent anything in YAML; use spaces".to_owned(),
            );
        }
    }

    pub(super) fn check_anchor_name(&mut self, place: Place, name: &str) {
        if !name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'))
        {
            let name = shorten(name);
            self.problem(place, format!("the anchor `{name}` is not read alike everywhere; use letters, digits, `_` and `-`"));
        }
    }
}

fn escapes_a_slash(quoted: &str) -> bool {
    let mut escaped = false;
    quoted.chars().any(|c| {
        let found = escaped && c == '/';
        escaped = !escaped && c == '\\';
        found
    })
}

/// `!!str` and the lone `!` both say: text.
pub(super) fn is_text_tag(tag: &Tag) -> bool {
    tag.core_suffix() == Some("str") || tag.original() == "!"
}
