from hypothesis import given
from hypothesis import strategies as st

from pipeline.records.record import Outcome, Reason, Record
from pipeline.records.sample import Sample
from pipeline.records.summary import Summary, describe


def record(number: int, outcome=Outcome.COLORIZED, confidence=0.5, run="now") -> Record:
    reason = Reason.NONE if outcome == Outcome.COLORIZED else Reason.TRUNCATED
    return Record(
        source=f"/{number}", key=str(number), outcome=outcome, reason=reason, confidence=confidence, run=run
    )


outcomes = st.sampled_from(list(Outcome))
records = st.lists(
    st.builds(record, st.integers(0, 99), outcomes, st.floats(0, 1), st.sampled_from(["now", "before"]))
)


@given(records, st.integers(0, 50))
def test_counts_add_up_however_the_records_are_shared_out(some, cut):
    whole, left, right = Summary(), Summary(), Summary()
    for r in some:
        whole.add(r, "now")
    for r in some[:cut]:
        left.add(r, "now")
    for r in some[cut:]:
        right.add(r, "now")
    assert Summary().merge([right, left]).to_dict() == whole.to_dict()
    assert whole.records == len(some)
    assert whole.kept == sum(r.run == "before" for r in some)


@given(records, st.integers(1, 30))
def test_the_sample_is_bounded_and_takes_the_least_sure(some, size):
    sample = Sample(size)
    for r in some:
        sample.add(r)
    chosen = sample.records()
    assert len(chosen) == min(size, len(some))
    sure = [r.confidence for r in chosen if r.outcome == Outcome.COLORIZED]
    everyone = sorted(r.confidence for r in some if r.outcome == Outcome.COLORIZED)
    assert sure == everyone[: len(sure)]


def test_failures_do_not_crowd_out_the_pictures():
    sample = Sample(40)
    for number in range(1000):
        sample.add(record(number, Outcome.FAILED if number % 2 else Outcome.COLORIZED))
    counts = [r.outcome for r in sample.records()]
    assert counts.count(Outcome.COLORIZED) == 30
    assert counts.count(Outcome.FAILED) == 10


def test_the_words_name_counts_and_reasons():
    summary = Summary().add(record(1)).add(record(2, Outcome.FAILED))
    words = describe(summary.to_dict())
    assert "2 scans: 1 colorized, 0 skipped, 1 failed" in words
    assert "1  truncated" in words
