"""What a message needs so that its reader knows what to do: a command, a verb that tells, or what is allowed instead.

says_what_to_do("runs/x: no such folder; give a run directory")    # True
says_what_to_do("runs/x: no such folder")                          # False
"""

import re

VERBS = (
    "accept|add|ask|begin|bring|cancel|check|choose|convert|copy|correct|create|drop|edit|enable|export|find|finish|free|give|go on|"
    "increase|install|keep|leave|list|log in|look at|lower|make|measure|move|name|open|pull|put|quote|raise|read|rename|remove|replace|"
    "restore|run|save|say|see|send|set|shorten|show|sort|split|spread|start|take|train|try|undo|unset|update|upgrade|use|wait|write"
)
# At the beginning of a clause, so that "it is given", "no use" and the like don't count.
TELLS = re.compile(rf"(?:^|[;:.,(|?!]\s+|\s(?:or|and|then|first|so)\s|`)(?:{VERBS})\b", re.IGNORECASE)
COMMAND = re.compile(r"(?:`|: |\b(?:by|with|is) )(?:scripts/|make |ncdemo |az |kubectl |pulumi |uv |docker |pgrep |kill |sudo )")
ALLOWED = re.compile(r"\b(?:must (?:be|have|look|hold|ascend|not)|e\.g\. |one of|there are: |known: |commands: |allowed)", re.IGNORECASE)


def says_what_to_do(message: str) -> bool:
    """Say whether any clause tells what to do, or what is allowed."""
    return any(form.search(message) for form in (TELLS, COMMAND, ALLOWED))
