import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.objectives.schedules import ramp


@pytest.mark.parametrize(
    ("schedule", "progress", "expected"),
    [
        ("constant", 0.19, 0.0),
        ("constant", 0.20, 1.0),
        ("linear", 0.2, 0.0),
        ("linear", 0.6, 0.5),
        ("linear", 1.0, 1.0),
        ("cosine", 0.6, 0.5),
        ("cosine", 0.4, (1 - 2**-0.5) / 2),
        ("step", 0.39, 0.0),
        ("step", 0.45, 0.25),
        ("step", 1.0, 1.0),
    ],
)
def test_ramp_by_hand(schedule, progress, expected):
    assert ramp(schedule, progress, start=0.2, steps=4) == pytest.approx(expected, abs=1e-12)


@given(
    st.sampled_from(["constant", "linear", "cosine", "step"]),
    st.floats(0, 1),
    st.floats(0, 1),
    st.floats(0, 0.99),
    st.integers(1, 9),
)
def test_ramp_never_falls_and_stays_in_0_1(schedule, p, q, start, steps):
    low, high = (ramp(schedule, x, start=start, steps=steps) for x in sorted((p, q)))
    assert 0 <= low <= high <= 1
