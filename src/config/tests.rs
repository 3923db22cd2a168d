//! Layers, names, secrets.

use super::forms::LONGEST_PERIOD;
use super::*;

fn load(file: &str, variables: &[(&str, &str)]) -> Result<Config, ConfigError> {
    let variables = variables.iter().map(|(name, text)| ((*name).into(), (*text).into())).collect();
    Config::from_layers(&Sources::default(), Some(("bedside.toml", file)), &variables)
}

#[test]
fn layers_override_each_other() {
    let file = "drain_timeout = \"5s\"\n[http]\nlisten = \"0.0.0.0:80\"\n[media]\nport = 9";
    let config = load(
        file,
        &[
            ("DATABASE_URL", "postgres://a"),
            ("BEDSIDE_MEDIA__PORT", "10"),
            ("BEDSIDE_MEDIA__ADVERTISE", "192.0.2.1, 2001:db8::1"),
            ("BEDSIDE_ROOMS__AUTO_CREATE", "true"),
            ("RABBITMQ_HOST", "broker"),
            ("RABBITMQ_QUEUE_NOBODY_KNOWS", "x"),
            ("HOME", "/"),
        ],
    )
    .unwrap();
    assert_eq!(config.drain_timeout, Duration::from_secs(5));
    assert_eq!(config.http.listen.port(), 80);
    assert_eq!(config.media.port, 10);
    assert_eq!(config.media.advertise.len(), 2);
    assert_eq!(config.database_url.reveal(), "postgres://a");
    assert_eq!(config.rabbitmq.host, "broker");
    assert!(config.rooms.auto_create);
}

#[test]
fn our_name_wins_over_the_plain_one() {
    let both = [("BEDSIDE_DATABASE_URL", "sqlite:a"), ("DATABASE_URL", "sqlite:b")];
    assert_eq!(load("", &both).unwrap().database_url.reveal(), "sqlite:a");
    for name in ["RABBITMQ_USER", "RABBITMQ_USERNAME"] {
        assert_eq!(load("", &[(name, "clinic")]).unwrap().rabbitmq.username, "clinic");
    }
}

#[test]
fn without_a_word_it_listens_on_this_machine_only() {
    let config = load("", &[]).unwrap();
    assert_eq!(config.http.listen.to_string(), "127.0.0.1:8000");
    let moved = load("", &[("BEDSIDE_HTTP__LISTEN", "127.0.0.1:8004")]).unwrap();
    assert_eq!(moved.http.listen.port(), 8004);
}

#[test]
fn an_empty_variable_counts_as_unset() {
    let empty = [("BEDSIDE_API_SECRET", ""), ("RABBITMQ_HOST", ""), ("BEDSIDE_MEDIA__PORT", "")];
    assert_eq!(load("", &empty).unwrap().one_line(), load("", &[]).unwrap().one_line());
    let error = load("", &[("BEDSIDE_API_SECRT", "")]).unwrap_err();
    assert!(matches!(error, ConfigError::UnknownVariable(_)), "{error}");
}

#[test]
fn unknown_keys_are_named() {
    let error = load("[media]\nportt = 1", &[]).unwrap_err().to_string();
    assert!(error.contains("portt") && error.contains("line 2"), "{error}");
    for name in ["BEDSIDE_MEDIA__PORTT", "BEDSIDE_MEDIA", "BEDSIDE_", "BEDSIDE_HTTP_LISTEN"] {
        let error = load("", &[(name, "1")]).unwrap_err();
        assert!(matches!(&error, ConfigError::UnknownVariable(got) if got == name), "{error}");
    }
}

#[test]
fn wrong_values_name_their_variable() {
    for (name, text) in [
        ("BEDSIDE_MEDIA__PORT", "many"),
        ("BEDSIDE_MEDIA__PORT", "65536"),
        ("BEDSIDE_ROOMS__AUTO_CREATE", "yes"),
        ("BEDSIDE_HTTP__LISTEN", "localhost"),
        ("BEDSIDE_DRAIN_TIMEOUT", "30"),
        ("BEDSIDE_LOG__FORMAT", "xml"),
    ] {
        let error = load("", &[(name, text)]).unwrap_err().to_string();
        assert!(error.starts_with(name), "{error}");
    }
}

