"""Content Credentials: derivatives are signed, say what was done, and any later change of the file is found."""

import hashlib
import io
import json
import random
import shutil
import signal
import time

import c2pa
import cv2
import numpy as np
import pytest
import tifffile
from cryptography.x509.oid import ExtendedKeyUsageOID
from PIL import Image

from pipeline import storage
from pipeline.colorize import main
from pipeline.errors import JobError
from pipeline.metadata import embedded, signing
from pipeline.metadata.provenance import SOURCE_TYPE
from pipeline.records.record import Reason
from tests.pipeline.certificates import certify
from tests.pipeline.conftest import jpeg, make_archive, picture, start

MIME = {"jpeg": "image/jpeg", "png": "image/png", "tiff": "image/tiff"}
ENDINGS = {"jpeg": "jpg", "png": "png", "tiff": "tif"}


@pytest.fixture(scope="module")
def certified(tmp_path_factory):
    return certify(tmp_path_factory.mktemp("certified"))


@pytest.fixture(scope="module")
def archive(tmp_path_factory, certified):
    """A grey JPEG and a grey TIFF, and a JPEG and a PNG that have manifests of their own."""
    folder = tmp_path_factory.mktemp("masters") / "in"
    folder.mkdir()
    (folder / "grey.jpg").write_bytes(jpeg(picture(1)))
    Image.fromarray(np.uint16(picture(2)) * 257).save(folder / "deep.tif")
    for name in ("signed.jpg", "signed.png"):
        buffer = io.BytesIO()
        Image.fromarray(picture(3)).save(buffer, "JPEG" if name.endswith("jpg") else "PNG")
        (folder / name).write_bytes(
            scanned(buffer.getvalue(), f"image/{name[-3:]}".replace("jpg", "jpeg"), certified)
        )
    return folder


def scanned(data, mime, certified):
    """A master with the manifest of a scanner."""
    signer = signing.load(str(certified.key), str(certified.certificate)).signer
    actions = {
        "actions": [
            {"action": "c2pa.created", "digitalSourceType": SOURCE_TYPE.rpartition("/")[0] + "/print"}
        ]
    }
    builder = c2pa.Builder(
        {"title": "scan", "assertions": [{"label": "c2pa.actions.v2", "data": actions}]}, signing.context()
    )
    signed = io.BytesIO()
    builder.sign(signer, mime, io.BytesIO(data), signed)
    return signed.getvalue()


def manifest(data, format, store=None):
    with c2pa.Reader(MIME[format], io.BytesIO(data), store, context=signing.context()) as reader:
        whole = json.loads(reader.json())
    return whole["manifests"][whole["active_manifest"]], whole


def flipped(data, at, bit=0):
    return data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :]


@pytest.mark.parametrize("format", ["jpeg", "png", "tiff"])
def test_derivatives_are_signed_and_one_flipped_bit_is_found(archive, certified, colorize, tmp_path, format):
    run = colorize(archive, tmp_path / "out", *certified.options, "--format", format)
    assert run.code == 0, run.err
    anchor = certified.anchor.read_text()
    for key, record in run.records.items():
        data = storage.read(record.derivative)
        assert record.outcome == "colorized", record.detail
        assert record.c2pa == "embedded"
        assert record.derivative_sha256 == hashlib.sha256(data).hexdigest()
        assert signing.state(data, format=format, anchors=[anchor]) == "Trusted"
        assert signing.state(data, format=format) == "Valid"
        active, _ = manifest(data, format)
        opened, colored = active["assertions"][0]["data"]["actions"]
        assert opened["action"] == "c2pa.opened"
        assert colored["action"] == "c2pa.color_adjustments"
        assert colored["digitalSourceType"] == SOURCE_TYPE
        assert colored["softwareAgent"] == {"name": "tiny", "version": "1"}
        (ingredient,) = active["ingredients"]
        assert (ingredient["relationship"], ingredient["title"]) == ("parentOf", key)
        assert record.source_sha256 in ingredient["description"]
        assert active["instance_id"].encode() in embedded.packet(data)
        assert b"thumbnail" not in data
        with Image.open(io.BytesIO(data)) as image:
            image.load()
        store = data.find(b"jumb")
        outside = [
            at
            for at in random.Random(7).sample(range(len(data)), 40)
            if abs(at - store) > 20_000 or at < store - 9
        ]
        for at in [*outside, len(data) - 3]:
            assert signing.state(flipped(data, at, at % 8), format=format) in ("Invalid", ""), at
    assert main(["verify", str(tmp_path / "out"), "--masters"]) == 0


