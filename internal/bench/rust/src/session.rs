//! A limiter under a workload: its keys, its workers, and what they do.

use std::fs;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Serializer, V2DeflateSerializer};
use rand_distr::{Distribution, Exp};
use tokio::runtime::Handle;

use crate::limiter::Limiter;
use crate::protocol::{Answer, Done, Pass};

const LONGEST_NS: u64 = 60_000_000_000;

/// The operating system wakes a sleeper late, so the last part of a wait for a call that is due is spent awake; but not by the many
/// who call a server.
const AWAKE: Duration = Duration::from_millis(2);
const NAP: Duration = Duration::from_millis(20); // after which a worker looks whether it is to stop

pub struct Session<L: Limiter> {
    limiter: L,
    runtime: Handle,
    keys: Vec<L::Key>,
    workers: Vec<Worker<L>>,
}

/// A caller, with the sequence of keys that it walks in circles. It goes on where it was.
struct Worker<L: Limiter> {
    own: Option<L::Key>, // whose text is written before each call, where keys are fresh
    sequence: Vec<u32>,
    at: usize,
    done: Done,
    latency: Histogram<u64>,
}

impl<L: Limiter> Session<L> {
    pub fn new(limiter: L, runtime: Handle) -> Self {
        Self { limiter, runtime, keys: Vec::new(), workers: Vec::new() }
    }

    /// Takes the keys and the sequences, which lie one after the other in a file, in 32 bits each.
    pub fn workload(&mut self, keys: usize, workers: usize, path: &str) -> Result<Answer, String> {
        let bytes = fs::read(path).map_err(|e| format!("sequences is {path}: {e}"))?;
        let all: Vec<u32> = bytes.as_chunks::<4>().0.iter().map(|b| u32::from_le_bytes(*b)).collect();
        let length = all.len().checked_div(workers).unwrap_or(0);
        if !length.is_power_of_two() || length * workers * 4 != bytes.len() {
            return Err(format!(
                "sequences has {} bytes; it must have 4 for each element of {workers} sequences of a power of two",
                bytes.len()
            ));
        }
        if let Some(key) = all.iter().find(|k| **k as usize >= keys) {
            return Err(format!("sequences contains key {key}; it must be below keys ({keys})"));
        }
        self.keys = (0..keys).map(|i| L::key(&name(i))).collect::<Result<_, _>>()?;
        self.workers = all.chunks(length).map(Worker::new).collect();
        Ok(Answer::Nothing {})
    }

    /// Calls every key once.
    pub fn fill(&self, callers: usize) -> Result<Answer, String> {
        let callers = callers.max(1);
        let results: Vec<Result<u64, String>> = thread::scope(|scope| {
            let fill = |first: usize| async move {
                let mut allowed = 0;
                for key in self.keys.iter().skip(first).step_by(callers) {
                    allowed += u64::from(self.limiter.allow(key).await?);
                }
                Ok(allowed)
            };
            let threads: Vec<_> = (0..callers).map(|g| scope.spawn(move || self.runtime.block_on(fill(g)))).collect();
            threads.into_iter().map(|t| t.join().expect("a thread that fills")).collect()
        });
        let allowed = results.into_iter().sum::<Result<u64, String>>()?;
        Ok(Answer::Filled { allowed })
    }

    /// Lets the workers loose: threads of their own, so that those of the runtime can do what the limiters do in the background.
    pub fn drive(&mut self, pass: Pass) -> Result<Answer, String> {
        if pass.sample_every == 0 || pass.burst == 0 || !pass.qps.is_finite() || pass.qps < 0.0 {
            return Err("sample_every and burst must be at least 1, and qps at least 0".into());
        }
        if self.workers.is_empty() {
            return Err("there is no workload yet".into());
        }
        for w in &mut self.workers {
            w.own = None;
            if pass.fresh {
                let mut key = L::key(&name(0))?;
                L::renumber(&mut key, 0)?;
                w.own = Some(key);
            }
        }
        let stop = AtomicBool::new(false);
        let gate = Barrier::new(self.workers.len() + 1);
        let each = pass.qps / self.workers.len() as f64;
        let (limiter, keys, runtime) = (&self.limiter, &self.keys, &self.runtime);
        let elapsed = thread::scope(|scope| {
            let threads: Vec<_> = (self.workers.iter_mut())
                .map(|w| {
                    let (stop, gate) = (&stop, &gate);
                    scope.spawn(move || {
                        gate.wait();
                        runtime.block_on(async {
                            match pass.qps > 0.0 {
                                true => w.on_schedule(limiter, keys, stop, each, pass.burst).await,
                                false => w.flat_out(limiter, keys, stop, pass.sample_every).await,
                            }
                        });
                    })
                })
                .collect();
            gate.wait();
            let began = Instant::now();
            thread::sleep(Duration::from_nanos(pass.duration_ns));
            stop.store(true, Ordering::Relaxed);
            for t in threads {
                t.join().expect("a worker");
            }
            began.elapsed()
        });
        let mut latency = histogram();
        for w in &self.workers {
            latency.add(&w.latency).map_err(|e| e.to_string())?;
        }
        let mut encoded = Vec::new();
        V2DeflateSerializer::new().serialize(&latency, &mut encoded).map_err(|e| e.to_string())?;
        Ok(Answer::Driven {
            elapsed_ns: elapsed.as_nanos() as u64,
            workers: self.workers.iter_mut().map(Worker::take).collect(),
            latency: STANDARD.encode(encoded),
        })
    }