#[test]
fn secrets_come_from_files_and_are_never_printed() {
    let path = tempfile::NamedTempFile::new().unwrap().into_temp_path();
    let secret = "0123456789abcdef0123456789abcdef";
    std::fs::write(&path, format!("{secret}\n")).unwrap();
    let config = load(
        "",
        &[
            ("BEDSIDE_API_KEY", "clinic"),
            ("BEDSIDE_API_SECRET_FILE", path.to_str().unwrap()),
            ("DATABASE_URL", "postgres://user:hunter2@db/bedside?password=hunter3"),
            ("RABBITMQ_PASSWORD", "hunter4"),
        ],
    )
    .unwrap();
    assert_eq!(config.api_secret.reveal(), secret);
    config.check_secrets().unwrap();
    let shown = format!("{} {config:?}", config.redacted());
    assert!(!shown.contains("hunter") && !shown.contains(secret), "{shown}");
    assert!(shown.contains("postgres://<redacted>@db/bedside"), "{shown}");
    assert!(config.one_line().contains("; rabbitmq.password = \"<redacted>\"; "));
}

#[test]
fn what_is_printed_is_a_configuration() {
    let config = load("[media]\nport = 77", &[]).unwrap();
    assert_eq!(load(&config.redacted(), &[]).unwrap().media.port, 77);
}

#[test]
fn weak_secrets_are_refused() {
    for (key, secret) in [
        ("", "0123456789abcdef0123456789abcdef"),
        ("devkey", "0123456789abcdef0123456789abcdef"),
        ("clinic", ""),
        ("clinic", "secret"),
        ("clinic", "0123456789abcdef0123456789abcde"),
    ] {
        let variables = [("BEDSIDE_API_KEY", key), ("BEDSIDE_API_SECRET", secret)];
        assert!(load("", &variables).unwrap().check_secrets().is_err(), "{key} {secret}");
    }
}

#[test]
fn demo_has_its_own_defaults_and_flags_win() {
    let flags = vec![("media.port", Value::from(0))];
    let sources = Sources { file: None, demo: true, flags };
    let variables = BTreeMap::from([("BEDSIDE_MEDIA__PORT".to_owned(), "5".to_owned())]);
    let config = Config::from_layers(&sources, None, &variables).unwrap();
    assert_eq!(config.api_key, DEMO_KEY);
    assert!(config.rooms.auto_create);
    assert_eq!(config.media.port, 0);
}

#[test]
fn periods_are_read() {
    assert_eq!(parse_period("1h"), Some(Duration::from_secs(3600)));
    assert_eq!(parse_period("250ms"), Some(Duration::from_millis(250)));
    assert_eq!(parse_period("3650d"), Some(LONGEST_PERIOD));
    for bad in ["", "h", "1", "-1s", "1 s", "1w", "3651d", "99999999999999999999s"] {
        assert_eq!(parse_period(bad), None, "{bad}");
    }
}

#[test]
fn a_database_may_come_in_pieces() {
    let url = |variables: &[(&str, &str)]| load("", variables).unwrap().database_url;
    let whole = [
        ("POSTGRES_HOST", "db"),
        ("POSTGRES_PORT", "6000"),
        ("POSTGRES_DB", "visits"),
        ("POSTGRES_USER", "clinic"),
        ("POSTGRES_PASSWORD", "a:b@c/d"),
    ];
    assert_eq!(url(&whole).reveal(), "postgres://clinic:a%3Ab%40c%2Fd@db:6000/visits");
    let least = [("POSTGRES_HOST", "2001:db8::1"), ("POSTGRES_DATABASE", "consultation_db")];
    assert_eq!(url(&least).reveal(), "postgres://postgres@[2001:db8::1]:5432/consultation_db");
    let both = [("POSTGRES_HOST", "db"), ("DATABASE_URL", "sqlite:a")];
    assert_eq!(url(&both).reveal(), "sqlite:a");
    assert_eq!(url(&[("POSTGRES_PASSWORD", "alone")]).reveal(), "sqlite:bedside.db");
}

