//! The way from one host to the server, which can be cut like a cable: nothing is closed, nothing goes
//! through.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

/// How often a way that is cut or silent looks whether that is still so.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// A way to the server, for as long as it is not dropped.
pub struct Proxy {
    port: u16,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    is_cut: AtomicBool,
    is_over: AtomicBool,
}

impl Proxy {
    /// A way to a port of this machine.
    pub fn start(server: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        let port = listener.local_addr().expect("a port").port();
        let state = Arc::new(State::default());
        let shared = Arc::clone(&state);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if shared.is_over.load(Ordering::Relaxed) {
                    return;
                }
                let state = Arc::clone(&shared);
                thread::spawn(move || connect(&client, server, &state));
            }
        });
        Self { port, state }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Cuts the way, or mends it: what was sent meanwhile arrives then.
    pub fn cut(&self, is_cut: bool) {
        self.state.is_cut.store(is_cut, Ordering::Relaxed);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.state.is_over.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

fn connect(client: &TcpStream, server: u16, state: &State) {
    state.wait_mended();
    let Ok(server) = TcpStream::connect(("127.0.0.1", server)) else { return };
    thread::scope(|scope| {
        scope.spawn(|| pump(client, &server, state));
        pump(&server, client, state);
    });
}

/// Carries bytes one way until either end closes, which the other then hears.
fn pump(mut from: &TcpStream, mut to: &TcpStream, state: &State) {
    let _ = from.set_read_timeout(Some(LOOK_INTERVAL));
    let _ = to.set_nodelay(true);
    let mut piece = [0; 16_384];
    while !state.is_over.load(Ordering::Relaxed) {
        state.wait_mended();
        let length = match from.read(&mut piece) {
            Ok(0) => break,
            Ok(length) => length,
            Err(error) if [ErrorKind::WouldBlock, ErrorKind::TimedOut].contains(&error.kind()) => {
                continue;
            }
            Err(_) => break,
        };
        state.wait_mended();
        if to.write_all(&piece[..length]).is_err() {
            break;
        }
    }
    state.wait_mended();
    let _ = to.shutdown(Shutdown::Both);
    let _ = from.shutdown(Shutdown::Both);
}

impl State {
    fn wait_mended(&self) {
        while self.is_cut.load(Ordering::Relaxed) && !self.is_over.load(Ordering::Relaxed) {
            thread::sleep(LOOK_INTERVAL);
        }
    }
}
