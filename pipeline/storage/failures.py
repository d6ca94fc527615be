"""Errors of object stores as OSErrors, as local files raise them."""

import errno


def not_installed(client: str, uri: str) -> OSError:
    return OSError(errno.ENOPKG, client, uri)


def not_found(uri: str) -> FileNotFoundError:
    return FileNotFoundError(errno.ENOENT, "no such object or bucket", uri)


def exists(uri: str) -> FileExistsError:
    return FileExistsError(errno.EEXIST, "the object exists already", uri)


def forbidden(words: object, uri: str) -> PermissionError:
    return PermissionError(errno.EACCES, _line(words), uri)


def unnameable(uri: str) -> OSError:
    return OSError(errno.EILSEQ, "no object can have this name", uri)


def other(words: object, uri: str) -> OSError:
    return OSError(errno.EIO, _line(words), uri)


def _line(words: object) -> str:
    return " ".join(str(words).split())
