//! The command `tidemill`.

fn main() -> std::process::ExitCode {
    tidemill_cli::main()
}
