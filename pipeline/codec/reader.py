"""Reads scans: the bytes of masters, their decoded pictures, and what is known about their neighbours."""

import contextlib
import hashlib
import json
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from pipeline import storage
from pipeline.codec.masters import Master, Masters, Several
from pipeline.codec.settings import Settings
from pipeline.decoding.opening import check_size
from pipeline.decoding.pages import Data
from pipeline.errors import words
from pipeline.imaging import alto, chroma, layout
from pipeline.imaging.negatives import is_negative
from pipeline.imaging.scan import Scan, read_scan
from pipeline.imaging.thumbnail import thumbnail
from pipeline.inputs import neighbors
from pipeline.inputs.item import Item, Neighbor, format_of
from pipeline.metadata import containers
from pipeline.metadata.orientation import upright
from pipeline.records import keys
from pipeline.records.record import Reason, Refusal, joined


@dataclass(frozen=True, eq=False, slots=True)
class Look:
    """A neighbour of a scan."""

    guide: np.ndarray | str  # its upright luma, uint8 [h, w], or why it cannot be read
    sha256: str  # of its file; empty if there is none


class Reader:
    """Reads scans as the settings of a job say. What cannot be read is a Refusal."""

    def __init__(self, settings: Settings, announce: Callable[[int], None] = lambda pixels: None):
        self.settings = settings
        self._announce = announce  # called with the number of pixels before a picture is decoded
        self._masters = Masters(settings.digests, announce)
        self._looks: OrderedDict[Item, Look] = OrderedDict()  # the last ones

    def master(self, item: Item) -> Master | Several:
        """A master, or a page of it. A file with several pictures says so. Raises Refusal."""
        master = self._masters.read(item, self._check)
        if storage.contains(self.settings.output, item.source):  # by a link, or from a manifest
            raise Refusal(Reason.BAD_KEY, "the source is in the output folder, so it is not a master")
        return master

    @contextlib.contextmanager
    def signed(self, item: Item, master: Master, scan: Scan) -> Iterator[Data]:
        """The bytes that become an ingredient of a claim: the whole file of a page, if it has a manifest."""
        if master.pages and containers.C2PA in scan.carried.lost:
            with self._masters.whole(item) as data:
                yield data
        else:
            yield master.data

    def digests(self, item: Item) -> dict[str, str]:
        """Digests of a master, by algorithm. Raises Refusal if it cannot be read."""
        return self._masters.digests(item)

    def sha256(self, item: Item) -> str:
        """SHA-256 of a master; empty if it cannot be read."""
        try:
            return self.digests(item)["sha256"]
        except Refusal:
            return ""

    def scan(self, item: Item, master: Master) -> Scan:
        """A decoded master, or the positive of a negative. Raises Refusal."""
        how = self.settings.negatives
        if how != "all":
            scan = self._read(item, master)
            if how == "ignore" or not _is_negative(upright_guide(scan)):
                return scan
            if how == "skip":
                why = "its light and dark are exchanged (--negatives invert colours the positive)"
                raise Refusal(Reason.NEGATIVE, why)
        scan = self._read(item, master, negative=True)
        scan.note = joined(scan.note, "a negative, which was inverted")
        return scan

    def _read(self, item: Item, master: Master, negative: bool = False) -> Scan:
        return read_scan(
            master.data,
            kept=[containers.C2PA] if self.settings.c2pa else [],
            mark=self.settings.visible_mark,
            output_format=format_of(item.key, self.settings.format),
            max_pixels=self.settings.max_pixels,
            colorize_color=self.settings.color_scans == "colorize",
            announce=self._announce,
            negative=negative,
        )

    def pictures(self, item: Item, guide: np.ndarray, scan: Scan) -> tuple[tuple[layout.Box, ...], str]:
        """The pictures in a scan, and a remark about them. Raises Refusal if there are none."""
        if self.settings.layout == "whole" or item.hints:  # with hints, a person has checked the scan
            return (layout.WHOLE,), ""
        remark = ""
        if self.settings.layout == "alto":
            boxes, remark = _from_alto(item, scan)
            if boxes is not None:
                return boxes, remark
        try:
            boxes, found = layout.find(guide)
        except Refusal as refusal:
            raise Refusal(refusal.reason, joined(remark, refusal.detail)) from None
        return boxes, joined(remark, found)

    def beside(
        self, item: Item, box: layout.Box, shape: tuple[int, ...], left_out: Mapping[str, str]
    ) -> tuple[list[tuple[Neighbor, np.ndarray]], str]:
        """The neighbours of a scan, with their tiles, and words about those that cannot be read.

        Args:
          box: the picture in the scan. The same part of the neighbours is seen.
          shape: of the tiles of the scan. Neighbours with other proportions are no frames of the same film.
          left_out: as for `open`.
        """
        seen, words_of_them = [], []
        for neighbor in item.neighbors:
            guide = left_out.get(neighbor.key) or self.look(neighbor.item).guide
            if isinstance(guide, str):
                words_of_them.append(f"not steadied with {neighbor.key}: {guide}")
                continue
            tiles = chroma.view(box.of(guide), self.settings.side)[1]
            if tiles.shape == shape:
                seen.append((neighbor, tiles))
        return seen, joined(*words_of_them)

    def look(self, item: Item) -> Look:
        """Looks at a neighbour. The last ones are remembered."""
        if item in self._looks:
            self._looks.move_to_end(item)
            return self._looks[item]
        try:
            master = self.master(item)
            if isinstance(master, Several):
                raise Refusal(Reason.MULTIPAGE, "the file has several pictures")
            look = Look(upright_guide(self.scan(item, master)), master.digests["sha256"])
        except Refusal as refusal:
            look = Look(refusal.detail, self.sha256(item))
        self._looks[item] = look
        if len(self._looks) > 2 * neighbors.REACH + 1:
            self._looks.popitem(last=False)
        return look

    def neighbors_content_sha256(self, item: Item) -> str:
        """Digest of the bytes of all neighbours of a scan, as `look` has seen them; empty if it has no neighbours."""
        if not item.neighbors:
            return ""
        listed = []
        for neighbor in item.neighbors:
            look = self._looks.get(neighbor.item)
            listed.append((neighbor.away, neighbor.key, look.sha256 if look else self.sha256(neighbor.item)))
        return hashlib.sha256(json.dumps(listed).encode()).hexdigest()

    def thumbnail(self, uri: str, page: int = 0) -> bytes | None:
        """A small upright JPEG of a picture, or of a page of a file; None if it cannot be read."""
        item = Item(keys.of_page(uri.rpartition("/")[2], page) if page else uri, uri)
        try:
            master = self._masters.read(item, self._check)
            assert isinstance(master, Master)
            return thumbnail(master.data, max_pixels=self.settings.max_pixels)
        except Exception:  # without a picture, the gallery shows only text
            return None

    def _check(self, width: int, height: int) -> None:
        check_size(width, height, self.settings.max_pixels)
        self._announce(width * height)


