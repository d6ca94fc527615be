"""Demonstration: makes a small grey archive from sample photographs and colourises it.

    python -m pipeline.demo [--scratch DIR] [--sheet FILE] [any option of archive-colorize]

scikit-image, scikit-learn and matplotlib install the photographs; nothing is downloaded.
"""

import argparse
import importlib.util
import io
import os
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageDraw, ImageFont, ImageOps

from pipeline import storage
from pipeline.inputs.item import derivative_uri

SCRATCH = "scratch/demo"
SHEET_BYTES = 300_000
SHEET_WIDTH = 264  # pixels; largest width of a picture on the sheet
MISSING = 'install the packages that bring the photographs: pip install "archive-colorize[demo]"'


class NoPhotographs(Exception):
    """A package that brings photographs is not installed."""


@dataclass(frozen=True, slots=True)
class Photograph:
    """A colour photograph in an installed package."""

    package: str
    path: str  # inside the package
    credit: str

    def open(self) -> Image.Image:
        """Opens the photograph as RGB, without its metadata. Raises NoPhotographs if it is not installed."""
        spec = importlib.util.find_spec(self.package)  # to import the package would take seconds
        for folder in (spec and spec.submodule_search_locations) or []:
            file = Path(folder, self.path)
            if file.is_file():
                with Image.open(file) as image:
                    return Image.fromarray(np.asarray(image.convert("RGB")))
        raise NoPhotographs(f"{self.package}/{self.path}")


ASTRONAUT = Photograph("skimage", "data/astronaut.png", "NASA")
CAT = Photograph("skimage", "data/chelsea.png", "Stefan van der Walt, CC0")
COFFEE = Photograph("skimage", "data/coffee.png", "Rachel Michetti, CC0")
ROCKET = Photograph("skimage", "data/rocket.jpg", "SpaceX, CC0")
MOTORCYCLE = Photograph("skimage", "data/motorcycle_left.png", "D. Scharstein et al., CC0")
TEMPLE = Photograph("sklearn", "datasets/images/china.jpg", "danielbuechele, CC BY 2.0")
DAHLIA = Photograph("sklearn", "datasets/images/flower.jpg", "vultilion, CC BY 2.0")
ADMIRAL = Photograph("matplotlib", "mpl-data/sample_data/grace_hopper.jpg", "U.S. Navy")

WHOLE = (0.0, 0.0, 1.0, 1.0)


@dataclass(frozen=True, slots=True)
class Plate:
    """One scan of the archive: a photograph or a part of it, and the kind of file."""

    key: str
    photograph: Photograph
    kind: str = "grey"  # a name in `_KINDS`
    part: tuple[float, float, float, float] = WHOLE  # left, top, right, bottom; shares of the sides
    side: int = 0  # largest longer side in pixels; 0: as it is
    mirrored: bool = False

    def color(self) -> Image.Image:
        """The photograph in its own colours, as RGB."""
        image = self.photograph.open()
        sides = image.size * 2
        left, top, right, bottom = (round(share * side) for share, side in zip(self.part, sides, strict=True))
        image = image.crop((left, top, right, bottom))
        if self.side:
            image.thumbnail((self.side, self.side), Image.Resampling.LANCZOS)
        return ImageOps.mirror(image) if self.mirrored else image

    def scanned(self) -> bytes:
        """The bytes of the scan, the same each time."""
        return _KINDS[self.kind](self.color())


