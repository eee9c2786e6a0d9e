//! One rate limiter in a process, driven by requests on standard input. See README.md.

mod limiter;
mod protocol;
mod session;

use std::io::{self, BufRead, Lines, StdinLock, Write};
use std::process::exit;

use tokio::runtime::{Builder, Runtime};

use limiter::{Governor, Hybrid, Limiter, Local, Redis};
use protocol::{Answer, Request, Settings};
use session::Session;

fn main() {
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    let mut requests = io::stdin().lock().lines();
    loop {
        let settings = match next(&mut requests) {
            Ok(Request::Open(s)) => s,
            Ok(_) => {
                say(&Answer::Error { error: "no limiter is open".into() });
                continue;
            }
            Err(error) => {
                say(&Answer::Error { error });
                continue;
            }
        };
        if let Err(error) = open(&settings, &runtime, &mut requests) {
            say(&Answer::Error { error });
        }
    }
}

/// Makes the limiter and serves it; returns only if it can not be made.
fn open(s: &Settings, runtime: &Runtime, requests: &mut Lines<StdinLock>) -> Result<(), String> {
    let _context = runtime.enter(); // limiters start tasks
    match (s.limiter.as_str(), s.provider.as_str(), s.suppressed) {
        ("governor", "local", false) => serve(Governor::open(s)?, runtime, requests),
        ("trypema", "local", false) => serve(Local::<false>::open(s)?, runtime, requests),
        ("trypema", "local", true) => serve(Local::<true>::open(s)?, runtime, requests),
        ("trypema", "redis", false) => serve(runtime.block_on(Redis::<false>::open(s))?, runtime, requests),
        ("trypema", "redis", true) => serve(runtime.block_on(Redis::<true>::open(s))?, runtime, requests),
        ("trypema", "hybrid", false) => serve(runtime.block_on(Hybrid::<false>::open(s))?, runtime, requests),
        ("trypema", "hybrid", true) => serve(runtime.block_on(Hybrid::<true>::open(s))?, runtime, requests),
        ("trypema", p, _) => Err(format!("provider is {p:?}; it must be local, redis or hybrid")),
        ("governor", p, strategy) => {
            Err(format!("provider is {p:?}, suppressed is {strategy}; they must be local and false for governor"))
        }
        (l, _, _) => Err(format!("limiter is {l:?}; it must be governor or trypema")),
    }
}

/// Answers requests until there are no more.
fn serve<L: Limiter>(limiter: L, runtime: &Runtime, requests: &mut Lines<StdinLock>) -> ! {
    let mut session = Session::new(limiter, runtime.handle().clone());
    say(&Answer::Nothing {});
    loop {
        let answer = next(requests).and_then(|request| match request {
            Request::Open(_) => Err("a limiter is open already".into()),
            Request::Workload { keys, workers, sequences } => session.workload(keys, workers, &sequences),
            Request::Fill { callers } => session.fill(callers),
            Request::Drive(pass) => session.drive(pass),
            Request::Allow { keys } => session.allow(&keys),
            Request::Memory => Ok(Answer::Memory { bytes: allocated() }),
        });
        say(&answer.unwrap_or_else(|error| Answer::Error { error }));
    }
}

/// The next request. The process ends when there is none.
fn next(requests: &mut Lines<StdinLock>) -> Result<Request, String> {
    match requests.next() {
        Some(Ok(line)) => serde_json::from_str(&line).map_err(|e| e.to_string()),
        _ => exit(0),
    }
}

fn say(answer: &Answer) {
    let mut out = io::stdout().lock();
    let line = serde_json::to_string(answer).expect("an answer in JSON");
    if writeln!(out, "{line}").and_then(|()| out.flush()).is_err() {
        exit(0); // nobody listens any more
    }
}

/// The bytes that the allocator has handed out.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn allocated() -> Option<u64> {
    // SAFETY: it only reads, and takes the allocator's own locks.
    let m = unsafe { libc::mallinfo2() };
    Some((m.uordblks + m.hblkhd) as u64)
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn allocated() -> Option<u64> {
    None
}
