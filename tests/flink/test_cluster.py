"""The cluster on this machine, and the job server's jar."""

import signal
import subprocess
import sys
import zipfile

import psutil
import pytest

from infra.flink import cluster, jars
from tests.pipeline.conftest import ROOT, WAIT


def test_a_merged_jar_runs_with_the_jars_beside_it(tmp_path):
    """Java reads the class path in its manifest, and the services of all jars."""
    first, second = tmp_path / "first.jar", tmp_path / "second.jar"
    for jar, provider in ((first, "a.One"), (second, "b.Two")):
        with zipfile.ZipFile(jar, "w") as made:
            made.writestr("META-INF/services/a.Service", provider)  # without a line end, as some jars have it
            made.writestr("META-INF/INDEX.LIST", "JarIndex-Version: 1.0")
            made.writestr("META-INF/KEY.SF", "signed")
            made.writestr("module-info.class", "")
            made.writestr("same.txt", provider)
    beside = [f"flink-{number:02}.jar" for number in range(20)]
    jars.merge([first, second], tmp_path / "merged.jar", beside)
    with zipfile.ZipFile(tmp_path / "merged.jar") as merged:
        assert set(merged.namelist()) == {"META-INF/MANIFEST.MF", "META-INF/services/a.Service", "same.txt"}
        assert merged.read("META-INF/services/a.Service").split() == [b"a.One", b"b.Two"]
        assert merged.read("same.txt") == b"a.One"
        manifest = merged.read("META-INF/MANIFEST.MF").decode()
    assert max(map(len, manifest.splitlines())) <= 72
    assert f"Class-Path: {' '.join(beside)}\n" in manifest.replace("\n ", "")


def test_the_job_server_starts():
    server = jars.get() / jars.SERVER
    run = subprocess.run(["java", "-jar", server, "--help"], capture_output=True, text=True)
    assert "--flink-master" in run.stdout + run.stderr


@pytest.mark.parametrize("missing", ["java", "mvn"])
def test_a_missing_program_is_named_in_one_line(tmp_path, monkeypatch, missing):
    monkeypatch.setattr(jars.shutil, "which", lambda name: None if name == missing else name)
    with pytest.raises(jars.FlinkError, match=f"^{missing} is missing: install it"):
        jars.get(tmp_path / "home")
    assert not (tmp_path / "home").exists()


def test_a_port_in_use_is_named_in_one_line(capsys):
    with cluster.socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        busy.listen()
        port = busy.getsockname()[1]
        assert cluster.main(["run", f"--port={port}"]) == 2
    err = capsys.readouterr().err
    assert err == f"flink: port {port} is in use: is another cluster running? (--port sets another)\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_no_process_stays_when_the_program_that_started_them_is_stopped(number):
    program = "from infra.flink.cluster import Cluster\nwith Cluster(1): print('runs', flush=True); input()"
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout.readline() == "runs\n"
    started = psutil.Process(process.pid).children()
    assert len(started) == 2
    process.send_signal(number)
    process.communicate(timeout=WAIT)
    psutil.wait_procs(started, timeout=WAIT)
    assert not any(one.is_running() for one in started)
