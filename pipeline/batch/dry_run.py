"""`--dry_run`: lists what a job would do with each scan, and why."""

from pipeline.batch import worklist
from pipeline.batch.plan import Action
from pipeline.codec.settings import Settings
from pipeline.console import one_line, say
from pipeline.errors import JobError
from pipeline.records.summary import describe_unused


def show(source: str, settings: Settings, hints_folder: str | None, on_existing: str, group_by: str) -> None:
    """Prints a line for each scan, then the number of scans for each action. See `worklist.tasks` for the arguments.

    Raises:
      JobError: there are no scans, or they cannot be listed.
    """
    counts, hints, keys = dict.fromkeys(Action, 0), worklist.hints_by_key(hints_folder), set()
    for task in worklist.tasks(source, settings, hints, on_existing, group_by=group_by):
        counts[task.action] += 1
        keys |= {one.item.key for one in (task, *task.pages)} & hints.keys()
        if not say(one_line(f"{task.action:<9} {task.item.key}  ({task.why})")):
            return  # nobody reads any more
    if not sum(counts.values()):
        raise JobError(f"nothing to do: no scans in {source}")
    say(", ".join(f"{n:,} to {action}" for action, n in counts.items() if n) + "; nothing was done")
    unused = sorted(hint.uri for key in hints.keys() - keys for hint in hints[key])
    if unused:
        say(describe_unused(unused))
