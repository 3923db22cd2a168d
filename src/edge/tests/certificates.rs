//! Certificates that change, or should not have.

use super::super::certificate::Certificate;
use super::*;

const GOOD: &str = "bedside_tls_certificates_total{result=\"good\"}";
const BAD: &str = "bedside_tls_certificates_total{result=\"bad\"}";

/// The certificate that a new connection is shown.
async fn shown(site: &Site) -> CertificateDer<'static> {
    let stream = site.tls(&[]).await.unwrap();
    stream.get_ref().1.peer_certificates().unwrap()[0].clone().into_owned()
}

fn written(made: &Selfmade) -> CertificateDer<'static> {
    CertificateDer::from_pem_file(&made.certificate).unwrap()
}

/// Asks for pages on new connections until it is told to stop; says how many it got.
async fn traffic(site: &Site, stop: &watch::Sender<bool>) -> u64 {
    let mut stopped = stop.subscribe();
    let mut got = 0;
    while !*stopped.borrow_and_update() {
        // The old authority is not trusted any more while the files change hands.
        if let Ok(mut stream) = site.tls(&["http/1.1"]).await {
            assert!(ask(&mut stream, "GET /hello").await.ends_with("hello"));
            got += 1;
        }
    }
    got
}

#[tokio::test]
async fn files_are_read_again_when_they_change_while_people_come() {
    let site = Site::open(Settings::default());
    let first = shown(&site).await;
    assert_eq!(first, written(&site.made));
    let (stop, _) = watch::channel(false);
    let mut long = site.tls(&["http/1.1"]).await.unwrap();
    let changing = async {
        certificate(site.folder.path());
        site.counts(GOOD, 1).await;
        stop.send_replace(true);
    };
    let (got, ()) = tokio::join!(traffic(&site, &stop), changing);
    assert!(got > 0);
    let second = shown(&site).await;
    assert!(second != first && second == written(&site.made));
    // Who was there before goes on, unless being silent was too long.
    let _cut = long.write_all(b"GET /hello HTTP/1.1\r\nhost: here\r\n\r\n").await;
    let until = site.metric("bedside_tls_certificate_expiry_seconds");
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    assert!((now + 6 * 86_400..now + 8 * 86_400).contains(&until), "{until}");
}

#[tokio::test]
async fn a_bad_file_keeps_the_old_certificate() {
    let site = Site::open(Settings::default());
    let first = shown(&site).await;
    let (chain, key) = (&site.made.certificate, &site.made.key);
    let good = [std::fs::read(chain).unwrap(), std::fs::read(key).unwrap()];
    let other = tempfile::tempdir().unwrap();
    let others_key = std::fs::read(certificate(other.path()).key).unwrap();
    for (chain_now, key_now) in [
        (&b"garbage"[..], good[1].as_slice()),
        (&good[0], &others_key),
        (&good[0][..good[0].len() / 2], &good[1]),
        (b"", b""),
    ] {
        let before = site.metric(BAD);
        std::fs::write(chain, chain_now).unwrap();
        std::fs::write(key, key_now).unwrap();
        site.secure.reload();
        site.counts(BAD, before + 1).await;
        assert_eq!(shown(&site).await, first);
    }
    let before = site.metric(BAD);
    std::fs::remove_file(key).unwrap();
    site.secure.reload();
    site.counts(BAD, before + 1).await;
    std::fs::write(chain, &good[0]).unwrap();
    std::fs::write(key, &good[1]).unwrap();
    site.secure.reload();
    site.counts(GOOD, 1).await;
    assert_eq!(shown(&site).await, first);
}

#[test]
fn a_start_without_a_good_certificate_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let made = certificate(folder.path());
    let read = |path: &Path| std::fs::read(path).unwrap();
    let (chain, key) = (read(&made.certificate), read(&made.key));
    let now = SystemTime::now();
    assert!(Certificate::read(&chain, &key, now).is_ok());
    let late = now + Duration::from_secs(30 * 86_400);
    for (chain, key, at, word) in [
        (&chain[..], &key[..], late, "expired"),
        (&key, &key, now, "no certificate"),
        (&chain, &chain, now, "no private key"),
        (&read(&made.authority), &key, now, "does not fit"),
    ] {
        let error = Certificate::read(chain, key, at).unwrap_err().to_string();
        assert!(error.contains(word), "{word} is not in {error}");
    }
}
