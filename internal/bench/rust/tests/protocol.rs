//! The program as it is used: a process with pipes.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

struct Peer(Child);

impl Peer {
    fn start() -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_trypema-peers"));
        Self(command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("the program"))
    }

    fn open(limiter: &str, capacity: u64) -> Self {
        let mut p = Self::start();
        assert_eq!(p.ask(settings(limiter, capacity)), json!({}));
        p
    }

    fn ask(&mut self, request: Value) -> Value {
        writeln!(self.0.stdin.as_mut().unwrap(), "{request}").unwrap();
        let mut line = String::new();
        // One line is one answer: nothing is read ahead that belongs to the next.
        BufReader::with_capacity(1, self.0.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        serde_json::from_str(&line).expect(&line)
    }

    fn end(mut self) {
        drop(self.0.stdin.take());
        assert!(self.0.wait().unwrap().success());
    }
}

fn settings(limiter: &str, capacity: u64) -> Value {
    json!({
        "do": "open", "limiter": limiter, "provider": "local", "suppressed": false, "capacity": capacity,
        "rate": capacity as f64 / 10.0, "window_ns": 10_000_000_000_u64, "bucket_ns": 100_000_000, "hard_limit_factor": 1.5,
        "redis": "", "prefix": "p", "sync_interval_ns": 0,
    })
}

#[test]
fn admits_the_capacity_at_once() {
    for limiter in ["governor", "trypema"] {
        let mut p = Peer::open(limiter, 5);
        let answer = p.ask(json!({"do": "allow", "keys": ["a", "a", "b", "a", "a", "a", "a", "a"]}));
        assert_eq!(answer, json!({"allowed": [true, true, true, true, true, true, false, false]}), "{limiter}");
        p.end();
    }
}

#[test]
fn counts_add_up() {
    let path = std::env::temp_dir().join(format!("trypema-peers-test-{}", std::process::id()));
    let sequences: Vec<u8> = (0..8_u32).flat_map(|i| (i % 3).to_le_bytes()).collect();
    fs::write(&path, sequences).unwrap();
    for limiter in ["governor", "trypema"] {
        for (qps, fresh) in [(0, false), (2000, false), (0, true)] {
            let mut p = Peer::open(limiter, 100);
            assert_eq!(p.ask(json!({"do": "workload", "keys": 3, "workers": 2, "sequences": path})), json!({}));
            assert_eq!(p.ask(json!({"do": "fill", "callers": 2})), json!({"allowed": 3}));
            let r = p.ask(json!({"do": "drive", "duration_ns": 50_000_000, "sample_every": 7, "qps": qps, "burst": 2, "fresh": fresh}));
            let mut allowed = 0;
            for w in r["workers"].as_array().unwrap() {
                let count = |name: &str| w[name].as_u64().unwrap();
                assert!(count("calls") > 0, "{limiter}: {r}");
                assert_eq!(count("calls"), count("allowed") + count("denied") + count("failed"), "{limiter}: {r}");
                allowed += count("allowed");
            }
            assert!(allowed <= 3 * 101 && (qps > 0 || allowed >= 3 * 99), "{limiter}: {r}");
            assert!(!r["latency"].as_str().unwrap().is_empty());
            p.end();
        }
    }
    fs::remove_file(path).unwrap();
}

#[test]
fn says_what_is_wrong() {
    let mut p = Peer::start();
    let mut seconds = settings("trypema", 5);
    seconds["window_ns"] = json!(1_500_000_000);
    for (request, says) in [
        (json!({"do": "fill", "callers": 1}), "no limiter is open"),
        (json!({"do": "sing"}), "sing"),
        (settings("nobody", 1), "limiter is \"nobody\""),
        (settings("governor", 0), "capacity is 0"),
        (seconds, "window_ns is 1500000000"),
    ] {
        let answer = p.ask(request);
        assert!(answer["error"].as_str().unwrap().contains(says), "{answer} does not say {says}");
    }
    assert_eq!(p.ask(settings("governor", 1)), json!({}));
    let answer = p.ask(json!({"do": "drive", "duration_ns": 1, "sample_every": 1, "qps": 0, "burst": 1}));
    assert!(answer["error"].as_str().unwrap().contains("no workload"), "{answer}");
    p.end();
}
