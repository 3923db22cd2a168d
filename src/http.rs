//! What every HTTP request and answer gets, and the doors of the operator.
//!
//! Pages may run our own code only, talk to us only, and be framed by nobody. Nothing that is
//! logged here carries a path that a person typed or a query string.

use std::any::Any;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{ConnectInfo, MatchedPath, Request, State};
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName, REFERRER_POLICY,
    STRICT_TRANSPORT_SECURITY, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::uri::PathAndQuery;
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;
use bedside_control_plane::address::TrustedProxies;
use bedside_control_plane::as_problems;
use futures_util::future::BoxFuture;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::limit::RequestBodyLimitLayer;

use crate::metrics::Metrics;

/// The longest body that any route takes: a file in the chat. The others bound theirs themselves.
const BODY_BYTES: usize = 64 * 1024 * 1024;

/// What is not ready, by name; empty = everything is.
pub(crate) type Readiness =
    std::sync::Arc<dyn Fn() -> BoxFuture<'static, Vec<&'static str>> + Send + Sync>;

/// Wraps the doors of all parts into the router of a listener.
pub(crate) fn router(
    doors: Router,
    metrics: Metrics,
    proxies: TrustedProxies,
    policy: &str,
) -> Router {
    let policy = HeaderValue::from_str(policy).expect("the policy is visible ASCII");
    doors
        .layer(RequestBodyLimitLayer::new(BODY_BYTES))
        .layer(from_fn(as_problems))
        .layer(CatchPanicLayer::custom(panicked))
        .layer(from_fn_with_state(policy, harden))
        .layer(from_fn_with_state(metrics, observe))
        .layer(from_fn_with_state(proxies, locate))
}

/// Sends everybody to the same page at `url`, our address with TLS; the operator's programs, which
/// know no names, keep their doors.
pub(crate) fn redirecting(operator: Router, url: &str) -> Router {
    // Scheme, nothing, host: the path is that of the request.
    let host = url.split('/').take(3).collect::<Vec<_>>().join("/");
    let move_on = move |uri: Uri| {
        let path = uri.path_and_query().map_or("/", PathAndQuery::as_str);
        // 308: a POST stays one.
        std::future::ready(Redirect::permanent(&format!("{host}{path}")))
    };
    operator.fallback(move_on)
}

/// Tells browsers to come with TLS only, for `period`. Not to be told without TLS (RFC 6797 §7.2).
pub(crate) fn strict(router: Router, period: Duration) -> Router {
    if period.is_zero() {
        return router;
    }
    let told = HeaderValue::from_str(&format!("max-age={}", period.as_secs()));
    let told = told.expect("a number is visible ASCII");
    router.layer(from_fn(move |request: Request, next: Next| {
        let told = told.clone();
        async move {
            let mut response = next.run(request).await;
            response.headers_mut().insert(STRICT_TRANSPORT_SECURITY, told);
            response
        }
    }))
}

/// The content security policy of our pages; `public_url` is where people open them.
pub(crate) fn content_security_policy(public_url: &str) -> String {
    // `'self'` covers our WebSockets in new browsers; older ones want them by name.
    let socket = public_url.trim_end_matches('/').replacen("http", "ws", 1);
    format!(
        "default-src 'self'; script-src 'self'; style-src 'self'; worker-src 'self'; \
         connect-src 'self' {socket}; img-src 'self' data: blob:; media-src 'self' blob:; \
         object-src 'none'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
    )
}

/// Which version this is: for everybody.
pub(crate) fn version() -> Router {
    let version = concat!(env!("CARGO_PKG_VERSION"), "\n");
    Router::new().route("/version", get(move || async move { version }))
}

/// The operator's doors: on the public listener, or on one of their own.
pub(crate) fn operator(metrics: Metrics, ready: Readiness) -> Router {
    Router::new()
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(move || readyz(ready.clone())))
        .route("/metrics", get(move || async move { exposition(&metrics) }))
}

