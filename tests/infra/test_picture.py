"""The picture of a stack: drawn from what is rendered, nothing overlaps, every text fits its box."""

import os
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

pytest.importorskip("pulumi", reason="the `infra` extra isn't installed: scripts/setup_env.sh --extra infra")

from ncdemo.infra.picture import CHAR, TEXT_PX, TITLE_PX, Box, draw, layout
from ncdemo.infra.render import render
from ncdemo.spec.stack_file import Stack, load_stack, stack_of

ROOT = Path(__file__).resolve().parents[2]
IMAGES = ROOT / "docs" / "images"
STACKS = ("aks-dev", "aks-full", "vm-dev", "vm-full")
EXISTING = {
    "target": "kubernetes",
    "images": {"repository": "registry.example/ncdemo"},
    "jobs": [{"name": "tune", "config": "workloads/configs/training/lora.yaml"}],
}


def stack(name: str, *overrides: str) -> Stack:
    return load_stack(ROOT / "stacks" / f"Pulumi.{name}.yaml", overrides)


def texts(svg: str) -> list[str]:
    return [element.text or "" for element in ET.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]


@pytest.mark.parametrize("name", ["aks-full", "vm-full"])
def test_the_pictures_of_the_docs_are_what_is_rendered(name: str) -> None:
    """Renew with: NCDEMO_RENEW=1 pytest tests/infra"""
    svg, path = draw(render(stack(name))), IMAGES / f"{name}.svg"
    if os.environ.get("NCDEMO_RENEW"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(svg, encoding="utf-8")
    assert svg == path.read_text(encoding="utf-8")


def overlap(a: Box, b: Box) -> bool:
    return a.x < b.x + b.width and b.x < a.x + a.width and a.y < b.y + b.height and b.y < a.y + a.height


def check(box: Box) -> int:
    """Assert that a box holds its texts and children, and that its children keep apart; return how many boxes it is."""
    assert len(box.title) * TITLE_PX * CHAR <= box.width, box.title
    assert all(len(line) * TEXT_PX * CHAR <= box.width for line in box.wrapped), box.wrapped
    for child in box.children:
        assert child.x >= box.x
        assert child.y >= box.y
        assert child.x + child.width <= box.x + box.width
        assert child.y + child.height <= box.y + box.height, (box.title, child.title)
    pairs = [(a, b) for n, a in enumerate(box.children) for b in box.children[n + 1 :]]
    assert not [(a.title, b.title) for a, b in pairs if overlap(a, b)]
    return 1 + sum(check(child) for child in box.children)


@pytest.mark.parametrize("name", STACKS)
def test_nothing_overlaps_and_every_text_fits(name: str) -> None:
    scene = layout(render(stack(name)))
    frame, left, *right = scene.boxes
    assert sum(map(check, [left, *right])) >= 8
    assert not [(a.title, b.title) for n, a in enumerate([left, *right]) for b in [left, *right][n + 1 :] if overlap(a, b)]
    assert all(one.y + one.height < frame.y + frame.height for one in (left, *right))
    # An arrow runs in the free space between the two columns, and its words with it.
    for start, end, y, label, _ in scene.arrows:
        assert left.x + left.width < start < end < min(one.x for one in right)
        assert len(label) * TEXT_PX * CHAR < end - start
        assert any(one.y < y < one.y + one.height for one in right)


def test_the_picture_follows_the_stack() -> None:
    before = texts(draw(render(stack("aks-dev"))))
    assert "Monitoring" not in before
    assert "0..2 x NC40ads_H100_v5" in before
    assert "spot, 1 x H100 NVL a node" in before
    changed = stack("aks-dev", "pools.0.name=other", "pools.0.spot=false", "monitoring={in_cluster: true}", "pools.0.max_count=9")
    after = texts(draw(render(changed)))
    assert {"other", "Monitoring", "0..9 x NC40ads_H100_v5", "on demand, 1 x H100 NVL a node"} <= set(after)
    assert "h100" not in after


def test_jobs_are_shown_by_name_without_their_hash() -> None:
    found = render(stack("aks-dev"))
    svg = draw(found)
    assert not [run_id for run_id in found.outputs["jobs"].values() if run_id in svg]
    assert {"tune", "bench"} <= set(texts(svg))


def test_a_cluster_that_exists_is_drawn_without_azure() -> None:
    svg = draw(render(stack_of("dev", {**EXISTING, "kubernetes": {"context": "a<b&c"}}, {})))
    found = texts(svg)
    assert "Kubernetes cluster that exists: a<b&c" in found
    assert not [text for text in found if "Resource group" in text or "Registry" in text]


def test_the_picture_needs_nothing_from_outside() -> None:
    svg = draw(render(stack("vm-full")))
    assert "http" not in svg.replace("http://www.w3.org/2000/svg", "")
    assert "<script" not in svg
