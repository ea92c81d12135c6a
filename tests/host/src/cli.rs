//! The host as a program: arguments, signals, and commands on standard input.

use std::fmt::Write as _;
use std::io::{self, BufRead as _, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;
use std::{env, fs, thread};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::ffi::process::{self, StdioTrap};
use crate::host::{Host, HostError, Loaded, OutputSwitch};
use crate::options::{Abi, Exports, Options};
use crate::report::Report;

/// What a real host ends with when it cannot start.
const EXIT_START: u8 = 255;
const EXIT_USAGE: u8 = 2;
/// With `--strict`, when a rule was broken.
const EXIT_VIOLATIONS: u8 = 3;

const USAGE: &str = "\
usage: embedded_host -e PLUGIN.so -c FILE [OPTIONS]
  --abi before-4.1|from-4.1|from-5.1.1   the host to imitate (from-5.1.1)
  --exports all|none|append|metrics      functions offered to the plugin (all)
  --tick-ms N --drain-ms N --flush-ms N --shutdown-tick-ms N
  --ring-slots N --def-size N --buffer-max N
  --drain-at-stop on|off                 wait for pending chunks (by the ABI)
  --processor-drop K --processor-add K --processor-drop-all
  --log-file FILE --report-file FILE --pid-file FILE
  --daemon                               as -d: fork after Register
  --strict, --poison-check               exit 3 when a rule was broken
  --stop-on-eof                          stop when standard input ends
standard input: stall | unstall | reload [FILE] | pause N | resume N | ring N | status | stop
signals: SIGTERM, SIGINT stop; SIGHUP reloads
";

/// The command line, parsed.
struct Arguments {
    options: Options,
    config: PathBuf,
    daemon: bool,
    strict: bool,
    stop_on_eof: bool,
    pid_file: Option<PathBuf>,
    report_file: Option<PathBuf>,
}

/// What the main thread is told to do.
enum Order {
    Reload(Option<PathBuf>),
    Stall(bool),
    Pause(usize),
    Resume(usize),
    Ring(usize),
    Status,
    Stop,
}

/// Runs the host until it is told to stop.
pub fn main() -> ExitCode {
    let mut arguments = match parse(env::args().skip(1)) {
        Ok(arguments) => arguments,
        Err(error) => {
            let _ = io::stderr().write_all(format!("{error}\n{USAGE}").as_bytes());
            return ExitCode::from(EXIT_USAGE);
        }
    };
    match run(&mut arguments) {
        Ok(report) if arguments.strict && !report.violations.is_empty() => {
            ExitCode::from(EXIT_VIOLATIONS)
        }
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => {
            if !arguments.daemon {
                let _ = writeln!(io::stderr(), "[error] {error}");
            }
            ExitCode::from(EXIT_START)
        }
    }
}

fn run(arguments: &mut Arguments) -> Result<Report, String> {
    let text = read_config(&arguments.config)?;
    let loaded = Loaded::new(arguments.options.clone()).map_err(|error| error.to_string())?;
    let trap = if arguments.daemon {
        Some(process::daemonize().map_err(|error| error.to_string())?)
    } else {
        None
    };
    if let Some(path) = &arguments.pid_file {
        fs::write(path, std::process::id().to_string()).map_err(|error| error.to_string())?;
    }
    let (orders, inbox) = channel();
    watch_signals(orders.clone()).map_err(|error| error.to_string())?;
    // The commands' thread waits here until there is a host to switch.
    let (switches, switch) = channel();
    if !arguments.daemon {
        let stop_on_eof = arguments.stop_on_eof;
        thread::spawn(move || read_commands(&orders, &switch, stop_on_eof));
    }
    let mut host = loaded.start(&text).map_err(|error| error.to_string())?;
    let _ = switches.send(host.output_switch());
    serve(&mut host, &inbox, arguments)?;
    let mut report = host.stop();
    if !report.threads_left.is_empty() {
        report.violation("threads_left", report.threads_left.join(", "));
    }
    if let Some(written) = trap.as_ref().map(StdioTrap::written).filter(|written| *written > 0) {
        report.violation("wrote_to_stdio", format!("{written} bytes"));
    }
    tell(&format!("REPORT {}", report.to_json()), arguments);
    Ok(report)
}

/// Obeys until a stop, or until a reload leaves nothing running.
fn serve(host: &mut Host, inbox: &Receiver<Order>, arguments: &Arguments) -> Result<(), String> {
    while let Ok(order) = inbox.recv() {
        match order {
            Order::Stop => return Ok(()),
            Order::Stall(stalled) => host.stall_output(stalled),
            Order::Pause(input) => host.pause(input),
            Order::Resume(input) => host.resume(input),
            Order::Ring(slots) => host.set_ring_slots(slots),
            Order::Status => tell(&format!("STATUS {}", host.status().to_json()), arguments),
            Order::Reload(path) => {
                let path = path.unwrap_or_else(|| arguments.config.clone());
                // A file that cannot be read is one that cannot be parsed: the reload is halted.
                let text = read_config(&path).unwrap_or_else(|error| format!("[{error}"));
                let result = host.reload(&text);
                let word = if result.is_ok() { "done" } else { "failed" };
                tell(&format!("RELOAD {word}"), arguments);
                match result {
                    Ok(()) | Err(HostError::ReloadHalted(_) | HostError::ReloadNotEnabled) => {}
                    Err(error) => return Err(error.to_string()),
                }
            }
        }
    }
    Ok(())
}

/// A daemon has no standard output; its report goes to a file or nowhere.
fn tell(line: &str, arguments: &Arguments) {
    if let (Some(path), Some(report)) = (&arguments.report_file, line.strip_prefix("REPORT ")) {
        let _ = fs::write(path, report);
    }
    if !arguments.daemon {
        let mut out = io::stdout().lock();
        let _ = out.write_all(format!("{line}\n").as_bytes());
        let _ = out.flush();
    }
}

fn read_config(path: &PathBuf) -> Result<String, String> {
    fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))
}

