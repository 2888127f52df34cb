//! placeholder
use crate::pipeline::Gateway;
use std::future::Future;
use std::sync::Arc;
/// Readiness.
#[derive(Default)]
pub struct Readiness;
impl Readiness {
    /// Drain.
    pub fn drain(&self) {}
}
/// Serve.
pub async fn serve(
    _l: tokio::net::TcpListener,
    _g: Arc<Gateway>,
    _r: Arc<Readiness>,
    s: impl Future<Output = ()>,
) {
    s.await
}
