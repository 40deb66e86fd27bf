"""Numbers as people read them: ms, GiB, percent, thousands. None is said in words, never shown as a number."""

import math
import re

NOT_MEASURED = "not measured"
UNBOUND = "n/a"


def number(value: float | None, digits: int = 4) -> str:
    """Print with at least `digits` significant digits; whole numbers in full."""
    if value is None or not math.isfinite(value):
        return NOT_MEASURED
    if isinstance(value, int) or value == 0:
        return f"{value:,.0f}"
    size = math.floor(math.log10(abs(value)))
    if size < -4:
        mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
        return f"{float(mantissa):g}e{int(exponent)}"
    text = f"{value:,.{max(0, digits - 1 - size)}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def ms(seconds: float | None) -> str:
    return NOT_MEASURED if seconds is None else f"{number(seconds * 1e3, 3)} ms"


def percent(share: float | None) -> str:
    """Print a share of 0 to 1; only all is 100.0 %, and only none 0.0 %, down to one in a million."""
    if share is None:
        return NOT_MEASURED
    digits = next((d for d in range(1, 4) if not 0 < share < 1 or 0 < round(share * 100, d) < 100), 4)
    return f"{share * 100:.{digits}f} %"


def size(value: float | None) -> str:
    """Print bytes in the binary unit that fits."""
    if value is None:
        return NOT_MEASURED
    scale, unit = byte_unit(value)
    return f"{number(value / scale, 3)} {unit}"


def byte_unit(largest: float) -> tuple[int, str]:
    """Return the divisor and name of the binary unit for values up to `largest`."""
    for power, unit in ((3, "GiB"), (2, "MiB"), (1, "KiB")):
        if largest >= 1024**power:
            return 1024**power, unit
    return 1, "B"


def link_unit(largest: float) -> tuple[int, str]:
    """The same in powers of ten, in which links are sold: a Gen5 x16 slot has 63 GB/s each way."""
    for power, unit in ((3, "GB"), (2, "MB"), (1, "kB")):
        if largest >= 1000**power:
            return 1000**power, unit
    return 1, "B"


def duration(seconds: float | None) -> str:
    if seconds is None:
        return NOT_MEASURED
    if seconds < 120:
        return f"{number(seconds, 3)} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def tick(value: float, _position: int | None = None) -> str:
    """Print an axis tick in few characters: 2e-5, 0.25, 12, 1.5k, 3M."""
    if abs(value) < 1e-12:
        return "0"
    for scale, unit in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= scale:
            step = 1e3 if unit == "k" else scale
            return f"{value / step:g}{unit}"
    if abs(value) < 1e-3:
        mantissa, exponent = f"{value:.1e}".split("e")
        return f"{float(mantissa):g}e{int(exponent)}"
    return f"{value:.5g}"


def printable(text: str) -> str:
    """Replace control characters and lone surrogates, which neither UTF-8 nor a plot can hold."""
    return "".join(c if c.isprintable() else "�" for c in text)


def said(load: str) -> str:
    """Return a Cell.load in a sentence."""
    return f"concurrency {load}" if load.isdigit() else load


def short(load: str) -> str:
    """Return a load in a word: a closed loop's concurrency, or its rate; a trace's scale."""
    if load.isdigit():
        return load
    found = re.match(r"(?:concurrency (\d+)|\w+ ([\d.e+-]+) req/s|(trace x [\d.]+))", load)
    if not found:
        return load
    concurrency, rate, trace = found.groups()
    return concurrency or trace or f"{rate}/s"
