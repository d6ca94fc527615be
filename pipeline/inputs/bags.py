"""Bags (BagIt, RFC 8493): a folder whose files in `data` are listed, with their digests, in manifests beside it."""

import hashlib
import mmap
import re
from collections.abc import Iterator
from dataclasses import dataclass

from pipeline import storage
from pipeline.errors import JobError, words
from pipeline.storage import scratch

DECLARATION, INFO, DATA = "bagit.txt", "bag-info.txt", "data"
ALGORITHMS = ("sha512", "sha256", "sha1", "md5")  # of manifests, the strongest first


@dataclass(frozen=True, slots=True)
class Payload:
    """A file of a bag."""

    path: str  # below `data`
    info: storage.FileInfo  # its size is -1 if it is missing
    digests: str  # of the manifests, such as `sha512:… sha256:…`; empty if none lists it


def is_bag(folder: str) -> bool:
    """Whether a folder says that it is a bag. Raises OSError if this is unknown."""
    return storage.stat(storage.join(folder, DECLARATION)) is not None


def payload(folder: str) -> str:
    """The folder of the files themselves: `FOLDER/data` of a bag, otherwise FOLDER. Raises OSError like `is_bag`."""
    return storage.join(folder, DATA) if is_bag(folder) else folder


def around(folder: str) -> str:
    """The bag whose payload is, or contains, a folder; empty if there is none. Raises OSError like `is_bag`."""
    at = len(folder)
    while (at := folder.rfind(f"/{DATA}", 0, at)) > 0:
        if folder[at + len(DATA) + 1 :][:1] in ("", "/") and is_bag(folder[:at]):
            return folder[:at]
    return ""


def manifest_name(algorithm: str) -> str:
    return f"manifest-{algorithm}.txt"


def encoded(path: str) -> str:
    """A path in a manifest (RFC 8493, 2.1.3): line breaks and the percent sign are written as in a URI."""
    return re.sub("[%\r\n]", lambda found: f"%{ord(found[0]):02X}", path)


def check(folder: str) -> None:
    """Checks what a bag says about itself: its declaration, and the digests of its tag files. Its payload is not read.

    Raises:
      JobError: it is not a bag that can be read, or it is damaged.
    """
    try:
        declared = dict(_fields(storage.read(storage.join(folder, DECLARATION))))
        version, encoding = declared.get("BagIt-Version", ""), declared.get("Tag-File-Character-Encoding", "")
        if not re.fullmatch(r"0\.9[3-7]|1\.0", version):
            raise JobError(
                f"{folder} is not a bag of a version from 0.93 to 1.0: {DECLARATION} says {version!r}"
            )
        if encoding.upper() not in ("UTF-8", "ASCII", "US-ASCII"):
            raise JobError(f"the tag files of the bag {folder} are in {encoding}; only UTF-8 is read")
        if not _manifests(folder):
            raise JobError(f"the bag {folder} has no manifest that can be read ({', '.join(ALGORITHMS)})")
        for algorithm in _manifests(folder, "tag"):
            for path, digest in _lines(folder, "tag", algorithm):
                found = storage.digests(storage.join(folder, path), [algorithm])[algorithm]
                if found != digest:
                    raise JobError(
                        f"the bag {folder} is damaged: {path} does not have the {algorithm} of its tag manifest; "
                        "fetch the bag again"
                    )
    except FileNotFoundError as error:
        raise JobError(
            f"the bag {folder} is not complete: {error.filename} is missing; fetch it again"
        ) from error
    except OSError as error:
        raise JobError(f"cannot read the bag {folder}: {words(error)}") from error