def test_a_masters_own_manifest_is_kept(archive, certified, colorize, tmp_path):
    run = colorize(archive, tmp_path / "out", *certified.options)
    for key in ("signed.jpg", "signed.png"):
        record = run.records[key]
        assert "C2PA" not in record.detail
        active, whole = manifest(storage.read(record.derivative), "jpeg")
        (ingredient,) = active["ingredients"]
        kept = whole["manifests"][ingredient["active_manifest"]]
        assert kept["assertions"][0]["data"]["actions"][0]["action"] == "c2pa.created"
    unsigned = colorize(archive, tmp_path / "unsigned").records["signed.jpg"]
    assert "its C2PA manifest" in unsigned.detail


def test_what_cannot_be_signed_fails_before_it_is_opened(certified, colorize, tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.jpg").write_bytes(jpeg(picture(1)))
    (tmp_path / "in" / "b.jp2").write_bytes(b"not opened")
    run = colorize(tmp_path / "in", tmp_path / "out", *certified.options, "--format", "same")
    assert run.records["a.jpg"].outcome == "colorized"
    record = run.records["b.jp2"]
    assert (record.outcome, record.reason) == ("failed", Reason.SIGN_ERROR)
    assert "choose another --format" in record.detail
    assert (
        "cannot be signed"
        in colorize(tmp_path / "in", tmp_path / "jp2", *certified.options, "--format", "jp2").err
    )


@pytest.mark.parametrize("kind", ["pages", "pyramid"])
def test_the_manifest_of_a_tiff_with_several_directories_is_kept_or_named(
    certified, colorize, tmp_path, kind
):
    luma = cv2.resize(picture(3), (256, 192))
    others = [picture(4), picture(5)] if kind == "pages" else [cv2.resize(luma, (128, 96))]
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer) as writer:
        writer.write(luma, photometric="minisblack", metadata=None)
        for other in others:
            writer.write(other, photometric="minisblack", metadata=None)
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.tif").write_bytes(scanned(buffer.getvalue(), "image/tiff", certified))
    records = colorize(tmp_path / "in", tmp_path / "out", *certified.options).records
    assert len(records) == (3 if kind == "pages" else 1)
    for record in records.values():
        assert record.outcome == "colorized"
        assert not {"C2PA", "broken"} & set(record.detail.split()), record.detail
        active, whole = manifest(storage.read(record.derivative), "jpeg")
        (ingredient,) = active["ingredients"]
        kept = whole["manifests"][ingredient["active_manifest"]]
        assert kept["assertions"][0]["data"]["actions"][0]["action"] == "c2pa.created"
        failures = ingredient["validation_results"]["activeManifest"]["failure"]
        assert [one["code"] for one in failures] == ["signingCredential.untrusted"]
    for record in colorize(tmp_path / "in", tmp_path / "unsigned").records.values():
        assert "left out: its C2PA manifest" in record.detail and "broken" not in record.detail


def test_a_damaged_manifest_of_a_master_costs_neither_the_scan_nor_the_signature(
    certified, tmp_path, colorize
):
    (tmp_path / "in").mkdir()
    data = scanned(jpeg(picture(3)), "image/jpeg", certified)
    at = data.index(b"jumb")
    for name, damaged in (
        ("a.jpg", flipped(data, at + 2000)),
        ("b.jpg", flipped(data, at + 9)),
        ("c.jpg", flipped(data, at)),
    ):
        (tmp_path / "in" / name).write_bytes(damaged)
    run = colorize(tmp_path / "in", tmp_path / "out", *certified.options)
    for record in run.records.values():
        assert record.outcome == "colorized", record.detail
        assert signing.is_valid(storage.read(record.derivative), format="jpeg")


