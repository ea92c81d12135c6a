//! A receiver of records over HTTP, which can refuse for as long as a test wants.

use std::fs::OpenOptions;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

/// Refuses everything until it is opened, and then writes what it takes.
pub struct Receiver {
    port: u16,
    is_open: Arc<AtomicBool>,
}

impl Receiver {
    /// Bodies of JSON lines for `/0`, `/1` and so on go to the first, the second directory.
    pub fn start(outs: Vec<PathBuf>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        let is_open = Arc::new(AtomicBool::new(false));
        let open = Arc::clone(&is_open);
        // It serves until the test process ends.
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (open, outs) = (Arc::clone(&open), outs.clone());
                // A host that is frozen in the middle of a request holds up nobody else's.
                thread::spawn(move || receive(stream, &open, &outs));
            }
        });
        Self { port, is_open }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Takes from now on, or refuses.
    pub fn open(&self, is_open: bool) {
        self.is_open.store(is_open, Ordering::SeqCst);
    }
}

fn receive(stream: TcpStream, open: &AtomicBool, outs: &[PathBuf]) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let (mut request, mut length) = (String::new(), 0);
    reader.read_line(&mut request)?;
    loop {
        let mut header = String::new();
        reader.read_line(&mut header)?;
        let Some((name, value)) = header.trim().split_once(':') else { break };
        if name.eq_ignore_ascii_case("content-length") {
            length = value.trim().parse().unwrap_or(0);
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let is_open = open.load(Ordering::SeqCst);
    if is_open {
        let of_uri = |(i, _): &(usize, &PathBuf)| request.contains(&format!(" /{i} "));
        let (_, out) = outs.iter().enumerate().find(of_uri).expect("a directory for the address");
        let mut file = OpenOptions::new().create(true).append(true).open(out.join("http"))?;
        let text = String::from_utf8_lossy(&body);
        let lines = text.lines().filter(|line| !line.is_empty());
        let lines: String = lines.map(|line| format!("http: [0, {line}]\n")).collect();
        // In one piece, since another request may be writing too.
        file.write_all(lines.as_bytes())?;
    }
    let status = if is_open { "200 OK" } else { "500 No" };
    let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    (&stream).write_all(answer.as_bytes())
}
