"""The forecast of a run, from `archive-colorize plan`."""

from datetime import datetime

import pytest

from pipeline.batch import capacity, stage_times
from pipeline.batch.capacity import Worker
from pipeline.batch.stage_times import Measured
from pipeline.colorize import main
from tests.pipeline.conftest import jpeg, picture

STAGES = {"read": 0.01, "decode": 0.02, "network": 0.03, "encode": 0.05, "write": 0.01}
MEASURED = Measured(STAGES, start=10.0, megapixels=3.0, derivative_bytes=1e6, words="a test")


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    folder = tmp_path_factory.mktemp("archive")
    pictures = [jpeg(picture(seed, 1200, 900)) for seed in range(4)]
    for number in range(64):
        (folder / f"{number}.jpg").write_bytes(pictures[number % 4])
    return folder


def test_cores_share_the_work_of_a_worker_without_a_gpu():
    found = capacity.forecast(MEASURED, 3600, Worker("", cores=6, hourly=1.0), workers=2)
    assert found.rate == pytest.approx(50)
    assert found.seconds == pytest.approx(10 + 36)
    assert found.cost == pytest.approx(2 * 46 / 3600)
    assert (found.bottleneck, found.share) == ("encode", pytest.approx(5 / 12))


@pytest.mark.parametrize(("cores", "rate", "bottleneck"), [(1, 1 / 0.09, "encode"), (9, 1 / 0.03, "network")])
def test_a_gpu_works_beside_the_cores(cores, rate, bottleneck):
    found = capacity.forecast(MEASURED, 100, Worker("", cores, has_gpu=True))
    assert found.rate == pytest.approx(rate)
    assert found.bottleneck == bottleneck
    assert found.cost is None


def test_a_deadline_sets_the_number_of_workers():
    found = capacity.forecast(MEASURED, 1_000_000, Worker("", cores=12), deadline=3610)
    assert found.workers == 3  # 100 pictures a second each, for an hour
    assert found.seconds <= 3610


def test_larger_scans_take_longer_except_in_the_network():
    large = stage_times.scaled(MEASURED, 30)
    assert large.stages == pytest.approx(
        {"read": 0.1, "decode": 0.2, "network": 0.03, "encode": 0.5, "write": 0.1}
    )
    assert large.derivative_bytes == pytest.approx(1e7)


def test_a_forecast_agrees_with_a_run(archive, colorize, tmp_path):
    """The times of the run itself are used, so that other work on the machine affects both sides."""
    run = colorize(archive, tmp_path / "out", "--direct_num_workers=1")
    measured = stage_times.from_summary(str(run.output / "summary.json"))
    finished = sorted(datetime.fromisoformat(record.finished) for record in run.records.values())
    rate = (len(finished) - 1) / (finished[-1] - finished[0]).total_seconds()
    assert capacity.forecast(measured, 64, Worker("", cores=1)).rate == pytest.approx(rate, rel=0.2)
    assert sum(measured.stages.values()) * 64 + measured.start == pytest.approx(run.summary["seconds"])
    assert measured.megapixels == pytest.approx(1.08)


def test_a_sample_is_measured_and_leaves_nothing(archive, model, tmp_path, capsys):
    output = tmp_path / "out"
    output.mkdir()
    places = [f"--input={archive}", f"--output={output}", f"--model={model}"]
    code = main(
        ["plan", *places, "--sample=8", "--count=1000000", "--deadline=24", "--gpu=none", "--format=png"]
    )
    out = capsys.readouterr().out
    assert code == 0
    for row in ("decode", "encode", "bottleneck", "1,000,000 scans", "n1-standard-8, 8 cores", "USD"):
        assert row in out
    assert list(output.iterdir()) == []


def test_synthetic_scans_stand_for_an_unknown_collection(model, capsys):
    arguments = ["--count=1000", "--megapixels=0.5", "--sample=4", f"--model={model}", "--gpu=h100"]
    assert main(["plan", *arguments]) == 0
    out = capsys.readouterr().out
    assert "0.5 megapixels" in out
    assert "network              unknown" in out
    assert "give --network_ms" in out
    assert "cost            unknown" in out  # the table has no price for it


def test_the_shipped_prices_have_every_gpu():
    from pipeline.batch.gpus import GPUS

    for kind in ("none", *GPUS):
        worker, words = capacity.read_worker(kind, None)
        if kind != "none":
            assert GPUS[kind].machine_type in worker.words
            assert GPUS[kind].codecs == worker.cores
        assert worker.has_gpu == (kind != "none")
        assert words.startswith("USD, prices of 20")
    assert capacity.read_worker("l4", None)[0].hourly == pytest.approx(12 * 0.056 + 48 * 0.003557 + 0.672)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "give --input, or --count"),
        (["--count=5"], "--count needs --megapixels or --measured"),
        (["--count=0", "--megapixels=3"], "--count must be more than 0"),
        (["--input=/nowhere"], "no such folder"),
        (["--input=/nowhere", "--megapixels=3"], "--input contradicts"),
        (["--measured=/nowhere/summary.json", "--count=5"], "cannot read /nowhere/summary.json"),
        (["--measured={text}", "--count=5"], "is not the summary.json of a run"),
        (["--count=5", "--megapixels=3", "--prices={text}", "--gpu=t4"], "is not a table of prices"),
        (["--count=5", "--megapixels=3", "--prices={text}"], "--prices needs --gpu"),
        (["--count=5", "--megapixels=3", "--network_ms=3"], "--network_ms needs --gpu"),
    ],
)
def test_a_wrong_question_gets_one_line(arguments, words, tmp_path, capsys):
    text = tmp_path / "text"
    text.write_text("no table")
    assert main(["plan", *(argument.format(text=text) for argument in arguments)]) == 2
    err = capsys.readouterr().err
    assert words in err
    assert err.count("\n") == 1


def test_a_sample_that_cannot_be_coloured_is_said(archive, tmp_path, capsys):
    assert main(["plan", f"--input={archive}", "--sample=2", "--max_pixels=1000"]) == 2
    assert "no scan of the sample was colourised: 2 too_large" in capsys.readouterr().err
