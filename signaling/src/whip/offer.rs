//! What an offer over HTTP asks for: the tracks it publishes, or that it wants to watch.

use axum::http::StatusCode;
use bedside_sfu::core::api::{AddTrack, Grant, LayerInfo, MediaKind, Private, Quality, Source};
use bedside_sfu::core::sdp::{self, Description, SdpError, Section, SectionKind};

/// What a publisher's tracks show, in the order of its sections.
const VIDEOS: [Source; 2] = [Source::Camera, Source::Screen];
const AUDIOS: [Source; 2] = [Source::Microphone, Source::ScreenAudio];
/// Codecs that can be forwarded.
const CODECS: [&str; 8] = ["opus", "pcmu", "pcma", "vp8", "vp9", "h264", "av1", "h265"];
/// Heights of three layers. Nobody says them, and encoders halve the picture from layer to layer.
const HEIGHTS: [(Quality, u32); 3] =
    [(Quality::Low, 180), (Quality::Medium, 360), (Quality::High, 720)];

/// Why an offer is not taken. The texts go to clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OfferError {
    /// Not SDP.
    #[error("this is not a session description")]
    Malformed,
    /// Something is missing without which no media can flow.
    #[error(
        "the offer lacks ICE credentials, a certificate's fingerprint or names of its sections"
    )]
    Incomplete,
    /// More than one transport.
    #[error("all sections must be in one bundle")]
    Unbundled,
    /// A section that cannot be served, for what it is or for its codecs.
    #[error("a section of the offer cannot be served")]
    Unserved,
    /// More tracks of one kind than there are sources.
    #[error("at most two audio and two video tracks are taken")]
    TooMany,
    /// Nothing is sent, or nothing received.
    #[error("the offer has no section of the direction that this door serves")]
    WrongWay,
    /// The token does not allow one of the sources.
    #[error("permissions denied")]
    NotAllowed,
}

impl OfferError {
    /// The status that says so (RFC 9725 §4.4, RFC 9110).
    pub const fn status(self) -> StatusCode {
        match self {
            Self::Malformed => StatusCode::BAD_REQUEST,
            Self::Incomplete | Self::WrongWay => StatusCode::UNPROCESSABLE_ENTITY,
            // Nothing is taken in part.
            Self::Unbundled | Self::Unserved | Self::TooMany => StatusCode::NOT_ACCEPTABLE,
            Self::NotAllowed => StatusCode::FORBIDDEN,
        }
    }
}

/// Reads an offer.
///
/// # Errors
/// When no answer could be given that serves all of it.
pub fn read(text: &str) -> Result<Description, OfferError> {
    let offer = sdp::parse(text).map_err(|error| match error {
        SdpError::NotSdp | SdpError::TooLong | SdpError::TooManySections => OfferError::Malformed,
        SdpError::NoSection
        | SdpError::BadMid
        | SdpError::NoCredentials
        | SdpError::NoFingerprint => OfferError::Incomplete,
    })?;
    let live = || offer.sections.iter().filter(|section| !section.rejected);
    if live().count() > 1 && !is_bundled(text, &offer) {
        return Err(OfferError::Unbundled);
    }
    if live().any(|section| !is_served(section)) {
        return Err(OfferError::Unserved);
    }
    Ok(offer)
}

/// Whether one bundle has all live sections.
fn is_bundled(text: &str, offer: &Description) -> bool {
    let mut groups = text.lines().filter_map(|line| line.strip_prefix("a=group:BUNDLE "));
    groups.any(|group| {
        let named = |section: &&Section| group.split_whitespace().any(|mid| mid == section.mid);
        offer.sections.iter().filter(|section| !section.rejected).all(|section| named(&section))
    })
}

fn is_served(section: &Section) -> bool {
    match section.kind {
        SectionKind::Application => true,
        SectionKind::Audio | SectionKind::Video => {
            CODECS.iter().any(|codec| section.codec(codec).is_some())
        }
        SectionKind::Other => false,
    }
}

/// The tracks that an offer publishes: the first video is a camera, the first audio a microphone, the
/// second of each a shared screen and its sound.
///
/// # Errors
/// When there is none, there are too many, or the grant does not allow one.
pub fn published(offer: &Description, grant: &Grant) -> Result<Vec<AddTrack>, OfferError> {
    let (mut videos, mut audios) = (VIDEOS.iter(), AUDIOS.iter());
    let mut tracks = Vec::new();
    for section in offer.sections.iter().filter(|section| section.sends()) {
        let (kind, source) = match section.kind {
            SectionKind::Video => (MediaKind::Video, videos.next()),
            SectionKind::Audio => (MediaKind::Audio, audios.next()),
            SectionKind::Application | SectionKind::Other => continue,
        };
        let source = *source.ok_or(OfferError::TooMany)?;
        if !grant.publish || !(grant.sources.is_empty() || grant.sources.contains(&source)) {
            return Err(OfferError::NotAllowed);
        }
        tracks.push(announcement(section, kind, source));
    }
    if tracks.is_empty() { Err(OfferError::WrongWay) } else { Ok(tracks) }
}

/// Whether an offer can be sent something.
pub fn receives(offer: &Description) -> bool {
    let media = |section: &Section| {
        matches!(section.kind, SectionKind::Audio | SectionKind::Video) && section.receives()
    };
    offer.sections.iter().any(media)
}