fn watch_signals(orders: Sender<Order>) -> io::Result<()> {
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP])?;
    thread::spawn(move || {
        for signal in signals.forever() {
            let order = if signal == SIGHUP { Order::Reload(None) } else { Order::Stop };
            if orders.send(order).is_err() {
                return;
            }
        }
    });
    Ok(())
}

fn read_commands(orders: &Sender<Order>, switch: &Receiver<OutputSwitch>, stop_on_eof: bool) {
    let Ok(switch) = switch.recv() else { return };
    for line in io::stdin().lock().lines() {
        let Ok(line) = line else { break };
        match command(&line) {
            Some(order) => {
                // The main thread may be waiting for the outputs, so they are switched from here.
                if let Order::Stall(stalled) = order {
                    switch.stall(stalled);
                }
                if orders.send(order).is_err() {
                    return;
                }
            }
            None if line.trim().is_empty() => {}
            None => {
                let _ = writeln!(io::stderr(), "[error] unknown command: {line}");
            }
        }
    }
    if stop_on_eof {
        let _ = orders.send(Order::Stop);
    }
}

fn command(line: &str) -> Option<Order> {
    let mut words = line.split_whitespace();
    let name = words.next()?;
    let argument = words.next();
    let number = || argument.and_then(|word| word.parse().ok());
    match name {
        "stall" => Some(Order::Stall(true)),
        "unstall" => Some(Order::Stall(false)),
        "reload" => Some(Order::Reload(argument.map(PathBuf::from))),
        "pause" => number().map(Order::Pause),
        "resume" => number().map(Order::Resume),
        "ring" => number().map(Order::Ring),
        "status" => Some(Order::Status),
        "stop" => Some(Order::Stop),
        _ => None,
    }
}

fn parse(words: impl Iterator<Item = String>) -> Result<Arguments, String> {
    let mut arguments = Arguments {
        options: Options::new(""),
        config: PathBuf::new(),
        daemon: false,
        strict: false,
        stop_on_eof: false,
        pid_file: None,
        report_file: None,
    };
    let mut words = words;
    while let Some(flag) = words.next() {
        match flag.as_str() {
            "--daemon" | "-d" => arguments.daemon = true,
            "--strict" | "--poison-check" => arguments.strict = true,
            "--stop-on-eof" => arguments.stop_on_eof = true,
            "--processor-drop-all" => arguments.options.processor.drop_all = true,
            "--help" | "-h" => return Err(String::new()),
            _ => {
                let value = words.next().ok_or_else(|| format!("{flag} needs a value"))?;
                if !set_path(&mut arguments, &flag, &value) {
                    set_value(&mut arguments.options, &flag, &value)?;
                }
            }
        }
    }
    if arguments.daemon {
        // Its descriptors 1 and 2 are somebody else's.
        arguments.options.stdout_output = false;
        arguments.options.log_echo = false;
    }
    for (given, flag) in [(&arguments.options.plugin, "-e"), (&arguments.config, "-c")] {
        if given.as_os_str().is_empty() {
            return Err(format!("{flag} is missing"));
        }
    }
    Ok(arguments)
}

fn set_path(arguments: &mut Arguments, flag: &str, value: &str) -> bool {
    // A daemon changes its directory, so relative paths are fixed now.
    let path = std::path::absolute(value).unwrap_or_else(|_| PathBuf::from(value));
    match flag {
        "-e" => arguments.options.plugin = path,
        "-c" => arguments.config = path,
        "--log-file" => arguments.options.log_file = Some(path),
        "--pid-file" => arguments.pid_file = Some(path),
        "--report-file" => arguments.report_file = Some(path),
        _ => return false,
    }
    true
}

fn set_value(options: &mut Options, flag: &str, value: &str) -> Result<(), String> {
    let mut wrong = String::new();
    let _ = write!(wrong, "'{value}' is no value for {flag}");
    let number = || value.parse::<u64>().map_err(|_| wrong.clone());
    let size = || value.parse::<usize>().map_err(|_| wrong.clone());
    let period = || number().map(|n| Duration::from_millis(n.max(1)));
    match flag {
        "--abi" => options.abi = Abi::from_name(value).ok_or_else(|| wrong.clone())?,
        "--exports" => options.exports = Exports::from_name(value).ok_or_else(|| wrong.clone())?,
        "--tick-ms" => options.tick = period()?,
        "--drain-ms" => options.drain = period()?,
        "--flush-ms" => options.flush = period()?,
        "--shutdown-tick-ms" => options.shutdown_tick = period()?,
        "--ring-slots" => options.ring_slots = size()?.max(1),
        "--def-size" => {
            let known = size()?;
            let known = Some(known).filter(|known| [32, 40, 48].contains(known));
            options.def_size = Some(known.ok_or_else(|| wrong.clone())?);
        }
        "--buffer-max" => options.buffer_max = size()?,
        "--drain-at-stop" => match value {
            "on" => options.drain_at_stop = Some(true),
            "off" => options.drain_at_stop = Some(false),
            _ => return Err(wrong.clone()),
        },
        "--processor-drop" => options.processor.drop_every = Some(number()?.max(1)),
        "--processor-add" => options.processor.add_every = Some(number()?.max(1)),
        _ => return Err(format!("unknown option {flag}")),
    }
    Ok(())
}
