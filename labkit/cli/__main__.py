"""The entry point of the `labkit` command, and of `python -m labkit.cli`."""

import signal


def main() -> None:
    """Run the command. Ctrl-C ends it without a traceback, even while Python still loads modules.

    SIGTERM, with which CI systems cancel a job, has the same effect.
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
