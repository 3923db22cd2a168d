//! What a client says in an open session.

use std::time::Instant;

use bedside_sfu::core::api::{LeaveReason, Refusal, Request, Speaker, TrackSid};
use livekit_protocol as lk;
use livekit_protocol::request_response::{Reason, Request as Echo};
use livekit_protocol::signal_request::Message as Said;
use livekit_protocol::signal_response::Message as Tell;
use livekit_protocol::simulate_scenario::Scenario;

use super::{Output, Session, Stage, Tally};
use crate::limits;
use crate::livekit::convert;

/// Profile changes that may wait for an answer.
const PENDING_UPDATES: usize = 16;

impl Session {
    pub(super) fn said(&mut self, now: Instant, message: Said) {
        match message {
            Said::Offer(offer) => self.offer(offer),
            Said::Answer(answer) => self.answer_came(answer),
            Said::AddTrack(request) => self.add_track(request),
            Said::Mute(mute) => {
                self.ask(Request::Mute { track: TrackSid(mute.sid.into()), muted: mute.muted });
            }
            Said::Subscription(update) => self.ask(convert::subscription(update)),
            Said::TrackSetting(update) => self.ask(convert::track_settings(update)),
            Said::SubscriptionPermission(permission) => {
                self.ask(convert::subscription_permission(permission));
            }
            Said::SyncState(state) => self.synchronise(state),
            Said::PublishDataTrackRequest(request) => self.publish_data_track(request),
            Said::UnpublishDataTrackRequest(request) => self.unpublish_data_track(request),
            Said::UpdateDataSubscription(update) => {
                self.ask(convert::data_subscription(update));
            }
            Said::UpdateMetadata(update) => self.update_metadata(update),
            Said::UpdateAudioTrack(update) => self.ask(Request::UpdateTrack {
                track: TrackSid(update.track_sid.into()),
                audio_features: Some(update.features.into_iter().take(limits::RUNGS).collect()),
                size: None,
            }),
            Said::UpdateVideoTrack(update) => self.ask(Request::UpdateTrack {
                track: TrackSid(update.track_sid.into()),
                audio_features: None,
                size: Some((update.width, update.height)),
            }),
            Said::Leave(_) => {
                self.ask(Request::Leave);
                let action = lk::leave_request::Action::Disconnect;
                self.leave(LeaveReason::ClientInitiated, action);
            }
            Said::Ping(_) => {
                let wall_ms = self.wall_ms(now);
                self.tell(Tell::Pong(wall_ms));
            }
            Said::PingReq(ping) => {
                let timestamp = self.wall_ms(now);
                let last_ping_timestamp = ping.timestamp;
                self.tell(Tell::PongResp(lk::Pong { last_ping_timestamp, timestamp }));
            }
            Said::Simulate(simulate) => self.simulate(simulate),
            // Our candidates stand in the answer and theirs are found by their checks.
            Said::Trickle(_) => {}
            other => self.unserved(other),
        }
    }

    pub(super) fn offer(&mut self, offer: lk::SessionDescription) {
        if offer.sdp.len() > limits::SDP {
            self.count(Tally::OverLimit);
            self.respond(0, Reason::LimitExceeded, "the offer is too long", None);
            return;
        }
        self.ask(Request::Offer { id: offer.id, sdp: offer.sdp });
    }

    fn answer_came(&mut self, answer: lk::SessionDescription) {
        if answer.sdp.len() > limits::SDP {
            self.count(Tally::OverLimit);
            self.respond(0, Reason::LimitExceeded, "the answer is too long", None);
            return;
        }
        self.ask(Request::Answer { id: answer.id, sdp: answer.sdp });
    }

