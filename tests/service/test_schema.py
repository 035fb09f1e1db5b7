"""The interface as it describes itself: every operation is tried with what its description allows, and with more."""

import os
import subprocess
import sys

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.any_user]

#: Of each operation. CI tries ten; `ISORUN_TEST_EXAMPLES=50` by hand takes five times as long.
_EXAMPLES = int(os.environ.get("ISORUN_TEST_EXAMPLES", "10"))
#: What a description cannot say, a program, a promise or an id that is no file, is refused with 422. In a form each
#: value is bytes, so a number in a file's place arrives as a file.
_CONFIG = """
[[operations]]
include-path-regex = "/v1/runs$|/messages$"
[operations.checks.positive_data_acceptance]
expected-statuses = ["2xx", "401", "403", "404", "409", "422", "429", "5xx"]

[[operations]]
include-path-regex = "/v1/files$"
[operations.checks.negative_data_rejection]
enabled = false
"""


@pytest.mark.timeout(24 * _EXAMPLES)
def test_no_operation_answers_what_it_does_not_describe(served, tmp_path) -> None:
    """No 500, no undescribed status, body or header, in all phases of schemathesis."""
    config = tmp_path / "schemathesis.toml"
    config.write_text(_CONFIG)
    argv = [sys.executable, "-m", "schemathesis.cli", "--config-file", str(config), "run", f"{served.url}/openapi.json"]
    argv += [
        "--max-examples",
        str(_EXAMPLES),
        "--seed",
        "1",
        "--request-timeout",
        "20",
        "-H",
        f"Authorization: Bearer {served.key}",
    ]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=23 * _EXAMPLES, cwd=tmp_path)
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
