//! The limiters, each set up the way its users would set it up, and all behind one verb.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use governor::{DefaultKeyedRateLimiter, Quota};
use redis::aio::ConnectionManager;
use trypema::hybrid::{HybridRateLimiterProvider, SyncInterval};
use trypema::local::LocalRateLimiterProvider;
use trypema::redis::{RedisKey, RedisRateLimiterProvider};
use trypema::{BucketSize, HardLimitFactor, RateLimit, RateLimitDecision, RateLimiterBuilder, WindowSize};

use crate::protocol::Settings;

/// A limiter. Those that never wait have an async verb that is ready at once, so all are driven by the same code, compiled for
/// each of them.
pub trait Limiter: Send + Sync + 'static {
    type Key: Send + Sync;

    /// Whether every call waits for a server.
    const WAITS: bool = false;

    /// The key as the limiter wants it, made before anything is timed.
    fn key(text: &str) -> Result<Self::Key, String>;

    /// Makes a key that of another number, where it can be done in place.
    fn renumber(_key: &mut Self::Key, _number: u32) -> Result<(), String> {
        Err("fresh is true; it must be false for keys that are more than a text".into())
    }

    /// Decides one call and records it.
    fn allow(&self, key: &Self::Key) -> impl Future<Output = Result<bool, String>>;
}

/// GCRA in a concurrent map: a cell in every window / capacity, and as many as the capacity at once.
pub struct Governor(DefaultKeyedRateLimiter<String>);

impl Governor {
    pub fn open(s: &Settings) -> Result<Self, String> {
        let burst = u32::try_from(s.capacity).ok().and_then(NonZeroU32::new);
        let burst = burst.ok_or(format!("capacity is {}; it must be from 1 to {} for governor", s.capacity, u32::MAX))?;
        let period = Quota::with_period(Duration::from_nanos(s.window_ns / s.capacity));
        let quota = period.ok_or(format!("window_ns is {}; it must be at least the capacity ({})", s.window_ns, s.capacity))?;
        Ok(Self(DefaultKeyedRateLimiter::keyed(quota.allow_burst(burst))))
    }
}

impl Limiter for Governor {
    type Key = String;

    fn key(text: &str) -> Result<String, String> {
        Ok(text.to_owned())
    }

    fn renumber(key: &mut String, number: u32) -> Result<(), String> {
        renumber(key, number);
        Ok(())
    }

    async fn allow(&self, key: &String) -> Result<bool, String> {
        Ok(self.0.check_key(key).is_ok())
    }
}

/// Writes the digits of a number over the last eight bytes of a key.
fn renumber(key: &mut String, mut number: u32) {
    let mut digits = [b'0'; 8];
    for d in digits.iter_mut().rev() {
        *d += (number % 10) as u8;
        number /= 10;
    }
    key.truncate(key.len() - digits.len());
    key.push_str(std::str::from_utf8(&digits).expect("digits"));
}

fn admitted(d: RateLimitDecision) -> bool {
    match d {
        RateLimitDecision::Allowed => true,
        RateLimitDecision::Rejected { .. } => false,
        RateLimitDecision::Suppressed { is_allowed, .. } => is_allowed,
    }
}

/// Trypema of each provider, by strategy, and the rate that all calls are made with.
pub struct Local<const SUPPRESSED: bool>(Arc<LocalRateLimiterProvider>, RateLimit);
pub struct Redis<const SUPPRESSED: bool>(Arc<RedisRateLimiterProvider>, RateLimit);
pub struct Hybrid<const SUPPRESSED: bool>(Arc<HybridRateLimiterProvider>, RateLimit);

/// Its windows are whole seconds, its buckets whole milliseconds. Cleanup runs, as it does by default.
fn configured<B: RateLimiterBuilder>(builder: B, s: &Settings) -> Result<B, String> {
    const SECOND: u64 = 1_000_000_000;
    const MILLISECOND: u64 = 1_000_000;
    if s.window_ns == 0 || !s.window_ns.is_multiple_of(SECOND) {
        return Err(format!("window_ns is {}; it must be a whole number of seconds for trypema", s.window_ns));
    }
    if s.bucket_ns == 0 || !s.bucket_ns.is_multiple_of(MILLISECOND) {
        return Err(format!("bucket_ns is {}; it must be a whole number of milliseconds for trypema", s.bucket_ns));
    }
    Ok(builder
        .window_size(WindowSize::seconds(s.window_ns / SECOND).map_err(text)?)
        .bucket_size(BucketSize::milliseconds(s.bucket_ns / MILLISECOND).map_err(text)?)
        .hard_limit_factor(HardLimitFactor::new(s.hard_limit_factor).map_err(text)?))
}

