//! Running other programs: one wording for how they fail, one look for the steps they belong to.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

/// Announces a step.
pub(crate) fn heading(step: &str) {
    println!("\n==> {step}");
}

/// Runs a command whose output goes to the terminal; a status other than 0 is an error.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("cannot run {}", describe(command)))?;
    if !status.success() {
        bail!("{} failed ({status}); its messages are above", describe(command));
    }
    Ok(())
}

/// Runs a command quietly and gives its standard output; a status other than 0 is an error that carries the last
/// line of its messages.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("cannot run {}", describe(command)))?;
    if !output.status.success() {
        let messages = String::from_utf8_lossy(&output.stderr);
        let last = messages.trim().lines().last().unwrap_or("it gave no reason");
        bail!("{} failed ({}): {last}", describe(command), output.status);
    }
    String::from_utf8(output.stdout).with_context(|| format!("{} wrote no UTF-8", describe(command)))
}

/// Runs a command and hands over each line of its standard output while it runs; its messages go to the terminal.
///
/// Gives whether it ended with status 0.
pub(crate) fn each_line(command: &mut Command, mut line: impl FnMut(&str)) -> Result<bool> {
    let mut child = command
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run {}", describe(command)))?;
    let mut read = Ok(());
    if let Some(stdout) = child.stdout.take() {
        for text in BufReader::new(stdout).split(b'\n') {
            match text {
                Ok(text) => line(&String::from_utf8_lossy(&text)),
                Err(error) => {
                    read = Err(error);
                    break;
                }
            }
        }
    }
    let status = child.wait().with_context(|| format!("cannot wait for {}", describe(command)))?;
    read.with_context(|| format!("cannot read what {} writes", describe(command)))?;
    Ok(status.success())
}

/// The command as a person would name it: program and arguments, without the folder and the environment.
fn describe(command: &Command) -> String {
    let program = std::path::Path::new(command.get_program());
    let name = program.file_name().unwrap_or(program.as_os_str()).to_string_lossy();
    let mut text = format!("`{name}");
    for argument in command.get_args() {
        text.push(' ');
        text.push_str(&argument.to_string_lossy());
    }
    text.push('`');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_command_is_named_with_its_last_message() {
        let error = output(Command::new("sh").args(["-c", "echo first >&2; echo last >&2; exit 3"]));
        let text = format!("{:#}", error.expect_err("status 3 is a failure"));
        assert!(text.starts_with("`sh -c"), "{text}");
        assert!(text.ends_with("last"), "{text}");
        assert!(text.contains("exit status: 3"), "{text}");
    }

    #[test]
    fn a_missing_program_is_named() {
        let text = format!("{:#}", run(&mut Command::new("/no/such/tool")).expect_err("it does not exist"));
        assert!(text.starts_with("cannot run `tool`"), "{text}");
    }

    #[test]
    fn lines_arrive_in_order_and_the_status_is_told() {
        let mut lines = Vec::new();
        let mut command = Command::new("sh");
        let done =
            each_line(command.args(["-c", "echo a; echo b; exit 1"]), |line| lines.push(line.to_owned()));
        assert!(!done.expect("it runs"));
        assert_eq!(lines, ["a", "b"]);
    }
}
