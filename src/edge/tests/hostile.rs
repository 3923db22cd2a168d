//! Those who mean harm, or are merely broken.

use super::*;

const SILENT: &str = "bedside_edge_refused_total{reason=\"silent\"}";
const STRANGER: &str = "bedside_edge_refused_total{reason=\"stranger\"}";
const HANDSHAKE: &str = "bedside_edge_refused_total{reason=\"handshake\"}";
const CROWDED: &str = "bedside_edge_refused_total{reason=\"crowded\"}";

/// A ClientHello as rustls writes it.
fn hello() -> Vec<u8> {
    bedside_control_plane::crypto::use_one();
    let config = ClientConfig::builder()
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    let name = ServerName::try_from(NAME).unwrap();
    let mut client = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
    let mut bytes = Vec::new();
    client.write_tls(&mut bytes).unwrap();
    bytes
}

async fn send(site: &Site, bytes: &[u8]) -> TcpStream {
    let mut stream = site.connect().await;
    // It may have been cut off already.
    let _cut = stream.write_all(bytes).await;
    stream
}

#[tokio::test]
async fn strangers_are_cut_off_at_once() {
    let site = Site::open(Settings::default());
    let stun = [0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let framed = [&[0, 20][..], &stun].concat();
    // Neither TURN nor media is served here.
    let strangers: [&[u8]; 5] =
        [&[0; 64], &[0xff; 64], b"\r\n\r\n\r\n\r\n\r\n\r\n", &stun, &framed];
    for bytes in strangers {
        assert_eq!(rest(&mut send(&site, bytes).await).await, "", "{bytes:02x?}");
    }
    site.counts(STRANGER, 5).await;
    let mut inside = site.tls(&[]).await.unwrap();
    inside.write_all(&hello()).await.unwrap();
    assert_eq!(rest(&mut inside).await, "");
    site.counts(STRANGER, 6).await;
}

#[tokio::test]
async fn broken_handshakes_fail_and_harm_nobody() {
    let site = Site::open(Settings::default());
    let hello = hello();
    let mut cases = vec![
        // A record longer than any may be, and one that holds garbage.
        [&[0x16, 3, 1, 0xff, 0xff][..], &[0; 100]].concat(),
        [&[0x16, 3, 1, 0, 64][..], &[0x5a; 64]].concat(),
        // A message that says it has 16 MiB.
        [&[0x16, 3, 1, 0, 64, 1, 0xff, 0xff, 0xff][..], &[0; 60]].concat(),
    ];
    for at in [5, 9, 11, 43, hello.len() / 2] {
        let mut flipped = hello.clone();
        flipped[at] ^= 0xff;
        cases.push(flipped);
    }
    let cases_in_all = cases.len() as u64;
    for bytes in cases {
        let mut stream = send(&site, &bytes).await;
        stream.shutdown().await.ok();
        rest(&mut stream).await;
    }
    // Only suites and versions that nobody should have any more.
    let old = [&[0x16u8, 3, 1, 0, 45, 1, 0, 0, 41, 3, 1][..], &[7; 32], &[0, 0, 2, 0, 0x2f, 1, 0]];
    let mut stream = send(&site, &old.concat()).await;
    let mut alert = Vec::new();
    let _reset = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut alert)).await.unwrap();
    assert_eq!(alert.first(), Some(&21), "an alert: {alert:02x?}");
    site.counts(HANDSHAKE, cases_in_all + 1).await;
    let answer = ask(&mut site.tls(&[]).await.unwrap(), "GET /hello").await;
    assert!(answer.ends_with("hello"));
}

#[tokio::test]
async fn half_of_anything_is_waited_for_and_then_cut() {
    let site = Site::open(Settings::default());
    let hello = hello();
    let start = std::time::Instant::now();
    let mut silent = site.connect().await;
    let mut one = send(&site, &[0x16]).await;
    let mut nine = send(&site, &[0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42, 9]).await;
    let mut half = send(&site, &hello[..hello.len() / 2]).await;
    let mut head = send(&site, b"GET /hello HTTP/1.1\r\nhost: he").await;
    let mut inside = site.tls(&[]).await.unwrap();
    for stream in [&mut silent, &mut one, &mut nine] {
        assert_eq!(rest(stream).await, "");
    }
    assert_eq!(rest(&mut inside).await, "");
    site.counts(SILENT, 4).await;
    assert!(start.elapsed() >= Duration::from_secs(4), "not at once");
    rest(&mut half).await;
    site.counts(HANDSHAKE, 1).await;
    rest(&mut head).await;
    site.empties().await;
    assert!(start.elapsed() >= Duration::from_secs(9), "not at once");
}

#[tokio::test]
async fn huge_heads_are_refused() {
    let site = Site::open(Settings::default());
    let mut stream = site.tls(&["http/1.1"]).await.unwrap();
    let (mut reader, mut writer) = tokio::io::split(&mut stream);
    let writing = async {
        let mut request = b"GET /hello HTTP/1.1\r\nx: ".to_vec();
        request.resize(10 << 20, b'x');
        // Refused before all of it was sent.
        let _cut = writer.write_all(&request).await;
    };
    let (answer, ()) = tokio::join!(rest(&mut reader), writing);
    assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
    let mut many = "GET /hello HTTP/1.1\r\n".to_owned();
    (0..1000).for_each(|number| many.push_str(&format!("x{number}: y\r\n")));
    let mut stream = site.tls(&["http/1.1"]).await.unwrap();
    stream.write_all(many.as_bytes()).await.unwrap();
    stream.write_all(b"\r\n").await.unwrap();
    assert!(rest(&mut stream).await.starts_with("HTTP/1.1 431"));
}

#[tokio::test]
async fn the_silent_keep_nobody_out() {
    let site = Site::open(Settings { places: 64, per_address: 48 });
    let mut silent = Vec::new();
    for _ in 0..200 {
        silent.push(site.connect().await);
    }
    let answer = ask(&mut site.tls(&[]).await.unwrap(), "GET /hello").await;
    assert!(answer.ends_with("hello"), "{answer}");
    // Those who were there first have gone by themselves where opening took long.
    site.until(CROWDED, |crowded| crowded + site.metric(SILENT) >= 100).await;
    drop(silent);
}

/// Takes the answer's head and nothing more, however long one waits.
#[tokio::test]
async fn who_does_not_read_is_cut() {
    let site = Site::open(Settings::default());
    let mut stream = site.tls(&["http/1.1"]).await.unwrap();
    stream.write_all(b"GET /long HTTP/1.1\r\nhost: here\r\n\r\n").await.unwrap();
    let mut head = [0; 12];
    stream.read_exact(&mut head).await.unwrap();
    assert_eq!(&head, b"HTTP/1.1 200");
    site.empties().await;
}

/// A body that never ends: a byte now and then.
#[tokio::test]
async fn who_sends_too_slowly_is_cut() {
    let site = Site::open(Settings::default());
    let mut stream = site.tls(&["http/1.1"]).await.unwrap();
    let head = b"POST /count HTTP/1.1\r\nhost: here\r\ncontent-length: 1000\r\n\r\n";
    stream.write_all(head).await.unwrap();
    let (mut reader, mut writer) = tokio::io::split(&mut stream);
    let dribbling = async {
        while writer.write_all(b"x").await.is_ok() {
            tokio::time::sleep(Duration::from_secs(2)).await;
        }
    };
    let answer = tokio::select! {
        answer = rest(&mut reader) => answer,
        () = dribbling => String::new(),
    };
    assert!(!answer.contains(" 200 "), "{answer}");
    site.empties().await;
}
