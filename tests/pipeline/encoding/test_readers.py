"""Derivatives as other programs show them: Pillow, OpenCV, libvips, FFmpeg, and Chromium where it is installed."""

import contextlib
import http.server
import io
import os
import queue
import shlex
import shutil
import subprocess
import threading

import av
import cv2
import numpy as np
import pytest
import pyvips
from PIL import Image, ImageCms

from tests.pipeline.imaging.test_scan import profile
from tests.pipeline.imaging.test_tone import PROFILES
from tests.pipeline.metadata.test_embedded import derive, photograph

MASTERS = {
    "grey JPEG": ("L", "JPEG", {}),
    "progressive JPEG": ("L", "JPEG", {"progressive": True}),
    "JPEG with restarts": ("L", "JPEG", {"restart_marker_blocks": 3}),
    "JPEG of odd size": ("L", "JPEG", {}),
    "YCbCr JPEG": ("RGB", "JPEG", {"subsampling": "4:2:0"}),
    "progressive YCbCr JPEG": ("RGB", "JPEG", {"subsampling": "4:4:4", "progressive": True}),
    "JPEG with 16-bit table": ("L", "JPEG", {"qtables": [[16 + 7 * i for i in range(64)]], "quality": -1}),
    "PNG": ("L", "PNG", {}),
}


def master(name):
    mode, format, options = MASTERS[name]
    size = (199, 133) if name == "JPEG of odd size" else (208, 144)
    buffer = io.BytesIO()
    photograph().convert(mode).resize(size).save(
        buffer, format, **({"quality": 92} | options if format == "JPEG" else options)
    )
    return buffer.getvalue()


def pillow(data):
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def opencv(data):
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)[
        ..., ::-1
    ]


def libvips(data):
    return pyvips.Image.new_from_buffer(data, "").numpy()[..., :3]


def ffmpeg(data):
    """The picture by FFmpeg. Its scaler converts luma and chroma, here as accurately as it can."""
    with av.open(io.BytesIO(data)) as container:
        (frame,) = container.decode(video=0)
        return frame.to_ndarray(format="rgb24", interpolation="ACCURATE_RND")


def ffmpeg_luma(data):
    """The luma of a JPEG as FFmpeg decodes it."""
    with av.open(io.BytesIO(data)) as container:
        (frame,) = container.decode(video=0)
        assert frame.format.name.startswith(("yuvj", "gray"))
        plane = frame.planes[0]
        rows = np.frombuffer(plane, np.uint8).reshape(plane.height, plane.line_size)
        return rows[:, : plane.width]


@pytest.mark.parametrize("name", MASTERS)
@pytest.mark.parametrize("format", ["jpeg", "png", "tiff", "webp"])
@pytest.mark.parametrize("reader", [opencv, libvips, ffmpeg])
def test_a_reader_shows_what_pillow_shows(name, format, reader):
    derivative, _ = derive(master(name), format)
    ours, theirs = pillow(derivative).astype(int), reader(derivative).astype(int)
    assert theirs.shape == ours.shape
    assert np.ptp(ours, axis=-1).mean() > 5, "it has colour"
    lossy = format in ("jpeg", "webp")
    assert np.abs(theirs - ours).mean() <= (2 if lossy else 0)


@pytest.mark.parametrize("name", [name for name in MASTERS if "JPEG" in name])
def test_ffmpeg_decodes_the_luma_of_the_master(name):
    source = master(name)
    derivative, _ = derive(source, "jpeg")
    assert np.array_equal(ffmpeg_luma(derivative), ffmpeg_luma(source))


@pytest.fixture(scope="module")
def chromium(tmp_path_factory):
    """A function that gives the pixels of files as Chromium shows them in an sRGB canvas.

    A page of a server on this machine draws each file, and sends its pixels back.
    """
    names = ("chromium", "chromium-browser", "google-chrome")
    program = (
        shlex.split(os.environ.get("CHROMIUM", "")) or [name for name in names if shutil.which(name)][:1]
    )
    if not program:
        pytest.skip("Chromium is missing: apt-get install chromium, or give program and flags in CHROMIUM")
    files, results = [], queue.Queue()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            name = self.path.strip("/")
            known = name.isdigit() and int(name) < len(files)
            self.send_response(200 if known or not name else 404)
            self.end_headers()
            self.wfile.write(files[int(name)] if known else b"" if name else PAGE)

        def do_POST(self):
            width, height = map(int, self.path.strip("/").split("x"))
            pixels = self.rfile.read(int(self.headers["Content-Length"]))
            results.put(np.frombuffer(pixels, np.uint8).reshape(height, width, 4)[..., :3])
            self.send_response(204)
            self.end_headers()

        def log_message(self, *arguments):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    home = tmp_path_factory.mktemp("chromium")
    flags = "--headless --no-sandbox --disable-dev-shm-usage --no-first-run --disable-sync --disable-component-update"
    flags += " --disable-background-networking --remote-debugging-port=0"
    command = [*program, *flags.split(), f"--user-data-dir={home}", f"http://127.0.0.1:{server.server_port}/"]
    process = subprocess.Popen(
        command, env={**os.environ, "HOME": str(home)}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )

    def show(data):
        files.append(data)
        return results.get(timeout=60)

    try:
        yield show
    finally:
        process.kill()
        process.wait()
        with contextlib.suppress(OSError):
            server.shutdown()


PAGE = b"""<!doctype html><script>
const wait = seconds => new Promise(done => setTimeout(done, 1000 * seconds));
(async () => {
  for (let number = 0; ; ) {
    const answer = await fetch(`/${number}`);
    if (!answer.ok) { await wait(0.1); continue; }
    const picture = await createImageBitmap(await answer.blob());
    const canvas = new OffscreenCanvas(picture.width, picture.height);
    const context = canvas.getContext("2d");
    context.drawImage(picture, 0, 0);
    const pixels = context.getImageData(0, 0, picture.width, picture.height).data;
    await fetch(`/${picture.width}x${picture.height}`, {method: "POST", body: pixels});
    number++;
  }
})();
</script>"""


@pytest.mark.parametrize("format", ["jpeg", "png", "webp"])
@pytest.mark.parametrize("name", MASTERS)
def test_chromium_shows_what_pillow_shows(chromium, name, format):
    derivative, _ = derive(master(name), format)
    ours, theirs = pillow(derivative).astype(int), chromium(derivative).astype(int)
    assert theirs.shape == ours.shape
    assert np.abs(theirs - ours).mean() <= (1 if format == "png" else 2)


@pytest.mark.parametrize("name", ["gamma 1.8", "gamma 2.2", "dot gain 20 %"])
def test_chromium_follows_the_tone_curve_of_a_grey_master(chromium, name):
    buffer = io.BytesIO()
    grey_profile = profile(b"GRAY", {"kTRC": PROFILES[name]})
    photograph().convert("L").save(buffer, "JPEG", quality=92, icc_profile=grey_profile)
    derivative, _ = derive(buffer.getvalue(), "jpeg")
    image = Image.open(io.BytesIO(derivative))
    own = ImageCms.ImageCmsProfile(io.BytesIO(image.info["icc_profile"]))
    ours = np.asarray(ImageCms.profileToProfile(image, own, ImageCms.createProfile("sRGB"))).astype(int)
    theirs = chromium(derivative).astype(int)
    assert np.abs(theirs - ours).mean() <= 2
    assert np.abs(theirs - np.asarray(image)).mean() > 2, "the profile counts"
