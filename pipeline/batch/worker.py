"""A local worker process: Beam's own, but quiet, and gone when the job that started it is.

What goes wrong in a worker reaches the job as the error of its bundle and is said there, once.
"""

import contextlib
import logging
import os
import sys
import threading
import time


def main() -> None:
    logging.disable(logging.ERROR)
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)  # the job was killed: nobody is left to report to

    threading.Thread(target=watch, name="parent", daemon=True).start()
    from apache_beam.runners.worker import sdk_worker_main

    # Beam prints the traceback of a bundle that failed, too.
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stderr(nowhere):
        sdk_worker_main.main(sys.argv)


if __name__ == "__main__":
    main()
