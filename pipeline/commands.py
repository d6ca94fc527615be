"""The commands of `archive-colorize`: the job, and commands that show or change the results of jobs and trainings."""

import argparse
import logging
import sys
from collections import Counter

from model.card import CardError
from pipeline import storage
from pipeline.batch import boot, capacity, lease, ocfl, options, registry, stopping, verification
from pipeline.console import Pace, complain, one_line, say
from pipeline.errors import JobError
from pipeline.inputs import bags
from pipeline.inputs.collection import check_reachable
from pipeline.records import manifest
from pipeline.records.summary import Summary, describe
from pipeline.storage import scratch

USAGE_ERROR = 2
FOUND = 1  # exit code of `verify` and `ocfl`, if something is not as the manifest says, or not all is packed
MAIN_FIGURE = "rmse_over_grey"  # of a collection in the metrics of a card: mean, lower, upper


def run(argv: list[str]) -> int:
    """Runs a command and returns its exit code."""
    try:
        with stopping.cleaning_up(scratch.remove_all):
            if argv and argv[0] in COMMANDS:
                return COMMANDS[argv[0]](argv[1:])
            parser = options.parser()
            if not argv:
                say(parser.format_help())
                return USAGE_ERROR
            chosen, beam_argv = parser.parse_known_args(argv)
            for name in ("input", "output"):
                if not getattr(chosen, name):
                    raise JobError(f"--{name} is missing (see archive-colorize --help)")
            scratch.remove(scratch.make())  # Beam's import fails without a folder for temporary files
            logging.basicConfig(level=logging.ERROR)  # Beam logs much during its import
            from pipeline.batch import job  # loads Beam, which `--help` does not need

            return job.run(chosen, beam_argv)
    except JobError as error:
        complain(str(error))
        return USAGE_ERROR


def status(argv: list[str]) -> int:
    """`archive-colorize status OUTPUT`: counts the records of the manifest."""
    chosen = _parse(
        "status", "Counts the records in OUTPUT/manifest, the latest of each scan.", argv, "OUTPUT"
    )
    output = _payload(chosen.output)
    summary = Summary()
    for record in manifest.latest(output):
        summary.add(record)
    if not summary.records:
        raise JobError(f"no manifest in {output}; is it the --output of a run?")
    say(describe(summary.to_dict()))
    return 0


def verify(argv: list[str]) -> int:
    """`archive-colorize verify OUTPUT [--masters]`: reads everything again and compares it with the manifest."""
    words = "Reads all derivatives, and with --masters all masters, and compares them with OUTPUT/manifest."
    chosen = _parse("verify", words, argv, "OUTPUT", "--masters")
    output = _finished(chosen.output)
    pace = Pace("files")
    problems: Counter[str] = Counter()
    try:
        for finding in verification.verify(output, masters=chosen.masters, done=pace):
            problems[finding.problem] += 1
            _say_finding(finding)
    except OSError as error:
        raise JobError(f"cannot list {output}: {error.strerror or error}") from error
    say(f"{pace.number:,} files read: {_counted(problems) or 'all as the manifest says'}")
    return FOUND if problems else 0


def pack(argv: list[str]) -> int:
    """`archive-colorize ocfl OUTPUT ROOT`: packs the derivatives and their records for repositories."""
    words = (
        "Makes or updates ROOT, an OCFL 1.1 storage root: an object for each scan in colour, with its record."
    )
    chosen = _parse("ocfl", words, argv, "OUTPUT", "ROOT")
    output = _finished(chosen.output)
    check_reachable(chosen.root)
    root = storage.normalize(chosen.root)
    pace = Pace("scans")
    problems: Counter[str] = Counter()
    new: Counter[str] = Counter()
    try:
        ocfl.check(storage.normalize(chosen.output), root)
    except OSError as error:
        raise JobError(_unusable(error, root)) from error
    try:
        for packed in ocfl.export(output, root, done=pace):
            new["first"] += packed.version == 1
            new["later"] += packed.version > 1
            new["refused"] += bool(packed.findings)
            for finding in packed.findings:
                problems[finding.problem] += 1
                _say_finding(finding)
    except OSError as error:
        complain(f"{_unusable(error, root)}; what is packed is kept, run the same command again")
        return FOUND
    except JobError as error:
        if not pace.number:
            raise
        complain(str(error))
        return FOUND
    same = pace.number - new.total()
    words = f"objects: {new['first']:,} new, {new['later']:,} with a new version, {same:,} as they were"
    say(words + (f", {new['refused']:,} not packed: {_counted(problems)}" if problems else ""))
    return FOUND if problems else 0


def _say_finding(finding: verification.Finding) -> None:
    detail = f" ({finding.detail})" if finding.detail else ""
    say(one_line(f"{finding.problem}: {finding.uri}{detail}"))


def _counted(problems: Counter[str]) -> str:
    return ", ".join(f"{number:,} {problem}" for problem, number in problems.items())