    pub(super) fn add_track(&mut self, request: lk::AddTrackRequest) {
        let too_long = request.cid.len() > limits::NAME
            || request.name.len() > limits::NAME
            || request.stream.len() > limits::NAME;
        if too_long || self.pending_tracks >= limits::PENDING_TRACKS {
            self.count(Tally::OverLimit);
            let echo = Echo::AddTrack(request);
            self.respond(0, Reason::LimitExceeded, "too many tracks at once", Some(echo));
            return;
        }
        match convert::add_track(request.clone()) {
            Some(track) => {
                self.pending_tracks += 1;
                self.ask(Request::AddTrack(Box::new(track)));
            }
            None => {
                let echo = Echo::AddTrack(request);
                self.respond(0, Reason::UnsupportedType, "neither audio nor video", Some(echo));
            }
        }
    }

    fn publish_data_track(&mut self, request: lk::PublishDataTrackRequest) {
        match convert::data_track(request.clone()) {
            Ok(track) => self.ask(Request::PublishDataTrack(Box::new(track))),
            Err(refusal) => {
                self.count(Tally::OverLimit);
                let reason = convert::refusal_reason(refusal);
                let echo = Echo::PublishDataTrack(request);
                self.respond(0, reason, &refusal.to_string(), Some(echo));
            }
        }
    }

    fn unpublish_data_track(&mut self, request: lk::UnpublishDataTrackRequest) {
        // No track has a handle of more than 16 bits, and none has 0.
        let handle = u16::try_from(request.pub_handle).unwrap_or(0);
        self.ask(Request::UnpublishDataTrack { handle });
    }

    pub(super) fn synchronise(&mut self, mut state: lk::SyncState) {
        let data = state.data_subscription.take();
        self.ask(convert::sync_state(state));
        if let Some(update) = data {
            self.ask(convert::data_subscription(update));
        }
    }

    fn update_metadata(&mut self, update: lk::UpdateParticipantMetadata) {
        let request = if self.pending_updates.len() < PENDING_UPDATES {
            convert::update_profile(&update)
        } else {
            Err(Refusal::LimitExceeded)
        };
        match request {
            Ok(request) => {
                self.pending_updates.insert(update.request_id, update);
                self.ask(request);
            }
            Err(refusal) => {
                self.count(Tally::OverLimit);
                let reason = convert::refusal_reason(refusal);
                let id = update.request_id;
                self.respond(id, reason, "too long", Some(Echo::UpdateMetadata(update)));
            }
        }
    }

    /// What is known to the protocol and not served here is said so, where there are words for it.
    fn unserved(&mut self, message: Said) {
        self.count(Tally::Unknown);
        let request_id = match message {
            Said::StoreDataBlobRequest(request) => request.request_id,
            Said::GetDataBlobRequest(request) => request.request_id,
            // An outdated layer report: nothing waits for a reply.
            _ => return,
        };
        self.respond(request_id, Reason::UnsupportedType, "not served", None);
    }

    /// The SDKs' own tests ask for trouble.
    fn simulate(&mut self, simulate: lk::SimulateScenario) {
        use lk::leave_request::Action;
        if !self.opening.simulate {
            self.count(Tally::Unknown);
            return;
        }
        match simulate.scenario {
            Some(Scenario::ServerLeave(_)) => {
                self.ask(Request::Leave);
                self.leave(LeaveReason::ServerShutdown, Action::Disconnect);
            }
            Some(Scenario::LeaveRequestFullReconnect(_)) => {
                self.leave(LeaveReason::StateMismatch, Action::Reconnect);
            }
            // The node is gone with all it knew, and says nothing.
            Some(Scenario::NodeFailure(_) | Scenario::Migration(_)) => {
                self.ask(Request::Leave);
                self.end();
            }
            Some(Scenario::SpeakerUpdate(_)) => {
                if let Stage::Open(open) = &self.stage {
                    let participant = open.sid.clone();
                    let me = Speaker { participant, level: 1.0, active: true };
                    let speakers = vec![convert::speaker(&me)];
                    self.tell(Tell::SpeakersChanged(lk::SpeakersChanged { speakers }));
                }
            }
            Some(Scenario::DisconnectSignalOnResume(_)) => {
                self.outputs.push_back(Output::End);
                self.stage = Stage::Ended;
            }
            Some(_) | None => self.count(Tally::Unknown),
        }
    }
}
