//! The source as tokens: bounds that must hold before the parser may recurse, and places for errors.
//!
//! The parser's tree carries no places, so errors about names look their place up here: the tree is walked in the order of the source, and
//! the n-th use of a name is the n-th token of that name.

use cel::parser::pratt_parser::{Lexer, TokenKind};

use super::error::{CompileError, Position, Problem};
use super::{NESTING_MAX, SOURCE_MAX, TOKENS_MAX};

/// Most `?` of a source: the parser recurses with each.
const TERNARIES_MAX: usize = 32;

/// Names of a source and where they stand.
pub(super) struct Source<'a> {
    text: &'a str,
    names: Vec<Name<'a>>,
}

struct Name<'a> {
    text: &'a str,
    start: usize,
    use_: Use,
    /// Already found by a walk.
    seen: bool,
}

/// How a name is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Use {
    Variable,
    Function,
    Field,
    /// No name, but the `{` of a map literal.
    Map,
}

impl<'a> Source<'a> {
    /// Reads the tokens of `text`.
    pub(super) fn new(text: &'a str) -> Result<Source<'a>, CompileError> {
        let mut source = Source {
            text,
            names: Vec::new(),
        };
        if text.len() > SOURCE_MAX {
            return Err(source.error(0, Problem::TooLarge("more than 4,096 bytes")));
        }
        let mut lexer = Lexer::new(text);
        let (mut tokens, mut nesting, mut ternaries) = (0, 0_usize, 0);
        let mut previous = TokenKind::TokEnd;
        loop {
            let token = lexer.lex();
            let at = token.start;
            match token.kind {
                TokenKind::TokEnd => break,
                TokenKind::TokWhitespace | TokenKind::TokComment => continue,
                // The parser would slice here, also within a character.
                TokenKind::TokError => {
                    let message = lexer.get_error().map_or_else(
                        || "unexpected character".to_owned(),
                        |error| error.message.clone(),
                    );
                    return Err(source.error(at, Problem::Syntax(message)));
                }
                TokenKind::TokLeftParen | TokenKind::TokLeftBracket | TokenKind::TokLeftBrace => {
                    nesting += 1
                }
                TokenKind::TokRightParen
                | TokenKind::TokRightBracket
                | TokenKind::TokRightBrace => nesting = nesting.saturating_sub(1),
                TokenKind::TokQuestion => ternaries += 1,
                TokenKind::TokUint => {
                    return Err(source.error(at, Problem::NotInThisVersion("unsigned numbers")));
                }
                TokenKind::TokBytes => {
                    return Err(source.error(at, Problem::NotInThisVersion("bytes")));
                }
                TokenKind::TokEqual => {
                    return Err(source.error(
                        at,
                        Problem::Syntax(
                            "a single `=` means nothing here; `==` compares".to_owned(),
                        ),
                    ));
                }
                _ => {}
            }
            if token.kind == TokenKind::TokLeftBrace
                && matches!(previous, TokenKind::TokIdent | TokenKind::TokReservedWord)
            {
                return Err(source.error(at, Problem::NotInThisVersion("messages")));
            }
            let name = text.get(token.start..token.end).unwrap_or_default();
            match token.kind {
                TokenKind::TokIdent if name.starts_with('`') => {
                    return Err(source.error(
                        at,
                        Problem::Syntax(
                            "names in backticks aren't known; write a['b-c']".to_owned(),
                        ),
                    ));
                }
                TokenKind::TokIdent => {
                    let use_ = if previous == TokenKind::TokDot {
                        Use::Field
                    } else {
                        Use::Variable
                    };
                    source.names.push(Name {
                        text: name,
                        start: at,
                        use_,
                        seen: false,
                    });
                }
                TokenKind::TokLeftBrace => source.names.push(Name {
                    text: name,
                    start: at,
                    use_: Use::Map,
                    seen: false,
                }),
                TokenKind::TokLeftParen if previous == TokenKind::TokIdent => {
                    if let Some(function) = source.names.last_mut() {
                        function.use_ = Use::Function;
                    }
                }
                _ => {}
            }
            previous = token.kind;
            tokens += 1;
            if tokens > TOKENS_MAX {
                return Err(source.error(at, Problem::TooLarge("more than 1,000 words and signs")));
            }
            if nesting > NESTING_MAX || ternaries > TERNARIES_MAX {
                return Err(source.error(
                    at,
                    Problem::TooLarge("brackets nested more than 64 deep, or more than 32 `?`"),
                ));
            }
        }
        if tokens == 0 {
            return Err(source.error(0, Problem::Empty));
        }
        Ok(source)
    }

    pub(super) fn error(&self, byte: usize, problem: Problem) -> CompileError {
        CompileError {
            position: Position::of(self.text, byte),
            problem,
        }
    }

    /// The byte at which the next use of `name` stands that no walk has come by; the beginning if there is none.
    pub(super) fn next(&mut self, name: &str, use_: Use) -> usize {
        let next = self
            .names
            .iter_mut()
            .find(|candidate| !candidate.seen && candidate.use_ == use_ && candidate.text == name);
        next.map_or(0, |found| {
            found.seen = true;
            found.start
        })
    }
}
