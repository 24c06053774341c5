//! The source as tokens: bounds that must hold before the parser may recurse, and places for errors.
//!
//! The parser's tree carries no places, so errors about names look their place up here: the tree is walked in the order of the source, and
//! the n-th use of a name is the n-th token of that name.

use cel::parser::pratt_parser::{Lexer, TokenKind};

use super::error::{CompileError, Position, Problem};
use super::{NESTING_MAX, SOURCE_MAX, TOKENS_MAX};
use crate::planted::{Bug, planted};

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

/// A `!`, or a `-` that negates.
#[derive(Clone, Copy)]
struct Sign {
    /// The token before it is the other sign.
    after_other: bool,
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
        let mut sign = None;
        loop {
            let token = lexer.lex();
            let (kind, at) = (token.kind, token.start);
            match kind {
                TokenKind::TokEnd => break,
                TokenKind::TokWhitespace | TokenKind::TokComment => continue,
                // The parser would slice here, also within a character.
                TokenKind::TokError => {
                    let message = lexer
                        .get_error()
                        .map_or("unexpected character", |error| &error.message);
                    return Err(source.error(at, Problem::Syntax(message.to_owned())));
                }
                TokenKind::TokLeftParen | TokenKind::TokLeftBracket | TokenKind::TokLeftBrace => {
                    nesting += 1;
                }
                TokenKind::TokRightParen
                | TokenKind::TokRightBracket
                | TokenKind::TokRightBrace => nesting = nesting.saturating_sub(1),
                TokenKind::TokQuestion => ternaries += 1,
                _ => {}
            }
            let text = text.get(token.start..token.end).unwrap_or_default();
            if let Some(problem) = refused(kind, previous, text) {
                return Err(source.error(at, problem));
            }
            let is_sign = kind == TokenKind::TokExclamation
                || (kind == TokenKind::TokMinus && !ends_operand(previous));
            // Not in CEL's grammar, but taken by the parser; `!-1` is in it, because a number may have a sign.
            let misplaced = match (sign, previous, kind) {
                (Some(Sign { after_other: true }), TokenKind::TokMinus, kind) => {
                    !matches!(kind, TokenKind::TokInt | TokenKind::TokFloat)
                }
                (Some(_), TokenKind::TokMinus, TokenKind::TokExclamation) => true,
                _ => false,
            };
            if misplaced {
                let message = "`!` and a negative `-` can't follow each other".to_owned();
                return Err(source.error(at, Problem::Syntax(message)));
            }
            sign = is_sign.then_some(Sign {
                after_other: sign.is_some() && previous != kind,
            });
            source.note(kind, previous, text, at);
            previous = token.kind;
            tokens += 1;
            if tokens > TOKENS_MAX && !planted(Bug::TokensUnlimited) {
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

    fn note(&mut self, kind: TokenKind, previous: TokenKind, text: &'a str, start: usize) {
        let use_ = match kind {
            TokenKind::TokIdent if previous == TokenKind::TokDot => Use::Field,
            TokenKind::TokIdent => Use::Variable,
            TokenKind::TokLeftBrace => Use::Map,
            TokenKind::TokLeftParen if previous == TokenKind::TokIdent => {
                if let Some(function) = self.names.last_mut() {
                    function.use_ = Use::Function;
                }
                return;
            }
            _ => return,
        };
        self.names.push(Name {
            text,
            start,
            use_,
            seen: false,
        });
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

/// What the parser would take or misname.
fn refused(kind: TokenKind, previous: TokenKind, text: &str) -> Option<Problem> {
    match kind {
        TokenKind::TokUint => Some(Problem::NotInThisVersion("unsigned numbers")),
        TokenKind::TokBytes => Some(Problem::NotInThisVersion("bytes")),
        TokenKind::TokEqual => Some(Problem::Syntax(
            "a single `=` means nothing here; `==` compares".to_owned(),
        )),
        TokenKind::TokIdent if text.starts_with('`') => Some(Problem::Syntax(
            "names in backticks aren't known; write a['b-c']".to_owned(),
        )),
        TokenKind::TokLeftBrace
            if matches!(previous, TokenKind::TokIdent | TokenKind::TokReservedWord) =>
        {
            Some(Problem::NotInThisVersion("messages"))
        }
        _ => None,
    }
}

/// Whether a `-` behind such a token subtracts.
fn ends_operand(kind: TokenKind) -> bool {
    matches!(
        kind,
        TokenKind::TokIdent
            | TokenKind::TokReservedWord
            | TokenKind::TokInt
            | TokenKind::TokFloat
            | TokenKind::TokString
            | TokenKind::TokTrue
            | TokenKind::TokFalse
            | TokenKind::TokNull
            | TokenKind::TokRightParen
            | TokenKind::TokRightBracket
            | TokenKind::TokRightBrace
    )
}
