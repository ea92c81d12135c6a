//! `simulate` prints configurations that pass `test` as they are.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use crate::support::{Place, ctl, said};

/// Dropping it ends the simulator.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn the_simulators_configurations_work_as_they_are() {
    let place = Place::new();
    let folder = place.path("a folder's name");
    let child = Command::new(env!("CARGO_BIN_EXE_trendmicroctl"))
        .args(["--json", "simulate", "--listen", "127.0.0.1:0", "--seconds", "120", "--write"])
        .arg(&folder)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut running = Running(child);
    let mut line = String::new();
    BufReader::new(running.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let told: Value = serde_json::from_str(&line).unwrap();
    for (name, key) in [("fluent-bit.yaml", "yaml"), ("fluent-bit.conf", "classic")] {
        let path = folder.join(name);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), told[key].as_str().unwrap());
        let output = ctl(&["test", "--strict", "-c", path.to_str().unwrap()]);
        let (text, code) = said(&output);
        assert!(code == 0 && text.contains("everything is as it should be"), "{text}");
        for data in ["accepted_traffic", "sharepoint", "agents", "servers", "computers"] {
            assert!(text.contains(&format!("data {data}")), "{data} in {text}");
        }
    }
}
