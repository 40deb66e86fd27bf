"""What YAML 1.1 takes a word without quotes for, and which of its readings surprise people.

    scalar("yes")  # True
    scalar("1:30")  # ValueError: it would be 90, in base 60

Dates stay the text that they were written as.
"""

import re
from typing import Any

import yaml

NOT_TEXT = {"null": "null", "bool": "true or false", "int": "a number", "float": "a number"}
YAML_1_1 = yaml.SafeLoader("")


def kind(plain: str) -> str:
    """Return str, int, float, bool, null, timestamp, merge or value."""
    tag: str = YAML_1_1.resolve(yaml.ScalarNode, plain, (True, False))  # type: ignore[no-untyped-call]
    return tag.rsplit(":", 1)[-1]


def scalar(plain: str) -> Any:
    """Return the value; raise ValueError, with what to write, for a number that YAML reads otherwise than people do."""
    match kind(plain):
        case "null":
            return None
        case "bool":
            return YAML_1_1.bool_values[plain.lower()]
        case "int" | "float" if ":" in plain:
            raise ValueError("YAML reads digits with colons in base 60; write a plain number, or quote it if it is text")
        case "int" if re.match(r"[-+]?0[0-7_]", plain):
            raise ValueError("YAML reads digits after a leading 0 in base 8; drop the 0, or quote it if it is text")
        case "int":
            return _int(plain)
        case "float":
            return YAML_1_1.construct_yaml_float(yaml.ScalarNode("tag:yaml.org,2002:float", plain))
        case _:
            return plain


def _int(plain: str) -> int:
    try:
        number = YAML_1_1.construct_yaml_int(yaml.ScalarNode("tag:yaml.org,2002:int", plain))
    except ValueError:  # 0x_, or more digits than Python converts
        number = 2**63
    if not -(2**63) <= number < 2**63:
        raise ValueError("must be a whole number of at most 64 bits; write a smaller one, or quote it if it is text")
    return number
