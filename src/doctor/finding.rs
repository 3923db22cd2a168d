//! What was found: one sentence, and the command that mends it.

use std::fmt::Write as _;

use serde::Serialize;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Level {
    /// As it should be.
    Ok,
    /// People are served, not as well or as safely as they could be.
    Warning,
    /// Something does not work.
    Error,
}

impl Level {
    const fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }

    /// The exit code of the command whose worst finding is this.
    pub(crate) const fn exit_code(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Warning => 1,
            Self::Error => 2,
        }
    }
}

/// One finding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Finding {
    /// What was looked at: a word that does not change.
    pub(crate) check: &'static str,
    pub(crate) level: Level,
    /// One sentence.
    pub(crate) says: String,
    /// What mends it: a command, or a setting.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) fix: Option<String>,
}

impl Finding {
    /// All is well.
    pub(crate) fn ok(check: &'static str, says: impl Into<String>) -> Self {
        Self { check, level: Level::Ok, says: says.into(), fix: None }
    }

    /// It could be better.
    pub(crate) fn warning(
        check: &'static str,
        says: impl Into<String>,
        fix: impl Into<String>,
    ) -> Self {
        Self { check, level: Level::Warning, says: says.into(), fix: Some(fix.into()) }
    }

    /// It does not work.
    pub(crate) fn error(
        check: &'static str,
        says: impl Into<String>,
        fix: impl Into<String>,
    ) -> Self {
        Self { check, level: Level::Error, says: says.into(), fix: Some(fix.into()) }
    }
}

/// Everything that was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Report {
    /// That of the worst finding.
    pub(crate) level: Level,
    pub(crate) findings: Vec<Finding>,
}

impl Report {
    pub(crate) fn new(findings: Vec<Finding>) -> Self {
        let level = findings.iter().map(|finding| finding.level).max().unwrap_or(Level::Ok);
        Self { level, findings }
    }

    /// For people: a line for each finding, and one for what mends it.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        for Finding { check, level, says, fix } in &self.findings {
            // Writing to a string does not fail.
            let _ = writeln!(text, "{:8} {check:14} {says}", level.word());
            if let Some(fix) = fix {
                let _ = writeln!(text, "{:23} fix: {fix}", "");
            }
        }
        let count = |level| self.findings.iter().filter(|finding| finding.level == level).count();
        let (errors, warnings) = (count(Level::Error), count(Level::Warning));
        let _ = write!(text, "{errors} errors, {warnings} warnings");
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_finding_is_the_exit_code() {
        let ok = Finding::ok("disk", "there is room");
        let warning = Finding::warning("buffers", "they are small", "sysctl -w a=b");
        let error = Finding::error("database", "it is away", "systemctl start postgresql");
        let code = |findings: &[&Finding]| {
            Report::new(findings.iter().copied().cloned().collect()).level.exit_code()
        };
        assert_eq!(code(&[]), 0);
        assert_eq!(code(&[&ok]), 0);
        assert_eq!(code(&[&warning, &ok]), 1);
        assert_eq!(code(&[&warning, &error, &ok]), 2);
        let report = Report::new(vec![ok, warning, error]);
        let text = report.text();
        assert!(text.contains("fix: systemctl start postgresql"), "{text}");
        assert!(text.ends_with("1 errors, 1 warnings"), "{text}");
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(json["level"], "error");
        assert_eq!(json["findings"][1]["fix"], "sysctl -w a=b");
        assert!(json["findings"][0].get("fix").is_none());
    }
}