    /// Decides one call for each key, in order.
    pub fn allow(&self, keys: &[String]) -> Result<Answer, String> {
        let decide = async {
            let mut allowed = Vec::with_capacity(keys.len());
            for key in keys {
                allowed.push(self.limiter.allow(&L::key(key)?).await?);
            }
            Ok(Answer::Allowed { allowed })
        };
        self.runtime.block_on(decide)
    }
}

fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LONGEST_NS, 3).expect("bounds of a histogram")
}

/// The text of a key.
fn name(number: usize) -> String {
    format!("user:{number:08}")
}

impl<L: Limiter> Worker<L> {
    fn new(sequence: &[u32]) -> Self {
        Self { own: None, sequence: sequence.to_vec(), at: 0, done: Done::default(), latency: histogram() }
    }

    /// Returns what was done since the last time.
    fn take(&mut self) -> Done {
        self.latency.reset();
        std::mem::take(&mut self.done)
    }

    async fn call(&mut self, limiter: &L, keys: &[L::Key]) {
        let number = self.sequence[self.at & (self.sequence.len() - 1)];
        let key = match &mut self.own {
            None => &keys[number as usize],
            Some(key) => {
                L::renumber(key, number).expect("a key that could be renumbered before");
                key
            }
        };
        self.at += 1;
        self.done.calls += 1;
        match limiter.allow(key).await {
            Ok(true) => self.done.allowed += 1,
            Ok(false) => self.done.denied += 1,
            Err(e) => {
                self.done.failed += 1;
                self.done.first_fail = e;
            }
        }
    }

    fn record(&mut self, took: Duration) {
        self.latency.saturating_record((took.as_nanos() as u64).clamp(1, LONGEST_NS));
    }

    /// Calls as often as it can, and times one of so many calls.
    async fn flat_out(&mut self, limiter: &L, keys: &[L::Key], stop: &AtomicBool, sample_every: u64) {
        while !stop.load(Ordering::Relaxed) {
            for _ in 1..sample_every {
                self.call(limiter, keys).await;
            }
            let began = Instant::now();
            self.call(limiter, keys).await;
            self.record(began.elapsed());
        }
    }

    /// Makes bursts of calls at the instants of a Poisson process, and times each from the instant at which it was due.
    async fn on_schedule(&mut self, limiter: &L, keys: &[L::Key], stop: &AtomicBool, per_second: f64, burst: u64) {
        let gaps = Exp::new(per_second / burst as f64).expect("a rate above 0");
        let mut rng = rand::rng();
        let began = Instant::now();
        let mut due = Duration::from_secs_f64(gaps.sample(&mut rng));
        while wait_until::<L>(began, due, stop) {
            for _ in 0..burst {
                self.call(limiter, keys).await;
                self.record(began.elapsed().saturating_sub(due));
            }
            due += Duration::from_secs_f64(gaps.sample(&mut rng));
        }
        let end = began.elapsed();
        while due < end {
            self.done.skipped += burst;
            due += Duration::from_secs_f64(gaps.sample(&mut rng));
        }
    }
}

/// Returns true at the instant due, or at once when that has passed; false when it was stopped.
fn wait_until<L: Limiter>(began: Instant, due: Duration, stop: &AtomicBool) -> bool {
    let awake = if L::WAITS { Duration::ZERO } else { AWAKE };
    while !stop.load(Ordering::Relaxed) {
        let left = due.saturating_sub(began.elapsed());
        if left.is_zero() {
            return true;
        } else if left > awake {
            thread::sleep((left - awake).min(NAP));
        } else {
            thread::yield_now();
        }
    }
    false
}
