"""A local worker process. It is Beam's own, but prints nothing, and ends with the job that started it.

The job gets the errors of its workers with their bundles and reports each once.
"""

import contextlib
import logging
import os
import sys
import threading
import time


def end_with_parent() -> None:
    """Makes this process end at once after the process that started it."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.1)
        os._exit(1)  # the parent was killed

    threading.Thread(target=watch, name="parent", daemon=True).start()


def main() -> None:
    logging.disable(logging.ERROR)
    end_with_parent()
    from apache_beam.runners.worker import sdk_worker_main

    # Beam would print the traceback of a failed bundle.
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stderr(nowhere):
        sdk_worker_main.main(sys.argv)


if __name__ == "__main__":
    main()