fn rate(s: &Settings) -> Result<RateLimit, String> {
    RateLimit::per_second(s.rate).map_err(text)
}

fn text(e: impl std::fmt::Display) -> String {
    e.to_string()
}

async fn connect(s: &Settings) -> Result<ConnectionManager, String> {
    let client = redis::Client::open(s.redis.as_str()).map_err(text)?;
    client.get_connection_manager().await.map_err(text)
}

/// It refuses colons, which the names of our keys have.
fn redis_key(text_of_key: &str) -> Result<RedisKey, String> {
    RedisKey::new(text_of_key.replace(':', "_")).map_err(text)
}

impl<const SUPPRESSED: bool> Local<SUPPRESSED> {
    pub fn open(s: &Settings) -> Result<Self, String> {
        let provider = configured(LocalRateLimiterProvider::builder(), s)?.build().map_err(text)?;
        Ok(Self(provider, rate(s)?))
    }
}

impl<const SUPPRESSED: bool> Limiter for Local<SUPPRESSED> {
    type Key = String;

    fn key(text: &str) -> Result<String, String> {
        Ok(text.to_owned())
    }

    fn renumber(key: &mut String, number: u32) -> Result<(), String> {
        renumber(key, number);
        Ok(())
    }

    async fn allow(&self, key: &String) -> Result<bool, String> {
        Ok(admitted(match SUPPRESSED {
            true => self.0.suppressed().inc(key, &self.1, 1),
            false => self.0.absolute().inc(key, &self.1, 1),
        }))
    }
}

impl<const SUPPRESSED: bool> Redis<SUPPRESSED> {
    pub async fn open(s: &Settings) -> Result<Self, String> {
        let builder = RedisRateLimiterProvider::builder(connect(s).await?).prefix(redis_key(&s.prefix)?);
        Ok(Self(configured(builder, s)?.build().map_err(text)?, rate(s)?))
    }
}

impl<const SUPPRESSED: bool> Limiter for Redis<SUPPRESSED> {
    type Key = RedisKey;
    const WAITS: bool = true;

    fn key(text: &str) -> Result<RedisKey, String> {
        redis_key(text)
    }

    async fn allow(&self, key: &RedisKey) -> Result<bool, String> {
        let decision = match SUPPRESSED {
            true => self.0.suppressed().inc(key, &self.1, 1).await,
            false => self.0.absolute().inc(key, &self.1, 1).await,
        };
        decision.map(admitted).map_err(text)
    }
}

impl<const SUPPRESSED: bool> Hybrid<SUPPRESSED> {
    pub async fn open(s: &Settings) -> Result<Self, String> {
        let mut builder = HybridRateLimiterProvider::builder(connect(s).await?).prefix(redis_key(&s.prefix)?);
        if s.sync_interval_ns > 0 {
            builder = builder.sync_interval(SyncInterval::milliseconds((s.sync_interval_ns / 1_000_000).max(1)).map_err(text)?);
        }
        Ok(Self(configured(builder, s)?.build().map_err(text)?, rate(s)?))
    }
}

/// `try_inc` decides without awaiting where it can; its documentation recommends it for hot paths, with `inc` where it can not.
impl<const SUPPRESSED: bool> Limiter for Hybrid<SUPPRESSED> {
    type Key = RedisKey;

    fn key(text: &str) -> Result<RedisKey, String> {
        redis_key(text)
    }

    async fn allow(&self, key: &RedisKey) -> Result<bool, String> {
        let at_once = match SUPPRESSED {
            true => self.0.suppressed().try_inc(key.as_key_ref(), 1),
            false => self.0.absolute().try_inc(key.as_key_ref(), 1),
        };
        if let Some(decision) = at_once.map_err(text)? {
            return Ok(admitted(decision));
        }
        let decision = match SUPPRESSED {
            true => self.0.suppressed().inc(key, &self.1, 1).await,
            false => self.0.absolute().inc(key, &self.1, 1).await,
        };
        decision.map(admitted).map_err(text)
    }
}
