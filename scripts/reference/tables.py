"""The pages that are one table each: environment variables, metrics, VM sizes."""

from pathlib import Path

from ncdemo.spec.sizes import ALIASES, PRICES_SEEN, SIZES
from scripts.reference.markdown import page, table
from workloads.metrics.exporters.names import NAMES

ROOT = Path(__file__).resolve().parents[2]


def environment_page() -> str:
    """Return the variables of .env.example, each with the comment above it."""
    intro = "Variables that ncdemo reads, as in [.env.example](../../.env.example). Empty is unset; none is needed for `make demo`."
    body = [
        f"## {title}\n\n{table(('variable', 'meaning'), [(f'`{name}`', about) for name, about in rows])}"
        for title, rows in variables((ROOT / ".env.example").read_text()).items()
    ]
    return page("Environment variables", intro, *body)


def variables(text: str) -> dict[str, list[tuple[str, str]]]:
    """Return section -> (name, comment) from a file with `## Section` lines and comments above variables."""
    found: dict[str, list[tuple[str, str]]] = {}
    comment: list[str] = []
    for line in text.splitlines():
        if line.startswith("## "):
            found[line[3:]], comment = [], []
        elif line.startswith("# "):
            comment.append(line[2:])
        elif "=" in line:
            list(found.values())[-1].append((line.partition("=")[0], " ".join(comment)))
            comment = []
    return found


def metrics_page() -> str:
    """Return every metric that a run exports for Prometheus."""
    intro = "What a run exports for Prometheus. When, and with which labels of its group: [telemetry](../telemetry.md)."
    rows = [(f"`{name}`", about.kind, ", ".join(about.labels) or "-", about.help) for name, about in NAMES.items()]
    return page("Metrics", intro, table(("name", "type", "labels", "meaning"), rows))


def sizes_page() -> str:
    """Return the catalogue of VM sizes with prices and sources."""
    intro = (
        "The VM sizes that a stack may use. Prices: pay as you go, Linux, USD per hour, without tax; of Azure's price list as of "
        f"{PRICES_SEEN}, unless the source says otherwise. A region that isn't named has no known price. `ncdemo cost STACK --live` asks anew."
    )
    rows = [
        (
            f"`{size.name}`",
            str(size.vcpus),
            str(size.memory_gib),
            f"{size.gpus} x {size.gpu_model}, {size.gpu_memory_gb} GB" if size.gpus else "-",
            ", ".join(f"{region} {price:g}" for region, price in size.usd_per_h.items()) or "unknown",
            "{:g} to {:g}".format(*size.spot_usd_per_h) if size.spot_usd_per_h else "unknown",
        )
        for size in SIZES.values()
    ]
    sources = "\n".join(f"- `{size.name}`: quota family `{size.quota_family}`. {size.source}." for size in SIZES.values())
    aliases = "\n".join(f"`{alias}` is taken for `{name}`; Azure has no such size." for alias, name in ALIASES.items())
    head = ("size", "vCPUs", "GiB", "GPUs", "price", "spot, seen")
    return page("VM sizes", intro, table(head, rows), aliases, f"## Quota and sources\n\n{sources}")
