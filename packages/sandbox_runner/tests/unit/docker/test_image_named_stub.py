"""When an image that has a name is fetched, by a Docker CLI that says what an engine would not say on demand."""

import io
import json
from typing import Any

import pytest

from sandbox_runner.docker.command import DockerCli
from sandbox_runner.docker.image import Image, resolve_image
from sandbox_runner.errors import ImageBuildFailed
from sandbox_runner.spec import SandboxSpec


def there(machine: str, variant: str = "") -> dict[str, Any]:
    """What `inspect` answers for an image for that machine."""
    found = {"Id": "sha256:1", "Config": {"Labels": None}, "Os": "linux", "Architecture": machine, "Variant": variant}
    return {"stdout": json.dumps([found])}


NONE = {"code": 1, "stdout": "[]\n", "stderr": "Error: No such image\n"}
HERE, ARM, ARM_V7 = there("amd64"), there("arm64"), there("arm64", "v7")


def resolve(spec: SandboxSpec) -> tuple[Image, bytes]:
    log = io.BytesIO()
    return resolve_image(spec, DockerCli(), log, lambda _: None), log.getvalue()


@pytest.mark.parametrize(
    ("policy", "platform", "inspected", "pulls"),
    [
        ("missing", None, [HERE], 0),
        ("missing", None, [NONE, HERE], 1),
        ("missing", "linux/amd64", [ARM, HERE], 1),
        ("missing", "linux/x86_64", [HERE], 0),
        ("missing", "linux/arm64/v8", [ARM], 0),
        ("missing", "linux/arm64/v8", [ARM_V7, ARM], 1),
        ("always", None, [HERE], 1),
        ("never", None, [HERE], 0),
    ],
)
def test_a_named_image_is_pulled_as_the_policy_says(stub_docker, policy, platform, inspected, pulls) -> None:
    """`missing` fetches what is not here, or not for this platform; `always` asks each time; `never` does not."""
    stub = stub_docker({"inspect": inspected, "pull": {"stdout": "Pulling\n"}})
    spec = SandboxSpec(image_ref="some/image:1", image_pull_policy=policy, platform=platform)
    image, log = resolve(spec)
    assert image == Image("some/image:1", None, "sha256:1")
    option = [f"--platform={platform}"] if platform else []
    asked = [call.argv for call in stub.calls if call.argv[0] == "pull"]
    assert asked == [["pull", *option, "some/image:1"]] * pulls
    assert log == b"Pulling\n" * pulls


@pytest.mark.parametrize(
    ("found", "platform", "wanted"), [(NONE, None, "x:1"), (ARM, "linux/amd64", "x:1 for linux/amd64")]
)
def test_a_named_image_that_may_not_be_fetched_is_an_error(stub_docker, found, platform, wanted) -> None:
    """The text says what is missing, what forbids to fetch it, and what to do."""
    stub = stub_docker({"inspect": found})
    with pytest.raises(ImageBuildFailed) as caught:
        resolve(SandboxSpec(image_ref="x:1", image_pull_policy="never", platform=platform))
    assert str(caught.value) == (
        f'the engine has no image {wanted}, and image_pull_policy="never" forbids fetching it:'
        " run docker pull yourself, or set another image_pull_policy"
    )
    assert [call.argv[0] for call in stub.calls] == ["inspect"]


@pytest.mark.parametrize("policy", ["missing", "always"])
def test_a_pull_that_fails_is_an_error_with_the_engines_words(stub_docker, policy) -> None:
    """It is not glossed over with an older image that is here: `always` means it."""
    inspected = HERE if policy == "always" else NONE
    stub_docker({"inspect": inspected, "pull": {"code": 1, "stderr": "Error: no such host\n"}})
    with pytest.raises(ImageBuildFailed) as caught:
        resolve(SandboxSpec(image_ref="x:1", image_pull_policy=policy))
    assert str(caught.value) == (
        "x:1 could not be pulled (exit code 1): check its name, `docker login`, and the engine's way to the registry;"
        " its output is in docker_build.log, the end of it is:\nError: no such host"
    )
