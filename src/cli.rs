//! The command line.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::NonEmptyStringValueParser;
use clap::{Args, Parser, Subcommand, ValueEnum};
use serde_json::Value;

use crate::bench::Bench;
use crate::config::{Sources, parse_period};

/// Self-hosted video consultations: one binary with SFU, signaling and control plane.
#[derive(Debug, Parser)]
#[command(name = "bedside", version, about)]
pub(crate) struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the server.
    Serve(Serve),
    /// Copy everything lasting to a new file; the server may be running.
    Backup(Copy),
    /// Put a backup back where nothing is yet.
    Restore(Copy),
    /// Look at this machine and the settings, and say what mends what is wrong. Exit code: 0 = all is
    /// well, 1 = there are warnings, 2 = there are errors.
    Doctor(Doctor),
    /// Try it: a seeded clinic in a temporary database, and a synthetic patient.
    Demo(Demo),
    /// Measure how much a server carries, with people made of software; or compare such measurements.
    #[command(subcommand)]
    Bench(Box<Bench>),
    /// Print a signed token, for trying things.
    #[command(subcommand)]
    Token(Token),
    /// Service keys: make, list, revoke.
    #[command(subcommand)]
    Keys(KeysCommand),
    /// The audit log: check, export.
    #[command(subcommand)]
    Audit(AuditCommand),
    /// Look at the configuration.
    #[command(subcommand)]
    Config(ConfigCommand),
}

/// Where the configuration file is.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct ConfigFile {
    /// TOML file (also BEDSIDE_CONFIG).
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
}

impl ConfigFile {
    /// The settings' sources without any flag.
    pub(crate) fn sources(&self) -> Sources {
        Sources { file: self.config.clone(), ..Sources::default() }
    }
}

/// Flags of `bedside serve`.
#[derive(Clone, Debug, Args)]
pub(crate) struct Serve {
    /// UDP and TCP port for TURN, 0 = no TURN [default: 3478].
    #[arg(long)]
    pub(crate) turn_port: Option<u16>,
    #[command(flatten)]
    pub(crate) file: ConfigFile,
}

impl Serve {
    /// The settings' sources with these flags.
    pub(crate) fn sources(&self) -> Sources {
        let flags = self.turn_port.map(|port| ("turn.port", Value::from(port)));
        Sources { flags: flags.into_iter().collect(), ..self.file.sources() }
    }
}

/// Flags of `bedside doctor`.
#[derive(Clone, Debug, Args)]
pub(crate) struct Doctor {
    /// Print the findings as one JSON object.
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) file: ConfigFile,
}

/// Flags of `bedside backup` and `bedside restore`.
#[derive(Clone, Debug, Args)]
pub(crate) struct Copy {
    /// The backup.
    pub(crate) file: PathBuf,
    #[command(flatten)]
    pub(crate) config: ConfigFile,
}

/// Flags of `bedside demo`.
#[derive(Clone, Debug, Args)]
pub(crate) struct Demo {
    /// Address to bind and to tell clients [default: 127.0.0.1].
    #[arg(long, value_name = "ADDR")]
    pub(crate) host: Option<IpAddr>,
    /// HTTP port, 0 = any free one [default: 8000].
    #[arg(long)]
    pub(crate) port: Option<u16>,
    /// First UDP port for media, 0 = any free ones [default: 7882].
    #[arg(long)]
    pub(crate) media_port: Option<u16>,
    /// UDP and TCP port for TURN, 0 = no TURN [default: 3478, or a free one if that is taken].
    #[arg(long)]
    pub(crate) turn_port: Option<u16>,
    /// Port with TLS (HTTPS, TURN), with a certificate made for it, 0 = any free one [default: none].
    #[arg(long)]
    pub(crate) tls_port: Option<u16>,
    /// Host name of that certificate [default: localhost on a loopback address].
    #[arg(long, value_name = "NAME", requires = "tls_port", value_parser = NonEmptyStringValueParser::new())]
    pub(crate) tls_name: Option<String>,
    /// Address to tell clients instead of the bound one; may be given more than once.
    #[arg(long, value_name = "ADDR")]
    pub(crate) advertise: Vec<IpAddr>,
    /// Start no synthetic patient.
    #[arg(long)]
    pub(crate) no_bot: bool,
    /// Print one line of JSON on standard output once ready.
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) file: ConfigFile,
}

impl Demo {
    /// The settings' sources with these flags; `listen` is what file and environment say.
    pub(crate) fn sources(&self, listen: std::net::SocketAddr) -> Sources {
        let mut flags = Vec::new();
        if self.host.is_some() || self.port.is_some() {
            let host = self.host.unwrap_or_else(|| listen.ip());
            let port = self.port.unwrap_or_else(|| listen.port());
            let listen = std::net::SocketAddr::new(host, port);
            flags.push(("http.listen", Value::from(listen.to_string())));
        }
        if let Some(host) = self.host {
            flags.push(("media.bind", Value::from(host.to_string())));
            flags.push(("media.advertise", Value::from(vec![host.to_string()])));
        }
        if !self.advertise.is_empty() {
            let list: Vec<String> = self.advertise.iter().map(IpAddr::to_string).collect();
            flags.push(("media.advertise", Value::from(list)));
        }
        if let Some(port) = self.turn_port {
            flags.push(("turn.port", Value::from(port)));
        }
        if let Some(port) = self.media_port {
            flags.push(("media.port", Value::from(port)));
        }
        Sources { file: self.file.config.clone(), demo: true, flags }
    }
}

