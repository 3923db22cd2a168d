//! A small TURN client, over datagrams or a stream.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, SystemTime};

use bedside_turn::auth::{PasswordAlgorithm, long_term_key};
use bedside_turn::credential;
use bedside_turn::message::{
    Class, Integrity, Key, Message, Method, Writer, attribute, channel_data_head, length_on_stream,
};

use crate::{address, secret};

/// How long an answer may take until it is asked for again.
const RETRY: Duration = Duration::from_millis(500);
const TRIES: usize = 20;

/// What carries messages.
pub enum Wire {
    Udp(UdpSocket),
    Tcp(TcpStream, Vec<u8>),
}

impl Wire {
    fn send(&mut self, bytes: &[u8]) {
        match self {
            Self::Udp(socket) => assert_eq!(socket.send(bytes).unwrap(), bytes.len()),
            Self::Tcp(stream, _) => stream.write_all(bytes).unwrap(),
        }
    }

    /// The next message, unless none comes for a while.
    pub fn receive(&mut self, wait: Duration) -> Option<Vec<u8>> {
        match self {
            Self::Udp(socket) => {
                socket.set_read_timeout(Some(wait)).unwrap();
                let mut buffer = vec![0; 65_536];
                let length = socket.recv(&mut buffer).ok()?;
                buffer.truncate(length);
                Some(buffer)
            }
            Self::Tcp(stream, read) => {
                stream.set_read_timeout(Some(wait)).unwrap();
                loop {
                    if let Some(length) = length_on_stream(read)
                        && read.len() >= length.unwrap()
                    {
                        return Some(read.drain(..length.unwrap()).collect());
                    }
                    let mut buffer = [0; 4_096];
                    let length = stream.read(&mut buffer).ok().filter(|length| *length > 0)?;
                    read.extend_from_slice(&buffer[..length]);
                }
            }
        }
    }
}

/// One client with its credential.
pub struct Client {
    pub wire: Wire,
    pub user: String,
    password: String,
    realm: String,
    nonce: Vec<u8>,
    transactions: u32,
}

impl Client {
    pub fn new(wire: Wire, participant: &str) -> Self {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        let (user, password) = credential(&secret(), participant, now.as_secs() + 600);
        let (realm, nonce) = (String::new(), Vec::new());
        Self { wire, user, password, realm, nonce, transactions: 0 }
    }

    pub fn udp(server: SocketAddr, participant: &str) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.connect(server).unwrap();
        Self::new(Wire::Udp(socket), participant)
    }

    pub fn tcp(server: SocketAddr, participant: &str) -> Self {
        let stream = TcpStream::connect(server).unwrap();
        stream.set_nodelay(true).unwrap();
        Self::new(Wire::Tcp(stream, Vec::new()), participant)
    }

    fn key(&self) -> Key {
        long_term_key(PasswordAlgorithm::Md5, &self.user, &self.realm, &self.password)
    }

    /// Asks until an answer comes. An error is its code; 0: no answer.
    pub fn ask(
        &mut self,
        method: Method,
        build: impl Fn(Writer) -> Writer,
    ) -> Result<Vec<u8>, u16> {
        for _ in 0..3 {
            self.transactions += 1;
            let mut transaction = [0x5A; 12];
            transaction[..4].copy_from_slice(&self.transactions.to_be_bytes());
            let mut writer = build(Writer::new(method, Class::Request, transaction));
            if !self.nonce.is_empty() {
                writer = writer
                    .attribute(attribute::USERNAME, self.user.as_bytes())
                    .attribute(attribute::REALM, self.realm.as_bytes())
                    .attribute(attribute::NONCE, &self.nonce)
                    .integrity(Integrity::Sha1, &self.key());
            }
            let answer = self.exchange(transaction, &writer.finish()).ok_or(0_u16)?;
            let message = Message::parse(&answer).unwrap();
            let code = match message.class {
                Class::Success => return Ok(answer),
                Class::Error => message.error_code().unwrap(),
                Class::Request | Class::Indication => panic!("{message:?}"),
            };
            let first = self.nonce.is_empty();
            if !(code == 438 || code == 401 && first) {
                return Err(code);
            }
            let text = |kind| message.attribute(kind).unwrap().to_vec();
            self.realm = String::from_utf8(text(attribute::REALM)).unwrap();
            self.nonce = text(attribute::NONCE);
        }
        Err(438)
    }

    fn exchange(&mut self, transaction: [u8; 12], request: &[u8]) -> Option<Vec<u8>> {
        for attempt in 0..TRIES {
            if attempt == 0 || matches!(self.wire, Wire::Udp(_)) {
                self.wire.send(request);
            }
            while let Some(bytes) = self.wire.receive(RETRY) {
                let ours = Message::parse(&bytes).is_ok_and(|m| m.transaction == transaction);
                if ours {
                    return Some(bytes);
                }
            }
        }
        None
    }

    /// Allocates both families; the relayed addresses.
    pub fn allocate(&mut self) -> Result<Vec<SocketAddr>, u16> {
        let answer = self.ask(Method::Allocate, |writer| {
            writer
                .attribute(attribute::REQUESTED_TRANSPORT, &[17, 0, 0, 0])
                .attribute(attribute::ADDITIONAL_ADDRESS_FAMILY, &[2, 0, 0, 0])
        })?;
        let message = Message::parse(&answer).unwrap();
        Ok(message.addresses(attribute::XOR_RELAYED_ADDRESS).map(Option::unwrap).collect())
    }

    pub fn permit(&mut self, peer: SocketAddr) -> Result<(), u16> {
        let build = |writer: Writer| writer.address(attribute::XOR_PEER_ADDRESS, peer);
        self.ask(Method::CreatePermission, build).map(drop)
    }

    pub fn bind(&mut self, channel: u16, peer: SocketAddr) -> Result<(), u16> {
        let [a, b] = channel.to_be_bytes();
        self.ask(Method::ChannelBind, |writer| {
            writer
                .attribute(attribute::CHANNEL_NUMBER, &[a, b, 0, 0])
                .address(attribute::XOR_PEER_ADDRESS, peer)
        })
        .map(drop)
    }

    pub fn refresh(&mut self, lifetime: u32) -> Result<(), u16> {
        let lifetime = lifetime.to_be_bytes();
        let build = |writer: Writer| writer.attribute(attribute::LIFETIME, &lifetime);
        self.ask(Method::Refresh, build).map(drop)
    }

    pub fn send(&mut self, peer: SocketAddr, data: &[u8]) {
        let bytes = Writer::new(Method::Send, Class::Indication, [1; 12])
            .address(attribute::XOR_PEER_ADDRESS, peer)
            .attribute(attribute::DATA, data)
            .finish();
        self.wire.send(&bytes);
    }

    pub fn send_channel(&mut self, channel: u16, data: &[u8]) {
        let mut bytes = channel_data_head(channel, data.len() as u16).to_vec();
        bytes.extend_from_slice(data);
        if matches!(self.wire, Wire::Tcp(..)) {
            bytes.resize(bytes.len().next_multiple_of(4), 0);
        }
        self.wire.send(&bytes);
    }
}

/// The relayed IPv4 address is the media's, with another port.
pub fn looks_virtual(relayed: &[SocketAddr]) -> bool {
    let media = [address(crate::PEER), address(crate::PEER_V6)];
    relayed.len() == 2
        && relayed.iter().zip(media).all(|(r, m)| r.ip() == m.ip() && r.port() != m.port())
}
