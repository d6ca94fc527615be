"""The batch job's command line: `archive-colorize`, the same as `python -m pipeline.colorize`."""

import sys

from pipeline import console, stopping


def main(argv: list[str] | None = None) -> int:
    """Runs a command and returns its exit code (see `--help`); a user's mistake is one line on stderr."""
    with stopping.at_once():  # before the imports, which take seconds
        console.prepare()
        from pipeline import commands

        return commands.run(sys.argv[1:] if argv is None else argv)


if __name__ == "__main__":
    sys.exit(main())
