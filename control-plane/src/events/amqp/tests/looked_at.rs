//! A look at the broker: what is missing is named and not made, and who may not come in is told.

use super::*;
use crate::Private;
use crate::events::amqp::probe::rabbitmq;
use crate::testing::broker::Broker;

#[tokio::test]
async fn looking_makes_nothing() {
    let vhost = Broker::shared().await;
    let config = vhost.config();
    let missing = rabbitmq(&config).await.expect("it lets us in");
    assert!(missing.iter().any(|name| name == EXCHANGE), "{missing:?}");
    assert!(missing.iter().any(|name| name == REQUESTS) && missing.len() == 5, "{missing:?}");
    assert_eq!(rabbitmq(&config).await, Ok(missing), "nothing was made");

    let scene = Scene::new(&vhost).await;
    assert_eq!(rabbitmq(&config).await, Ok(Vec::new()), "the server has made it");
    drop(scene);

    let wrong = RabbitConfig { password: Private::new("geheim".to_owned()), ..config.clone() };
    let refused = rabbitmq(&wrong).await.expect_err("it does not let us in");
    assert!(!refused.contains("geheim"), "{refused}");
    let nowhere = RabbitConfig { vhost: "of-nobody".to_owned(), ..config };
    assert!(rabbitmq(&nowhere).await.is_err());
}
