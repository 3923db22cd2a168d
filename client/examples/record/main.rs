//! Records the layered loops in `client/media`: a browser sends its camera here, and what arrives is
//! written down packet by packet. `client/media/make-layers` runs it; the format is described in
//! `client/src/recording.rs`.
//!
//! ```text
//! cargo run -p bedside-client --example record -- 127.0.0.1:7900 DIRECTORY
//! ```

#![allow(clippy::print_stderr, reason = "this is what a program to be run by hand is for")]

mod cut;
mod receiver;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;

use receiver::Receiver;

type Error = Box<dyn std::error::Error>;

const PAGE: &str = include_str!("page.html");

fn main() -> Result<(), Error> {
    let mut arguments = std::env::args().skip(1);
    let address = arguments.next().ok_or("usage: record ADDRESS DIRECTORY")?;
    let directory = PathBuf::from(arguments.next().ok_or("where to?")?);
    let listener = TcpListener::bind(address)?;
    let mut receiver = None;
    let mut failed = false;
    for stream in listener.incoming() {
        let mut stream = stream?;
        let Ok((path, body)) = read_request(&stream) else { continue };
        let name = path.rsplit('/').next().unwrap_or_default().to_owned();
        let result = if path.starts_with("/offer/") {
            Receiver::answer(&body).map(|(made, answer)| {
                receiver = Some(made);
                answer
            })
        } else if path.starts_with("/record/") {
            let width = path.split('/').nth(2).and_then(|width| width.parse().ok());
            record(receiver.take(), width).and_then(|bytes| {
                eprintln!("{name}: {} bytes", bytes.len());
                fs::write(directory.join(format!("{name}.rtp")), bytes)?;
                Ok(String::new())
            })
        } else if path.starts_with("/failed/") {
            eprintln!("{name}: {body}");
            failed = true;
            Ok(String::new())
        } else {
            Ok(PAGE.to_owned())
        };
        // Whoever does not wait for the answer only looked whether we are there.
        let _ = respond(&mut stream, &result);
        if path == "/done" || path == "/failed/page" {
            break;
        }
    }
    if failed { Err("not all loops were recorded".into()) } else { Ok(()) }
}

/// The bytes of a loop whose widest picture is so wide.
fn record(receiver: Option<Receiver>, width: Option<u16>) -> Result<Vec<u8>, Error> {
    let (receiver, width) = (receiver.ok_or("no offer")?, width.ok_or("how wide?")?);
    cut::cut(&receiver.record()?, width)
}

/// The path and the body of a request.
fn read_request(stream: &TcpStream) -> Result<(String, String), Error> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let path = line.split(' ').nth(1).unwrap_or("/").to_owned();
    let mut length = 0;
    loop {
        line.clear();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.split_once(':') else { break };
        if name.eq_ignore_ascii_case("content-length") {
            length = value.trim().parse()?;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    Ok((path, String::from_utf8(body)?))
}

fn respond(stream: &mut TcpStream, result: &Result<String, Error>) -> Result<(), Error> {
    let (status, text) = match result {
        Ok(text) => ("200 OK", text.clone()),
        Err(error) => ("500 Failed", error.to_string()),
    };
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Type: text/html\r\nConnection: close\r\n\
         Content-Length: {}\r\n\r\n{text}",
        text.len()
    )?;
    Ok(())
}
