//! The reference pages, `docs/reference/cli.md` and `docs/reference/config.md`: written from the command line itself, so that they are true.

use std::fmt::Write as _;

use clap::{Arg, Args, Command};

use super::{ClientArgs, CoordinatorArgs, ParticipantArgs};

/// `docs/reference/cli.md`.
#[must_use]
pub fn cli_page() -> String {
    let mut page = String::from(
        "# The command line\n\n<!-- Written by `UPDATE=1 cargo test -p assent --test docs`; do not edit. -->\n\n\
         Results go to stdout, messages to stderr. Exit codes: 0 committed or done, 1 error, 2 usage, \
         3 aborted, 4 not known yet, 5 unreachable.\n[Settings](config.md) can be given by flag, environment or \
         file.\n",
    );
    let mut command = crate::command().term_width(100).disable_help_subcommand(true);
    command.build();
    write_command(&command, "assent", &mut page);
    page
}

fn write_command(command: &Command, path: &str, page: &mut String) {
    let mut shown = command.clone().disable_version_flag(true);
    let help = shown.render_help().to_string();
    let help: Vec<&str> = help.lines().map(str::trim_end).collect();
    // Writing to a string cannot fail.
    let _written = write!(page, "\n## `{path}`\n\n```text\n{}\n```\n", help.join("\n").trim_end());
    for inner in command.get_subcommands().filter(|inner| inner.get_name() != "help") {
        write_command(inner, &format!("{path} {}", inner.get_name()), page);
    }
}

/// `docs/reference/config.md`.
#[must_use]
pub fn config_page() -> String {
    let mut page = String::from(
        "# Settings\n\n<!-- Written by `UPDATE=1 cargo test -p assent --test docs`; do not edit. -->\n\n\
         Each setting is taken from the first of these that has it: the flag, the environment, the \
         file, the default. `assent config show` prints every value with its origin.\n\n\
         - **The file** is TOML: `--config FILE`, `ASSENT_CONFIG`, or `./assent.toml` if it exists. \
         `--config none` reads none. An unknown key is an error.\n\
         - **The environment:** a variable that begins with `ASSENT_` and has none of the names below \
         is an error too. Exceptions are `ASSENT_CONFIG`, `ASSENT_REDIS_SERVER`, `ASSENT_BIN`, the \
         variables of `deploy/compose.yaml`, and those that Kubernetes sets for a service \
         (`ASSENT_SERVICE_HOST`, `ASSENT_PORT_…`).\n\
         - **Times** are written `500ms`, `5s`, `2m`, `1h`.\n\
         - **Secrets** are never settings. The settings name the files that hold them.\n\n```toml\n[coordinator]\n\
         data_dir = \"/var/lib/assent\"\nretention = \"48h\"\n\n[coordinator.participants]\nbank-a = \
         \"http://10.0.0.5:7710\"\n\n[participant]\nname = \"bank-a\"\nredis = \"redis://127.0.0.1:6379\"\n```\n",
    );
    let sections = [
        (
            "coordinator",
            "`assent coordinator` and `assent init`",
            CoordinatorArgs::augment_args(Command::new("c")),
        ),
        ("participant", "`assent participant`", ParticipantArgs::augment_args(Command::new("p"))),
        (
            "client",
            "The commands that talk to a coordinator",
            ClientArgs::augment_args(Command::new("c")),
        ),
    ];
    for (section, about, command) in sections {
        let _written = write!(
            page,
            "\n## `[{section}]`\n\n{about}.\n\n| Key | Flag | Environment | Meaning |\n|---|---|---|---|\n"
        );
        for argument in command.get_arguments() {
            write_setting(argument, &mut page);
        }
    }
    page.push_str(
        "\n## Logs\n\nServers log to stderr: text on a terminal, JSON lines otherwise. `RUST_LOG` sets the \
         level, for example `RUST_LOG=assent_coordinator=debug`. Values and tokens are never logged.\n",
    );
    page
}

fn write_setting(argument: &Arg, page: &mut String) {
    let flag = argument.get_long().unwrap_or_default();
    let value = argument.get_value_names().and_then(<[_]>::first).map_or("", |name| name.as_str());
    let variable =
        argument.get_env().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    let meaning = argument.get_help().map(ToString::to_string).unwrap_or_default();
    let _written = writeln!(
        page,
        "| `{}` | `--{flag} {value}` | `{variable}` | {meaning} |",
        argument.get_id()
    );
}
