//! What the engine tells an open session.

use std::sync::Arc;

use bedside_sfu::core::api::{
    AddTrack, DataTrackEvent, ParticipantInfo, ParticipantSid, ParticipantState, Refusal,
    SessionEvent, TrackInfo, TrackSid, Unreceived,
};
use livekit_protocol as lk;
use livekit_protocol::request_response::{Reason, Request as Echo};
use livekit_protocol::signal_response::Message as Tell;

use super::{Output, Session, Stage};
use crate::livekit::convert;

impl Session {
    pub(super) fn told(&mut self, event: SessionEvent) {
        match event {
            SessionEvent::Answer { id, sdp, mid_to_track } => {
                self.tell(Tell::Answer(description("answer", id, sdp, mid_to_track)));
            }
            SessionEvent::Offer { id, sdp, mid_to_track } => {
                self.tell(Tell::Offer(description("offer", id, sdp, mid_to_track)));
            }
            SessionEvent::SectionsNeeded { audio, video } => self.sections_needed(audio, video),
            SessionEvent::Participants(participants) => {
                self.update(&participants);
                self.look_for_oneself(&participants);
            }
            SessionEvent::TrackPublished { cid, track } => self.track_published(cid, &track),
            SessionEvent::TrackRefused { announced, refusal } => {
                self.track_refused(&announced, refusal);
            }
            SessionEvent::TrackUnpublished { track } => {
                let track_sid = track.0.to_string();
                self.tell(Tell::TrackUnpublished(lk::TrackUnpublishedResponse { track_sid }));
            }
            SessionEvent::TrackSubscribed { track } => {
                let track_sid = track.0.to_string();
                self.tell(Tell::TrackSubscribed(lk::TrackSubscribed { track_sid }));
            }
            SessionEvent::SubscriptionAllowed { participant, track, allowed } => {
                self.subscription_allowed(&participant, &track, allowed);
            }
            SessionEvent::SubscriptionFailed { track, why } => {
                self.subscription_failed(&track, why);
            }
            SessionEvent::DataTrack(event) => self.told_of_data(event),
            SessionEvent::MuteRequested { track, muted } => {
                self.tell(Tell::Mute(lk::MuteTrackRequest { sid: track.0.to_string(), muted }));
            }
            SessionEvent::ProfileUpdated { request_id, refusal } => {
                self.profile_updated(request_id, refusal);
            }
            SessionEvent::GrantChanged(grant) => {
                if let Stage::Open(open) = &mut self.stage {
                    open.grant = grant;
                    self.fresh_token();
                }
            }
            SessionEvent::Speakers(speakers) => {
                let speakers = speakers.iter().map(convert::speaker).collect();
                self.tell(Tell::SpeakersChanged(lk::SpeakersChanged { speakers }));
            }
            SessionEvent::SubscribedQuality { track, codecs } => {
                let update = convert::subscribed_quality(&track, &codecs);
                self.tell(Tell::SubscribedQualityUpdate(update));
            }
            SessionEvent::StreamState { participant, track, paused } => {
                let update = convert::stream_state(&participant, &track, paused);
                self.tell(Tell::StreamStateUpdate(update));
            }
            SessionEvent::Quality(changes) => {
                self.tell(Tell::ConnectionQuality(convert::connection_quality(&changes)));
            }
            SessionEvent::Room(room) => {
                self.tell(Tell::RoomUpdate(lk::RoomUpdate { room: Some(convert::room(&room)) }));
            }
            // First events and the last one never come here.
            SessionEvent::Joined { .. }
            | SessionEvent::Resumed { .. }
            | SessionEvent::Refused(_)
            | SessionEvent::Left { .. } => {}
        }
    }

