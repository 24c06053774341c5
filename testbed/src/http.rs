//! A small HTTP server that can misbehave, and a client to look at health endpoints with.

use std::future::Future;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Longest request head and body read.
const REQUEST_BYTES_MAX: usize = 1 << 20;

/// A request that came.
#[derive(Clone, Debug, Default)]
pub struct HttpRequest {
    /// `POST`, ….
    pub method: String,
    /// Path with query.
    pub path: String,
    /// Headers; names in lower case.
    pub headers: Vec<(String, String)>,
    /// Body.
    pub body: Vec<u8>,
}

impl HttpRequest {
    /// The first header of this name, in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value.as_str())
    }
}

/// What the server does about a request.
#[derive(Clone, Debug)]
pub enum HttpAnswer {
    /// Answers with a status, headers and a body.
    Status(u16, Vec<(&'static str, String)>, Vec<u8>),
    /// Never answers, and keeps the connection.
    Hang,
    /// Sends these bytes, which may be no HTTP, and closes.
    Raw(Vec<u8>),
    /// Closes without a word.
    Close,
}

impl HttpAnswer {
    /// A JSON answer.
    pub fn json(status: u16, body: &str) -> Self {
        HttpAnswer::Status(
            status,
            vec![("content-type", "application/json".to_owned())],
            body.as_bytes().to_vec(),
        )
    }
}

/// A server on a free port of 127.0.0.1; ends when dropped.
#[derive(Debug)]
pub struct HttpServer {
    address: String,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for HttpServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl HttpServer {
    /// Answers every request as `answer` says.
    ///
    /// # Errors
    /// If no port can be had.
    pub async fn start(
        answer: impl Fn(&HttpRequest) -> HttpAnswer + Send + Sync + 'static,
    ) -> std::io::Result<Self> {
        Self::start_on("127.0.0.1:0", answer).await
    }

    /// The same on an address, such as that of one that was dropped.
    ///
    /// # Errors
    /// If it can't be had.
    pub async fn start_on(
        address: &str,
        answer: impl Fn(&HttpRequest) -> HttpAnswer + Send + Sync + 'static,
    ) -> std::io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?.to_string();
        let answer = Arc::new(answer);
        let task = tokio::spawn(async move {
            // Connections end with the server.
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let answer = Arc::clone(&answer);
                connections.spawn(async move { serve(stream, &*answer).await });
            }
        });
        Ok(HttpServer { address, task })
    }

    /// `<ip>:<port>`
    pub fn address(&self) -> &str {
        &self.address
    }

    /// `http://<ip>:<port><path>`
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }
}

async fn serve(mut stream: TcpStream, answer: &(dyn Fn(&HttpRequest) -> HttpAnswer + Send + Sync)) {
    let mut buffer = Vec::new();
    while let Some(request) = read_request(&mut stream, &mut buffer).await {
        match answer(&request) {
            HttpAnswer::Status(status, headers, body) => {
                let mut head = format!("HTTP/1.1 {status} x\r\ncontent-length: {}\r\n", body.len());
                for (name, value) in headers {
                    head.push_str(&format!("{name}: {value}\r\n"));
                }
                head.push_str("\r\n");
                if stream.write_all(head.as_bytes()).await.is_err()
                    || stream.write_all(&body).await.is_err()
                {
                    return;
                }
            }
            HttpAnswer::Hang => std::future::pending::<()>().await,
            HttpAnswer::Raw(bytes) => {
                let _ = stream.write_all(&bytes).await;
                return;
            }
            HttpAnswer::Close => return,
        }
    }
}

async fn read_request(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<HttpRequest> {
    let end = loop {
        if let Some(end) = buffer.windows(4).position(|four| four == b"\r\n\r\n") {
            break end;
        }
        read_more(stream, buffer).await?;
    };
    let head = String::from_utf8_lossy(buffer.get(..end)?).into_owned();
    let mut lines = head.split("\r\n");
    let mut first = lines.next()?.split(' ');
    let mut request = HttpRequest {
        method: first.next()?.to_owned(),
        path: first.next()?.to_owned(),
        ..HttpRequest::default()
    };
    for line in lines {
        let (name, value) = line.split_once(':')?;
        let header = (name.trim().to_lowercase(), value.trim().to_owned());
        request.headers.push(header);
    }
    let length: usize = request
        .header("content-length")
        .map_or(Some(0), |text| text.parse().ok())?;
    while buffer.len() < end + 4 + length {
        read_more(stream, buffer).await?;
    }
    request.body = buffer.get(end + 4..end + 4 + length)?.to_vec();
    buffer.drain(..end + 4 + length);
    Some(request)
}

async fn read_more(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<()> {
    let read = stream.read_buf(buffer).await.ok()?;
    (read > 0 && buffer.len() < REQUEST_BYTES_MAX).then_some(())
}

/// The answer to a GET, head and body.
///
/// # Errors
/// If nobody listens there.
pub fn get(address: &str, path: &str) -> impl Future<Output = std::io::Result<String>> + Send {
    let (address, path) = (address.to_owned(), path.to_owned());
    async move {
        let mut stream = TcpStream::connect(address).await?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok(answer)
    }
}