/// Kinds of tokens.
#[derive(Debug, Subcommand)]
pub(crate) enum Token {
    /// A token that opens a room.
    Room {
        /// Name of the room.
        #[arg(long, value_parser = NonEmptyStringValueParser::new())]
        room: String,
        /// Who comes in; unique in the room.
        #[arg(long, value_parser = NonEmptyStringValueParser::new())]
        identity: String,
        /// Name that others see.
        #[arg(long, default_value = "")]
        name: String,
        /// How long it is valid.
        #[arg(long, default_value = "1h", value_parser = period)]
        ttl: Duration,
        #[command(flatten)]
        file: ConfigFile,
    },
    /// A bearer token for the API.
    Api {
        /// What its holder may do.
        #[arg(long)]
        role: Role,
        /// Whose it is.
        #[arg(long, value_parser = NonEmptyStringValueParser::new())]
        user: String,
        /// Clinic it belongs to.
        #[arg(long, default_value = "demo", value_parser = NonEmptyStringValueParser::new())]
        clinic: String,
        /// How long it is valid.
        #[arg(long, default_value = "1h", value_parser = period)]
        ttl: Duration,
        #[command(flatten)]
        file: ConfigFile,
    },
}

/// Roles of the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Role {
    /// Sees and runs the doctor's own consultations.
    Doctor,
    /// Sees the patient's own consultations.
    Patient,
    /// Another service of the clinic.
    Service,
    /// Everything in the clinic.
    Admin,
}

/// `bedside keys …`
#[derive(Debug, Subcommand)]
pub(crate) enum KeysCommand {
    /// Make a service key and print it, this once.
    Create {
        /// Clinic it belongs to.
        #[arg(long, value_parser = NonEmptyStringValueParser::new())]
        clinic: String,
        /// What it is called; who acts by it in the records.
        #[arg(long, value_parser = NonEmptyStringValueParser::new())]
        name: String,
        /// What it may do, such as consultations:read; may be given more than once.
        #[arg(long, required = true, value_delimiter = ',')]
        scope: Vec<String>,
        /// How long it is good; for ever, if not given.
        #[arg(long, value_parser = period)]
        expires: Option<Duration>,
        #[command(flatten)]
        file: ConfigFile,
    },
    /// List a clinic's service keys.
    List {
        /// Whose.
        #[arg(long, value_parser = NonEmptyStringValueParser::new())]
        clinic: String,
        #[command(flatten)]
        file: ConfigFile,
    },
    /// Revoke a service key; running servers refuse it within a second.
    Revoke {
        /// Its id.
        id: uuid::Uuid,
        /// Clinic it belongs to.
        #[arg(long, value_parser = NonEmptyStringValueParser::new())]
        clinic: String,
        #[command(flatten)]
        file: ConfigFile,
    },
}

/// `bedside audit …`
#[derive(Debug, Subcommand)]
pub(crate) enum AuditCommand {
    /// Find rows that were changed, taken out, put in or moved; an error if there are any.
    Verify {
        /// Check this export (NDJSON) instead of the database.
        #[arg(long, value_name = "FILE")]
        file: Option<PathBuf>,
        /// Only this clinic's log.
        #[arg(long)]
        clinic: Option<String>,
        #[command(flatten)]
        config: ConfigFile,
    },
    /// Write a clinic's log to standard output, one JSON object a line.
    Export {
        /// Whose.
        #[arg(long, value_parser = NonEmptyStringValueParser::new())]
        clinic: String,
        #[command(flatten)]
        config: ConfigFile,
    },
}

/// `bedside config …`
#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Print the settings that are in force, as a TOML file.
    Print {
        /// Show `<redacted>` for secrets. There is no other form: secrets are never printed.
        #[arg(long, required = true)]
        redacted: bool,
        #[command(flatten)]
        file: ConfigFile,
    },
}

fn period(text: &str) -> Result<Duration, String> {
    parse_period(text).ok_or_else(|| {
        "a number with ms, s, m, h or d, such as 10m; ten years at the most".to_owned()
    })
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn commands_are_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_demo_reads_its_flags() {
        let line = "bedside demo --host 0.0.0.0 --port 0 --media-port 9000 --advertise 192.0.2.1 \
                    --advertise 2001:db8::1 --no-bot --json --config x.toml --tls-port 8443 \
                    --tls-name demo.example --turn-port 0";
        let cli = Cli::try_parse_from(line.split_whitespace()).unwrap();
        let Command::Demo(demo) = cli.command else { panic!("not the demo") };
        let sources = demo.sources(([127, 0, 0, 1], 8000).into());
        let flags: Vec<_> =
            sources.flags.iter().map(|(key, value)| format!("{key}={value}")).collect();
        for flag in [r#"media.advertise=["192.0.2.1","2001:db8::1"]"#, "media.port=9000"] {
            assert!(flags.iter().any(|given| given == flag), "{flag} is not in {flags:?}");
        }
        assert!(flags.contains(&r#"http.listen="0.0.0.0:0""#.to_owned()));
        assert!(demo.no_bot && demo.json);
        assert!(flags.contains(&"turn.port=0".to_owned()));
        assert_eq!((demo.tls_port, demo.tls_name.as_deref()), (Some(8443), Some("demo.example")));
    }

    #[test]
    fn wrong_token_flags_are_refused() {
        for line in [
            "bedside token room --room a",
            "bedside token room --room a --identity b --ttl 5",
            "bedside token api --role nurse --user u",
            "bedside config print",
            "bedside demo --tls-name demo.example",
            "bedside keys create --clinic c --name n",
            "bedside keys revoke x --clinic c",
            "bedside audit export",
        ] {
            assert!(Cli::try_parse_from(line.split_whitespace()).is_err(), "{line}");
        }
    }
}
