"""The commands of `archive-colorize`: the job itself, and what looks at or changes what jobs and trainings left."""

import argparse
import logging
import sys

from model.card import CardError
from pipeline import manifest, options, registry, scratch, stopping, storage
from pipeline.collections import JobError, check_reachable
from pipeline.console import complain, say
from pipeline.summary import Summary, describe

USAGE_ERROR = 2
MAIN_FIGURE = "rmse_over_grey"  # of a collection in a card's metrics: mean, low, high


def run(argv: list[str]) -> int:
    """Runs a command and returns its exit code."""
    try:
        with stopping.cleared(scratch.remove_all):
            if argv and argv[0] in COMMANDS:
                return COMMANDS[argv[0]](argv[1:])
            parser = options.parser()
            if not argv:
                say(parser.format_help())
                return USAGE_ERROR
            chosen, beam_argv = parser.parse_known_args(argv)
            for name in ("input", "output"):
                if not getattr(chosen, name):
                    raise JobError(f"--{name} is missing (archive-colorize --help explains)")
            scratch.remove(scratch.make())  # Beam's import fails without a place for temporary files
            logging.basicConfig(level=logging.ERROR)  # Beam is talkative at its import already
            from pipeline import job  # loads Beam, which `--help` need not wait for

            return job.run(chosen, beam_argv)
    except JobError as error:
        complain(str(error))
        return USAGE_ERROR


def status(argv: list[str]) -> int:
    """`archive-colorize status OUTPUT`: the manifest, counted."""
    chosen = _parse(
        "status", "Counts the records in OUTPUT/manifest, the latest of each scan.", argv, "OUTPUT"
    )
    check_reachable(chosen.output)
    output = storage.normalize(chosen.output)
    summary = Summary()
    for record in manifest.latest(output):
        summary.add(record)
    if not summary.records:
        raise JobError(f"no manifest in {output}: is it the --output of a run?")
    say(describe(summary.to_dict()))
    return 0


def models(argv: list[str]) -> int:
    """`archive-colorize models ROOT`: the pushed models, and which is in use."""
    root = _parse(
        "models", "Lists the pushed models in ROOT; a star marks the one in use.", argv, "ROOT"
    ).root
    found = _registry(registry.versions, root)
    if not found:
        raise JobError(f"no models were pushed to {root}")
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD)
    for name in ("", "version", "model", "pushed (UTC)", "gates", "pictures", "RMSE over grey's"):
        table.add_column(name, justify="right" if name in ("version", "pictures") else "left")
    for version in found:
        card = version.card
        gates = ", ".join(f"{gate['gate']} {gate['verdict']}" for gate in card.gates) or "none"
        errors = (
            f"{name} {figures[MAIN_FIGURE][0]}"
            for name, figures in card.metrics.items()
            if MAIN_FIGURE in figures
        )
        row = (card.name, card.pushed, gates, str(card.data.get("kept", "")), ", ".join(errors))
        table.add_row("*" if version.is_latest else "", version.version, *row)
    console = Console(width=None if sys.stdout.isatty() else 140)
    with console.capture() as captured:
        console.print(table)
    say(captured.get())
    return 0


def rollback(argv: list[str]) -> int:
    """`archive-colorize rollback ROOT [VERSION]`: takes an earlier pushed model into use."""
    words = "Takes the blessed version before the one in use, or the one that is named, into use."
    chosen = _parse("rollback", words, argv, "ROOT", "[VERSION]", "--allow_unblessed")
    before = _registry(registry.pointer, chosen.root) or "none"
    now = _registry(registry.rollback, chosen.root, chosen.version, allow_unblessed=chosen.allow_unblessed)
    say(f"version {before} was in use; version {now.version} of {now.card.name} is in use now: {now.uri}")
    return 0


def _registry(function, root: str, *arguments, **options):
    check_reachable(root)
    try:
        return function(root, *arguments, **options)
    except (registry.RegistryError, CardError) as error:
        raise JobError(str(error)) from error
    except OSError as error:
        raise JobError(f"cannot read or write {error.filename or root}: {error.strerror or error}") from error


def _parse(command: str, words: str, argv: list[str], *names: str) -> argparse.Namespace:
    """The arguments of one of the other commands: NAME, [OPTIONAL] or --flag."""
    parser = argparse.ArgumentParser(
        prog=f"archive-colorize {command}", description=words, allow_abbrev=False
    )
    for name in names:
        if name.startswith("--"):
            parser.add_argument(name, action="store_true")
        else:
            plain = name.strip("[]")
            parser.add_argument(plain.lower(), metavar=plain, nargs="?" if name != plain else None)
    return parser.parse_args(argv)


COMMANDS = {"status": status, "models": models, "rollback": rollback}