@pytest.mark.parametrize("format", ["jpeg", "png", "tiff"])
def test_a_sidecar_leaves_the_bytes_alone(archive, certified, colorize, tmp_path, format, capsys):
    plain = colorize(archive, tmp_path / "plain", "--format", format, "--date", "2026-12-02")
    run = colorize(
        archive,
        tmp_path / "out",
        *certified.options,
        "--c2pa",
        "sidecar",
        "--format",
        format,
        "--date",
        "2026-12-02",
    )
    for key, record in run.records.items():
        data = storage.read(record.derivative)
        sidecar = tmp_path / "out" / f"{key}_color.c2pa"
        assert signing.is_valid(data, format=format, store=sidecar.read_bytes())
        assert not signing.is_valid(flipped(data, len(data) // 2), format=format, store=sidecar.read_bytes())
        with Image.open(io.BytesIO(data)) as ours, Image.open(plain.records[key].derivative) as theirs:
            assert np.array_equal(np.asarray(ours), np.asarray(theirs))
    capsys.readouterr()
    assert main(["verify", str(tmp_path / "out")]) == 0
    assert "8 files read" in capsys.readouterr().out
    sidecar.write_bytes(b"changed")
    assert main(["verify", str(tmp_path / "out")]) == 1
    assert f"changed: {sidecar}" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["a.jpg", "long" * 60 + ".jpg"])
def test_a_lost_sidecar_is_made_again(certified, colorize, tmp_path, name):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / name).write_bytes(jpeg(picture(1)))
    given = (*certified.options, "--c2pa", "sidecar")
    first = colorize(tmp_path / "in", tmp_path / "out", *given).records[name]
    derivative = storage.read(first.derivative)
    storage.delete(first.c2pa)
    again = colorize(tmp_path / "in", tmp_path / "out", *given)
    assert storage.read(first.derivative) == derivative
    assert signing.is_valid(derivative, format="jpeg", store=storage.read(again.latest[name].c2pa))
    assert main(["verify", str(tmp_path / "out")]) == 0
    assert colorize(tmp_path / "in", tmp_path / "out", *given).summary["kept"] == 1


def test_a_sidecar_goes_when_its_derivative_is_made_without_one(certified, colorize, tmp_path):
    (tmp_path / "in").mkdir()
    tifffile.imwrite(tmp_path / "in" / "pages.tif", np.stack([picture(4), picture(5)]))
    Image.fromarray(picture(6)).save(tmp_path / "in" / "a.jpg")
    output, signed = tmp_path / "out", (*certified.options, "--c2pa", "sidecar")
    assert colorize(tmp_path / "in", output, *signed).code == 0
    assert len(list(output.glob("*_color.c2pa"))) == 3
    assert colorize(tmp_path / "in", output, *signed, "--on_existing", "skip").summary["kept"] == 3
    assert colorize(tmp_path / "in", output, "--on_existing", "skip").summary["kept"] == 3
    assert len(list(output.glob("*_color.c2pa"))) == 3
    assert colorize(tmp_path / "in", output).code == 0
    assert not list(output.glob("*_color.c2pa"))
    assert main(["verify", str(output)]) == 0


@pytest.mark.parametrize("kind", ["ec384", "ec521", "ed25519", "rsa"])
def test_keys_of_all_kinds_sign(kind, tmp_path):
    files = certify(tmp_path, kind)
    signing.load(str(files.key), str(files.certificate))


def wrong(name, folder):
    """Options with something wrong, and what the job says about it."""
    good, other = certify(folder / "good"), certify(folder / "other")
    key, chain = good.key, good.certificate
    nothing = folder / "nothing.pem"
    nothing.write_bytes(b"nothing")
    if name == "another key":
        return other.key, chain, "does not belong to the first certificate"
    if name == "no key":
        return nothing, chain, "is not a private key in PEM"
    if name == "missing key":
        return folder / "gone.pem", chain, "cannot read"
    if name == "key with a password":
        return certify(folder / "hidden", password=b"secret").key, chain, "has a password"
    if name == "no certificate":
        return key, nothing, "has no certificate in PEM"
    if name == "certificate missing":
        return key, None, "are needed together"
    if name == "expired":
        expired = certify(folder / "expired", days=-3)
        return expired.key, expired.certificate, "is valid only from"
    assert name == "certificate of a server"
    server = certify(folder / "server", usage=ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE)
    return server.key, server.certificate, "cannot sign with the certificate"


