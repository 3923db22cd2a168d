//! TURN over TCP.
//!
//! The node's side runs in a runtime; the client here may wait.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use bedside_turn::message::{Class, Method, Writer, parse_channel_data};
use bedside_turn::{Node, Relay, Transport};
use bytes::Bytes;
use tokio::io::{
    AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, DuplexStream, ReadBuf,
};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

use crate::client::{Client, looks_virtual};
use crate::{PEER, address, config, eventually, mirrored};

fn listen(node: &Node) -> (Runtime, SocketAddr) {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
    let local = listener.local_addr().unwrap();
    let streams = node.streams();
    runtime.spawn(async move { streams.listen(listener).await });
    (runtime, local)
}

#[test]
fn a_stream_carries_both_ways_however_it_is_cut() {
    let (node, mirror) = mirrored(config());
    node.allow("ann");
    let (_runtime, at) = listen(&node);
    let mut client = Client::tcp(at, "ann");
    assert!(looks_virtual(&client.allocate().unwrap()));
    client.bind(0x4000, address(PEER)).unwrap();
    for length in [1, 2, 3, 4, 1_200] {
        let data = vec![7; length];
        client.send_channel(0x4000, &data);
        let bytes = client.wire.receive(Duration::from_secs(30)).unwrap();
        assert_eq!(parse_channel_data(&bytes), Some((0x4000, &data[..])));
        assert_eq!(bytes.len() % 4, 0);
    }
    let crate::client::Wire::Tcp(stream, _) = &mut client.wire else { panic!() };
    for byte in [0x40, 0, 0, 2, b'o', b'k', 0, 0] {
        stream.write_all(&[byte]).unwrap();
        std::thread::sleep(Duration::from_millis(2));
    }
    let bytes = client.wire.receive(Duration::from_secs(30)).unwrap();
    assert_eq!(parse_channel_data(&bytes), Some((0x4000, &b"ok"[..])));
    assert_eq!(mirror.seen.lock().unwrap().len(), 6);
}

#[test]
fn a_leaver_is_cut_off_and_a_closed_stream_forgotten() {
    let (node, mirror) = mirrored(config());
    node.allow("ann");
    node.allow("bob");
    let (_runtime, at) = listen(&node);
    let mut ann = Client::tcp(at, "ann");
    let mut bob = Client::tcp(at, "bob");
    ann.allocate().unwrap();
    bob.allocate().unwrap();
    eventually("both are counted", || {
        (node.counters().allocations, node.counters().streams) == (2, 2)
    });
    node.free("ann");
    eventually("ann's is gone", || node.counters().allocations == 1);
    let crate::client::Wire::Tcp(stream, _) = &mut ann.wire else { panic!() };
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    assert_eq!(stream.read(&mut [0; 10]).unwrap(), 0, "the end");
    drop(bob);
    eventually("bob's, too", || (node.counters().allocations, node.counters().streams) == (0, 0));
    assert_eq!(mirror.closed.lock().unwrap().len(), 2);
    let back = node.backhaul();
    assert_eq!(back.send(Relay(0x1FF), address(PEER), 4, Bytes::from_static(b"late")), 0);
    eventually("it is counted", || node.counters().no_way_back == 1);
}

#[test]
fn who_breaks_the_rules_is_cut_off() {
    let (node, _mirror) = mirrored(config());
    let (_runtime, at) = listen(&node);
    let bare = Writer::new(Method::Allocate, Class::Request, [1; 12]).finish();
    let hostile: [Vec<u8>; 6] = [
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        vec![0x16, 3, 1, 2, 0, 1, 0, 1, 0xFC],
        vec![0; 4].into_iter().chain([0xFF; 100]).collect::<Vec<u8>>().repeat(100),
        vec![0x40, 0, 0xFF, 0xFF],
        vec![0, 1, 0, 3],
        bare.repeat(100),
    ];
    for bytes in &hostile {
        let mut stream = TcpStream::connect(at).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        // It may be cut off before it has said everything.
        let _ = stream.write_all(bytes);
        let mut answers = Vec::new();
        let end = stream.read_to_end(&mut answers);
        let cut =
            end.is_ok() || end.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionReset);
        assert!(cut, "{bytes:?}");
    }
    eventually("all are counted", || node.counters().streams_refused == 6);
    eventually("nobody is left", || node.counters().streams == 0);
}

#[test]
fn who_does_not_read_loses_the_oldest_and_nobody_else_waits() {
    let (node, mirror) = mirrored(config());
    node.allow("ann");
    node.allow("bob");
    let (_runtime, at) = listen(&node);
    let mut ann = Client::tcp(at, "ann");
    let mut bob = Client::tcp(at, "bob");
    for client in [&mut ann, &mut bob] {
        client.allocate().unwrap();
        client.bind(0x4000, address(PEER)).unwrap();
    }
    ann.send_channel(0x4000, b"which am I?");
    assert!(ann.wire.receive(Duration::from_secs(30)).is_some());
    let relay = mirror.seen.lock().unwrap()[0].relay;
    let back = node.backhaul();
    let train = Bytes::from(vec![1; 60_000]);
    eventually("ann is full", || back.send(relay, address(PEER), 1_200, train.clone()) > 0);
    bob.send_channel(0x4000, b"hello");
    let bytes = bob.wire.receive(Duration::from_secs(30)).unwrap();
    assert_eq!(parse_channel_data(&bytes), Some((0x4000, &b"hello"[..])));
    assert!(node.counters().dropped >= 50);
}

/// One end of a pipe that takes a few bytes at once and remembers what it was given each time.
struct Pieces {
    pipe: DuplexStream,
    given: Arc<Mutex<Vec<usize>>>,
    most: usize,
}

impl AsyncRead for Pieces {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.pipe).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Pieces {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let some = bytes.len().min(self.most);
        let wrote = Pin::new(&mut self.pipe).poll_write(cx, &bytes[..some]);
        if wrote.is_ready() {
            self.given.lock().unwrap().push(bytes.len());
        }
        wrote
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.pipe).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.pipe).poll_shutdown(cx)
    }
}

/// What the server gives to its end of a stream for three requests that come at once.
fn given_for_three(transport: Transport, most: usize) -> Vec<usize> {
    let (node, _mirror) = mirrored(config());
    let given = Arc::new(Mutex::new(Vec::new()));
    let (mut client, pipe) = tokio::io::duplex(10_000);
    let stream = Pieces { pipe, given: Arc::clone(&given), most };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let streams = node.streams();
        let at = address("127.0.0.1:1");
        let served = tokio::spawn(async move { streams.serve(stream, at, at, transport).await });
        let asked = Writer::new(Method::Binding, Class::Request, [1; 12]).finish().repeat(3);
        client.write_all(&asked).await.unwrap();
        client.read_exact(&mut [0; 3 * 32]).await.unwrap();
        drop(client);
        served.await.unwrap();
    });
    given.lock().unwrap().clone()
}

#[test]
fn on_tls_each_message_is_written_for_itself() {
    assert_eq!(given_for_three(Transport::Tcp, 10_000), [96]);
    assert_eq!(given_for_three(Transport::Tls, 10_000), [32, 32, 32]);
    let rests = given_for_three(Transport::Tls, 20);
    assert_eq!(rests, [32, 12, 32, 12, 32, 12], "what was not taken is written on");
}