def files(folder: str) -> Iterator[Payload]:
    """Yields the files in `FOLDER/data`, and then those that are only in a manifest, with bounded memory.

    Names that begin with a dot are left out.

    Raises:
      JobError: a line of a manifest is not one, or names a file outside of the payload.
      OSError: a file cannot be read.
    """
    with scratch.database() as database:
        database.execute(
            "CREATE TABLE files (path BLOB PRIMARY KEY, digests TEXT, found INTEGER DEFAULT 0) WITHOUT ROWID"
        )
        for algorithm in _manifests(folder):
            database.executemany(
                "INSERT INTO files (path, digests) VALUES (?, ?) "
                "ON CONFLICT (path) DO UPDATE SET digests = digests || ' ' || excluded.digests",
                (
                    (_payload_path(folder, path), f"{algorithm}:{digest}")
                    for path, digest in _lines(folder, "", algorithm)
                ),
            )
        for info in storage.list_files(storage.join(folder, DATA)):
            path = info.uri[len(folder) + 1 :]
            digests = ""
            for spelt in dict.fromkeys(
                (encoded(path), re.sub("[\r\n]", lambda found: encoded(found[0]), path), path)
            ):
                name = storage.as_bytes(spelt)
                row = database.execute("SELECT digests FROM files WHERE path = ?", (name,)).fetchone()
                if row:
                    digests = row[0]
                    database.execute("UPDATE files SET found = 1 WHERE path = ?", (name,))
                    break
            yield Payload(path[len(DATA) + 1 :], info, digests)
        for name, digests in database.execute(
            "SELECT path, digests FROM files WHERE NOT found ORDER BY path"
        ):
            path = _decoded(name.decode())
            if "/." not in path:
                yield Payload(
                    path[len(DATA) + 1 :], storage.FileInfo(storage.join(folder, path), -1, ""), digests
                )


def wrong_digest(data: bytes | mmap.mmap, digests: str) -> str:
    """The first digest of a file that is not as its bag says, in words; empty if all are.

    Args:
      data: the whole file.
      digests: of `Payload`.
    """
    for wanted in digests.split():
        algorithm, _, digest = wanted.partition(":")
        found = hashlib.new(algorithm, data, usedforsecurity=False).hexdigest()
        if found != digest:
            return f"{algorithm} is {found}, but {digest} in the manifest of its bag"
    return ""


def _manifests(folder: str, kind: str = "") -> list[str]:
    """Algorithms of the manifests of the payload, or ("tag") of the tag files."""
    names = {name: storage.join(folder, kind + manifest_name(name)) for name in ALGORITHMS}
    return [name for name, uri in names.items() if storage.stat(uri) is not None]


def _lines(folder: str, kind: str, algorithm: str) -> Iterator[tuple[str, str]]:
    """Yields path (as it is spelt) and digest of each line of a manifest."""
    uri = storage.join(folder, kind + manifest_name(algorithm))
    for number, line in enumerate(storage.lines(uri), 1):
        try:
            text = line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise JobError(f"{uri}, line {number}, is not UTF-8: the bag is damaged") from error
        if not text.strip():
            continue
        digest, _, path = text.strip().partition(" ")
        digest, path = digest.lower(), path.strip().removeprefix("*").removeprefix("./")
        if (
            not path
            or len(digest) != 2 * hashlib.new(algorithm).digest_size
            or set(digest) - set("0123456789abcdef")
        ):
            raise JobError(f"{uri}, line {number}, is not a {algorithm} and a path: the bag is damaged")
        yield path, digest


def _payload_path(folder: str, path: str) -> bytes:
    parts = path.split("/")
    if parts[0] != DATA or len(parts) < 2 or any(part in ("", ".", "..") for part in parts):
        raise JobError(f"a manifest of the bag {folder} names {path!r}, which is not below {DATA}")
    return storage.as_bytes(re.sub("%0[ad]", lambda found: found[0].upper(), path))


def _decoded(path: str) -> str:
    return re.sub("%(0A|0D|25)", lambda found: chr(int(found[1], 16)), path, flags=re.IGNORECASE)


def _fields(data: bytes) -> Iterator[tuple[str, str]]:
    for line in data.decode("utf-8-sig", "replace").splitlines():
        name, colon, value = line.partition(":")
        if colon:
            yield name.strip(), value.strip()
