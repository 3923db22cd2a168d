//! What the server stands on: database, brokers, store of files.

use std::path::PathBuf;

use bedside_control_plane::Objects;
use bedside_control_plane::probe::{self, DatabaseFacts, DatabaseProblem, ObjectsFacts};

use super::finding::Finding;
use crate::config::Config;
use crate::wire;

/// What the database says, as findings.
pub(super) fn database(seen: &Result<DatabaseFacts, DatabaseProblem>) -> Vec<Finding> {
    const CHECK: &str = "database";
    let facts = match seen {
        Ok(facts) => facts,
        Err(problem) => {
            let fix = "look at database_url, and try it: psql \"$DATABASE_URL\" -c 'select 1'";
            return vec![Finding::error(CHECK, format!("it cannot be used: {problem}."), fix)];
        }
    };
    let mut findings = Vec::new();
    if !facts.writable {
        findings.push(match &facts.file {
            Some(file) => Finding::error(
                CHECK,
                format!("{} cannot be written to, or something holds it.", file.display()),
                format!("chown bedside: {} and its folder", file.display()),
            ),
            None => Finding::error(
                CHECK,
                "it takes no writes: a standby, read-only, or its user may not make tables.",
                "name the primary in database_url; GRANT CREATE, USAGE ON SCHEMA public TO its user",
            ),
        });
    }
    match facts.schema {
        Some(schema) if schema > facts.newest => findings.push(Finding::error(
            CHECK,
            format!("its schema is {schema}, newer than this program's {}.", facts.newest),
            "install the version of Bedside that made it, or a newer one",
        )),
        Some(schema) if schema < facts.newest => findings.push(Finding::warning(
            CHECK,
            format!("its schema is {schema}; the next start brings it to {}.", facts.newest),
            "bedside backup FILE, then restart",
        )),
        Some(_) | None => {}
    }
    if let Some(journal) = facts.journal.as_ref().filter(|journal| *journal != "wal") {
        findings.push(Finding::warning(
            CHECK,
            format!("its journal is {journal:?}, so readers and the writer wait for each other."),
            "restart: the server sets WAL; not on a network file system, which cannot have it",
        ));
    }
    if findings.is_empty() {
        findings.push(Finding::ok(
            CHECK,
            match facts.schema {
                Some(schema) => format!("it answers, can be written to, and has schema {schema}."),
                None => "it is empty; the first start makes the schema.".to_owned(),
            },
        ));
    }
    findings
}

/// RabbitMQ, where it is used.
pub(super) async fn rabbitmq(config: &Config) -> Option<Finding> {
    let broker = wire::rabbit_config(config)?;
    let seen = probe::rabbitmq(&broker).await;
    let place = format!("{}:{}", broker.host, broker.port);
    Some(judge_broker("rabbitmq", &place, seen, &|place| {
        format!("look at rabbitmq.* ({place}); rabbitmqctl list_permissions -p {}", broker.vhost)
    }))
}

/// Kafka, where it is used.
pub(super) async fn kafka(config: &Config) -> Option<Finding> {
    let cluster = wire::kafka_config(config)?;
    let seen = probe::kafka(&cluster).await;
    let place = cluster.bootstrap_servers.join(",");
    Some(judge_broker("kafka", &place, seen, &|place| {
        format!("look at kafka.*; kafka-topics.sh --bootstrap-server {place} --list")
    }))
}

fn judge_broker(
    check: &'static str,
    place: &str,
    seen: Result<Vec<String>, String>,
    fix: &dyn Fn(&str) -> String,
) -> Finding {
    match seen {
        Ok(missing) if missing.is_empty() => {
            Finding::ok(check, format!("{place} lets us in and has all names."))
        }
        Ok(missing) => {
            let list = missing.join(", ");
            let says = format!("{place} lets us in; the server makes what is missing: {list}.");
            Finding::ok(check, says)
        }
        Err(error) => {
            Finding::error(check, format!("{place} cannot be used: {error}."), fix(place))
        }
    }
}

