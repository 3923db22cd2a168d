//! A published track: what was announced, which streams carry it, and who receives it.

use std::ops::RangeInclusive;
use std::time::Instant;

use super::api::{
    AddTrack, AnnouncedCodec, LayerInfo, MediaKind, Quality, Source, TrackInfo, TrackSid,
};
use super::codec::Codec;
use super::dynacast::Demand;
use super::ladder::{Rung, Rungs, Target};
use super::layers::{Layer, Wish, choose, newest, sort_rids, watch};
use super::sdp::{PayloadType, Section};
use super::sounds::Sounds;

/// Ticks in a second that a media clock may have. What a description says beyond is a lie, and no
/// reckoning with clocks need be afraid of it.
const CLOCKS: RangeInclusive<u32> = 1_000..=384_000;

/// A track that flows, or may flow any moment.
#[derive(Debug)]
pub(super) struct Track {
    /// The publisher's key in the room.
    pub(super) owner: usize,
    /// What others see.
    pub(super) info: TrackInfo,
    /// Its codec.
    pub(super) codec: Codec,
    /// The codec's name as SDP knows it.
    pub(super) codec_name: String,
    /// Payload type of redundant audio, when the publisher may send it.
    pub(super) red_type: Option<u8>,
    /// Its sound may be wrapped in redundancy: it is Opus that we can read, and nobody refused.
    pub(super) may_repeat: bool,
    /// The newest of it, if it is sound.
    pub(super) sounds: Sounds,
    /// Payload type of repair packets.
    pub(super) repair_type: Option<u8>,
    /// Ticks of its media clock in a second.
    pub(super) clock: u32,
    /// Its encodings, lowest first; one without simulcast.
    pub(super) layers: Vec<Layer>,
    /// Who receives it: key of the participant, key of the subscription there.
    pub(super) subscribers: Vec<(usize, usize)>,
    /// The publisher was told of its first subscriber.
    pub(super) told_subscribed: bool,
    /// Which of its rungs are wanted.
    pub(super) demand: Demand,
    /// The track that it is the backup codec of.
    pub(super) primary: Option<usize>,
    /// The track that is its backup codec.
    pub(super) backup: Option<usize>,
    /// Everybody gets the backup.
    pub(super) regressed: bool,
    /// The publisher was asked for the backup.
    pub(super) backup_asked: bool,
}

impl Track {
    /// The track that a section carries, as it was announced. `None`: no codec in common.
    pub(super) fn from_section(
        owner: usize,
        sid: TrackSid,
        announced: AddTrack,
        section: &Section,
    ) -> Option<Self> {
        let payload_type = choose_codec(announced.kind, &announced.codecs, section)?;
        let codec = Codec::from_name(&payload_type.name);
        let rate = payload_type.rate.split('/').next().and_then(|rate| rate.parse().ok());
        let clock = rate.filter(|rate| CLOCKS.contains(rate));
        let clock = clock.unwrap_or_else(|| codec.clock_rate());
        let plain = announced.encryption == 0 && !announced.disable_red;
        let red_type = section.red_of(payload_type.pt).filter(|_| plain).map(|red| red.pt);
        let mut rids = section.rids.clone();
        sort_rids(&mut rids);
        let name = payload_type.name.to_ascii_lowercase();
        let media = match announced.kind {
            MediaKind::Audio => "audio",
            MediaKind::Video => "video",
        };
        let mut info = TrackInfo {
            sid,
            muted: announced.muted,
            mid: section.mid.clone(),
            mime_type: format!("{media}/{name}"),
            simulcast: rids.len() > 1,
            announced,
        };
        sort_announced(&mut info.announced.layers);
        let announced = &info.announced.layers;
        let height = |at: usize| announced.get(at).map_or(0, |layer| layer.height);
        let layers = if rids.is_empty() {
            vec![Layer::new(String::new(), announced.last().map_or(0, |layer| layer.height))]
        } else {
            rids.into_iter().enumerate().map(|(at, rid)| Layer::new(rid, height(at))).collect()
        };
        let mut track = Self {
            owner,
            info,
            codec,
            codec_name: name,
            red_type,
            may_repeat: plain && codec == Codec::Opus,
            sounds: Sounds::default(),
            repair_type: section.rtx_of(payload_type.pt).map(|rtx| rtx.pt),
            clock,
            layers,
            subscribers: Vec::new(),
            told_subscribed: false,
            demand: Demand::new(),
            primary: None,
            backup: None,
            regressed: false,
            backup_asked: false,
        };
        track.take_streams(section);
        Some(track)
    }

    /// Binds the streams that the section names. With rids only the packets can tell which layer a
    /// stream is, so those are left to them.
    pub(super) fn take_streams(&mut self, section: &Section) {
        if section.rids.is_empty()
            && let (Some(layer), Some(ssrc)) = (self.layers.first_mut(), section.ssrcs.first())
        {
            let repair = section.fid.iter().find(|(media, _)| media == ssrc);
            layer.ssrc = *ssrc;
            layer.repair_ssrc = repair.map_or(0, |(_, repair)| *repair);
        }
        self.describe_layers();
    }

    /// Copies names and streams of the layers into what others see.
    pub(super) fn describe_layers(&mut self) {
        let announced = &mut self.info.announced.layers;
        for (info, layer) in announced.iter_mut().zip(&self.layers) {
            info.rid.clone_from(&layer.rid);
            (info.ssrc, info.repair_ssrc) = (layer.ssrc, layer.repair_ssrc);
        }
        for (info, spatial) in announced.iter_mut().zip(0..) {
            info.spatial = spatial;
        }
    }

