//! Inventory: reserves stock for orders over NATS, and releases it again.
//!
//! - `inventory.reserve`: `{"orderId", "items": [{"sku", "qty"}]}` is answered with `{"reserved": units}`, or
//!   refused with 409 "out of stock: SKU";
//! - `inventory.release`: the header `Tidemill-Compensates` names the reservation's command id; answered with
//!   `{"undone": true}`, or `false` where nothing was reserved.
//!
//! Every decision is in the ledger file before it is answered, so that killing the process forgets nothing.
//! The contract it holds is `docs/guide/participants.md`; this program knows nothing else of Tidemill.

mod answer;
mod fault;
mod ledger;
mod stock;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, anyhow};
use async_nats::{Client, ConnectOptions, HeaderMap, Message};
use clap::Parser;
use futures::{StreamExt, stream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{sleep, timeout};

use crate::answer::Answer;
use crate::fault::{FaultArgs, Faults};
use crate::ledger::Ledger;
use crate::stock::{Op, Stock};

/// Long enough to be started a moment before the server, short enough that a wrong address is noticed.
const CONNECT_MAX: Duration = Duration::from_secs(5);
const CONNECT_PAUSE: Duration = Duration::from_millis(200);
/// Requests that had arrived when the process is told to stop get this long to be answered.
const STOP_MAX: Duration = Duration::from_secs(5);

/// Reserves stock for orders over NATS, and releases it again.
#[derive(Parser)]
#[command(name = "inventory")]
struct Args {
    /// Address of the NATS server
    #[arg(long, default_value = "nats://127.0.0.1:4222", value_name = "URL")]
    nats: String,
    /// NATS credentials file; none = the server asks for none.
    #[arg(long, value_name = "FILE")]
    creds: Option<PathBuf>,
    /// Kept between runs; made when missing
    #[arg(long, value_name = "FILE")]
    ledger: PathBuf,
    /// Stock at the very beginning: {"SKU": units}
    #[arg(long, value_name = "FILE.json")]
    stock: PathBuf,
    #[command(flatten)]
    faults: FaultArgs,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run(Args::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // One line, the whole chain of causes.
            eprintln!("inventory: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: Args) -> anyhow::Result<()> {
    let mut stock = Stock::new(read_stock(&args.stock)?);
    let ledger = Ledger::open(&args.ledger, &mut stock)?;
    let mut inventory = Inventory {
        stock,
        ledger,
        faults: Faults::new(&args.faults),
    };
    serve(&args.nats, args.creds.as_deref(), &mut inventory).await
}

fn read_stock(path: &Path) -> anyhow::Result<BTreeMap<String, u64>> {
    let data =
        std::fs::read(path).with_context(|| format!("can't read the stock {}", path.display()))?;
    serde_json::from_slice(&data)
        .with_context(|| format!("{}: expected {{\"SKU\": units}}", path.display()))
}

async fn serve(url: &str, creds: Option<&Path>, inventory: &mut Inventory) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let client = connect(url, creds).await?;
    let reserve = client.subscribe(Op::Reserve.subject()).await?;
    let release = client.subscribe(Op::Release.subject()).await?;
    client.flush().await?;
    println!("ready");

    let mut requests = stream::select(
        reserve.map(|message| (Op::Reserve, message)),
        release.map(|message| (Op::Release, message)),
    );
    loop {
        tokio::select! {
            request = requests.next() => match request {
                Some((op, message)) => inventory.handle(&client, op, message).await?,
                None => return Err(anyhow!("the connection to {url} was closed")),
            },
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
        }
    }
    // What had arrived is still answered; without a server there is nobody to answer.
    let finish = async {
        client.drain().await?;
        while let Some((op, message)) = requests.next().await {
            inventory.handle(&client, op, message).await?;
        }
        anyhow::Ok(())
    };
    match timeout(STOP_MAX, finish).await {
        Ok(result) => result,
        Err(_) => Ok(()),
    }
}

async fn connect(url: &str, creds: Option<&Path>) -> anyhow::Result<Client> {
    let options = match creds {
        None => ConnectOptions::new(),
        Some(file) => ConnectOptions::with_credentials_file(file)
            .await
            .with_context(|| format!("can't use the credentials {}", file.display()))?,
    };
    let attempts = async {
        loop {
            match options.clone().name("inventory").connect(url).await {
                Ok(client) => return client,
                Err(_) => sleep(CONNECT_PAUSE).await,
            }
        }
    };
    timeout(CONNECT_MAX, attempts)
        .await
        .map_err(|_| anyhow!("no NATS server at {url}; start one, or name another with --nats"))
}

struct Inventory {
    stock: Stock,
    ledger: Ledger,
    faults: Faults,
}

impl Inventory {
    async fn handle(&mut self, client: &Client, op: Op, message: Message) -> anyhow::Result<()> {
        let Some(reply) = message.reply.clone() else {
            return Ok(());
        };
        let command = header(&message, "Tidemill-Command-Id").unwrap_or_default();
        let fault = self.faults.next(command);
        let answer = if fault.fail {
            Answer::refused(503, "failed on request")
        } else {
            self.answer(op, command, &message)?
        };
        if fault.drop {
            return Ok(());
        }
        let headers = refusal_headers(&answer);
        let body = answer.body().to_string();
        let client = client.clone();
        let send = async move {
            match headers {
                Some(headers) => {
                    client
                        .publish_with_headers(reply, headers, body.into())
                        .await
                }
                None => client.publish(reply, body.into()).await,
            }
        };
        if fault.delay.is_zero() {
            // It only fails when the connection is gone for good, and then `next()` ends as well.
            if let Err(error) = send.await {
                eprintln!("inventory: an answer could not be sent: {error}");
            }
        } else {
            tokio::spawn(async move {
                sleep(fault.delay).await;
                send.await
            });
        }
        Ok(())
    }

    /// Decides, writes down, then lets the decision count: in this order, because a state that the ledger
    /// doesn't hold would be lost with the process. An error here means that the ledger can't be written.
    fn answer(&mut self, op: Op, command: &str, message: &Message) -> anyhow::Result<Answer> {
        if command.is_empty() {
            return Ok(Answer::refused(
                400,
                "header Tidemill-Command-Id is missing",
            ));
        }
        if let Some(answer) = self.stock.answered(op, command) {
            return Ok(answer.clone());
        }
        let entry = match op {
            Op::Reserve => self.stock.reserve(command, &message.payload),
            Op::Release => match header(message, "Tidemill-Compensates") {
                Some(compensates) if !compensates.is_empty() => {
                    self.stock.release(command, compensates)
                }
                _ => {
                    return Ok(Answer::refused(
                        400,
                        "header Tidemill-Compensates is missing",
                    ));
                }
            },
        };
        self.ledger.append(&entry)?;
        Ok(self.stock.apply(&entry)?)
    }
}

fn header<'a>(message: &'a Message, name: &str) -> Option<&'a str> {
    Some(message.headers.as_ref()?.get(name)?.as_str())
}

/// The NATS service convention (ADR-32): a number below 500 is a refusal, others ask for another try.
fn refusal_headers(answer: &Answer) -> Option<HeaderMap> {
    let Answer::Refused { code, text } = answer else {
        return None;
    };
    let mut headers = HeaderMap::new();
    headers.insert("Nats-Service-Error-Code", code.to_string());
    // The text may name what a stranger sent; a line break in it would end the header.
    headers.insert(
        "Nats-Service-Error",
        text.replace(|c: char| c.is_control(), " "),
    );
    Some(headers)
}
