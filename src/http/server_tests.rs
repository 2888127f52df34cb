use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::*;
use crate::admin::tests::lonely_gateway;
use crate::http::Readiness;

struct Server {
    address: SocketAddr,
    readiness: Arc<Readiness>,
    http: HttpTask,
}

async fn start() -> Server {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    let readiness = Arc::new(Readiness::default());
    let (gateway, places) = (lonely_gateway(), Places::default());
    let http =
        HttpTask::start(listener, &gateway, places, Runtimes::default(), &readiness).expect("it starts");
    Server {
        address,
        readiness,
        http,
    }
}

impl Server {
    async fn ask(&self, request: &str) -> String {
        let mut stream = TcpStream::connect(self.address).await.expect("it listens");
        let text = format!("{request} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        stream.write_all(text.as_bytes()).await.expect("it reads");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("it answers");
        answer
    }
}

#[tokio::test]
async fn every_path_has_its_answer() {
    let server = start().await;
    for (request, status, body) in [
        ("GET /livez", "200 OK", "\r\n\r\nalive\n"),
        ("HEAD /livez", "200 OK", "\r\n\r\n"),
        (
            "GET /readyz",
            "503 Service Unavailable",
            "no backend can be reached: warehouse\n",
        ),
        (
            "GET /",
            "404 Not Found",
            "there are /metrics, /livez and /readyz\n",
        ),
        ("POST /metrics", "405 Method Not Allowed", "only GET and HEAD\n"),
        ("GET /metrics", "200 OK", "# EOF\n"),
        ("HEAD /metrics", "200 OK", "\r\n\r\n"),
    ] {
        let answer = server.ask(request).await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status}\r\n")),
            "{request}: {answer}"
        );
        assert!(answer.ends_with(body), "{request}: {answer}");
    }
    let metrics = server.ask("GET /metrics").await;
    assert!(metrics.contains("content-type: application/openmetrics-text; version=1.0.0"));
    for series in [
        "tollgate_pool_connections{backend=\"warehouse\",state=\"idle\"} 0",
        "tollgate_quota_running{team=\"growth\"} 0",
    ] {
        assert!(metrics.contains(series), "{series} is missing in {metrics}");
    }
}

#[tokio::test]
async fn a_draining_gateway_lives_but_is_not_ready() {
    let server = start().await;
    server.readiness.drain();
    let answer = server.ask("GET /readyz").await;
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.ends_with("draining: no new clients\n"));
    assert!(server.ask("GET /livez").await.starts_with("HTTP/1.1 200 "));
    server.http.stop(Duration::from_mins(1)).await;
    assert!(
        TcpStream::connect(server.address).await.is_err(),
        "nobody listens any more"
    );
}

#[tokio::test]
async fn a_request_that_never_ends_is_cut_off() {
    let server = start().await;
    let mut stream = TcpStream::connect(server.address).await.expect("it listens");
    let endless = vec![b'x'; 64 * 1024];
    stream
        .write_all(b"GET /livez HTTP/1.1\r\nX: ")
        .await
        .expect("it reads");
    // it may be cut off while this is sent
    drop(stream.write_all(&endless).await);
    let mut answer = Vec::new();
    drop(stream.read_to_end(&mut answer).await);
    assert!(!String::from_utf8_lossy(&answer).starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn a_paused_server_lets_connections_wait_and_a_closed_one_leaves_the_socket() {
    let server = start().await;
    let mut kept = TcpStream::connect(server.address).await.expect("it listens");
    let question = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let mut first = vec![0; 12];
    kept.write_all(question).await.expect("it reads");
    kept.read_exact(&mut first).await.expect("it answers");
    server.http.pause();
    kept.write_all(question).await.expect("it reads");
    let mut rest = String::new();
    kept.read_to_string(&mut rest).await.expect("it ends");
    assert!(
        rest.contains("connection: close") && rest.ends_with("alive\n"),
        "{rest}"
    );
    let waiting = server.ask("GET /livez");
    tokio::pin!(waiting);
    assert!(futures_util::poll!(&mut waiting).is_pending());
    server.http.resume();
    assert!(waiting.await.ends_with("alive\n"));
    server.http.close();
    let deadline = std::time::Instant::now() + Duration::from_mins(1);
    while TcpStream::connect(server.address).await.is_ok() {
        assert!(std::time::Instant::now() < deadline, "the socket stays open");
        tokio::task::yield_now().await;
    }
}
