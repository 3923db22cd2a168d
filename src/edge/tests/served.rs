//! What is served, with TLS and without.

use super::*;

#[tokio::test]
async fn https_is_served_with_and_without_a_list_of_protocols() {
    let site = Site::open(Settings::default());
    for protocols in [&[][..], &["http/1.1"], &["h2", "http/1.1"], &["stun.turn"]] {
        let mut stream = site.tls(protocols).await.unwrap();
        let chosen = stream.get_ref().1.alpn_protocol().map(<[u8]>::to_vec);
        let expected = protocols.contains(&"http/1.1").then(|| b"http/1.1".to_vec());
        assert_eq!(chosen, expected, "{protocols:?}");
        let answer = ask(&mut stream, "GET /hello").await;
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("hello"), "{answer}");
        assert!(answer.contains("strict-transport-security: max-age=3600"), "{answer}");
    }
    assert_eq!(site.metric("bedside_edge_connections_total{kind=\"https\"}"), 4);
    site.empties().await;
}

#[tokio::test]
async fn http_leads_to_https_and_keeps_what_was_asked() {
    let site = Site::open(Settings::default());
    let answer = ask(&mut site.connect().await, "POST /a/b?c=d").await;
    assert!(answer.starts_with("HTTP/1.1 308"), "{answer}");
    assert!(answer.contains("location: https://video.example/a/b?c=d\r\n"), "{answer}");
    assert!(!answer.contains("strict-transport-security"), "{answer}");
    let answer = ask(&mut site.connect().await, "GET /livez").await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[tokio::test]
async fn a_request_may_come_byte_by_byte() {
    let site = Site::open(Settings::default());
    let mut stream = site.tls(&[]).await.unwrap();
    for byte in b"GET /hello HTTP/1.1\r\nhost: here\r\nconnection: close\r\n\r\n" {
        stream.write_all(&[*byte]).await.unwrap();
        stream.flush().await.unwrap();
    }
    assert!(rest(&mut stream).await.ends_with("hello"));
}

#[tokio::test]
async fn bodies_arrive_whole() {
    let site = Site::open(Settings::default());
    let mut stream = site.tls(&["http/1.1"]).await.unwrap();
    let body = vec![b'x'; 1 << 20];
    let head = format!("POST /count HTTP/1.1\r\nhost: here\r\ncontent-length: {}\r\n", body.len());
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(b"connection: close\r\n\r\n").await.unwrap();
    stream.write_all(&body).await.unwrap();
    assert!(rest(&mut stream).await.ends_with(&format!("\r\n\r\n{}", body.len())));
}

#[tokio::test]
async fn it_ends_when_it_is_told_and_answers_what_was_asked() {
    let site = Site::open(Settings::default());
    let mut idle = site.tls(&["http/1.1"]).await.unwrap();
    let silent = site.connect().await;
    let mut asking = site.tls(&["http/1.1"]).await.unwrap();
    asking.write_all(b"GET /slow HTTP/1.1\r\nhost: here\r\n\r\n").await.unwrap();
    while SLOW.load(Ordering::Relaxed) == 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    site.stop.send(true).unwrap();
    assert!(rest(&mut asking).await.ends_with("slowly"));
    assert_eq!(rest(&mut idle).await, "");
    drop(silent);
    tokio::time::timeout(PATIENCE, site.running).await.expect("it ends").unwrap();
    assert!(TcpStream::connect(site.address).await.is_err());
}
