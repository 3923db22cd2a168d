//! The doors of the protocol's first version.
use crate::dispatch::Shared;
use std::sync::Arc;
pub(crate) fn router(_shared: Arc<Shared>) -> axum::Router {
    axum::Router::new()
}
