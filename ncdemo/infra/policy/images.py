"""What runs tomorrow is what ran today: images and charts carry a version.

python -m pytest tests/infra/test_policy.py -k pinned
"""

import re
from collections.abc import Iterator

from ncdemo.infra.policy.base import UNKNOWN, Inputs, Rule, read, rule
from ncdemo.infra.policy.manifests import container_rule

EXACT_VERSION = re.compile(r"v?\d+\.\d+\.\d+([-+][\w.+-]+)?")
CHART_ON_DISK = re.compile(r"[./].*|.*\.tgz")


def is_pinned(image: str) -> bool:
    """Tell whether an image has a digest, or a tag with a digit in it that isn't latest."""
    repository, _, digest = image.partition("@")
    _, _, tag = repository.rpartition("/")[2].partition(":")
    return digest.startswith("sha256:") or (tag != "latest" and any(character.isdigit() for character in tag))


@container_rule("image-is-pinned", "An image is named by digest or by a version tag: no :latest, and never without a tag.")
def image_is_pinned(_pod: Inputs, container: Inputs) -> Iterator[str]:
    image = container.get("image")
    if isinstance(image, str) and not is_pinned(image):
        yield f"image {image} names no version"


@rule(
    "chart-is-pinned",
    "A Helm chart from a repository is one exact version: set version (1.2.3, no range).",
    "kubernetes:helm.sh/v3:Release",
    "kubernetes:helm.sh/v4:Chart",
)
def chart_is_pinned(inputs: Inputs) -> Iterator[str]:
    chart, version = read(inputs, "chart"), read(inputs, "version")
    on_disk = isinstance(chart, str) and CHART_ON_DISK.fullmatch(chart)
    if not on_disk and version is not UNKNOWN and not EXACT_VERSION.fullmatch(str(version)):
        yield f"version of chart {chart} is {version or 'missing'}"


RULES: tuple[Rule, ...] = (image_is_pinned, chart_is_pinned)
