"""The entry of the `labkit` command; also `python -m labkit.cli`."""

import signal


def main() -> None:
    """Run the command. Ctrl-C while its modules load ends it without a traceback."""
    before = signal.getsignal(signal.SIGINT)
    if before is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from labkit.cli.main import main as run

    signal.signal(signal.SIGINT, before)
    run()


if __name__ == "__main__":
    main()