ARCHIVE = [
    Plate("portraits/hopper_001.jpg", ADMIRAL),
    Plate("portraits/hopper_002_detail.png", ADMIRAL, "png", (0.2, 0.05, 0.85, 0.6)),
    Plate("portraits/hopper_003_turned.jpg", ADMIRAL, "turned"),
    Plate("portraits/collins_001.jpg", ASTRONAUT),
    Plate("portraits/collins_002_bust.tif", ASTRONAUT, "tiff", (0.1, 0.0, 0.75, 0.65)),
    Plate("portraits/collins_003_print.jpg", ASTRONAUT, "sepia", side=400),
    Plate("places/summer_palace_001.jpg", TEMPLE),
    Plate("places/summer_palace_002_lake.jpg", TEMPLE, "progressive", (0.35, 0.2, 1.0, 0.9)),
    Plate("places/summer_palace_003_roof.tif", TEMPLE, "tiff16", (0.1, 0.0, 0.6, 0.85)),
    Plate("places/summer_palace_004_panorama.jpg", TEMPLE, "grey", (0.0, 0.48, 1.0, 0.88)),
    Plate("places/summer_palace_005_slide.jpg", TEMPLE, "color", side=480),
    Plate("places/launch_pad_001.jpg", ROCKET),
    Plate("places/launch_pad_002_dusk.tif", ROCKET, "tiff16", (0.3, 0.0, 0.9, 1.0)),
    Plate("places/launch_pad_003_reversed.jpg", ROCKET, "rgb", mirrored=True, side=512),
    Plate("nature/dahlia_001.jpg", DAHLIA),
    Plate("nature/dahlia_002_bloom.png", DAHLIA, "png", (0.22, 0.1, 0.72, 0.9)),
    Plate("nature/dahlia_003_torn.jpg", DAHLIA, "truncated"),
    Plate("nature/cat_001.jpg", CAT),
    Plate("nature/cat_002_eyes.tif", CAT, "tiff", (0.15, 0.1, 0.85, 0.75)),
    Plate("things/coffee_001.jpg", COFFEE),
    Plate("things/coffee_002_cup.jpg", COFFEE, "grey", (0.2, 0.0, 0.85, 0.95), mirrored=True),
    Plate("things/motorcycle_001.jpg", MOTORCYCLE),
    Plate("things/motorcycle_002_small.jpg", MOTORCYCLE, "grey", side=320),
    Plate("things/motorcycle_003_engine.png", MOTORCYCLE, "png", (0.2, 0.3, 0.8, 0.95)),
]
SHEET = [  # keys in ARCHIVE; their photographs are in the public domain or CC0, so the sheet may be published
    "portraits/hopper_001.jpg",
    "nature/cat_001.jpg",
    "places/launch_pad_001.jpg",
    "things/motorcycle_001.jpg",
    "portraits/collins_001.jpg",
]


def make_archive(folder: str | os.PathLike) -> None:
    """Writes the scans of the archive. Files that are already correct are not touched.

    Raises:
      NoPhotographs: a package is missing. Nothing is written then.
    """
    scans = [(storage.join(os.fspath(folder), plate.key), plate.scanned()) for plate in ARCHIVE]
    for path, data in scans:
        if not (os.path.isfile(path) and storage.read(path) == data):
            storage.write(path, data)


def make_picture(colorized_folder: str, archive_folder: str, target: str) -> None:
    """Writes a sheet with a row of scans, a row of their derivatives, and a row of the original photographs.

    Args:
      colorized_folder: output folder of the job.
      archive_folder: folder of the scans.
      target: the .jpg or .png file to write, of at most `SHEET_BYTES`.

    Raises:
      FileNotFoundError: a scan or its derivative is missing; run the job first.
    """
    by_key = {plate.key: plate for plate in ARCHIVE}
    plates = [by_key[key] for key in SHEET]
    rows = [
        ("scan", [_read(storage.join(archive_folder, plate.key)) for plate in plates]),
        ("colourised", [_read(derivative_uri(colorized_folder, plate.key, "jpeg")) for plate in plates]),
        ("photograph", [plate.color() for plate in plates]),
    ]
    format = "PNG" if target.lower().endswith(".png") else "JPEG"
    credit = "Photographs: " + "; ".join(dict.fromkeys(plate.photograph.credit for plate in plates))
    width = SHEET_WIDTH
    while len(data := _bytes(_sheet(rows, width, credit), format, quality=88)) > SHEET_BYTES:
        width = int(width * min(0.95, (SHEET_BYTES / len(data)) ** 0.5))
    storage.write(os.path.abspath(target), data)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m pipeline.demo",
        allow_abbrev=False,
        description="Makes a small grey archive and colourises it. All other options go to archive-colorize.",
    )
    parser.add_argument(
        "--scratch", default=SCRATCH, metavar="DIR", help="working folder (default: %(default)s)"
    )
    parser.add_argument(
        "--sheet", metavar="FILE", help="also write a sheet of scans, results and photographs"
    )
    options, further = parser.parse_known_args(argv)
    archive, colorized = storage.join(options.scratch, "archive"), storage.join(options.scratch, "colorized")
    try:
        make_archive(archive)
    except NoPhotographs as error:
        print(f"{error} is not installed; {MISSING}", file=sys.stderr)
        return 2
    print(f"{len(ARCHIVE)} scans are in {archive}", flush=True)
    from pipeline.colorize import main as colorize

    code = colorize(["--input", archive, "--output", colorized, *further])
    if options.sheet and code == 0:
        make_picture(colorized, archive, options.sheet)
        print(f"The sheet is in {options.sheet}")
    return code


