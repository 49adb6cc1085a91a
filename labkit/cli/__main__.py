"""The entry point of the `labkit` command, and of `python -m labkit.cli`."""

import signal


def main() -> None:
    """Run the command. Ctrl-C ends the command without a traceback, even while Python loads its modules.

    SIGTERM does the same as Ctrl-C: the command cleans up, and prints how to go on. CI systems cancel a job with it.
    """
    before = signal.getsignal(signal.SIGINT)
    if before is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from labkit.cli.main import main as run

    signal.signal(signal.SIGINT, before)
    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    run()


if __name__ == "__main__":
    main()
