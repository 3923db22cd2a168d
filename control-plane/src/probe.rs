//! Looks at what the control plane stands on without changing it, beside a server that may be
//! running: for `bedside doctor`.

pub use crate::attachments::probe::{ObjectsFacts, objects};
pub use crate::events::amqp::probe::rabbitmq;
pub use crate::events::kafka::probe::kafka;
pub use crate::store::probe::{DatabaseFacts, DatabaseProblem, database};
