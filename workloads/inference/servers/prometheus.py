"""Prometheus' text format to plain numbers: what an engine counted about itself."""


def parse(text: str, prefix: str = "") -> dict[str, float]:
    """Return each sample whose name begins with the prefix, keyed by name and labels as written."""
    values = {}
    for line in text.splitlines():
        if not line.startswith(prefix) or line.startswith("#") or not line.strip():
            continue
        # Labels may hold blanks and braces in quotes; the value is the first word after them.
        end = line.rfind("}") + 1
        name, rest = (line[:end], line[end:]) if end else (line.split(maxsplit=1)[0], line.split(maxsplit=1)[1])
        values[name] = float(rest.split()[0])
    return values
