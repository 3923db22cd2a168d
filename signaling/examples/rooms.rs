//! A bare room server: media node and room door, without consultations.
//!
//! Every valid token opens its room. Good for trying a client SDK:
//!
//! ```text
//! cargo run -p bedside-signaling --example rooms -- 8000
//! ```
//!
//! It prints one line of JSON: `url`, `api_key`, `api_secret`. Port 0 or none = any free one.

#![allow(clippy::print_stdout, reason = "the line on standard output is what it is for")]

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use bedside_sfu::core::api::Private;
use bedside_sfu::node::{Node, NodeConfig, Outlets};
use bedside_signaling::livekit::data;
use bedside_signaling::rooms::{DoorRefusal, Doorkeeper, RoomPlan};
use bedside_signaling::token::{Claims, KeyPair};
use bedside_signaling::{Signaling, SignalingConfig};
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use tokio::net::TcpListener;
use tokio::sync::mpsc;

/// Any room for anybody with a valid token.
struct Open;

impl Doorkeeper for Open {
    fn room<'a>(&'a self, _: &'a Claims) -> BoxFuture<'a, Result<RoomPlan, DoorRefusal>> {
        let empty_timeout = Some(Duration::from_secs(20));
        let plan =
            RoomPlan { empty_timeout, departure_timeout: empty_timeout, ..RoomPlan::default() };
        async move { Ok(plan) }.boxed()
    }

    fn create<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<RoomPlan, DoorRefusal>> {
        async { Ok(RoomPlan::default()) }.boxed()
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let port = std::env::args().nth(1).map_or(Ok(0), |port| port.parse::<u16>())?;
    let host = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let (node, events) = Node::start(NodeConfig {
        bind: host,
        first_port: 0,
        shards: 1,
        tcp: false,
        advertise: vec![host],
        shared_tcp: None,
        outlets: Outlets::default(),
        relay: data::relay,
        commands: 1_024,
        events: 4_096,
    })?;
    let keys = KeyPair { key: "devkey".into(), secret: Private::new("secret".into()) };
    let config = SignalingConfig {
        keys: vec![keys.clone()],
        allow_simulate: true,
        ..SignalingConfig::default()
    };
    let (facts, mut told) = mpsc::channel(1_024);
    let signaling = Signaling::new(config, node.handle(), Arc::new(Open), facts);
    let listener = TcpListener::bind((host, port)).await?;
    let url = format!("http://{}", listener.local_addr()?);
    println!(
        r#"{{"url":"{url}","api_key":"{}","api_secret":"{}"}}"#,
        keys.key,
        keys.secret.reveal()
    );
    let router = signaling.router();
    tokio::spawn(signaling.run(events));
    tokio::spawn(async move { while told.recv().await.is_some() {} });
    axum::serve(listener, router).await?;
    node.stop();
    Ok(())
}
