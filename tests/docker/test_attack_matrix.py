"""The attacks of `isorun attack-matrix` on executors in containers."""

from pathlib import Path

import pytest

from tests.docs.test_attack_matrix import agrees, attacked


@pytest.mark.alone
@pytest.mark.timeout(900)
def test_every_wall_of_a_container_holds(executor_image: str, tmp_path: Path) -> None:
    """The controls are the embedded backend's, without the wall."""
    agrees(attacked(tmp_path, "--backend", "docker", PY_CODE_EXEC_IMAGE=executor_image))
