"""Names the format of a file by its first bytes, for files that cannot be decoded."""

_HIERARCHICAL = (0xC5, 0xC6, 0xC7, 0xCD, 0xCE, 0xCF)  # processes of JPEG
_BRANDS = {
    b"heic": "HEIF",
    b"heix": "HEIF",
    b"mif1": "HEIF",
    b"msf1": "HEIF",
    b"avif": "AVIF",
    b"avis": "AVIF",
}
_BEGINNINGS = (
    (b"%PDF", "a PDF document"),
    (b"%!PS", "PostScript"),
    (b"\xc5\xd0\xd3\xc6", "an EPS"),
    (b"8BPS\0\2", "a large Photoshop document (PSB)"),
    (b"\xff\x0a", "a JPEG XL"),
    (b"\0\0\0\x0cJXL ", "a JPEG XL"),
    (b"II\xbc\x01", "a JPEG XR"),
    (b"\xff\xd8\xff", "a JPEG that is damaged at its beginning or of a rare kind"),
    (b"\x8bJNG\r\n", "a JNG"),
    (b"\x8aMNG\r\n", "an MNG"),
    (b"\x97JB2", "a JBIG2"),
    (b"P7\n", "a PAM"),
    (b"id=ImageMagick", "a MIFF"),
    (b"AT&TFORM", "a DjVu"),
    (b"v/1\x01", "an OpenEXR"),
    (b"#?RADIANCE", "a Radiance HDR picture"),
    (b"SIMPLE  =", "a FITS file"),
    (b"SDPX", "a DPX"),
    (b"XPDS", "a DPX"),
    (b"\x80\x2a\x5f\xd7", "a Cineon picture"),
    (b"FUJIFILMCCD-RAW", "raw data of a camera"),
    (b"IIRO", "raw data of a camera"),
    (b"IIRS", "raw data of a camera"),
    (b"IIU\0", "raw data of a camera"),
    (b"\0MRM", "raw data of a camera"),
    (b"FOVb", "raw data of a camera"),
    (b"msid", "a MrSID"),
    (b"PK\x03\x04", "a ZIP archive"),
    (b"\x1f\x8b", "a gzip file"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (b"Rar!", "a RAR archive"),
    (b"\x1aE\xdf\xa3", "a video (Matroska)"),
    (b"RIFF", "a RIFF file without a WebP"),
    (b"\xd0\xcf\x11\xe0", "an Office document"),
    (b"SQLite format 3", "a database"),
    (b"bplist", "a property list"),
    (b"\0\5\x16\x07", "a macOS companion file (AppleDouble)"),
    (b"gimp xcf", "a GIMP picture (XCF)"),
    (b"\x89HDF", "an HDF5 file"),
    (b"\x0e\x03\x13\x01", "an HDF4 file"),
    (b"OggS", "an Ogg file"),
    (b"fLaC", "sound"),
    (b"ID3", "sound"),
    (b"\x7fELF", "a program"),
    (b"MZ", "a program"),
)


def name(data: bytes) -> str:
    """Format of a file, with an article; empty if it is unknown.

    Args:
      data: the whole file, or its first kilobytes.
    """
    if data.startswith(b"\xff\xd8\xff") and (words := _jpeg(data)):
        return words
    if data[4:8] == b"ftyp":
        return (
            f"a picture in {kind}"
            if (kind := _BRANDS.get(data[8:12]))
            else "a video or raw data of a camera (ISO)"
        )
    if data[128:132] == b"DICM":
        return "a DICOM file"
    for beginning, words in _BEGINNINGS:
        if data.startswith(beginning):
            return words
    return _text(data[:4096])


def _jpeg(data: bytes) -> str:
    """Kind of a JPEG that no decoder reads, from its frame header (ITU-T T.81, table B.1)."""
    at = 2
    while at + 9 < len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker in _HIERARCHICAL:
            return "a hierarchical JPEG"
        at += 1 if marker == 0xFF else 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return ""


def _text(start: bytes) -> str:
    if start.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "text in UTF-16"
    try:
        words = start.decode("utf-8-sig").lstrip().lower()
    except UnicodeDecodeError as error:
        if error.start < len(start) - 3:
            return ""
        words = start[: error.start].decode("utf-8").lstrip().lower()
    if not words or "\0" in words:
        return ""
    if words.startswith(("<!doctype html", "<html")):
        return "a web page"
    if "<svg" in words:
        return "a drawing (SVG)"
    return "an XML file" if words.startswith("<?xml") else "text"
