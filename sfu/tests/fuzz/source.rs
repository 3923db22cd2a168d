//! What a person sends: numbered sound and VP8-like pictures in one or more layers.

use bedside_sfu::core::rtp;

pub const MID: u8 = 4;
pub const RID: u8 = 10;
pub const REPAIRED: u8 = 11;
pub const TWCC: u8 = 3;
pub const LEVEL: u8 = 1;

pub const OPUS: u8 = 111;
pub const VP8: u8 = 96;
pub const RTX: u8 = 97;

pub struct Layer {
    pub rid: String,
    pub ssrc: u32,
    pub sequence: u16,
    pub picture: u16,
    pub key_wanted: bool,
    pub active: bool,
    clock: u32,
}

pub struct Source {
    pub cid: String,
    pub mid: String,
    pub video: bool,
    pub muted: bool,
    pub ended: bool,
    pub layers: Vec<Layer>,
    /// A packet of padding follows each picture.
    pub pads: bool,
    pub level: u8,
    made: u32,
}

impl Source {
    pub fn new(cid: &str, mid: &str, ssrc: u32, rids: &[&str], video: bool) -> Self {
        let layer = |(at, rid): (u32, &&str)| Layer {
            rid: (*rid).into(),
            ssrc: ssrc + at * 10,
            sequence: (ssrc as u16).wrapping_mul(7919),
            picture: ssrc as u16 & 0x7FFF,
            key_wanted: true,
            active: true,
            clock: ssrc.wrapping_mul(0x9E37_79B9),
        };
        Self {
            cid: cid.into(),
            mid: mid.into(),
            video,
            muted: false,
            ended: false,
            layers: (0..).zip(rids).map(layer).collect(),
            pads: false,
            level: 20,
            made: 0,
        }
    }

    /// The packets of one tick of 20 ms.
    pub fn packets(&mut self, ms: u64, twcc: &mut u16) -> Vec<Vec<u8>> {
        let mut made = Vec::new();
        if self.muted || self.ended || self.video && !ms.is_multiple_of(40) {
            return made;
        }
        self.made += 1;
        let (video, mid, level, pads) = (self.video, self.mid.as_str(), self.level, self.pads);
        for layer in self.layers.iter_mut().filter(|layer| layer.active) {
            if !video {
                made.push(layer.packet(false, OPUS, ms * 48, &[7; 60], mid, Some(level), twcc));
                continue;
            }
            let key = std::mem::take(&mut layer.key_wanted);
            layer.picture = layer.picture.wrapping_add(1) & 0x7FFF;
            let [high, low] = (layer.picture | 0x8000).to_be_bytes();
            let tl0 = layer.picture as u8;
            for at in 0..2u8 {
                let start = if at == 0 { 0x90 } else { 0x80 };
                let mut payload = vec![start, 0xE0, high, low, tl0, 0, u8::from(!key)];
                payload.extend_from_slice(&self.made.to_be_bytes());
                payload.extend_from_slice(layer.rid.as_bytes());
                payload.push(at);
                made.push(layer.packet(at == 1, VP8, ms * 90, &payload, mid, None, twcc));
            }
            if pads {
                let mut padding = layer.packet(false, VP8, ms * 90, &[], mid, None, twcc);
                padding.extend_from_slice(&[0, 0, 0, 4]);
                padding[0] |= 0x20;
                made.push(padding);
            }
        }
        made
    }
}

impl Layer {
    #[expect(clippy::too_many_arguments, reason = "one header")]
    fn packet(
        &mut self,
        marker: bool,
        payload_type: u8,
        ticks: u64,
        payload: &[u8],
        mid: &str,
        level: Option<u8>,
        twcc: &mut u16,
    ) -> Vec<u8> {
        *twcc = twcc.wrapping_add(1);
        let number = twcc.to_be_bytes();
        let level = level.map(|level| [level]);
        let mut extensions: Vec<(u8, &[u8])> = vec![(MID, mid.as_bytes()), (TWCC, &number)];
        if !self.rid.is_empty() {
            extensions.push((RID, self.rid.as_bytes()));
        }
        if let Some(level) = &level {
            extensions.push((LEVEL, level));
        }
        let mut packet = Vec::new();
        let timestamp = self.clock.wrapping_add(ticks as u32);
        let (sequence, ssrc) = (self.sequence, self.ssrc);
        self.sequence = self.sequence.wrapping_add(1);
        rtp::write_header(
            &mut packet,
            marker,
            payload_type,
            sequence,
            timestamp,
            ssrc,
            &extensions,
        );
        packet.extend_from_slice(payload);
        packet
    }
}
