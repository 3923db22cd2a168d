//! How many requests are taken: from one caller, and from one address.
//!
//! The address is counted before anything else is done for a request, the caller when its token was
//! found good. Both by the generic cell rate algorithm, which lets a burst through and then a steady rate. A
//! person's own limit keeps a broken page from harming others; the address's is far higher, since a
//! clinic may have one address for everybody.

use std::hash::Hash;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use governor::clock::{Clock as _, DefaultClock};
use governor::state::keyed::DashMapStateStore;
use governor::{Quota, RateLimiter};

use super::problem::Problem;
use crate::address::ClientAddress;
use crate::token::ApiToken;
use crate::{ChecksConfig, ControlPlane};

/// A steady rate, and how much may come at once. 0 = no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rate {
    /// Requests per second.
    pub per_second: u32,
    /// Requests at once.
    pub burst: u32,
}

/// The limits of the API; none by default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RequestLimits {
    /// Of one person.
    pub person: Rate,
    /// Of one service or administrator.
    pub service: Rate,
    /// Of one address.
    pub address: Rate,
}

type Keyed<K> = RateLimiter<K, DashMapStateStore<K>, DefaultClock>;

/// The limits, and who has used how much of them.
#[derive(Debug, Default)]
pub(crate) struct Limiters {
    person: Option<Keyed<(String, String)>>,
    service: Option<Keyed<(String, String)>>,
    address: Option<Keyed<IpAddr>>,
    check: Option<Keyed<IpAddr>>,
}

impl Limiters {
    pub(crate) fn new(limits: &RequestLimits, checks: &ChecksConfig) -> Self {
        Self {
            person: keyed(limits.person),
            service: keyed(limits.service),
            address: keyed(limits.address),
            check: NonZeroU32::new(checks.address_per_minute).map(|per_minute| {
                let burst = NonZeroU32::new(checks.address_burst).unwrap_or(per_minute);
                RateLimiter::dashmap(Quota::per_minute(per_minute).allow_burst(burst))
            }),
        }
    }

    /// A request of a verified caller.
    pub(crate) fn caller(&self, token: &ApiToken, staff: bool) -> Result<(), Problem> {
        let limiter = if staff { &self.service } else { &self.person };
        check(limiter.as_ref(), &(token.clinic.clone(), token.user_id.clone()))
    }

    fn address(&self, address: ClientAddress) -> Result<(), Problem> {
        check(self.address.as_ref(), &address.neighbourhood())
    }

    /// A connection check that begins.
    pub(crate) fn check(&self, address: ClientAddress) -> Result<(), Problem> {
        check(self.check.as_ref(), &address.neighbourhood())
    }

    /// Forgets those who have not come lately.
    pub(crate) fn sweep(&self) {
        for limiter in [&self.person, &self.service].into_iter().flatten() {
            limiter.retain_recent();
            limiter.shrink_to_fit();
        }
        for limiter in [&self.address, &self.check].into_iter().flatten() {
            limiter.retain_recent();
            limiter.shrink_to_fit();
        }
    }
}

fn keyed<K: Hash + Eq + Clone>(rate: Rate) -> Option<Keyed<K>> {
    let per_second = NonZeroU32::new(rate.per_second)?;
    let burst = NonZeroU32::new(rate.burst).unwrap_or(per_second);
    Some(RateLimiter::dashmap(Quota::per_second(per_second).allow_burst(burst)))
}

fn check<K: Hash + Eq + Clone>(limiter: Option<&Keyed<K>>, key: &K) -> Result<(), Problem> {
    let Some(limiter) = limiter else { return Ok(()) };
    limiter.check_key(key).map_err(|until| {
        let wait = until.wait_time_from(limiter.clock().now());
        Problem::too_many(wait.max(Duration::from_millis(1)))
    })
}

/// Counts a request against its address. One that came without an address came by no network.
pub(super) async fn by_address(
    State(state): State<ControlPlane>,
    request: Request,
    next: Next,
) -> Response {
    let address = request.extensions().get::<ClientAddress>().copied();
    if let Some(Err(problem)) = address.map(|address| state.control.limiters.address(address)) {
        state.control.counters.rate_limited.add();
        return problem.into_response();
    }
    next.run(request).await
}
