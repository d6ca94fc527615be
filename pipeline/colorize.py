"""The command line of the batch job, `archive-colorize` or `python -m pipeline.colorize`."""

import sys

from pipeline import console
from pipeline.batch import stopping


def main(argv: list[str] | None = None) -> int:
    """Runs a command and returns its exit code (see `--help`). A user's mistake is reported in one line on stderr."""
    with stopping.at_once():  # before the imports, which take seconds
        console.prepare()
        from pipeline import commands

        return commands.run(sys.argv[1:] if argv is None else argv)


def worker() -> int:
    """The command `archive-colorize-worker`: runners call a command of one word."""
    return main(["worker", *sys.argv[1:]])


if __name__ == "__main__":
    sys.exit(main())
