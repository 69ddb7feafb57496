//! `revguard report`: what the last week would have been like under another policy, and which exemptions stand.

use std::collections::BTreeMap;
use std::process::ExitCode;

use clap::Args;
use serde_json::json;

use super::text::{broken, room};
use super::{Failure, Live, Plain, print, table};
use crate::cluster::{self, Access, Trouble};
use crate::controller::resource::{At, CONFIG_MAPS};
use crate::controller::send::{Method, send};
use crate::controller::week::Week;
use crate::controller::{Names, write};
use crate::telemetry::tally::End;

#[derive(Args)]
pub struct Options {
    /// The namespace that revguard is installed in
    #[arg(short, long, value_name = "NAMESPACE", default_value = "revguard-system")]
    namespace: String,
    /// Full name of the release
    #[arg(long, value_name = "NAME", default_value = "revguard")]
    release: String,
    #[command(flatten)]
    live: Live,
    /// For a person or for a program
    #[arg(short, long, value_enum, default_value_t)]
    output: Plain,
}

pub fn run(options: &Options) -> Result<ExitCode, Failure> {
    let access = Access { kubeconfig: options.live.kubeconfig.clone(), context: options.live.context.clone() };
    let names = Names::new(&options.namespace, &options.release);
    let at = At::of(&CONFIG_MAPS, &names.namespace, &names.report());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let object = runtime.block_on(async {
        let client = cluster::connect_as_kubectl(&access).await?;
        match send(&client, Method::Get, &at, None, 2 * write::LONGEST).await {
            Ok(object) => Ok(object),
            Err(Trouble::NotFound) => Err(anyhow::anyhow!(
                "there is no {at}; name the installation with --namespace and --release (`helm list -A` shows it)"
            )),
            Err(trouble) => Err(anyhow::anyhow!("{at}: {trouble}{}", trouble.advice())),
        }
    })?;
    let week = Week::read(&object);
    if options.output == Plain::Json {
        let value = json!({
            "at": week.at, "counts": week.counts,
            "exemptions": week.exemptions, "moreExemptions": week.more_exemptions,
        });
        return print(format!("{}\n", serde_json::to_string_pretty(&value)?).as_bytes());
    }
    print(text(&week).as_bytes())
}

/// The report as a person reads it.
fn text(week: &Week) -> String {
    if week.at.is_empty() {
        return "Nothing has been collected yet; the controller collects once a minute.\n".to_owned();
    }
    let mut sums: BTreeMap<(&str, &str), BTreeMap<End, u64>> = BTreeMap::new();
    for c in &week.counts {
        *sums.entry((&c.line.code, &c.line.writer)).or_default().entry(c.line.end).or_default() += c.count;
    }
    let days = |pick: fn(Option<&str>, &str) -> bool| {
        let mut found: Option<&str> = None;
        for c in &week.counts {
            if pick(found, &c.line.day) {
                found = Some(&c.line.day);
            }
        }
        found.unwrap_or("")
    };
    let first = days(|best, day| best.is_none_or(|b| day < b));
    let last = days(|best, day| best.is_none_or(|b| day > b));
    let mut out = if sums.is_empty() {
        format!("No finding about any write in the last week (collected {}).\n", week.at)
    } else {
        let rows = sums.iter().map(|((code, writer), ends)| {
            let n = |end| ends.get(&end).copied().unwrap_or(0).to_string();
            let name = crate::rules::find(code).map_or("", |r| r.name);
            let (denied, would) = (n(End::Denied), n(End::WouldDeny));
            vec![
                (*code).to_owned(),
                name.to_owned(),
                denied,
                would,
                n(End::Exempted),
                n(End::Warned),
                (*writer).to_owned(),
            ]
        });
        let heads = ["CODE", "RULE", "DENIED", "WOULD DENY", "EXEMPTED", "WARNED", "WRITER"];
        let head = broken(&format!("Writes from {first} to {last} (collected {}):", week.at), "");
        format!("{head}\n\n{}", table::fitted(&heads, rows.collect(), room(), &["RULE"]))
    };
    if week.exemptions.is_empty() {
        out.push_str("\nNo exemption stands.\n");
        return out;
    }
    let mut all: Vec<_> = week.exemptions.iter().collect();
    // What ends soonest first; what never ends last.
    all.sort_by_key(|e| (e.until.is_none(), e.until.clone(), e.object.clone()));
    let rows = all.into_iter().map(|e| {
        let until = e.until.clone().unwrap_or_else(|| "no end".to_owned());
        let reason = if e.reason.is_empty() { "-" } else { &e.reason };
        let said = match &e.void {
            Some(why) => format!("{reason} ({why})"),
            None => reason.to_owned(),
        };
        vec![until, e.code.clone(), e.object.clone(), said]
    });
    out.push_str("\nExemptions:\n\n");
    out.push_str(&table::fitted(&["UNTIL", "CODE", "OBJECT", "REASON"], rows.collect(), room(), &[]));
    if week.more_exemptions > 0 {
        out.push_str(&format!("\nand {} more\n", week.more_exemptions));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_week_reads_as_a_table() {
        let week = json!({
            "at": "2026-01-08T10:00Z",
            "counts": [
                {"day": "2026-01-01", "code": "NS001", "writer": "jane", "end": "denied", "count": 2},
                {"day": "2026-01-07", "code": "NS001", "writer": "jane", "end": "would-deny", "count": 3},
            ],
            "exemptions": [
                {"object": "Namespace a", "code": "NS001", "reason": "r", "until": null, "void": null},
                {"object": "Namespace b", "code": "NS001", "reason": "r", "until": "2026-02-01", "void": null},
                {"object": "Namespace c", "code": "NS001", "reason": "", "until": "2026-03-01", "void": "it gives no reason"},
            ],
        });
        let text = text(&serde_json::from_value(week).unwrap());
        assert!(text.starts_with("Writes from 2026-01-01 to 2026-01-07 (collected 2026-01-08T10:00Z):"), "{text}");
        assert!(text.contains("NS001   both-labels   2        3            0          0        jane"), "{text}");
        let (b, a) = (text.find("Namespace b").unwrap(), text.find("Namespace a").unwrap());
        assert!(b < a, "what ends soonest stands first: {text}");
        assert!(text.contains("2026-03-01   NS001   Namespace c   - (it gives no reason)\n"), "{text}");
    }
}