def recover(argv: list[str]) -> int:
    """`archive-colorize recover DERIVATIVE FILE`: gives the JPEG master of a derivative back."""
    from pipeline.imaging import recovery  # loads OpenCV, which `--help` does not need

    words = "Gives the grey JPEG master of a JPEG derivative back, as a new FILE: to the last byte, or only its luma."
    chosen = _parse("recover", words, argv, "DERIVATIVE", "FILE")
    for place in (chosen.derivative, chosen.file):
        check_reachable(place)
    source, target = storage.normalize(chosen.derivative), storage.normalize(chosen.file)
    try:
        if storage.stat(target) is not None:
            raise JobError(f"{target} exists; name a new file")
        found = recovery.recover(storage.read(source))
        storage.write(target, found.data)
    except recovery.NotRecoverable as error:
        raise JobError(f"no master can be given back from {source}: {error}") from error
    except OSError as error:
        raise JobError(_unusable(error, source)) from error
    how = "to the last byte, by its SHA-256" if found.exact else f"to the last coefficient only: {found.why}"
    say(f"{target}: the master {how}")
    return 0


def report(argv: list[str]) -> int:
    """`archive-colorize report OUTPUT`: writes a page for the file about all runs on an output."""
    from pipeline.gallery.report import write_report  # loads OpenCV, which `--help` does not need

    words = "Writes OUTPUT/report.html: what was done, to how many scans, by which model, and what was refused and why."
    chosen = _parse("report", words, argv, "OUTPUT")
    output = _finished(chosen.output)
    try:
        folder = bags.around(output) or output  # the payload of a bag stays as it is
        say(write_report(output, manifest.latest(output), folder))
    except OSError as error:
        raise JobError(f"cannot write to {output}: {error.strerror or error}") from error
    return 0


def _payload(output: str) -> str:
    """The URI of an output, or of the payload of a bag. Raises JobError."""
    check_reachable(output)
    try:
        return bags.payload(storage.normalize(output))
    except OSError as error:
        raise JobError(f"cannot read {output}: {error.strerror or error}") from error


def _finished(output: str) -> str:
    """Like `_payload`. Raises JobError if there is no manifest, too."""
    payload = _payload(output)
    if not manifest.runs(payload):
        raise JobError(f"no manifest in {payload}; is it the --output of a run?")
    return payload


def stop(argv: list[str]) -> int:
    """`archive-colorize stop OUTPUT`: stops the job that writes to an output, from any machine."""
    words = "Lets the job that writes to OUTPUT finish work in progress, and ends it."
    chosen = _parse("stop", words, argv, "OUTPUT")
    output = _payload(chosen.output)
    try:
        holder = lease.holder(output)
        if holder is None:
            raise JobError(f"no job writes to {output}")
        stopping.Stop(stopping.file(output, holder["run"])).request()
    except OSError as error:
        raise JobError(f"cannot read or write {output}: {error.strerror or error}") from error
    say(f"the job ({lease.described(holder)}) finishes work in progress and ends")
    return 0


def models(argv: list[str]) -> int:
    """`archive-colorize models ROOT`: lists the pushed models and marks the current one."""
    root = _parse(
        "models", "Lists the pushed models in ROOT; a star marks the current one.", argv, "ROOT"
    ).root
    found = _registry(registry.versions, root)
    if not found:
        raise JobError(f"no models were pushed to {root}")
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD)
    for name in ("", "version", "model", "pushed (UTC)", "gates", "pictures", "RMSE over grey"):
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
    """`archive-colorize rollback ROOT [VERSION]`: makes an earlier pushed model the current one."""
    words = "Makes the blessed version before the current one, or the given version, the current one."
    chosen = _parse("rollback", words, argv, "ROOT", "[VERSION]", "--allow_unblessed")
    before = _registry(registry.pointer, chosen.root) or "none"
    now = _registry(registry.rollback, chosen.root, chosen.version, allow_unblessed=chosen.allow_unblessed)
    say(f"version {before} was current; version {now.version} of {now.card.name} is current now: {now.uri}")
    return 0


def _registry(function, root: str, *arguments, **options):
    check_reachable(root)
    try:
        return function(root, *arguments, **options)
    except (registry.RegistryError, CardError) as error:
        raise JobError(str(error)) from error
    except OSError as error:
        raise JobError(_unusable(error, root)) from error


def _unusable(error: OSError, place: str) -> str:
    return f"cannot read or write {error.filename or place}: {error.strerror or error}"


def _parse(command: str, words: str, argv: list[str], *names: str) -> argparse.Namespace:
    """Parses the arguments of another command: NAME, [OPTIONAL] or --flag."""
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


COMMANDS = {
    "plan": capacity.main,
    "status": status,
    "verify": verify,
    "ocfl": pack,
    "recover": recover,
    "report": report,
    "stop": stop,
    "models": models,
    "rollback": rollback,
    "worker": boot.worker,
    "worker-pool": boot.worker_pool,
}
