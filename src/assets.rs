//! The pages: files that the build of `web/` left, carried inside the binary.
//!
//! `/visit` is `visit.html`. Files under `/assets/` carry a hash of their content in their name and
//! may be kept for ever; everything else is asked for again with its `ETag`. Text is compressed
//! once, when it is first wanted.

use std::borrow::Cow;
use std::collections::HashMap;
use std::io::Write as _;
use std::sync::LazyLock;

use axum::Router;
use axum::extract::Path;
use axum::http::header::{
    ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, ETAG, IF_NONE_MATCH, VARY,
};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use rust_embed::RustEmbed;

#[derive(RustEmbed)]
#[folder = "$CARGO_MANIFEST_DIR/web/dist"]
#[allow_missing = true]
struct Dist;

/// One file, ready to be sent.
struct Asset {
    plain: Bytes,
    gzip: Option<Bytes>,
    kind: HeaderValue,
    etag: HeaderValue,
    cache: HeaderValue,
}

static ASSETS: LazyLock<HashMap<String, Asset>> = LazyLock::new(|| {
    Dist::iter()
        .filter_map(|path| {
            let file = Dist::get(&path)?;
            Some((path.to_string(), Asset::new(&path, file.data, &file.metadata.sha256_hash())))
        })
        .collect()
});

/// Whether the pages were built before the binary was.
pub(crate) fn are_built() -> bool {
    Dist::get("index.html").is_some()
}

/// Routes of all pages and their files.
pub(crate) fn router<S: Clone + Send + Sync + 'static>() -> Router<S> {
    let mut router = Router::new()
        .route("/", get(|headers: HeaderMap| async move { page("index.html", &headers) }))
        .route("/assets/{*path}", get(hashed));
    for path in Dist::iter().filter(|path| is_page(path)) {
        let route = format!("/{}", path.strip_suffix(".html").unwrap_or(&path));
        let serve = move |headers: HeaderMap| async move { page(&path, &headers) };
        router = router.route(&route, get(serve));
    }
    router
}

/// Neither a hashed file, nor the landing page, nor what the build keeps for itself.
fn is_page(path: &str) -> bool {
    !path.starts_with("assets/") && !path.starts_with('.') && path != "index.html"
}

