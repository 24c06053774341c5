//! What the tests of the command have in common: running it as a process, and making its output the same each time.

#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::panic,
    reason = "each test file uses a part; a test fails by panicking"
)]

pub(crate) mod mistakes;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use tempfile::TempDir;

/// A folder to run the command in, with an environment of its own.
pub(crate) struct Shell {
    pub(crate) folder: TempDir,
    nats: Option<String>,
}

impl Shell {
    pub(crate) fn new() -> Self {
        Shell {
            folder: TempDir::new().unwrap(),
            nats: None,
        }
    }

    /// Every command is told this address.
    pub(crate) fn on(nats: &str) -> Self {
        Shell {
            nats: Some(nats.to_owned()),
            ..Self::new()
        }
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn write(&self, file: &str, text: &str) {
        let path = self.path().join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    pub(crate) fn command(&self, line: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidemill"));
        command
            .current_dir(self.path())
            .args(words(line))
            .env_clear();
        // Whoever runs the tests may have a kubeconfig at home.
        command.env("HOME", self.path());
        for kept in ["PATH", "LLVM_PROFILE_FILE"] {
            if let Some(value) = std::env::var_os(kept) {
                command.env(kept, value);
            }
        }
        if let Some(nats) = &self.nats {
            command.env("TIDEMILL_NATS", nats);
        }
        command
    }

    pub(crate) fn run(&self, line: &str) -> Ran {
        self.run_with(line, "")
    }

    /// With text on standard input.
    pub(crate) fn run_with(&self, line: &str, stdin: &str) -> Ran {
        let mut child = self
            .command(line)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // A command that needs no input may have ended already.
        let _ = child.stdin.take().unwrap().write_all(stdin.as_bytes());
        let Output {
            status,
            stdout,
            stderr,
        } = child.wait_with_output().unwrap();
        Ran {
            line: line.to_owned(),
            code: status.code(),
            stdout: String::from_utf8(stdout).unwrap(),
            stderr: String::from_utf8(stderr).unwrap(),
        }
    }
}

/// What became of a command.
pub(crate) struct Ran {
    pub(crate) line: String,
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ran {
    /// Everything a person saw, for a snapshot.
    pub(crate) fn seen(&self) -> String {
        let mut text = format!("$ tidemill {}\n{}", self.line, self.stdout);
        for line in self.stderr.lines() {
            text.push_str(&format!("! {line}\n"));
        }
        if self.code != Some(0) {
            text.push_str(&format!("exit code {}\n", self.code.unwrap_or(-1)));
        }
        redact(&text)
    }

    #[track_caller]
    pub(crate) fn ok(self) -> Self {
        assert_eq!(self.code, Some(0), "{}", self.seen());
        self
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| panic!("{error}: {}", self.seen()))
    }

    pub(crate) fn json_lines(&self) -> Vec<serde_json::Value> {
        self.stdout
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }
}

/// Splits a command line as a shell would, as far as these tests need it.
pub(crate) fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quoted, mut any) = (Vec::new(), String::new(), false, false);
    for character in line.chars() {
        match character {
            '\'' => {
                quoted = !quoted;
                any = true;
            }
            ' ' if !quoted => {
                if any || !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
                any = false;
            }
            other => word.push(other),
        }
    }
    if any || !word.is_empty() {
        words.push(word);
    }
    words
}

/// Times, random ids, ports and process ids become words; padding made by them is evened out.
pub(crate) fn redact(text: &str) -> String {
    let mut lines = Vec::new();
    for line in text.lines() {
        let mut shown = String::new();
        let mut rest = line;
        while let Some(character) = rest.chars().next() {
            if let Some((word, length)) = redacted(rest, shown.chars().last()) {
                shown.push_str(word);
                rest = &rest[length..];
            } else {
                shown.push(character);
                rest = &rest[character.len_utf8()..];
            }
        }
        lines.push(shown);
    }
    lines.join("\n") + "\n"
}

fn redacted(rest: &str, before: Option<char>) -> Option<(&'static str, usize)> {
    let bytes = rest.as_bytes();
    let digits = |from: usize, count: usize| {
        bytes
            .get(from..from + count)
            .is_some_and(|part| part.iter().all(u8::is_ascii_digit))
    };
    if before.is_some_and(|before| before.is_ascii_alphanumeric()) {
        return None;
    }
    // 2026-01-31T12:00:00.123Z, but not those of the year 2026 that tests write themselves with :00Z seconds.
    if digits(0, 4) && digits(5, 2) && rest.get(4..5) == Some("-") && rest.get(10..11) == Some("T")
    {
        let end = rest.find('Z')? + 1;
        return rest
            .get(..end)
            .filter(|time| time.contains('.'))
            .map(|_| ("<time>", end));
    }
    if let Some(after) = rest.strip_prefix("127.0.0.1:") {
        let port = after.bytes().take_while(u8::is_ascii_digit).count();
        return (port > 0).then_some(("127.0.0.1:<port>", "127.0.0.1:".len() + port));
    }
    if let Some(after) = rest.strip_prefix("(os error ") {
        return after
            .find(')')
            .map(|end| ("(os error <n>)", "(os error ".len() + end + 1));
    }
    let digits_here = bytes
        .iter()
        .take_while(|byte| byte.is_ascii_digit())
        .count();
    if digits_here == 13 {
        return Some(("<millis>", digits_here));
    }
    let hex = bytes
        .iter()
        .take_while(|byte| byte.is_ascii_hexdigit())
        .count();
    if matches!(hex, 16 | 32) && !bytes.get(hex).is_some_and(u8::is_ascii_alphanumeric) {
        return Some((if hex == 16 { "<hex>" } else { "<random id>" }, hex));
    }
    None
}

/// The text of the fenced blocks of a language.
pub(crate) fn blocks(page: &str, language: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut open: Option<String> = None;
    for line in page.lines() {
        match (&mut open, line.trim_start().strip_prefix("```")) {
            (Some(_), Some(_)) => found.extend(open.take().filter(|text| !text.is_empty())),
            (Some(text), None) => {
                text.push_str(line);
                text.push('\n');
            }
            (None, Some(of)) if of.trim() == language => open = Some(String::new()),
            (None, _) => {}
        }
    }
    found
}

/// What is no documentation of this repository.
const ELSEWHERE: &[&str] = &["target", "node_modules"];

fn pages(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() && !name.starts_with('.') && !ELSEWHERE.contains(&name.as_str()) {
            pages(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "md") {
            found.push(path);
        }
    }
}

/// The manifests in the documentation of this repository: those of each page that has any.
pub(crate) fn documented_manifests() -> Vec<(PathBuf, Vec<String>)> {
    let mut all = Vec::new();
    pages(&Path::new(env!("CARGO_MANIFEST_DIR")).join(".."), &mut all);
    let of = |page: PathBuf| {
        let mut manifests = blocks(&std::fs::read_to_string(&page).unwrap(), "yaml");
        manifests.retain(|block| block.contains("apiVersion: tidemill.dev"));
        (!manifests.is_empty()).then_some((page, manifests))
    };
    all.into_iter().filter_map(of).collect()
}
