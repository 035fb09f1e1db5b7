"""The hash of an image, from its folder alone."""

from pathlib import Path

import pytest

from sandbox_runner import InvalidSpec, SandboxSpec
from sandbox_runner.docker.image import image_hash
from sandbox_runner.image_hash import compute_image_hash


@pytest.fixture
def context(tmp_path: Path) -> Path:
    """A folder to build from."""
    (tmp_path / "Dockerfile").write_text("FROM scratch\n")
    (tmp_path / "Other").write_text("FROM scratch\n")
    (tmp_path / "a.txt").write_text("one")
    return tmp_path


@pytest.mark.parametrize("dockerfile", [None, "Dockerfile", Path("Dockerfile"), "whole"])
def test_it_is_the_hash_of_the_image_that_is_built(context: Path, dockerfile) -> None:
    """However the Dockerfile is named."""
    named = context / "Dockerfile" if dockerfile == "whole" else dockerfile
    found = compute_image_hash(context_dir=context, dockerfile=named)
    assert found == image_hash(SandboxSpec(image_context_path=context))
    assert len(found) == 64


def test_it_changes_with_a_file_a_mode_and_the_dockerfile(context: Path) -> None:
    """Each for itself."""
    found = [compute_image_hash(str(context)), compute_image_hash(context, "Other")]
    (context / "a.txt").write_text("two")
    found.append(compute_image_hash(context))
    (context / "a.txt").chmod(0o755)
    found.append(compute_image_hash(context))
    assert len(set(found)) == 4


@pytest.mark.parametrize(("folder", "named", "field"), [("none", None, "image_context_path"), (".", "x", "dockerfile")])
def test_what_is_not_there_is_named(context: Path, folder, named, field) -> None:
    """As for a sandbox."""
    with pytest.raises(InvalidSpec) as refused:
        compute_image_hash(context / folder, named)
    assert refused.value.field == field
