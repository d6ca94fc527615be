"""Errors that end a job, and what the machine's errors say."""

import errno


class JobError(Exception):
    """The job cannot start or go on; the message is one line that says what to do about it."""


def words(error: OSError) -> str:
    """What an error of the machine says, without its number."""
    return error.strerror or errno.errorcode.get(error.errno or 0, str(error))
