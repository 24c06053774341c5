//! What a person sees on a terminal: colour, tables that fit, and the live view of `dev`. The terminal is a pseudo terminal of
//! the kernel; what is on its screen is read by an emulator.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "support/dev.rs"]
mod dev;
mod support;

use dev::{CAP, Dev, participant, until, write_manifests};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use std::fs::{File, OpenOptions};
use std::io::Read as _;
use std::num::NonZeroU16;
use std::os::unix::ffi::OsStrExt as _;
use std::process::{Child, Command};
use std::sync::{Arc, Mutex};
use support::{Shell, redact};
use tidemill_testbed::eventually;
use tidemill_testbed::nats_server::find_binary;

const ROWS: u16 = 40;
const COLUMNS: u16 = 100;

/// A command whose input and outputs are a terminal.
struct Terminal {
    child: Child,
    screen: Arc<Mutex<vt100::Parser>>,
}

impl Terminal {
    fn run(mut command: Command) -> Terminal {
        let near = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&near).unwrap();
        unlockpt(&near).unwrap();
        let size = Winsize {
            ws_row: ROWS,
            ws_col: COLUMNS,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        tcsetwinsize(&near, size).unwrap();
        let name = ptsname(&near, Vec::new()).unwrap();
        let far = OpenOptions::new()
            .read(true)
            .write(true)
            .open(std::ffi::OsStr::from_bytes(name.as_bytes()))
            .unwrap();
        command
            .stdin(far.try_clone().unwrap())
            .stdout(far.try_clone().unwrap())
            .stderr(far);
        let child = command.spawn().unwrap();
        // It holds the far end, too: reading would never end.
        drop(command);
        let screen = Arc::new(Mutex::new(vt100::Parser::new(
            NonZeroU16::new(ROWS).unwrap(),
            NonZeroU16::new(COLUMNS).unwrap(),
            0,
        )));
        let seen = Arc::clone(&screen);
        std::thread::spawn(move || {
            let mut near = File::from(near);
            let mut bytes = [0; 4096];
            // An error is how the kernel says that the far end is closed.
            while let Ok(count @ 1..) = near.read(&mut bytes) {
                seen.lock().unwrap().process(&bytes[..count]);
            }
        });
        Terminal { child, screen }
    }

    fn text(&self) -> String {
        let screen = self.screen.lock().unwrap();
        let lines: Vec<_> = screen
            .screen()
            .rows(0, COLUMNS)
            .map(|row| row.trim_end().to_owned())
            .collect();
        lines.join("\n").trim_end().to_owned()
    }

    /// Whether anything on the screen has a colour.
    fn is_coloured(&self) -> bool {
        let screen = self.screen.lock().unwrap();
        let cells = (0..ROWS).flat_map(|row| (0..COLUMNS).map(move |column| (row, column)));
        cells
            .filter_map(|(row, column)| screen.screen().cell(row, column))
            .any(|cell| cell.fgcolor() != vt100::Color::Default)
    }

    fn hides_cursor(&self) -> bool {
        self.screen.lock().unwrap().screen().hide_cursor()
    }

    /// Waits until the screen satisfies a condition.
    async fn shows(&self, what: &str, wanted: impl Fn(&str) -> bool) -> String {
        eventually(what, CAP, async || {
            let text = self.text();
            if wanted(&text) { Ok(text) } else { Err(text) }
        })
        .await
    }

