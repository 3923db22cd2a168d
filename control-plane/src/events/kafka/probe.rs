//! A look at the cluster that changes nothing: for `bedside doctor`.

use std::time::Duration;

use super::KafkaConfig;
use super::connection::connect;

const PATIENCE: Duration = Duration::from_secs(12);

/// Which of the topics are not there yet; or why nothing was seen.
pub async fn kafka(config: &KafkaConfig) -> Result<Vec<String>, String> {
    let look = async {
        let client = connect(config).await.map_err(|error| error.to_string())?;
        let topics =
            client.list_topics().await.map_err(|error| super::connection::kind_of(&error))?;
        let wanted = [&config.topic, &config.appointments_topic];
        let missing = wanted.into_iter().filter(|wanted| {
            !wanted.is_empty() && topics.iter().all(|topic| topic.name != **wanted)
        });
        Ok(missing.cloned().collect())
    };
    let silent = || Err("it does not answer in time".to_owned());
    tokio::time::timeout(PATIENCE, look).await.unwrap_or_else(|_| silent())
}
