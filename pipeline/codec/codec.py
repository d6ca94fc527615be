"""The codec: everything that touches the bytes of a scan, outside of the process with Beam and the network.

Between `open` and `paint` a decoded scan stays here. Only its small view and its chroma travel.
"""

import contextlib
import dataclasses
import hashlib
import mmap
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np

from pipeline import storage
from pipeline.codec.masters import Several
from pipeline.codec.reader import Reader, upright_guide
from pipeline.codec.settings import Settings
from pipeline.decoding.pillow import open_image, unlimited
from pipeline.errors import JobError, words
from pipeline.gallery import pictures
from pipeline.imaging import chroma, derivative, hints, icc, layout, recovery, steadying
from pipeline.imaging.scan import Scan
from pipeline.imaging.thumbnail import before_and_after
from pipeline.inputs import hint_files, neighbors
from pipeline.inputs.item import MANIFEST_STORE, Item, Neighbor, derivative_uri, format_of
from pipeline.metadata import embedded, provenance, signing
from pipeline.metadata.provenance import Labels
from pipeline.records.record import (
    EMBEDDED,
    SIDECAR,
    Outcome,
    Reason,
    Record,
    Refusal,
    digests,
    joined,
    named_digests,
)

# What a record takes from the packet of an adopted derivative.
_ADOPTED = (
    "source_bytes",
    "outcome",
    "pages",
    "width",
    "height",
    "confidence",
    "colorfulness",
    "faded",
    "neighbors",
)
_TILE_PIXEL = 5  # bytes in memory: its luma, and its chroma from the network


@dataclass(frozen=True, slots=True)
class View:
    """The part of an opened scan that leaves the codec process."""

    tiles: np.ndarray  # uint8 [K, S, S], upright luma
    pixels: int  # memory of the scan and its tiles, in pixels
    beside: int = 0  # how many of the tiles, the last ones, are of neighbours


@dataclass(slots=True)
class _Held:
    scan: Scan
    seen: list[tuple[layout.Box, np.ndarray]]  # the pictures in it, and the network's views of them
    record: Record
    seconds: float
    marks: hints.Marks | None
    claim: Any  # to be signed, from `signing.claim`
    tiles: np.ndarray  # uint8 [K, S, S], its own in its view
    beside: list[tuple[Neighbor, np.ndarray]] = field(default_factory=list)  # neighbours, and their tiles


