"""Content Credentials (C2PA): a signed manifest that says how a derivative was made from its master.

The manifest is embedded, or in a file of its own beside the derivative. It names the master as `parentOf`, with the
master's own manifest, if there is one. It has no thumbnails and no time stamp, and nothing is fetched from a network.
A signature contains random numbers, so signed files differ from run to run.
Specification: C2PA 2.2, 18.15 (actions), 10.3.2 (ingredients), 14.5 (certificates).
"""

import functools
import importlib.util
import io
import mmap
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from PIL import Image

from pipeline import clock, storage
from pipeline.errors import JobError, words
from pipeline.metadata.provenance import SOURCE_TYPE, TOOL, Labels, instance_id, tool_version
from pipeline.records.record import Record

if TYPE_CHECKING:
    import c2pa

MISSING = "c2pa-python is not installed: pip install 'c2pa-python>=0.38' (the extra c2pa)"

_MIME = {
    "jpeg": "image/jpeg",
    "png": "image/png",
    "tiff": "image/tiff",
    "ptif": "image/tiff",
    "webp": "image/webp",
}
FORMATS = frozenset(_MIME)  # that can be signed
_SIGNATURES = {  # first bytes of masters that can have a manifest
    b"\xff\xd8\xff": "image/jpeg",
    b"\x89PNG": "image/png",
    b"II*\0": "image/tiff",
    b"MM\0*": "image/tiff",
    b"GIF8": "image/gif",
}
_OTHER = "application/octet-stream"
_MASTER = "master"  # label of the ingredient within the definition
_SETTINGS = {
    "builder": {"thumbnail": {"enabled": False}},  # 65 to 337 kB for each file
    "verify": {"remote_manifest_fetch": False, "ocsp_fetch": False, "verify_after_sign": True},
}
_VALID = ("Valid", "Trusted")


class SigningError(Exception):
    """A file cannot be signed; the message is one line."""


@dataclass(frozen=True)
class Signer:
    """Signs derivatives with one key."""

    signer: "c2pa.Signer"

    def sign(
        self, data: bytes | mmap.mmap, *, format: str, claim: "c2pa.Builder", embed: bool = True
    ) -> tuple[bytes | mmap.mmap, bytes]:
        """Signs a derivative.

        Args:
          data: the whole file, in its final form.
          format: one of `FORMATS`.
          claim: from `claim`. It can be used once.
          embed: put the manifest into the file. Otherwise its bytes stay as they are.

        Returns:
          The file, and the manifest store.

        Raises:
          SigningError: the file cannot be signed, or the result is not valid, for example if the certificate has
            expired.
        """
        from c2pa import C2paError

        if format not in _MIME:
            raise SigningError(f"there are no Content Credentials for the format {format}")
        signed = io.BytesIO()
        try:
            if not embed:
                claim.set_no_embed()
            store = claim.sign(self.signer, _MIME[format], io.BytesIO(data), signed)
        except C2paError as error:
            raise SigningError(_line(error)) from error
        return (signed.getvalue() if embed else data), store


@functools.lru_cache(maxsize=2)
def load(key: str, certificate: str) -> Signer:
    """Reads a key and its certificate, and tries them out.

    Args:
      key: URI of a private key in PEM without a password: ECDSA P-256, P-384 or P-521, Ed25519, or RSA.
      certificate: URI of its certificate in PEM, followed by those of the authorities up to a trusted one.

    Raises:
      JobError: c2pa-python is missing, a file cannot be read or is not of this kind, the two do not belong together,
        the certificate is not valid now, or it must not sign content.
    """
    if importlib.util.find_spec("c2pa") is None:
        raise JobError(MISSING)
    import c2pa

    algorithm, private = _key(key)
    chain = _chain(certificate, key, private)
    try:
        info = c2pa.C2paSignerInfo(algorithm, chain, private, None)
        signer = Signer(c2pa.Signer.from_info(info))
        picture = io.BytesIO()
        Image.new("L", (16, 16)).save(picture, "PNG")
        made, _ = claim(Record("trial", "trial"), Labels(), picture.getvalue())
        signer.sign(picture.getvalue(), format="png", claim=made)
    except (c2pa.C2paError, SigningError) as error:
        raise JobError(
            f"cannot sign with the certificate in {certificate}: {_line(error)} (--c2pa_certificate)"
        ) from error
    return signer


def claim(record: Record, labels: Labels, master: bytes | mmap.mmap) -> "tuple[c2pa.Builder, bool]":
    """Makes the claim about a derivative. Its size does not depend on that of the master.

    Args:
      record: of the scan, with the digests of master, model, options and hints.
      labels: of the derivative.
      master: the whole file.

    Returns:
      The claim, and whether a manifest of the master, if it has one, is kept in it.
    """
    import c2pa

    definition = {
        "claim_generator_info": [{"name": TOOL, "version": tool_version()}],
        "title": record.key.rpartition("/")[2].encode("utf-8", "replace").decode(),
        "instance_id": instance_id(record, labels),
        "assertions": [_actions(record, labels)],
    }
    kind = next((kind for start, kind in _SIGNATURES.items() if master[:4].startswith(start)), _OTHER)
    if master[:4] == b"RIFF" and master[8:12] == b"WEBP":
        kind = "image/webp"
    for stated in (kind, _OTHER):
        builder = c2pa.Builder(definition, context())
        try:
            file = io.BytesIO(master) if isinstance(master, bytes) else master
            file.seek(0)
            builder.add_ingredient(_ingredient(record), stated, file)
            return builder, stated == kind
        except c2pa.C2paError:
            builder.close()  # its structure is damaged
    raise SigningError("the master cannot be an ingredient")