async fn hashed(Path(path): Path<String>, headers: HeaderMap) -> Response {
    match ASSETS.get(&format!("assets/{path}")) {
        Some(asset) => asset.answer(&headers),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

fn page(path: &str, headers: &HeaderMap) -> Response {
    match ASSETS.get(path) {
        Some(asset) => asset.answer(headers),
        None => Html(NOT_BUILT).into_response(),
    }
}

impl Asset {
    fn new(path: &str, data: Cow<'static, [u8]>, hash: &[u8; 32]) -> Self {
        let plain = match data {
            Cow::Borrowed(data) => Bytes::from_static(data),
            Cow::Owned(data) => Bytes::from(data),
        };
        let kind = mime_guess::from_path(path).first_or_octet_stream();
        let text = kind.type_() == mime_guess::mime::TEXT
            || matches!(kind.subtype().as_str(), "javascript" | "json" | "svg" | "wasm");
        let gzip = if text { gzip(&plain) } else { None };
        let kind = if kind.type_() == mime_guess::mime::TEXT {
            format!("{kind}; charset=utf-8")
        } else {
            kind.to_string()
        };
        let etag: String = hash.iter().take(12).map(|byte| format!("{byte:02x}")).collect();
        let cache = match path.starts_with("assets/") {
            true => "public, max-age=31536000, immutable",
            false => "no-cache",
        };
        Self {
            plain,
            gzip,
            kind: HeaderValue::from_str(&kind).expect("a media type is visible ASCII"),
            // Weak: the plain and the compressed form share it.
            etag: HeaderValue::from_str(&format!("W/\"{etag}\"")).expect("hex is visible ASCII"),
            cache: HeaderValue::from_static(cache),
        }
    }

    fn answer(&self, request: &HeaderMap) -> Response {
        let common = [
            (ETAG, self.etag.clone()),
            (CACHE_CONTROL, self.cache.clone()),
            (VARY, HeaderValue::from_static("accept-encoding")),
        ];
        let known = request.get(IF_NONE_MATCH).and_then(|value| value.to_str().ok());
        let etag = self.etag.to_str().unwrap_or_default();
        if known.is_some_and(|known| known.split(',').any(|one| one.trim() == etag)) {
            return (StatusCode::NOT_MODIFIED, common).into_response();
        }
        let kind = [(CONTENT_TYPE, self.kind.clone())];
        match &self.gzip {
            Some(gzip) if takes_gzip(request) => {
                let coding = [(CONTENT_ENCODING, HeaderValue::from_static("gzip"))];
                (common, kind, coding, gzip.clone()).into_response()
            }
            _ => (common, kind, self.plain.clone()).into_response(),
        }
    }
}

fn takes_gzip(request: &HeaderMap) -> bool {
    let accepted = request.get_all(ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    accepted.flat_map(|value| value.split(',')).any(|coding| {
        let mut parts = coding.split(';').map(str::trim);
        parts.next() == Some("gzip") && !parts.any(|part| matches!(part, "q=0" | "q=0.0"))
    })
}

/// The compressed form, if it is worth sending.
fn gzip(plain: &[u8]) -> Option<Bytes> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(plain.len() / 3), Compression::best());
    encoder.write_all(plain).ok()?;
    let packed = encoder.finish().ok()?;
    (packed.len() < plain.len()).then(|| Bytes::from(packed))
}

const NOT_BUILT: &str = "<!doctype html><html lang=\"en\"><title>Bedside</title>\
<h1>Bedside is running</h1><p>Its pages were not built when this binary was. \
Run <code>./scripts/build</code> and start it again.</p></html>";

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(axum::http::HeaderName, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.clone(), value.parse().unwrap())).collect()
    }

    #[test]
    fn text_is_compressed_for_those_who_take_it() {
        let text = "let a = 1;\n".repeat(100);
        let asset = Asset::new("assets/a-1.js", text.into_bytes().into(), &[7; 32]);
        let packed = asset.answer(&headers(&[(ACCEPT_ENCODING, "br, gzip;q=0.8")]));
        assert_eq!(packed.headers()[CONTENT_ENCODING], "gzip");
        assert_eq!(packed.headers()[CONTENT_TYPE], "text/javascript; charset=utf-8");
        assert_eq!(packed.headers()[CACHE_CONTROL], "public, max-age=31536000, immutable");
        for no in ["", "br", "gzip;q=0", "xgzip"] {
            let plain = asset.answer(&headers(&[(ACCEPT_ENCODING, no)]));
            assert!(plain.headers().get(CONTENT_ENCODING).is_none(), "{no}");
        }
    }

    #[test]
    fn a_known_page_is_not_sent_again() {
        let asset = Asset::new("visit.html", b"<p>".as_slice().into(), &[1; 32]);
        let first = asset.answer(&HeaderMap::new());
        assert_eq!(first.headers()[CACHE_CONTROL], "no-cache");
        let etag = first.headers()[ETAG].to_str().unwrap().to_owned();
        let again = asset.answer(&headers(&[(IF_NONE_MATCH, &format!("\"x\", {etag}"))]));
        assert_eq!(again.status(), StatusCode::NOT_MODIFIED);
        let other = asset.answer(&headers(&[(IF_NONE_MATCH, "\"x\"")]));
        assert_eq!(other.status(), StatusCode::OK);
    }

    #[test]
    fn pictures_are_not_compressed() {
        assert!(Asset::new("assets/a.png", vec![0; 4096].into(), &[0; 32]).gzip.is_none());
    }
}
