"""The batch job's command line: `archive-colorize`, the same as `python -m pipeline.colorize`."""

import contextlib
import logging
import sys

from pipeline import manifest, options, storage
from pipeline.collections import JobError
from pipeline.summary import Summary, describe

USAGE_ERROR = 2


def main(argv: list[str] | None = None) -> int:
    """Runs a command and returns its exit code (see `--help`); a user's mistake is one line on stderr."""
    argv = sys.argv[1:] if argv is None else argv
    try:
        if argv[:1] == ["status"]:
            return status(argv[1:])
        parser = options.parser()
        if not argv:
            parser.print_help()
            return USAGE_ERROR
        chosen, beam_argv = parser.parse_known_args(argv)
        for name in ("input", "output"):
            if not getattr(chosen, name):
                raise JobError(f"--{name} is missing (archive-colorize --help explains)")
        logging.basicConfig(level=logging.ERROR)  # Beam is talkative at its import already
        from pipeline import job  # loads Beam, which `--help` need not wait for

        return job.run(chosen, beam_argv)
    except JobError as error:
        print(f"archive-colorize: {error}", file=sys.stderr)
        return USAGE_ERROR
    except BrokenPipeError:  # `... | head`
        with contextlib.suppress(OSError):
            sys.stdout.close()
        return 0


def status(argv: list[str]) -> int:
    """`archive-colorize status DST`: the manifest, counted."""
    if len(argv) != 1 or argv[0].startswith("-"):
        if argv in (["-h"], ["--help"]):
            print(
                "usage: archive-colorize status DST\n\nCounts the records in DST/manifest, the latest of each scan."
            )
            return 0
        raise JobError("usage: archive-colorize status DST")
    output = storage.normalize(argv[0])
    summary = Summary()
    for record in manifest.latest(output):
        summary.add(record)
    if not summary.records:
        raise JobError(f"no manifest in {output}: is it the --output of a run?")
    print(describe(summary.to_dict()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