@pytest.mark.parametrize(
    "name",
    [
        "another key",
        "no key",
        "missing key",
        "key with a password",
        "no certificate",
        "certificate missing",
        "expired",
        "certificate of a server",
    ],
)
def test_a_wrong_key_stops_the_job_before_any_work_with_one_line(archive, colorize, tmp_path, name):
    key, chain, words = wrong(name, tmp_path)
    options = ["--c2pa_key", key, *(["--c2pa_certificate", chain] if chain else [])]
    run = colorize(archive, tmp_path / "out", *options)
    assert run.code == 2
    assert not (tmp_path / "out").exists()
    assert words in run.err
    assert run.err.count("\n") == 1
    assert "Traceback" not in run.err


def test_a_missing_package_is_named(certified, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    signing.load.cache_clear()
    with pytest.raises(JobError, match="pip install 'c2pa-python"):
        signing.load(str(certified.key), str(certified.certificate))


def test_key_certificate_and_output_can_be_in_a_bucket(bucket, archive, certified, colorize):
    place = f"{bucket}/signing"
    storage.write(f"{place}/key.pem", certified.key.read_bytes())
    storage.write(f"{place}/certificate.pem", certified.certificate.read_bytes())
    options = ("--c2pa_key", f"{place}/key.pem", "--c2pa_certificate", f"{place}/certificate.pem")
    assert colorize(archive, f"{place}/out", *options, "--c2pa", "sidecar").code == 0
    data, store = (
        storage.read(f"{place}/out/grey.jpg_color.jpg"),
        storage.read(f"{place}/out/grey.jpg_color.c2pa"),
    )
    assert signing.is_valid(data, format="jpeg", store=store)
    assert main(["verify", f"{place}/out"]) == 0


@pytest.mark.parametrize("place", ["embedded", "sidecar"])
def test_signed_derivatives_without_a_record_are_adopted_and_others_are_not(
    certified, colorize, tmp_path, place
):
    archive, output = make_archive(tmp_path / "in", 3), tmp_path / "out"
    options = (*certified.options, "--c2pa", place)
    before = colorize(archive, output, *options).records
    shutil.rmtree(output / "manifest")
    bad = output / ("box0/scan0001.jpg_color." + ("jpg" if place == "embedded" else "c2pa"))
    bad.write_bytes(flipped(bad.read_bytes(), -9 + len(bad.read_bytes())))
    after = colorize(archive, output, *options).records
    for key, record in after.items():
        assert ("adopted" in record.detail) == ("scan0001" not in key), record.detail
        assert (record.c2pa == "embedded") == (place == "embedded") == (not record.sidecar_sha256)
        if "adopted" in record.detail:
            assert record.derivative_sha256 == before[key].derivative_sha256
            assert record.sidecar_sha256 == before[key].sidecar_sha256
    assert main(["verify", str(output)]) == 0


def test_a_killed_run_is_continued_with_the_same_bytes(certified, colorize, model, tmp_path):
    archive, output = make_archive(tmp_path / "in", 60, 512, 384), tmp_path / "out"
    options = (*certified.options, "--c2pa", "sidecar", "--date", "2026-12-02")
    plain = colorize(archive, tmp_path / "plain", *options)
    process = start(
        "--input", archive, "--output", output, "--model", model, *options, start_new_session=True
    )
    while len(list(output.rglob("*_color.jpg"))) < 5 and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    run = colorize(archive, output, *options)
    assert run.code == 0, run.err
    for key, record in run.latest.items():
        assert storage.read(record.derivative) == storage.read(plain.records[key].derivative)
        store = (output / f"{key}_color.c2pa").read_bytes()
        assert signing.is_valid(storage.read(record.derivative), format="jpeg", store=store)
    assert len(run.latest) == 60
    assert main(["verify", str(output)]) == 0