def _grey_jpeg(color: Image.Image) -> bytes:
    return _bytes(color.convert("L"), "JPEG", quality=92)


def _progressive_jpeg(color: Image.Image) -> bytes:
    return _bytes(color.convert("L"), "JPEG", quality=90, progressive=True)


def _rgb_jpeg(color: Image.Image) -> bytes:
    """Grey, stored with three equal channels, as by many scanners."""
    return _bytes(color.convert("L").convert("RGB"), "JPEG", quality=90)


def _turned_jpeg(color: Image.Image) -> bytes:
    """Scanned on its side; the EXIF orientation tag tells which side is up."""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    return _bytes(color.convert("L").transpose(Image.Transpose.ROTATE_90), "JPEG", quality=92, exif=exif)


def _color_jpeg(color: Image.Image) -> bytes:
    return _bytes(color, "JPEG", quality=90)


def _sepia_jpeg(color: Image.Image) -> bytes:
    toned = ImageOps.colorize(color.convert("L"), "#1d120a", "#f6ead2", mid="#8d7152")
    return _bytes(toned, "JPEG", quality=90)


def _truncated_jpeg(color: Image.Image) -> bytes:
    data = _grey_jpeg(color)
    return data[: len(data) * 2 // 5]


def _png(color: Image.Image) -> bytes:
    return _bytes(color.convert("L"), "PNG")


def _tiff(color: Image.Image) -> bytes:
    return _bytes(color.convert("L"), "TIFF", compression="tiff_lzw", dpi=(300, 300))


def _deep_tiff(color: Image.Image) -> bytes:
    """16 bits per pixel, with levels between those of 8 bits."""
    luma = np.asarray(color, np.float64) @ [0.299, 0.587, 0.114]
    return _bytes(Image.fromarray(np.rint(luma * 257).astype(np.uint16)), "TIFF", dpi=(300, 300))


_KINDS = {
    "grey": _grey_jpeg,
    "progressive": _progressive_jpeg,
    "rgb": _rgb_jpeg,
    "turned": _turned_jpeg,
    "color": _color_jpeg,
    "sepia": _sepia_jpeg,
    "truncated": _truncated_jpeg,
    "png": _png,
    "tiff": _tiff,
    "tiff16": _deep_tiff,
}


def _bytes(image: Image.Image, format: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def _read(uri: str) -> Image.Image:
    with Image.open(io.BytesIO(storage.read(uri))) as image:
        return ImageOps.exif_transpose(image).convert("RGB")


def _sheet(rows: list[tuple[str, list[Image.Image]]], width: int, credit: str) -> Image.Image:
    """Sheet with one row of pictures per name. Each picture is cropped to 4:3 and is `width` pixels wide."""
    height, gap, margin = width * 3 // 4, width // 32, width * 2 // 5
    size = (margin + len(rows[0][1]) * (width + gap), len(rows) * (height + gap) + width // 10)
    sheet = Image.new("RGB", size, "#f3f1ec")
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default
    for row, (name, images) in enumerate(rows):
        top = gap + row * (height + gap)
        draw.text((margin - 2 * gap, top + height / 2), name, "#665f54", font(width // 18), anchor="rm")
        for column, image in enumerate(images):
            picture = ImageOps.fit(image, (width, height), Image.Resampling.LANCZOS, centering=(0.5, 0.25))
            sheet.paste(picture, (margin + column * (width + gap), top))
    draw.text((margin, sheet.height - gap), credit, "#8a8378", font(width // 22), anchor="ls")
    return sheet


if __name__ == "__main__":
    sys.exit(main())
