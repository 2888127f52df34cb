//! What is answered at which path.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::map_response_with_state;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

use super::limits::{Accepting, Bounded};
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
    accepting: watch::Receiver<Accepting>,
}

/// HTTP, answered by a task of its own.
pub struct HttpTask {
    accepting: watch::Sender<Accepting>,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl HttpTask {
    /// Answers on `listener`. `places` are the clients' places, logged in or not, and `runtimes` those that serve
    /// them.
    ///
    /// # Errors
    ///
    /// The socket has no address.
    pub fn start(
        listener: TcpListener,
        gateway: &Arc<Gateway>,
        places: Places,
        runtimes: Runtimes,
        readiness: &Arc<Readiness>,
    ) -> io::Result<Self> {
        let (accepting, state) = watch::channel(Accepting::Open);
        let (stop, stopped) = oneshot::channel::<()>();
        let router = router(Sources {
            gateway: Arc::clone(gateway),
            places,
            runtimes,
            readiness: Arc::clone(readiness),
            accepting: state.clone(),
        });
        let stopped = async {
            // the sender's end is the signal, too
            drop(stopped.await);
        };
        let bounded = Bounded::new(listener, state)?;
        let served = axum::serve(bounded, router).with_graceful_shutdown(stopped);
        let task = tokio::spawn(async move {
            if let Err(error) = served.await {
                tracing::error!(%error, "HTTP ended");
            }
        });
        Ok(Self {
            accepting,
            stop,
            task,
        })
    }

    /// Accepts nothing until [`Self::resume`]; who connects waits. Connections that are there end with their next answer.
    pub fn pause(&self) {
        self.accepting.send_replace(Accepting::Paused);
    }

    /// Accepts again.
    pub fn resume(&self) {
        self.accepting.send_replace(Accepting::Open);
    }

    /// Leaves the socket to another process. Connections that are there end with their next answer.
    pub fn close(&self) {
        self.accepting.send_replace(Accepting::Closed);
    }

    /// Answers what has been asked already, for `patience` at most.
    pub async fn stop(self, patience: Duration) {
        drop(self.stop);
        // it ends with the requests that it still answers, or with the runtime
        drop(tokio::time::timeout(patience, self.task).await);
    }
}

fn router(sources: Sources) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/livez", get(alive))
        .route("/readyz", get(ready))
        .fallback(nothing)
        .method_not_allowed_fallback(read_only)
        .layer(map_response_with_state(sources.clone(), last_answer))
        .with_state(sources)
}

/// Whoever keeps its connection goes to the process that accepts by the next one.
async fn last_answer(State(sources): State<Sources>, mut response: Response) -> Response {
    if *sources.accepting.borrow() != Accepting::Open {
        let headers = response.headers_mut();
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
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