fn announcement(section: &Section, kind: MediaKind, source: Source) -> AddTrack {
    let stereo = section.codec("opus").is_some_and(|opus| {
        ["stereo", "sprop-stereo"].iter().any(|key| opus.parameter(key) == Some("1"))
    });
    let layers = layers(section.rids.len());
    let height = layers.last().map_or(0, |layer| layer.height);
    AddTrack {
        // Sections are paired with their announcements in order.
        cid: section.mid.clone(),
        name: Private::default(),
        kind,
        source,
        muted: false,
        width: height * 16 / 9,
        height,
        layers,
        codecs: Vec::new(),
        backup_of: None,
        stream: String::new(),
        // An encoder's sound need not be speech.
        disable_dtx: true,
        disable_red: false,
        stereo,
        encryption: 0,
        audio_features: Vec::new(),
        backup_codec_policy: 0,
    }
}

/// The layers of simulcast, lowest first. Without it nothing is known of the picture.
fn layers(rids: usize) -> Vec<LayerInfo> {
    if rids < 2 {
        return Vec::new();
    }
    let heights = HEIGHTS.iter().skip(HEIGHTS.len().saturating_sub(rids));
    let heights = HEIGHTS.iter().zip(heights);
    let layers = heights.map(|((quality, _), (_, height))| LayerInfo {
        quality: *quality,
        width: height * 16 / 9,
        height: *height,
        bitrate_bps: 0,
        rid: String::new(),
        ssrc: 0,
        repair_ssrc: 0,
        spatial: 0,
    });
    layers.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offer(sections: &[&str]) -> String {
        let mids: Vec<String> = (0..sections.len()).map(|mid| mid.to_string()).collect();
        let hash = ["AB"; 32].join(":");
        let mut text = format!(
            "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE {}\r\n\
             a=ice-ufrag:abcd\r\na=ice-pwd:0123456789012345678901\r\na=fingerprint:sha-256 {hash}\r\n",
            mids.join(" ")
        );
        for (mid, section) in mids.iter().zip(sections) {
            text.push_str(&format!("{section}\r\na=mid:{mid}\r\n"));
        }
        text
    }

    const AUDIO: &str =
        "m=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=rtpmap:111 opus/48000/2\r\na=sendonly";
    const VIDEO: &str = "m=video 9 UDP/TLS/RTP/SAVPF 96\r\na=rtpmap:96 H264/90000\r\na=sendonly";
    const DATA: &str = "m=application 9 UDP/DTLS/SCTP webrtc-datachannel";

    fn sources(sections: &[&str], grant: &Grant) -> Result<Vec<Source>, OfferError> {
        let tracks = published(&read(&offer(sections)).unwrap(), grant)?;
        Ok(tracks.iter().map(|track| track.source).collect())
    }

    #[test]
    fn sections_become_camera_and_microphone_then_screen() {
        let all = Grant::default();
        assert_eq!(sources(&[AUDIO, VIDEO], &all), Ok(vec![Source::Microphone, Source::Camera]));
        let four = [VIDEO, VIDEO, AUDIO, DATA, AUDIO];
        let expected =
            [Source::Camera, Source::Screen, Source::Microphone, Source::ScreenAudio].to_vec();
        assert_eq!(sources(&four, &all), Ok(expected));
        assert_eq!(sources(&[VIDEO, VIDEO, VIDEO], &all), Err(OfferError::TooMany));
        assert_eq!(sources(&[DATA], &all), Err(OfferError::WrongWay));
        let listens = AUDIO.replace("sendonly", "recvonly");
        assert_eq!(sources(&[&listens], &all), Err(OfferError::WrongWay));
        assert!(receives(&read(&offer(&[&listens])).unwrap()));
        assert!(!receives(&read(&offer(&[AUDIO, DATA])).unwrap()));
    }

    #[test]
    fn a_source_without_a_right_refuses_all_of_it() {
        let mute = Grant { publish: false, ..Grant::default() };
        assert_eq!(sources(&[AUDIO], &mute), Err(OfferError::NotAllowed));
        let voice = Grant { sources: vec![Source::Microphone], ..Grant::default() };
        assert_eq!(sources(&[AUDIO, VIDEO], &voice), Err(OfferError::NotAllowed));
        assert_eq!(sources(&[AUDIO], &voice), Ok(vec![Source::Microphone]));
    }

    #[test]
    fn simulcast_announces_a_rung_for_each_rid() {
        let of = |rids: &[&str]| {
            let lines: Vec<String> = rids.iter().map(|rid| format!("a=rid:{rid} send")).collect();
            let section = format!("{VIDEO}\r\n{}", lines.join("\r\n"));
            let offer = read(&offer(&[&section])).unwrap();
            let tracks = published(&offer, &Grant::default()).unwrap();
            let heights: Vec<u32> = tracks[0].layers.iter().map(|layer| layer.height).collect();
            heights
        };
        assert_eq!(of(&["q", "h", "f"]), [180, 360, 720]);
        assert_eq!(of(&["h", "f"]), [360, 720]);
        assert_eq!(of(&["f"]), [0_u32; 0]);
    }

    #[test]
    fn what_cannot_be_served_whole_is_refused_with_its_reason() {
        let status = |text: &str| read(text).unwrap_err().status().as_u16();
        assert_eq!(status("hello"), 400);
        assert_eq!(status("v=0\r\n"), 422);
        assert_eq!(status(&offer(&[AUDIO]).replace("a=ice-pwd", "a=x")), 422);
        assert_eq!(status(&offer(&[AUDIO]).replace("sha-256", "sha-1")), 422);
        assert_eq!(status(&offer(&[AUDIO]).replace("a=mid:0", "a=x")), 422);
        assert_eq!(status(&offer(&[AUDIO, VIDEO]).replace("BUNDLE 0 1", "BUNDLE 0")), 406);
        assert_eq!(status(&offer(&[AUDIO, "m=text 9 RTP/AVP 98"])), 406);
        assert_eq!(status(&offer(&[&VIDEO.replace("H264", "H261")])), 406);
        assert!(read(&offer(&[AUDIO]).replace("a=group:BUNDLE 0\r\n", "")).is_ok());
    }
}