    fn told_of_data(&mut self, event: DataTrackEvent) {
        match event {
            DataTrackEvent::Published(info) => {
                let info = Some(convert::data_track_info(&info));
                self.tell(Tell::PublishDataTrackResponse(lk::PublishDataTrackResponse { info }));
            }
            DataTrackEvent::Refused { announced, refusal } => {
                let echo = Echo::PublishDataTrack(convert::echo_data_track(&announced));
                let reason = convert::refusal_reason(refusal);
                self.respond(0, reason, &refusal.to_string(), Some(echo));
            }
            DataTrackEvent::Unpublished(info) => {
                let info = Some(convert::data_track_info(&info));
                let gone = lk::UnpublishDataTrackResponse { info };
                self.tell(Tell::UnpublishDataTrackResponse(gone));
            }
            DataTrackEvent::Unknown { handle } => {
                let pub_handle = handle.into();
                let request = lk::UnpublishDataTrackRequest { pub_handle };
                let echo = Echo::UnpublishDataTrack(request);
                self.respond(0, Reason::NotFound, "no such data track", Some(echo));
            }
            DataTrackEvent::Handles(handles) => {
                self.tell(Tell::DataTrackSubscriberHandles(convert::data_handles(&handles)));
            }
        }
    }

    fn subscription_allowed(
        &mut self,
        participant: &ParticipantSid,
        track: &TrackSid,
        allowed: bool,
    ) {
        self.tell(Tell::SubscriptionPermissionUpdate(lk::SubscriptionPermissionUpdate {
            participant_sid: participant.0.to_string(),
            track_sid: track.0.to_string(),
            allowed,
        }));
    }

    fn sections_needed(&mut self, num_audios: u32, num_videos: u32) {
        let needed = lk::MediaSectionsRequirement { num_audios, num_videos };
        self.tell(Tell::MediaSectionsRequirement(needed));
    }

    fn track_published(&mut self, cid: String, track: &TrackInfo) {
        self.pending_tracks = self.pending_tracks.saturating_sub(1);
        let track = Some(convert::track(track));
        self.tell(Tell::TrackPublished(lk::TrackPublishedResponse { cid, track }));
    }

    fn track_refused(&mut self, announced: &AddTrack, refusal: Refusal) {
        self.pending_tracks = self.pending_tracks.saturating_sub(1);
        let echo = Echo::AddTrack(convert::echo_add_track(announced));
        self.respond(0, convert::refusal_reason(refusal), &refusal.to_string(), Some(echo));
    }

    fn subscription_failed(&mut self, track: &TrackSid, why: Unreceived) {
        let err = match why {
            Unreceived::NoTrack => lk::SubscriptionError::SeTrackNotfound,
            Unreceived::Codec => lk::SubscriptionError::SeCodecUnsupported,
            // The protocol has no word for it.
            Unreceived::Encrypted => lk::SubscriptionError::SeUnknown,
        };
        self.tell(Tell::SubscriptionResponse(lk::SubscriptionResponse {
            track_sid: track.0.to_string(),
            err: err as i32,
        }));
    }

    fn profile_updated(&mut self, request_id: u32, refusal: Option<Refusal>) {
        let echo = self.pending_updates.remove(&request_id).map(Echo::UpdateMetadata);
        match refusal {
            None => self.respond(request_id, Reason::Ok, "", echo),
            Some(refusal) => {
                let reason = convert::refusal_reason(refusal);
                self.respond(request_id, reason, &refusal.to_string(), echo);
            }
        }
    }

    /// A changed profile needs a fresh token; an active participant has media.
    fn look_for_oneself(&mut self, participants: &[ParticipantInfo]) {
        let Stage::Open(open) = &mut self.stage else { return };
        let Some(me) = participants.iter().find(|info| info.sid == open.sid) else { return };
        let became_active = !open.active && me.state == ParticipantState::Active;
        open.active |= became_active;
        let changed = open.profile != me.profile || open.grant != me.grant;
        if changed {
            open.profile = Arc::clone(&me.profile);
            open.grant = me.grant.clone();
            self.fresh_token();
        }
        if became_active {
            self.outputs.push_back(Output::Active);
        }
    }
}

fn description(
    kind: &str,
    id: u32,
    sdp: String,
    mid_to_track: Vec<(String, TrackSid)>,
) -> lk::SessionDescription {
    let tracks = mid_to_track.into_iter().map(|(mid, sid)| (mid, sid.0.to_string()));
    lk::SessionDescription { r#type: kind.into(), sdp, id, mid_to_track_id: tracks.collect() }
}