def upright_guide(scan: Scan) -> np.ndarray:
    return np.ascontiguousarray(upright(scan.guide, scan.orientation))


def _is_negative(guide: np.ndarray) -> bool:
    """Whether a scan is a negative. The network was trained on photographs: paper with text or lines is a positive."""
    return is_negative(guide) and not layout.is_page(guide)


def _from_alto(item: Item, scan: Scan) -> tuple[tuple[layout.Box, ...] | None, str]:
    """The pictures that the ALTO file of a scan names, None without a file that can be used, and a remark about it.

    Raises:
      Refusal: it names none.
    """
    uri, page = _alto_file(item.source), keys.split(item.key)[1] or 1
    name = uri.rpartition("/")[2]
    dpi = scan.carried.dpi
    if dpi and scan.orientation >= 5:  # turned
        dpi = dpi[::-1]
    try:
        boxes = alto.pictures(storage.read(uri), size=scan.size, dpi=dpi, page=page)
    except FileNotFoundError:
        return None, ""
    except OSError as error:
        return None, f"{name} was not used: {words(error)}"
    except alto.AltoError as error:
        return None, f"{name} was not used: {error}"
    named = f"{name} names {len(boxes)} picture{'s' * (len(boxes) != 1)}"
    if not boxes:
        raise Refusal(Reason.TEXT_PAGE, f"{named} (--layout whole colours it all the same)")
    return boxes, f"{named}; nothing else got colour"


def _alto_file(source: str) -> str:
    """URI of the ALTO file of a scan: beside it, with the ending .xml instead of its own."""
    folder, slash, name = source.rpartition("/")
    return f"{folder}{slash}{name.rpartition('.')[0] or name}.xml"