    async fn ended(&mut self) -> bool {
        eventually("its end", CAP, async || {
            match self.child.try_wait().unwrap() {
                Some(status) => Ok(status.success()),
                None => Err("it runs"),
            }
        })
        .await
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_have_colour_only_on_a_terminal_that_wants_it() {
    let shell = Shell::new();
    write_manifests(&shell);
    let dev = Dev::start(&shell, "").await;
    let list = "projection list";
    let plain = until(&shell, list, |ran| ran.stdout.contains("status")).await;
    assert!(!plain.stdout.contains('\u{1b}'), "{}", plain.stdout);

    let mut terminal = Terminal::run(shell.command(list));
    assert!(terminal.ended().await);
    let text = terminal
        .shows("the list", |text| text.contains("status"))
        .await;
    assert!(terminal.is_coloured(), "{text}");

    let mut command = shell.command(list);
    command.env("NO_COLOR", "1");
    let mut terminal = Terminal::run(command);
    assert!(terminal.ended().await);
    terminal
        .shows("the list", |text| text.contains("status"))
        .await;
    assert!(!terminal.is_coloured());
    dev.stop().await;
}

/// Colours, rings, begins lines and turns the order of what follows.
const STEERING: &str = "\u{1b}[31mX\u{7}\n\u{202e}Y\u{2028}Z\u{9b}m";
const WRITTEN_OUT: &str = r"\u{1b}[31mX\u{7}\n\u{202e}Y\u{2028}Z\u{9b}m";

#[tokio::test(flavor = "multi_thread")]
async fn texts_of_others_do_not_steer_the_terminal() {
    let shell = Shell::new();
    write_manifests(&shell);
    let mut dev = Dev::start(&shell, "").await;
    let _participant = participant(&dev.url).await;
    let jetstream = async_nats::jetstream::new(async_nats::connect(&dev.url).await.unwrap());
    let key = format!("o-2{STEERING}");
    for (subject, data) in [
        ("o-1", serde_json::json!({"total": 1})),
        (&key, serde_json::json!({})),
    ] {
        let event = serde_json::json!({
            "specversion": "1.0", "id": subject, "source": "/test", "type": "OrderPlaced", "subject": subject,
            "correlationid": STEERING, "data": data,
        });
        let mut headers = async_nats::HeaderMap::new();
        headers.insert("Content-Type", "application/cloudevents+json");
        let on = "default.orders.any.OrderPlaced";
        let stored = jetstream.publish_with_headers(on, headers, event.to_string().into());
        stored.await.unwrap().await.unwrap();
    }
    let steers = |text: &str| {
        let mut characters = text.chars().filter(|character| *character != '\n');
        characters.any(|character| character.is_control() || "\u{202e}\u{2028}".contains(character))
    };
    for line in [
        "parked list",
        "saga show fulfilment o-1",
        &format!("saga show fulfilment '{key}'"),
        &format!("saga show fulfilment 'none{STEERING}'"),
        "saga list fulfilment",
        &format!("parked show status '{key}'"),
        &format!("query status 'none{STEERING}'"),
        "event get orders",
    ] {
        let ran = until(&shell, line, |ran| {
            format!("{}{}", ran.stdout, ran.stderr).contains(r"[31mX\u{7}")
        })
        .await;
        assert!(
            !steers(&ran.stdout) && !steers(&ran.stderr),
            "{}",
            ran.seen()
        );
    }
    let ran = shell.run("saga show fulfilment o-1").ok();
    let correlation = format!("correlation id {WRITTEN_OUT}\n");
    assert!(ran.stdout.contains(&correlation), "{}", ran.seen());
    // Programs get what it is.
    let ran = shell.run("saga show fulfilment o-1 -o json").ok();
    let exact = serde_json::to_string(STEERING).unwrap();
    assert!(ran.stdout.contains(&exact), "{}", ran.seen());
    dev.line(WRITTEN_OUT).await;
    let said = dev.stop().await;
    assert!(!steers(&said), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn dev_draws_its_table_over() {
    let shell = Shell::new();
    write_manifests(&shell);
    let mut command = shell.command("dev manifests");
    command.env("TIDEMILL_NATS_SERVER", find_binary().unwrap());
    let mut terminal = Terminal::run(command);
    let ready = |text: &str| text.contains("ready") && !text.contains("not ready");
    let text = terminal.shows("ready workers", ready).await;
    let url = text.split_whitespace().nth(1).unwrap();
    let _participant = participant(url).await;
    assert!(terminal.hides_cursor());
    for n in 1..=3 {
        let line = format!(
            "event publish orders --type OrderPlaced --subject o-{n} --data '{{\"total\": 1}}'"
        );
        until(&shell, &line, |ran| ran.code == Some(0)).await;
    }
    // Each order's outcome is an event as well.
    let done = |text: &str| {
        let of = |name| {
            text.lines()
                .find(|line| line.contains(name))
                .unwrap_or_default()
        };
        of("default/status").contains("lag 0")
            && of("default/status").contains("6     6        0")
            && of("default/fulfilment").contains("6     3        3")
            && text.contains("completed 3")
    };
    let text = terminal.shows("three orders done", done).await;
    let tables = text.lines().filter(|line| line.contains("SEEN")).count();
    assert_eq!(tables, 1, "{text}");
    insta::assert_snapshot!("live_view", redact(&text));

    let pid = rustix::process::Pid::from_child(&terminal.child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    assert!(terminal.ended().await);
    terminal
        .shows("its last words", |text| text.contains("stopped"))
        .await;
    assert!(!terminal.hides_cursor());
}