async fn readyz(ready: Readiness) -> (StatusCode, String) {
    let missing = ready().await;
    if missing.is_empty() {
        return (StatusCode::OK, "ok\n".to_owned());
    }
    (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {}\n", missing.join(", ")))
}

fn exposition(metrics: &Metrics) -> Response {
    match metrics.text() {
        Ok(text) => ([(CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response(),
        Err(error) => {
            tracing::error!(%error, "metrics cannot be shown");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

/// Gives every request the address it comes from.
async fn locate(
    State(proxies): State<TrustedProxies>,
    mut request: Request,
    next: Next,
) -> Response {
    let peer = request.extensions().get::<ConnectInfo<SocketAddr>>().map(|peer| peer.0.ip());
    if let Some(peer) = peer {
        let client = proxies.client(peer, request.headers());
        request.extensions_mut().insert(client);
    }
    next.run(request).await
}

async fn observe(State(metrics): State<Metrics>, request: Request, next: Next) -> Response {
    let start = Instant::now();
    let method = request.method().clone();
    // The pattern, not the path: what people type ends up in paths, and ids of theirs do too.
    let route = request.extensions().get::<MatchedPath>().cloned();
    let response = next.run(request).await;
    let status = response.status();
    metrics.answered(status.as_u16());
    let route = route.as_ref().map_or("(none)", MatchedPath::as_str);
    let ms = start.elapsed().as_millis();
    if status.is_server_error() && status != StatusCode::SERVICE_UNAVAILABLE {
        tracing::warn!(%method, route, status = status.as_u16(), ms, "answered with an error");
    } else {
        tracing::debug!(%method, route, status = status.as_u16(), ms, "answered");
    }
    response
}

async fn harden(State(policy): State<HeaderValue>, request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let page = is_page(response.headers());
    let headers = response.headers_mut();
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    if page {
        headers.insert(CONTENT_SECURITY_POLICY, policy);
        headers.insert(PERMISSIONS_POLICY, HeaderValue::from_static(PERMISSIONS));
        headers.insert(OPENER_POLICY, HeaderValue::from_static("same-origin"));
    }
    // An answer that says nothing about it is about somebody.
    headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

const PERMISSIONS_POLICY: HeaderName = HeaderName::from_static("permissions-policy");
const OPENER_POLICY: HeaderName = HeaderName::from_static("cross-origin-opener-policy");
const PERMISSIONS: &str = "camera=(self), microphone=(self), display-capture=(self), \
                           autoplay=(self), geolocation=(), payment=(), usb=()";

fn is_page(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"text/html"))
}

/// A handler panicked: that request fails, nothing else does. The panic hook has logged where.
fn panicked(_payload: Box<dyn Any + Send>) -> Response {
    let body =
        r#"{"type":"about:blank","title":"Internal Server Error","status":500,"code":"internal"}"#;
    let kind = [(CONTENT_TYPE, "application/problem+json")];
    (StatusCode::INTERNAL_SERVER_ERROR, kind, body).into_response()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use axum::body::Body;
    use axum::response::Html;
    use bedside_sfu::core::counters::Counters;
    use tower::ServiceExt as _;

    use super::*;

    async fn fails() {
        panic!("on purpose")
    }

    async fn ask(path: &str, missing: Vec<&'static str>) -> (Response, Metrics) {
        let metrics = Metrics::new(Arc::new(Counters::default), Arc::default()).unwrap();
        let ready: Readiness = Arc::new(move || {
            let missing = missing.clone();
            Box::pin(async move { missing })
        });
        let doors = Router::new()
            .route("/page", get(|| async { Html("<p>") }))
            .route("/data", get(|| async { "data" }))
            .route("/panic", get(fails));
        let policy = content_security_policy("https://video.example/");
        let doors = doors.merge(operator(metrics.clone(), ready)).merge(version());
        let router = router(doors, metrics.clone(), TrustedProxies::default(), &policy);
        let request = Request::get(path).body(Body::empty()).unwrap();
        (router.oneshot(request).await.unwrap(), metrics)
    }

    #[tokio::test]
    async fn pages_are_locked_down() {
        let (page, _) = ask("/page", vec![]).await;
        let policy = page.headers()[CONTENT_SECURITY_POLICY].to_str().unwrap();
        for rule in [
            "script-src 'self';",
            "connect-src 'self' wss://video.example;",
            "frame-ancestors 'none'",
        ] {
            assert!(policy.contains(rule), "{rule} is not in {policy}");
        }
        assert!(!policy.contains("unsafe"));
        assert_eq!(page.headers()[REFERRER_POLICY], "no-referrer");
        let (data, _) = ask("/data", vec![]).await;
        assert_eq!(data.headers()[X_CONTENT_TYPE_OPTIONS], "nosniff");
        assert_eq!(data.headers()[CACHE_CONTROL], "no-store");
        assert!(data.headers().get(CONTENT_SECURITY_POLICY).is_none());
    }

    #[tokio::test]
    async fn a_panic_is_an_answer_and_is_counted() {
        let (answer, metrics) = ask("/panic", vec![]).await;
        assert_eq!(answer.status(), StatusCode::INTERNAL_SERVER_ERROR);
        assert!(metrics.text().unwrap().contains("bedside_http_requests_total{status=\"5xx\"} 1"));
    }

    #[tokio::test]
    async fn nothing_is_a_problem_where_programs_ask() {
        for path in ["/api", "/api/", "/api/v9/nothing", "/appointments/1"] {
            let (answer, _) = ask(path, vec![]).await;
            assert_eq!(answer.status(), StatusCode::NOT_FOUND, "{path}");
            assert_eq!(answer.headers()[CONTENT_TYPE], "application/problem+json", "{path}");
        }
    }

    #[tokio::test]
    async fn readiness_names_what_is_missing() {
        assert_eq!(ask("/readyz", vec![]).await.0.status(), StatusCode::OK);
        let (answer, _) = ask("/readyz", vec!["database"]).await;
        assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(ask("/livez", vec!["database"]).await.0.status(), StatusCode::OK);
        assert_eq!(ask("/nowhere", vec![]).await.0.status(), StatusCode::NOT_FOUND);
    }
}
