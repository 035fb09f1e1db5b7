"""Which text picks which scenario, and that the table says what SPEC D says."""

import pytest

from isorun.tools.bundles import bundle_module, example_bundle

TABLE = bundle_module(example_bundle(), "exec")


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("0", 0),
        ("0.", 0),
        (" 7 \n", 7),
        ("scenario 3", 3),
        ("Scenario 12.", 12),
        ("12:", 12),
        ("3. Raise", 3),
        ("19", 19),
        ("007", 7),
    ],
)
def test_a_number_picks_its_scenario(text, number) -> None:
    """`0`, `0.` and `scenario 3` name one, with any space around them."""
    assert TABLE.pick(text).number == number


@pytest.mark.parametrize(
    "text",
    [
        "",
        "hello",
        "20",
        "99",
        "-1",
        "3.5",
        "3 4",
        "run 3",
        "scenario",
        "scenario three",
        "0x1",
        "٣",
        "3\nrm",
        "1" * 5000,
    ],
)
def test_anything_else_picks_nothing(text) -> None:
    """Unknown text is not scenario 0."""
    assert TABLE.pick(text) is None


def test_every_followup_picks_its_own_scenario() -> None:
    """What is offered to be clicked works when it is sent."""
    assert list(TABLE.SCENARIOS) == list(range(20))
    for number, scenario in TABLE.SCENARIOS.items():
        assert TABLE.pick(scenario.followup) is scenario
        assert scenario.number == number


#: SPEC D: status, seconds, succeeded, missing, created, notes, comm.error. None: if and only if a MemoryError ended it.
SPEC = {
    0: ("ok", 10, 1, 0, 0, 1, False),
    1: ("timed_out", 3, 0, 1, 0, 0, False),
    2: ("timed_out", 3, 0, 1, 0, 0, False),
    3: ("failed", 10, 0, 1, 0, 0, True),
    4: ("contract_failed", 10, 1, 1, 0, 0, False),
    5: ("out_of_memory", 30, 0, 1, 0, 0, None),
    6: ("failed", 10, 0, 1, 0, 0, True),
    7: ("timed_out", 3, 0, 1, 0, 0, False),
    8: ("timed_out", 3, 0, 1, 0, 0, False),
    9: ("failed", 10, 0, 1, 0, 0, True),
    10: ("ok", 10, 1, 0, 0, 0, True),
    11: ("failed", 10, 1, 0, 0, 0, True),
    12: ("ok", 10, 0, 0, 2, 0, False),
}


@pytest.mark.parametrize("number", SPEC)
def test_the_table_is_that_of_the_specification(number) -> None:
    """No expectation was bent to fit a run."""
    scenario = TABLE.SCENARIOS[number]
    e = scenario.expected
    row = (e.status, scenario.timeout_s, e.succeeded, e.missing, e.created, e.notes, e.comm_error)
    assert row == SPEC[number]
    assert scenario.mode == ("side effects" if number == 12 else "contract")
