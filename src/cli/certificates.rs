//! Arguments about certificates of the controller.

use std::time::Duration;

use clap::{Args, ValueEnum};
use jiff::{SignedDuration, Timestamp};

use super::Failure;
use crate::controller::Names;
use crate::controller::certificates::plan::Timing;
use crate::controller::certificates::{Mode, PAUSE, Settings, issue};

#[derive(Args, Clone, Debug)]
#[group(skip)]
pub struct Options {
    /// Who keeps the CA and the serving certificate: revguard (own), or cert-manager or a person (external: only checked)
    #[arg(long, value_enum, value_name = "WHO", default_value_t)]
    certificates: Keeper,
    /// How long a CA lasts; it is renewed after two thirds
    #[arg(long, value_name = "DURATION", default_value = "8760h", value_parser = duration)]
    ca_validity: Duration,
    /// How long a serving certificate lasts; it is renewed after two thirds
    #[arg(long, value_name = "DURATION", default_value = "2160h", value_parser = duration)]
    cert_validity: Duration,
    /// How long a new CA is published before it signs (less where what is served would expire before), and an old one after
    /// it signed last
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = duration)]
    cert_overlap: Duration,
    /// A further name or address of the serving certificate, for webhooks that are registered by URL
    #[arg(long, value_name = "NAME")]
    cert_name: Vec<String>,
    /// external: the Secret of the serving certificate, where it is not RELEASE-webhook-tls
    #[arg(long, value_name = "NAME")]
    tls_secret: Option<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Keeper {
    #[default]
    Own,
    External,
}

impl Options {
    /// What the loop is told.
    ///
    /// # Errors
    /// Durations with which no rotation could end in time, a name that no certificate can carry, or a Secret of somebody
    /// else's that we would have to keep.
    pub fn settings(&self, names: Names) -> Result<Settings, Failure> {
        let signed = |d: Duration| SignedDuration::try_from(d).map_err(anyhow::Error::from);
        let timing = Timing {
            ca_validity: signed(self.ca_validity)?,
            cert_validity: signed(self.cert_validity)?,
            overlap: signed(self.cert_overlap)?,
        };
        timing.check().map_err(anyhow::Error::msg)?;
        if let Some(name) = self.cert_name.iter().find(|name| !issue::carries(name, Timestamp::now())) {
            let why = "a certificate cannot carry it; give one DNS name without a wildcard or port, or one address";
            return Err(anyhow::anyhow!("--cert-name {name:?}: {why}"));
        }
        let mode = match self.certificates {
            Keeper::Own => Mode::Own,
            Keeper::External => Mode::External,
        };
        if mode == Mode::Own && self.tls_secret.is_some() {
            return Err(anyhow::anyhow!("--tls-secret: only with --certificates external; our own is {}", names.tls()));
        }
        let secret = self.tls_secret.clone().unwrap_or_else(|| names.tls());
        Ok(Settings { names, secret, mode, timing, further: self.cert_name.clone(), pause: PAUSE })
    }
}

/// `90s`, `10m`, `24h`, `8760h`, and several of them in a row.
///
/// # Errors
/// What it should look like.
pub fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is no duration; write 90s, 10m, 24h or 8760h");
    if !text.ends_with(|c: char| c.is_ascii_lowercase()) {
        return Err(wrong());
    }
    let read: SignedDuration = text.parse().map_err(|_| wrong())?;
    Duration::try_from(read).map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Only {
        #[command(flatten)]
        options: Options,
    }

    fn settings(args: &[&str]) -> Result<Settings, String> {
        let only = Only::try_parse_from([&["x"], args].concat()).map_err(|e| e.to_string())?;
        only.options.settings(Names::new("guard", "revguard")).map_err(|e| e.to_string())
    }

    #[test]
    fn durations_that_could_not_work_are_refused_by_the_name_of_their_flag() {
        let timing = settings(&[]).unwrap().timing;
        assert_eq!(timing.ca_validity, SignedDuration::from_hours(8760));
        assert_eq!(timing.overlap, SignedDuration::from_mins(10));
        assert_eq!(settings(&["--cert-overlap", "90s"]).unwrap().timing.overlap, SignedDuration::from_secs(90));
        for (args, says) in [
            (["--cert-overlap", "1000h"], "--cert-overlap"),
            (["--cert-validity", "9000h"], "--cert-validity"),
            (["--cert-validity", "0s"], "--cert-validity"),
            (["--ca-validity", "a year"], "write 90s, 10m, 24h"),
            (["--ca-validity", "86400"], "is no duration"),
        ] {
            let error = settings(&args).unwrap_err();
            assert!(error.contains(says), "{args:?}: {error}");
        }
    }

    #[test]
    fn the_secret_of_somebody_else_is_looked_at_and_never_kept() {
        assert_eq!(settings(&[]).unwrap().secret, "revguard-webhook-tls");
        assert_eq!(settings(&["--certificates", "external"]).unwrap().secret, "revguard-webhook-tls");
        assert_eq!(settings(&["--certificates", "external", "--tls-secret", "mine"]).unwrap().secret, "mine");
        let error = settings(&["--tls-secret", "mine"]).unwrap_err();
        assert!(error.contains("--tls-secret: only with --certificates external"), "{error}");
    }

    #[test]
    fn the_certificate_carries_the_names_of_the_service() {
        let settings = settings(&["--cert-name", "127.0.0.1"]).unwrap();
        let needed = settings.needed();
        assert!(needed.contains(&"revguard-webhook.guard.svc".to_owned()), "{needed:?}");
        assert!(needed.contains(&"127.0.0.1".to_owned()));
        for good in ["guard.example.org", "Guard.Example.org", "::1", "a_b.example.org", "localhost"] {
            assert!(self::settings(&["--cert-name", good]).is_ok(), "{good}");
        }
        for bad in ["*.example.org", "guard.example.org:8443", "https://guard", "grün.example.org", "guard.", ""] {
            let error = self::settings(&["--cert-name", bad]).unwrap_err();
            assert!(error.contains(&format!("--cert-name {bad:?}: a certificate cannot carry it")), "{bad}: {error}");
        }
    }
}
