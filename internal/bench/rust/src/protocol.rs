//! What is asked on standard input and answered on standard output: JSON, one object in a line.

use serde::{Deserialize, Serialize};

/// A request; README.md says what each of them wants.
#[derive(Deserialize)]
#[serde(tag = "do", rename_all = "lowercase")]
pub enum Request {
    Open(Settings),
    Workload { keys: usize, workers: usize, sequences: String },
    Fill { callers: usize },
    Drive(Pass),
    Allow { keys: Vec<String> },
    Memory,
}

/// The settings of a limiter, which have the same meaning as those of the Go library.
#[derive(Deserialize)]
pub struct Settings {
    pub limiter: String,
    pub provider: String,
    pub capacity: u64,
    pub rate: f64,
    pub suppressed: bool,
    pub window_ns: u64,
    pub bucket_ns: u64,
    pub hard_limit_factor: f64,
    pub redis: String,
    pub prefix: String,
    pub sync_interval_ns: u64,
}

/// How the workers are let loose.
#[derive(Deserialize, Clone, Copy)]
pub struct Pass {
    pub duration_ns: u64,
    pub sample_every: u64,
    pub qps: f64, // 0: as many calls as possible
    pub burst: u64,
    #[serde(default)]
    pub fresh: bool, // the text of each key is written just before its call
}

/// What one worker has done.
#[derive(Serialize, Default)]
pub struct Done {
    pub calls: u64,
    pub allowed: u64,
    pub denied: u64,
    pub skipped: u64,
    pub failed: u64,
    pub first_fail: String,
}

#[derive(Serialize)]
#[serde(untagged)]
pub enum Answer {
    Nothing {},
    Filled { allowed: u64 },
    Driven { elapsed_ns: u64, workers: Vec<Done>, latency: String },
    Allowed { allowed: Vec<bool> },
    Memory { bytes: Option<u64> },
    Error { error: String },
}