#[test]
fn names_of_older_deployments_are_taken_and_noted() {
    let config = load(
        "",
        &[
            ("VIDEO_ENABLED", "TRUE"),
            ("VIDEO_PROVIDER", "openvidu"),
            ("OPENVIDU_URL", "https://video.example"),
            ("OPENVIDU_SECRET", "hunter5"),
            ("JITSI_ENABLE_RECORDING", "true"),
            ("TWILIO_API_KEY_SECRET", "${vault:twilio/api_key_secret}"),
            ("STREAM_API_SECRET", "hunter6"),
        ],
    )
    .unwrap();
    assert!(config.video.enabled);
    let [Note::Info(unused), Note::Warning(provider)] = config.notes.as_slice() else {
        panic!("{:?}", config.notes)
    };
    for name in ["OPENVIDU_URL", "OPENVIDU_SECRET", "JITSI_", "TWILIO_", "STREAM_API_SECRET"] {
        assert!(unused.contains(name), "{name} is not in {unused}");
    }
    assert!(!unused.contains("hunter"), "{unused}");
    assert!(provider.contains("openvidu"), "{provider}");

    let off = load("", &[("VIDEO_ENABLED", "0"), ("VIDEO_PROVIDER", "own")]).unwrap();
    assert!(!off.video.enabled);
    assert!(matches!(off.notes.as_slice(), [Note::Warning(_)]), "{:?}", off.notes);
    assert_eq!(load("", &[]).unwrap().notes, []);
}

#[test]
fn sections_of_networks_are_read() {
    let file = "[admin]\nlisten = \"127.0.0.1:9000\"\n[proxies]\nheader = \"forwarded\"";
    let networks = ("BEDSIDE_PROXIES__TRUSTED", "10.0.0.0/8, 2001:db8::/32");
    let config = load(file, &[networks]).unwrap();
    assert_eq!(config.admin.listen.unwrap().port(), 9000);
    assert_eq!(config.proxies.trusted.len(), 2);
    assert_eq!(config.proxies.header, proxies::ProxyHeader::Forwarded);
    assert_eq!(load("[admin]\nlisten = \"\"", &[]).unwrap().admin.listen, None);
    assert!(load("[proxies]\ntrusted = [\"10.0.0.0/33\"]", &[]).is_err());
    assert!(load("[proxies]\ntrusted = [\"proxy\"]", &[]).is_err());
}

#[test]
fn a_store_of_objects_has_the_names_of_others() {
    let config = load(
        "",
        &[
            ("AWS_S3_BUCKET", "healthcare-recordings"),
            ("AWS_S3_REGION", "ap-south-1"),
            ("AWS_ACCESS_KEY_ID", "key"),
            ("AWS_SECRET_ACCESS_KEY", "hunter7"),
        ],
    )
    .unwrap();
    assert_eq!(config.objects.s3_bucket, "healthcare-recordings");
    assert_eq!(config.objects.s3_region, "ap-south-1");
    assert!(!config.redacted().contains("hunter7"));
}

/// Every key is in the operator's manual, under its whole name.
#[test]
fn every_setting_is_in_the_manual() {
    let manual = include_str!("../../docs/operations.md");
    let Value::Object(settings) = serde_json::to_value(Config::default()).unwrap() else {
        panic!("settings are an object")
    };
    for (section, value) in settings {
        let keys = match value {
            Value::Object(keys) => keys.keys().map(|key| format!("`{section}.{key}`")).collect(),
            _ => vec![format!("`{section}`")],
        };
        for key in keys {
            assert!(manual.contains(&key), "docs/operations.md does not tell of {key}");
        }
    }
}