/// The store of files.
pub(super) async fn objects(config: &Config) -> Finding {
    const CHECK: &str = "objects";
    let place = config.objects.place(config.database_url.reveal());
    let seen = probe::objects(&place).await;
    let (name, fix) = match &place {
        Objects::Folder(folder) => {
            let folder = folder.display();
            (folder.to_string(), format!("chown -R bedside: {folder}"))
        }
        Objects::S3(s3) => {
            let fix =
                "look at objects.s3_*: the key must put, get and delete objects of the bucket";
            (format!("bucket {}", s3.bucket), fix.to_owned())
        }
    };
    match seen {
        Ok(ObjectsFacts::Works) => {
            Finding::ok(CHECK, format!("{name} takes files, gives them back and removes them."))
        }
        Ok(ObjectsFacts::NotMade) => {
            Finding::ok(CHECK, format!("{name} is not there yet; the first file makes it."))
        }
        Err(error) => Finding::error(CHECK, format!("{name} cannot be used: {error}."), fix),
    }
}

/// Where something is written on this machine's disks.
pub(super) fn places(
    config: &Config,
    seen: &Result<DatabaseFacts, DatabaseProblem>,
) -> Vec<PathBuf> {
    let database = seen.as_ref().ok().and_then(|facts| facts.file.clone());
    let objects = match config.objects.place(config.database_url.reveal()) {
        Objects::Folder(folder) => Some(folder),
        Objects::S3(_) => None,
    };
    database.into_iter().chain(objects).collect()
}

#[cfg(test)]
mod tests {
    use super::super::finding::Level;
    use super::*;

    fn facts() -> DatabaseFacts {
        DatabaseFacts {
            file: Some(PathBuf::from("/var/lib/bedside/bedside.db")),
            schema: Some(10),
            newest: 10,
            writable: true,
            journal: Some("wal".to_owned()),
            ahead_ms: None,
        }
    }

    #[test]
    fn a_database_that_cannot_be_used_says_why() {
        let level = |facts: DatabaseFacts| database(&Ok(facts))[0].level;
        assert_eq!(level(facts()), Level::Ok);
        assert_eq!(level(DatabaseFacts { schema: None, journal: None, ..facts() }), Level::Ok);
        assert_eq!(level(DatabaseFacts { schema: Some(11), ..facts() }), Level::Error);
        assert_eq!(level(DatabaseFacts { schema: Some(9), ..facts() }), Level::Warning);
        assert_eq!(level(DatabaseFacts { writable: false, ..facts() }), Level::Error);
        let standby = DatabaseFacts { file: None, journal: None, writable: false, ..facts() };
        assert!(database(&Ok(standby))[0].says.contains("standby"));
        let journal = DatabaseFacts { journal: Some("delete".to_owned()), ..facts() };
        assert_eq!(level(journal), Level::Warning);
        let away = database(&Err(DatabaseProblem::Timeout));
        assert_eq!(away[0].level, Level::Error);
        assert!(away[0].fix.as_ref().unwrap().contains("psql"));
    }

    #[tokio::test]
    async fn brokers_are_asked_only_where_they_are_used() {
        let mut config = Config::default();
        assert_eq!((rabbitmq(&config).await, kafka(&config).await), (None, None));
        // Nobody listens on this port.
        config.rabbitmq.host = "127.0.0.1".to_owned();
        config.rabbitmq.port = 1;
        let finding = rabbitmq(&config).await.unwrap();
        assert_eq!((finding.check, finding.level), ("rabbitmq", Level::Error));
        assert!(finding.fix.unwrap().contains("rabbitmqctl"));
        let missing = Ok(vec!["video-session-requests".to_owned()]);
        let told = judge_broker("rabbitmq", "b:5672", missing, &|_| String::new());
        assert!(told.level == Level::Ok && told.says.contains("video-session-requests"));
    }

    #[tokio::test]
    async fn the_store_of_files_is_tried() {
        let dir = tempfile::tempdir().unwrap();
        let mut config = Config::default();
        config.objects.folder = dir.path().display().to_string();
        assert_eq!(objects(&config).await.level, Level::Ok);
        let file = dir.path().join("file");
        std::fs::write(&file, "").unwrap();
        config.objects.folder = file.display().to_string();
        let finding = objects(&config).await;
        assert!(finding.level == Level::Error && finding.fix.is_some(), "{finding:?}");
    }
}