    /// Audio or video.
    pub(super) const fn kind(&self) -> MediaKind {
        self.info.announced.kind
    }

    /// The layer with this rid; the only layer has none.
    pub(super) fn layer_of(&self, rid: Option<&[u8]>) -> Option<usize> {
        match rid {
            Some(rid) => self.layers.iter().position(|layer| layer.rid.as_bytes() == rid),
            None => (self.layers.len() == 1).then_some(0),
        }
    }
}

/// The ladder of the track.
impl Track {
    /// Reads the meters. Once in 100 to 200 ms is often enough.
    pub(super) fn measure(&mut self, now: Instant) {
        self.layers.iter_mut().for_each(|layer| layer.meter.read(now));
        watch(&mut self.layers, now);
    }

    /// What can be forwarded, lowest first, and what each rung costs. A stream that flows and was not
    /// measured yet is one rung that seems to cost nothing.
    pub(super) fn rungs(&self, now: Instant) -> Rungs {
        let mut rungs = Rungs::default();
        let Some(newest) = newest(&self.layers) else { return rungs };
        for (at, layer) in self.layers.iter().enumerate() {
            if !layer.flows(newest, now) {
                continue;
            }
            let stream = at as u8;
            if !layer.meter.is_known() {
                let target = Target::whole(stream);
                rungs.push(Rung { target, height: layer.height, ..Rung::default() });
                continue;
            }
            let (spatials, temporals) = layer.meter.top();
            for spatial in 0..=spatials {
                for temporal in 0..=temporals {
                    rungs.push(Rung {
                        target: Target { stream, spatial, temporal },
                        bps: layer.meter.bps(spatial, temporal),
                        height: self.height(at, spatial, spatials),
                        fps: layer.meter.fps(temporal),
                    });
                }
            }
        }
        rungs
    }

    /// The highest that a subscriber wants and that flows. `None`: nothing flows, or nothing is wanted.
    pub(super) fn ceiling(&self, wish: &Wish, now: Instant) -> Option<Target> {
        if wish.disabled {
            return None;
        }
        let at = choose(&self.layers, wish, now)?;
        let layer = self.layers.get(at)?;
        let mut target = Target::whole(at as u8);
        let (spatials, temporals) = layer.meter.top();
        if self.layers.len() == 1 && spatials > 0 {
            let wanted = wish.rung(usize::from(spatials) + 1, |spatial| {
                self.height(at, spatial as u8, spatials)
            });
            if wanted < usize::from(spatials) {
                target.spatial = wanted as u8;
            }
        }
        if wish.fps > 0 {
            // A tenth less is not seen; what measures as nothing is not known.
            let enough = |temporal: &u8| {
                let fps = u32::from(layer.meter.fps(*temporal));
                fps > 0 && fps * 10 >= u32::from(wish.fps) * 9
            };
            target.temporal = (0..temporals).find(enough).unwrap_or(target.temporal);
        }
        Some(target)
    }

    /// Height of a spatial layer, of which a stream has so many more.
    fn height(&self, stream: usize, spatial: u8, highest: u8) -> u32 {
        let announced = &self.info.announced.layers;
        if self.layers.len() == 1 && announced.len() == usize::from(highest) + 1 {
            return announced.get(usize::from(spatial)).map_or(0, |layer| layer.height);
        }
        // Encoders halve the size from layer to layer unless told otherwise.
        self.layers.get(stream).map_or(0, |layer| layer.height >> highest.saturating_sub(spatial))
    }
}

/// The announced codec that the section has, wanted first; else the usual one of its kind; else the
/// section's own first choice.
pub(super) fn choose_codec<'s>(
    kind: MediaKind,
    announced: &[AnnouncedCodec],
    section: &'s Section,
) -> Option<&'s PayloadType> {
    let named = announced.iter().filter(|codec| !codec.codec.is_empty());
    let mut named = named.filter_map(|codec| {
        let name = codec.codec.rsplit_once('/').map_or(&*codec.codec, |(_, name)| name);
        section.codec(name)
    });
    let usual: &[&str] = match kind {
        MediaKind::Audio => &["opus"],
        MediaKind::Video => &["vp8", "h264", "vp9", "av1"],
    };
    let auxiliary = |name: &str| {
        let names = ["rtx", "red", "ulpfec", "flexfec-03", "cn", "telephone-event"];
        name.is_empty() || names.iter().any(|other| other.eq_ignore_ascii_case(name))
    };
    named
        .next()
        .or_else(|| first_of(usual, section))
        .or_else(|| section.codecs.iter().find(|codec| !auxiliary(&codec.name)))
}

/// The one of these that the writer of a section prefers: some clients announce no codec and put the
/// only one first that they will send.
fn first_of<'s>(names: &[&str], section: &'s Section) -> Option<&'s PayloadType> {
    let usual = |name: &str| names.iter().any(|other| other.eq_ignore_ascii_case(name));
    let first = section.codecs.iter().find(|codec| usual(&codec.name))?;
    section.codec(&first.name)
}

fn sort_announced(layers: &mut [LayerInfo]) {
    layers.sort_by_key(|layer| match layer.quality {
        Quality::Low => 0,
        Quality::Medium => 1,
        Quality::High => 2,
    });
}

/// What a track shows, in the two letters of its id.
pub(super) const fn sid_letters(kind: MediaKind, source: Source) -> &'static str {
    match (kind, source) {
        (MediaKind::Audio, Source::ScreenAudio) => "AS",
        (MediaKind::Audio, _) => "AM",
        (MediaKind::Video, Source::Screen) => "VS",
        (MediaKind::Video, _) => "VC",
    }
}
