//! The description of the API for machines: `/api/openapi.json`.

use utoipa::OpenApi as _;

use super::{
    appointments, audit, billing, chat, checks, feedback, health, history, images, keys, links,
    payments, reports, sessions, standing, video, video_calls,
};

#[derive(utoipa::OpenApi)]
#[openapi(
    info(
        title = "Bedside consultation API",
        description = "Consultations, waiting room, chat and join links, natively under \
            `/api/v1`; the same consultations under `/api/video`, `/appointments/{id}/video` and \
            `/api/video-consultations` for systems that already speak those contracts. \
            `/appointments/…` is `/api/appointments/…`."
    ),
    paths(
        health::show,
        sessions::create,
        sessions::list,
        sessions::read,
        sessions::join,
        sessions::admit,
        sessions::send_back,
        sessions::leave,
        sessions::start,
        sessions::pause,
        sessions::resume,
        sessions::end,
        sessions::cancel,
        sessions::no_show,
        sessions::reopen,
        sessions::events,
        sessions::chat,
        chat::send,
        chat::delivered,
        chat::read,
        chat::remove,
        chat::upload,
        chat::download,
        billing::prices,
        billing::put_price,
        billing::billing,
        payments::read,
        payments::verify,
        feedback::give,
        feedback::read,
        feedback::answer,
        feedback::show,
        feedback::of_doctor,
        super::events::list,
        links::exchange,
        links::create,
        links::revoke,
        images::share,
        history::history,
        history::summary,
        history::calls,
        reports::report,
        reports::older_report,
        reports::list,
        standing::video_health,
        standing::actuator,
        standing::providers,
        video::create,
        video::read,
        video::join,
        video::end,
        video::of_doctor,
        video::of_patient,
        video_calls::token,
        video_calls::start,
        video_calls::end,
        video_calls::status,
        appointments::token,
        appointments::start,
        appointments::end,
        appointments::status,
        appointments::report,
        appointments::booked_start,
        appointments::booked_end,
        appointments::booked_session,
        keys::create,
        keys::list,
        keys::revoke,
        keys::revoke_token,
        audit::read,
        appointments::verify_payment,
        checks::begin,
        checks::report,
        checks::read,
    )
)]
struct Description;

/// As the handlers describe themselves; `docs` adds what they share.
pub(super) fn description() -> utoipa::openapi::OpenApi {
    Description::openapi()
}
