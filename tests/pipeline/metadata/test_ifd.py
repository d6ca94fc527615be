"""TIFF directories: they are read as they were written, and Pillow reads the same values."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pipeline.metadata import ifd

EXIF, GPS, INTEROP, MAKER_NOTE = 0x8769, 0x8825, 0xA005, 0x927C
NESTED = {
    270: ifd.text("Bahnhofstraße"),
    274: ifd.short("<", 6),
    282: ifd.rational("<", 300),
    EXIF: {0x9000: ifd.undefined(b"0232"), INTEROP: {1: ifd.text("R98")}},
    GPS: {1: ifd.text("N"), 0: ifd.octets(bytes([2, 3, 0, 0]))},
}


def plain(directory):
    """Types, counts and bytes, without file offsets."""
    return {
        tag: plain(entry) if isinstance(entry, dict) else (entry.type, entry.count, bytes(entry.value))
        for tag, entry in directory.items()
    }


def reread(block):
    reader = ifd.Reader(block)
    directory = reader.tree(next(reader.directories()))
    assert not reader.broken
    return directory


ENTRIES = st.binary(max_size=40).map(ifd.undefined)
DIRECTORIES = st.dictionaries(st.integers(1, 0x8000), ENTRIES, min_size=1, max_size=8)


@given(DIRECTORIES, DIRECTORIES, st.sampled_from("<>"))
def test_directories_are_read_as_they_were_written(main, below, order):
    assert plain(reread(ifd.encode(main | {EXIF: below}, order))) == plain(main | {EXIF: below})


def test_pillow_reads_the_same_values():
    exif = Image.Exif()
    exif.load(ifd.encode(NESTED, "<"))
    assert exif[274] == 6 and exif[282] == 300
    assert exif.get_ifd(EXIF)[0x9000] == b"0232"
    assert exif.get_ifd(GPS)[1] == "N"


def test_values_begin_on_even_bytes_and_tags_ascend():
    block = ifd.encode({306: ifd.undefined(b"x" * 7), 270: ifd.undefined(b"y" * 9)}, ">")
    assert [struct.unpack_from(">H", block, 10 + 12 * n)[0] for n in range(2)] == [270, 306]
    assert all(struct.unpack_from(">I", block, 18 + 12 * n)[0] % 2 == 0 for n in range(2))


def test_a_directory_that_has_become_empty_is_left_out():
    assert plain(reread(ifd.encode({270: ifd.text("Market"), EXIF: {}}, "<"))) == plain(
        {270: ifd.text("Market")}
    )


def test_a_value_outside_of_the_file_is_broken_and_the_others_are_read():
    block = bytearray(ifd.encode({270: ifd.text("Market, 1931"), 315: ifd.text("Jörg Müßig")}, "<"))
    struct.pack_into("<I", block, 18, 1 << 30)
    reader = ifd.Reader(block)
    assert list(next(reader.directories())) == [315]
    assert reader.broken == [270]


@pytest.mark.parametrize(
    "block", [b"", b"II", b"II*\0", b"II*\0\xff\xff\xff\xff", b"XX*\0\x08\0\0\0", b"MM\0*\0\0\0\x08\xff"]
)
def test_a_block_without_a_directory_is_an_error(block):
    with pytest.raises(ifd.Damaged):
        next(ifd.Reader(block).directories())


def test_a_cyclic_chain_of_directories_ends():
    block = bytearray(ifd.encode({270: ifd.text("x")}, "<"))
    struct.pack_into("<I", block, 22, 8)
    assert len(list(ifd.Reader(block).directories())) == 1


def test_an_invalid_link_to_the_next_directory_is_ignored():
    block = bytearray(ifd.encode({270: ifd.text("x")}, "<"))
    struct.pack_into("<I", block, 22, 1 << 30)
    assert len(list(ifd.Reader(block).directories())) == 1


@pytest.mark.parametrize("at", [200, 201, 5_000])
def test_a_makers_note_stays_where_it_was(at):
    note = ifd.Entry(7, 50, b"n" * 50, at)
    directory = {
        270: ifd.undefined(b"x" * 120),
        315: ifd.undefined(b"y" * 300),
        EXIF: {MAKER_NOTE: note, 0x9000: ifd.undefined(b"z" * 99)},
    }
    block, dropped = ifd.fitted(directory, "<", limit=10_000, room=0)
    assert not dropped and block[at : at + 50] == b"n" * 50
    assert plain(reread(block)) == plain(directory)


@pytest.mark.parametrize("at", [0, 8, 37, 9_990, 1 << 31])
def test_a_makers_note_that_cannot_stay_is_dropped(at):
    directory = {
        270: ifd.text("Market"),
        EXIF: {MAKER_NOTE: ifd.Entry(7, 50, b"n" * 50, at), 0x9000: ifd.undefined(b"0232")},
    }
    block, dropped = ifd.fitted(directory, "<", limit=10_000, room=0)
    assert dropped == ["MakerNote"] and MAKER_NOTE not in reread(block)[EXIF]


def test_the_largest_values_give_way():
    directory = {
        270: ifd.undefined(b"x" * 900),
        315: ifd.undefined(b"y" * 300),
        EXIF: {0x9286: ifd.undefined(b"z" * 5_000)},
    }
    block, dropped = ifd.fitted(directory, "<", limit=500, room=0)
    assert len(block) <= 500
    assert dropped == ["UserComment", "ImageDescription"]
    assert plain(reread(block)) == {315: (7, 300, b"y" * 300)}


@given(st.binary(max_size=120), st.sampled_from([b"II*\0", b"MM\0*", b"II+\0\x08\0\0\0", b"MM\0+\0\x08\0\0"]))
def test_reading_arbitrary_bytes_raises_only_damaged(tail, head):
    try:
        reader = ifd.Reader(head + tail)
        for directory in reader.directories():
            reader.tree(directory)
    except ifd.Damaged as reason:
        assert str(reason)