class Codec:
    """The work on the scans of a job, in a process of its own (see `pipeline.codec.guard`) or in this one.

    Errors of a scan are returned as its record. An error of the output that affects all scans, such as a full disk,
    becomes a record, too; writing the manifest then stops the job.
    """

    def __init__(self, settings: Settings, announce: Callable[[int], None] = lambda pixels: None):
        self.settings = settings
        self._held: dict[str, _Held] = {}
        self._reader = Reader(settings, announce)

    @property
    def _labels(self) -> Labels:
        settings = self.settings
        return Labels(settings.date, settings.description, settings.credit, settings.model_terms)

    def open(self, item: Item, left_out: Mapping[str, str] = MappingProxyType({})) -> View | Record | Several:
        """Reads and decodes a master or a page, and keeps it for `paint`. A file with several pictures says so.

        Args:
          left_out: keys of neighbours that cannot be read, and why.
        """
        started = time.perf_counter()
        record = self.settings.record(item)
        try:
            master = self._reader.master(item)
            if isinstance(master, Several):
                return master
            record = record.replace(
                source_bytes=master.size,
                pages=master.pages,
                detail=joined(*master.notes),
                **named_digests("source", master.digests),
            )
            scan = self._reader.scan(item, master)
            width, height = scan.size
            note = joined(*master.notes, scan.note)
            record = record.replace(width=width, height=height, detail=note)
            guide, marks = upright_guide(scan), None
            boxes, words_of_it = self._reader.pictures(item, guide, scan)
            if words_of_it:
                note = joined(note, words_of_it)
                record = record.replace(detail=note)
            if item.hints:
                hints_data = hint_files.read(item)
                record = record.replace(hints_sha256=hashlib.sha256(hints_data).hexdigest())
                marks = hints.marks(hints_data, item.hints[0], guide, scan.size)
                record = record.replace(detail=joined(note, marks.words))
        except Refusal as refusal:
            spent = _milliseconds(time.perf_counter() - started)
            return self._refused(item, record, refusal, spent)
        views = [chroma.view(box.of(guide), self.settings.side) for box in boxes]
        seen = [(box, canvas) for box, (canvas, _) in zip(boxes, views, strict=True)]
        tiles = np.concatenate([tiles for _, tiles in views])
        beside: list[tuple[Neighbor, np.ndarray]] = []
        if item.neighbors and len(boxes) == 1:
            beside, words_of_them = self._reader.beside(item, boxes[0], tiles.shape, left_out)
            record = record.replace(
                detail=joined(record.detail, words_of_them),
                neighbors_content_sha256=self._reader.neighbors_content_sha256(item),
            )
        claim = None
        if self.settings.c2pa:
            try:
                with self._reader.signed(item, master, scan) as data:
                    claim, kept = signing.claim(record, self._labels, data)
            except Refusal as refusal:  # the file has gone since it was read
                return self._refused(item, record, refusal, _milliseconds(time.perf_counter() - started))
            if not kept:
                record = record.replace(detail=joined(record.detail, "its C2PA manifest is damaged"))
        self._held[item.key] = _Held(
            scan, seen, record, time.perf_counter() - started, marks, claim, tiles, beside
        )
        if beside:
            tiles = np.concatenate([tiles, *(theirs for _, theirs in beside)])
        return View(
            tiles, width * height + _TILE_PIXEL * tiles.size, sum(len(theirs) for _, theirs in beside)
        )

    def paint(
        self,
        item: Item,
        tiles: np.ndarray,
        confidence: float,
        seconds: float,
        show: bool = False,
        faded: float = 0.0,
    ) -> Record | None:
        """Composes, encodes and writes the derivative of an opened scan.

        Args:
          tiles: float16 [K, S, S, 2], a*b* in Lab units, of the scan and its neighbours as in its `View`. If it was
            opened again since, and has another number of neighbours now, these are left out.
          confidence: 0...1.
          seconds: share of the scan in the time of the network.
          show: write its two pictures for the gallery, too.
          faded: share of its chroma that was faded, 0...1.

        Returns:
          Its record, or None if the scan is not held, because another process opened it.
        """
        held = self._held.pop(item.key, None)
        if held is None:
            return None
        started = time.perf_counter()
        settings = self.settings
        record = held.record.replace(confidence=round(confidence, 4), faded=round(faded, 4))

        def spent() -> int:
            return _milliseconds(held.seconds + seconds + time.perf_counter() - started)

        if confidence < settings.min_confidence and held.marks is None:  # with marks, a person has checked it
            detail = f"the confidence {confidence:.2f} is below --min_confidence {settings.min_confidence:g}"
            return self._refused(item, record, Refusal(Reason.LOW_CONFIDENCE, detail), spent())
        tiles, record = self._steadied(held, tiles, record)
        model, colorfulness = derivative.paint(held.scan, held.seen, tiles, settings.strength, held.marks)
        record = record.replace(outcome=Outcome.COLORIZED, colorfulness=round(colorfulness, 2))
        try:
            record = record.replace(**self._write(item, held, model, record))
        except (signing.SigningError, JobError) as error:
            return record.refuse(Refusal(Reason.SIGN_ERROR, str(error)), milliseconds=spent())
        except OSError as error:
            return record.refuse(Refusal(Reason.WRITE_ERROR, words(error)), milliseconds=spent())
        record = record.finish(milliseconds=spent())
        if show:
            with contextlib.suppress(OSError):  # the report tries again, and says what is wrong
                shown = before_and_after(held.scan, model)
                for uri, picture in zip(pictures.uris(settings.output, record), shown, strict=True):
                    storage.write(uri, picture)
        return record

    def _refused(self, item: Item, record: Record, refusal: Refusal, milliseconds: int) -> Record:
        """The record of a scan that gets no derivative. If it is skipped, one of an earlier run is deleted."""
        record = record.refuse(refusal, milliseconds=milliseconds)
        with contextlib.suppress(OSError):
            if record.outcome == Outcome.SKIPPED and storage.stat(self._target(item)) is not None:
                storage.delete(self._target(item))
                storage.delete(self._sidecar(item))
                record = record.replace(
                    detail=joined(record.detail, "the derivative of an earlier run was deleted")
                )
        return record

    def _write(self, item: Item, held: _Held, model: np.ndarray, record: Record) -> dict[str, Any]:
        """Encodes, signs and writes a derivative. Returns the fields of its record about the files.

        Raises:
          SigningError, JobError: it cannot be signed.
          OSError: it cannot be written.
        """
        settings, format = self.settings, format_of(item.key, self.settings.format)
        kept = None if held.scan.jpeg is None else recovery.remainder(held.scan.jpeg)
        labels = dataclasses.replace(self._labels, remainder=kept)
        data = derivative.encode(
            held.scan,
            model,
            format=format,
            quality=settings.quality,
            packet=provenance.packet(record, held.scan.carried.xmp, labels),
            compression=settings.compression,
            mark=settings.visible_mark,
        )
        signed = {}
        if settings.c2pa:
            signer = signing.load(settings.c2pa_key, settings.c2pa_certificate)
            embed = settings.c2pa == EMBEDDED
            data, store = signer.sign(data, format=format, claim=held.claim, embed=embed)
            signed = {"c2pa": EMBEDDED}
            if not embed:  # it comes first, so that no derivative is without it
                sidecar = self._sidecar(item)
                storage.write(sidecar, store)
                signed = {"c2pa": sidecar, "sidecar_sha256": hashlib.sha256(store).hexdigest()}
        storage.write(self._target(item), data)
        return signed | self._file(self._target(item), data)

    def _steadied(self, held: _Held, colors: np.ndarray, record: Record) -> tuple[np.ndarray, Record]:
        """The chroma of a scan, steadied over those of its neighbours that `open` saw, and its record."""
        number = len(held.tiles)
        if colors[:number].shape != (*held.tiles.shape, 2):
            raise ValueError(f"chroma of the shape {colors.shape} for tiles of {held.tiles.shape}")
        own, *theirs = np.split(colors, range(number, len(colors), number))
        if len(colors) != number * (1 + len(held.beside)):
            detail = "not steadied: other neighbours can be read now than at first"
            return own, record.replace(detail=joined(record.detail, detail), neighbors_content_sha256="")
        if not held.beside:
            return own, record
        others = [
            steadying.Other(neighbor.away, tiles, its)
            for (neighbor, tiles), its in zip(held.beside, theirs, strict=True)
        ]
        steady, used = steadying.steadied(held.tiles, own, others, neighbors.REACH)
        return steady, record.replace(neighbors=tuple(held.beside[index][0].key for index in used))

    def adopt(self, item: Item) -> Record | None:
        """Record of a derivative without one, or with an incomplete one; None if the derivative is not up to date.

        Its packet must name these bytes, this model and these options, it must be readable, and signed if asked.
        """
        target = self._target(item)
        try:
            data, found = storage.read(target), self._reader.digests(item)
            with unlimited, open_image(data) as image:
                claimed = provenance.read_packet(embedded.packet(data))
                named = image.format == "JPEG2000"  # it declares sRGB by a number
                if claimed is None or not (named or icc.is_of_derivatives(image.info.get("icc_profile"))):
                    return None
                image.load()
            signed: dict[str, Any] = {"c2pa": self.settings.c2pa}
            if self.settings.c2pa:
                store = None
                if self.settings.c2pa == SIDECAR:
                    sidecar = self._sidecar(item)
                    store = storage.read(sidecar)
                    signed = {"c2pa": sidecar, "sidecar_sha256": hashlib.sha256(store).hexdigest()}
                if not signing.is_valid(data, format=format_of(item.key, self.settings.format), store=store):
                    return None
        except Exception:  # whatever is wrong with it, the scan is colourised again
            return None
        ours = self.settings.record(item).replace(
            neighbors_content_sha256=self._reader.neighbors_content_sha256(item),
            **named_digests("source", found),
        )
        same = (
            "key",
            "source_sha256",
            "model_sha256",
            "options_sha256",
            "hints_sha256",
            "neighbors_content_sha256",
            "schema",
        )
        if any(getattr(claimed, name) != getattr(ours, name) for name in same):
            return None
        remark = "adopted: an earlier run wrote the derivative"
        adopted = ours.replace(**{name: getattr(claimed, name) for name in _ADOPTED}, **signed)
        return adopted.finish(detail=joined(claimed.detail, remark), **self._file(target, data))

    def _target(self, item: Item) -> str:
        return derivative_uri(self.settings.output, item.key, self.settings.format)

    def _sidecar(self, item: Item) -> str:
        return derivative_uri(self.settings.output, item.key, MANIFEST_STORE)

    def _file(self, uri: str, data: bytes | mmap.mmap) -> dict[str, Any]:
        """Fields of a record about the file of the derivative."""
        found = digests(data, self.settings.digests)
        return {"derivative": uri, "derivative_bytes": len(data), **named_digests("derivative", found)}

    def sha256(self, item: Item) -> str:
        """SHA-256 of a master; empty if it cannot be read."""
        return self._reader.sha256(item)

    def look(self, item: Item) -> np.ndarray | str:
        """The upright luma of a neighbour, uint8 [h, w], or why it cannot be read."""
        return self._reader.look(item).guide

    def thumbnail(self, uri: str, page: int = 0) -> bytes | None:
        """Calls `Reader.thumbnail`."""
        return self._reader.thumbnail(uri, page)

    def drop(self, item: Item) -> None:
        """Forgets an opened scan."""
        self._held.pop(item.key, None)


def _milliseconds(seconds: float) -> int:
    return round(1000 * seconds)
