//! What is answered at which path.

use std::future::Future;
use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;

use super::limits::Bounded;
use super::readiness::Readiness;
use crate::admin::live_state;
use crate::frontend::{Places, Runtimes};
use crate::pipeline::Gateway;

/// What [`Metrics::encode`](crate::telemetry::Metrics::encode) writes.
const OPEN_METRICS: HeaderValue =
    HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");

/// An answer is of its moment.
const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");

#[derive(Clone)]
struct Sources {
    gateway: Arc<Gateway>,
    places: Places,
    runtimes: Runtimes,
    readiness: Arc<Readiness>,
}

/// Answers on `listener` until `shutdown`, and then what has been asked already. `places` are the clients' places, logged
/// in or not, and `runtimes` those that serve them.
pub async fn serve(
    listener: TcpListener,
    gateway: Arc<Gateway>,
    places: Places,
    runtimes: Runtimes,
    readiness: Arc<Readiness>,
    shutdown: impl Future<Output = ()> + Send + 'static,
) {
    let router = router(Sources {
        gateway,
        places,
        runtimes,
        readiness,
    });
    let served = axum::serve(Bounded::new(listener), router).with_graceful_shutdown(shutdown);
    if let Err(error) = served.await {
        tracing::error!(%error, "HTTP ended");
    }
}

fn router(sources: Sources) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/livez", get(alive))
        .route("/readyz", get(ready))
        .fallback(nothing)
        .method_not_allowed_fallback(read_only)
        .with_state(sources)
}

async fn metrics(State(sources): State<Sources>) -> Response {
    let gateway = &sources.gateway;
    let mut live = live_state(gateway, Instant::now());
    let clients = &mut live.clients;
    clients.login = u64::from(sources.places.taken_count())
        .saturating_sub(clients.idle + clients.active + clients.waiting);
    live.tasks = sources.runtimes.tasks();
    let headers = [
        (header::CONTENT_TYPE, OPEN_METRICS),
        (header::CACHE_CONTROL, NO_STORE),
    ];
    (headers, gateway.metrics.encode(&live)).into_response()
}

/// Answering is proof enough.
async fn alive() -> Response {
    line(StatusCode::OK, "alive")
}

async fn ready(State(sources): State<Sources>) -> Response {
    match sources.readiness.check(&sources.gateway) {
        Ok(()) => line(StatusCode::OK, "ready"),
        Err(unready) => line(StatusCode::SERVICE_UNAVAILABLE, &unready.to_string()),
    }
}

async fn nothing() -> Response {
    line(
        StatusCode::NOT_FOUND,
        "nothing here; there are /metrics, /livez and /readyz",
    )
}

async fn read_only() -> Response {
    line(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD")
}

fn line(status: StatusCode, text: &str) -> Response {
    (status, [(header::CACHE_CONTROL, NO_STORE)], format!("{text}\n")).into_response()
}

#[cfg(test)]
#[path = "server_tests.rs"]
mod tests;
