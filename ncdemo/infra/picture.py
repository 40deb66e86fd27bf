"""The architecture of a stack as one SVG, drawn from its rendered resources: what isn't rendered isn't in the picture.

Path("docs/images/aks-full.svg").write_text(draw(render(load_stack("stacks/Pulumi.aks-full.yaml"))))

Frames hold frames and boxes in columns of equal width; what lies outside the network stands to the right, one arrow each.
"""

import textwrap
from dataclasses import dataclass, field
from html import escape

from ncdemo.infra.picture_parts import inside, outside
from ncdemo.infra.render import Rendered

WIDTH, LEFT, GAP, PAD, LINE, HEAD = 1200, 760, 140, 12, 17, 26
TITLE_PX, TEXT_PX, CHAR = 14, 12, 0.56
"""Sizes of letters, and a letter's mean width as a part of its size (a wide sans-serif)."""
STYLE = """
text { font: 12px system-ui, 'Segoe UI', Helvetica, Arial, sans-serif; fill: #33383f }
.title { font-size: 14px; font-weight: 600; fill: #14181d }
.muted { fill: #5c6670 }
.page { fill: #ffffff }
.azure { fill: #f4f7fa; stroke: #9db2c6 } .network { fill: #eaf2fb; stroke: #5b93cc } .cluster { fill: #ffffff; stroke: #5b93cc }
.group { fill: #f7f9fb; stroke: #c5d0db } .pool { fill: #fff6e8; stroke: #d9962f } .job { fill: #eaf7ee; stroke: #3f9a5b }
.service { fill: #f3effb; stroke: #8468c2 } .store { fill: #ffffff; stroke: #6b7a8a }
.arrow { stroke: #33383f; stroke-width: 1.5; fill: none; marker-end: url(#head) }
""".strip()


@dataclass
class Box:
    """A frame or a box: title, lines of text, then children in columns."""

    title: str
    lines: list[str] = field(default_factory=list)
    children: list["Box"] = field(default_factory=list)
    columns: int = 1
    css: str = "store"
    x: float = 0
    y: float = 0
    width: float = 0
    height: float = 0
    wrapped: list[str] = field(default_factory=list)


def draw(rendered: Rendered) -> str:
    """Return the SVG's text, the same for the same resources."""
    scene = layout(rendered)
    body = "\n".join(
        [part for box in scene.boxes for part in shapes(box)] + [part for arrow in scene.arrows for part in arrow_shapes(*arrow)]
    )
    title = f"ncdemo stack {rendered.stack.name}"
    kinds = sum(not r.is_component for r in rendered.resources)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" viewBox="0 0 {WIDTH} {scene.height:.0f}" width="{WIDTH}" height="{scene.height:.0f}">\n'
        f"<title>{escape(title)}</title>\n<desc>{kinds} resources; target {rendered.stack.spec.target}</desc>\n<style>{STYLE}</style>\n"
        '<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" orient="auto-start-reverse">'
        '<path d="M0 0 L8 4 L0 8 z" fill="#33383f"/></marker></defs>\n'
        f'<rect class="page" width="{WIDTH}" height="{scene.height:.0f}"/>\n{body}\n</svg>\n'
    )


@dataclass
class Scene:
    boxes: list[Box]
    arrows: list[tuple[float, float, float, str, str]]
    """x from, x to, y, label above the line, direction: to, from or both."""
    height: float


def layout(rendered: Rendered) -> Scene:
    """Return every frame and box with its place, and the arrows between the two columns."""
    left, right = inside(rendered, Box), outside(rendered, Box)
    group = next((r.inputs["resourceGroupName"] for r in rendered.of("ResourceGroup")), None)
    top = PAD + (HEAD if group else 0) + (PAD if group else 0)
    x = PAD * 2 if group else PAD
    place(left, x, top, LEFT if right else WIDTH - 2 * x)
    y = top
    for box, _, _ in right:
        place(box, x + LEFT + GAP, y, WIDTH - 2 * x - LEFT - GAP)
        y += box.height + PAD
    bottom = max(left.y + left.height, y - PAD if right else 0)
    left.height = bottom - left.y
    arrows = [
        (left.x + left.width + 4, box.x - 4, box.y + min(box.height, HEAD + PAD) / 2 + 8, label, way) for box, label, way in right if label
    ]
    boxes = [left, *(box for box, _, _ in right)]
    if group:
        frame = Box(f"Resource group {group}, {rendered.stack.spec.location}", css="azure", x=PAD, y=PAD, width=WIDTH - 2 * PAD)
        frame.height = bottom + PAD - frame.y
        bottom = frame.y + frame.height
        boxes.insert(0, frame)
    return Scene(boxes, arrows, bottom + PAD)


def place(box: Box, x: float, y: float, width: float) -> None:
    """Give a box its place and its children theirs; its height is what they need."""
    box.x, box.y, box.width = x, y, width
    letters = int((width - 2 * PAD) / (TEXT_PX * CHAR))
    box.wrapped = [part for line in box.lines for part in textwrap.wrap(line, letters, subsequent_indent="  ")]
    at = y + HEAD + LINE * len(box.wrapped) + (PAD / 2 if box.wrapped else 0)
    columns = max(1, min(box.columns, len(box.children)))
    each = (width - PAD * (columns + 1)) / columns
    for start in range(0, len(box.children), columns):
        row = box.children[start : start + columns]
        for column, child in enumerate(row):
            place(child, x + PAD + column * (each + PAD), at + PAD / 2, each)
        tallest = max(child.height for child in row)
        for child in row:
            child.height = tallest
        at += tallest + PAD
    box.height = at - y + PAD / 2


def shapes(box: Box) -> list[str]:
    """Return a box's rectangle and texts, and those of its children."""
    found = [f'<rect class="{box.css}" x="{box.x:.1f}" y="{box.y:.1f}" width="{box.width:.1f}" height="{box.height:.1f}" rx="6"/>']
    letters = int((box.width - 2 * PAD) / (TITLE_PX * 0.6))
    title = box.title if len(box.title) <= letters else box.title[: letters - 1] + "…"
    found.append(f'<text class="title" x="{box.x + PAD:.1f}" y="{box.y + 19:.1f}">{escape(title)}</text>')
    for number, line in enumerate(box.wrapped):
        y = box.y + HEAD + LINE * number + 13
        found.append(f'<text x="{box.x + PAD:.1f}" y="{y:.1f}" xml:space="preserve">{escape(line)}</text>')
    return [*found, *(part for child in box.children for part in shapes(child))]


def arrow_shapes(left: float, right: float, y: float, label: str, way: str) -> list[str]:
    """Return one horizontal arrow with its label above."""
    ends = (left, right) if way != "from" else (right, left)
    both = ' marker-start="url(#head)"' if way == "both" else ""
    words = f'<text class="muted" x="{(left + right) / 2:.1f}" y="{y - 7:.1f}" text-anchor="middle">{escape(label)}</text>'
    return [f'<path class="arrow" d="M{ends[0]:.1f} {y:.1f} H{ends[1]:.1f}"{both}/>', words]
