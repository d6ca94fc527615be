"""Any changed file becomes a scan or a refusal: a minute of what `fuzzing` does for as long as one likes."""

import pytest

from tests.pipeline.decoding import fuzzing


def test_every_file_of_the_fuzzer_is_read_as_it_is():
    outcomes = {name: fuzzing.read(data, "png") for name, data in fuzzing.FILES.items()}
    several = {"apng": "animation", "tiff pages": "several pages", "bigtiff pages": "several pages"}
    assert {
        name: outcome for name, outcome in outcomes.items() if not outcome.startswith("a scan")
    } == several


@pytest.mark.timeout(900)
def test_changed_files_become_a_scan_or_a_refusal_for_a_minute():
    assert fuzzing.run(60) > 100