def state(data: bytes, *, format: str, store: bytes | None = None, anchors: Iterable[str] = ()) -> str:
    """What the manifest of a file is: "Trusted", "Valid" (by an unknown authority), "Invalid", or "" for none.

    Args:
      data: the whole file.
      format: "jpeg", "png" or "tiff".
      store: the manifest store, if it is not embedded.
      anchors: certificates in PEM of trusted authorities.
    """
    import c2pa

    try:
        with c2pa.Reader(
            _MIME[format], io.BytesIO(data), store, context=context("\n".join(anchors))
        ) as reader:
            return reader.get_validation_state() or ""
    except c2pa.C2paError as error:
        return "" if isinstance(error, c2pa.C2paError.ManifestNotFound) else "Invalid"


def is_valid(data: bytes, *, format: str, store: bytes | None = None) -> bool:
    """Whether a file has a manifest that fits it."""
    return state(data, format=format, store=store) in _VALID


@functools.lru_cache(maxsize=4)
def context(anchors: str = "") -> "c2pa.Context":
    """Settings of the library for this use of it; its global settings are not touched."""
    import c2pa

    trust = {"trust": {"trust_anchors": anchors}} if anchors else {}
    return c2pa.Context.from_dict({**_SETTINGS, **trust})


def _actions(record: Record, labels: Labels) -> dict:
    """The assertion of what was done: the master was opened, and its colours were made by a model."""
    when = {"when": f"{labels.date}T00:00:00Z"} if labels.date else {}
    colored = {
        "action": "c2pa.color_adjustments",
        **when,
        "digitalSourceType": SOURCE_TYPE,
        "softwareAgent": {"name": record.model or TOOL, "version": record.model_version},
        "description": "A model estimated the colours of a black-and-white picture.",
        "parameters": {
            f"org.archive-colorize.{name}": value
            for name in ("model_sha256", "options_sha256", "hints_sha256")
            if (value := getattr(record, name))
        },
    }
    opened = {"action": "c2pa.opened", **when, "parameters": {"ingredientIds": [_MASTER]}}
    return {"label": "c2pa.actions.v2", "data": {"actions": [opened, colored]}}


def _ingredient(record: Record) -> dict:
    return {
        "title": record.key.rpartition("/")[2].encode("utf-8", "replace").decode() or _MASTER,
        "relationship": "parentOf",
        "label": _MASTER,
        "description": f"SHA-256 of the master: {record.source_sha256}",
        "informational_URI": storage.web_uri(record.source),
    }


def _key(uri: str) -> tuple[str, bytes]:
    """The algorithm of C2PA for a private key, and the key in PKCS #8."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

    try:
        key = serialization.load_pem_private_key(_read(uri, "--c2pa_key"), password=None)
    except TypeError as error:
        raise JobError(f"the key in {uri} has a password: write a copy without one (--c2pa_key)") from error
    except (ValueError, ArithmeticError) as error:
        raise JobError(f"{uri} is not a private key in PEM (--c2pa_key)") from error
    algorithm = ""
    if isinstance(key, ec.EllipticCurvePrivateKey):
        algorithm = {"secp256r1": "es256", "secp384r1": "es384", "secp521r1": "es512"}.get(key.curve.name, "")
    elif isinstance(key, ed25519.Ed25519PrivateKey):
        algorithm = "ed25519"
    elif isinstance(key, rsa.RSAPrivateKey):
        algorithm = "ps256"
    if not algorithm:
        raise JobError(f"keys of the kind in {uri} cannot sign (--c2pa_key)")
    form = serialization.PrivateFormat.PKCS8
    return algorithm, key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())


def _chain(uri: str, key_uri: str, private: bytes) -> bytes:
    """The certificates in PEM. The first one must be that of the key."""
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key

    try:
        chain = x509.load_pem_x509_certificates(_read(uri, "--c2pa_certificate"))
    except ValueError as error:
        raise JobError(f"{uri} has no certificate in PEM (--c2pa_certificate)") from error
    if chain[0].public_key() != load_pem_private_key(private, None).public_key():
        raise JobError(
            f"the key in {key_uri} does not belong to the first certificate in {uri} (--c2pa_key, --c2pa_certificate)"
        )
    for certificate in chain:
        first, last = certificate.not_valid_before_utc, certificate.not_valid_after_utc
        if not first <= clock.now() <= last:
            when = f"from {first:%Y-%m-%d} to {last:%Y-%m-%d}"
            raise JobError(f"a certificate in {uri} is valid only {when} (--c2pa_certificate)")
    return b"".join(certificate.public_bytes(Encoding.PEM) for certificate in chain)


def _read(uri: str, option: str) -> bytes:
    try:
        return storage.read(uri)
    except OSError as error:
        raise JobError(f"cannot read {uri}: {words(error)} ({option})") from error


def _line(error: Exception) -> str:
    return " ".join(str(error).split())
