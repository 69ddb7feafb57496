//! `revguard completion`: the script that a shell reads. It offers what a person may type, and nothing that is only there for tests.

use clap::Command;
use clap::builder::PossibleValuesParser;
use clap_complete::Shell;

use crate::rollout::guards::GUARDS;
use crate::rules::RULES;

/// The script for this shell.
pub fn script(shell: Shell) -> Vec<u8> {
    let codes: Vec<&str> = RULES.iter().map(|rule| rule.code).chain(GUARDS.iter().map(|guard| guard.name)).collect();
    let line =
        format!("complete -c revguard -n \"__fish_revguard_using_subcommand explain\" -f -a \"{}\"\n", codes.join(" "));
    let codes = PossibleValuesParser::new(codes);
    let mut shown = shown(&super::command());
    shown = shown.mut_subcommand("explain", |explain| explain.mut_arg("code", |code| code.value_parser(codes)));
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut shown, "revguard", &mut script);
    if shell == Shell::Fish {
        // clap_complete leaves values of positional arguments out for this shell.
        script.extend(line.into_bytes());
    }
    script
}

/// The command without what is hidden from `--help`, which clap's scripts would offer.
fn shown(command: &Command) -> Command {
    // clap wants names that live as long as the process, which ends after this.
    let name: &'static str = Box::leak(command.get_name().to_owned().into_boxed_str());
    let new =
        Command::new(name).about(command.get_about().cloned().unwrap_or_default()).version(env!("CARGO_PKG_VERSION"));
    // The version is asked of the program, not of its commands.
    let new = new.disable_version_flag(command.get_version().is_none());
    let new = command.get_arguments().filter(|arg| !arg.is_hide_set()).fold(new, |new, arg| new.arg(arg));
    command.get_subcommands().filter(|sub| !sub.is_hide_set()).fold(new, |new, sub| new.subcommand(shown(sub)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shell_is_offered_what_help_shows() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish, Shell::Elvish, Shell::PowerShell] {
            let script = String::from_utf8(script(shell)).unwrap();
            for word in ["uninstall-check", "audit-interval", "approve", "step"] {
                assert!(script.contains(word), "{shell}: no {word}");
            }
            for word in ["kill-at", "kill-marks", "generated pages"] {
                assert!(!script.contains(word), "{shell}: {word}");
            }
        }
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let script = String::from_utf8(script(shell)).unwrap();
            assert!(script.contains("NS004 ") && script.contains("NoApartKey"), "{shell}: codes to explain");
        }
    }
}
