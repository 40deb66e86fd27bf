"""Keep secrets out of what a run records: an address loses its password, a command line its tokens.

redact("postgresql://me:secret@host/db")  # postgresql://***@host/db
"""

import re

SECRET_NAME = re.compile(
    r"token(?!s|iz)|secret|passw|credential|api.?key|account.?key|access.?key|connection.?string|(^|[._-])sas([._-]|$)", re.IGNORECASE
)
"""Names that tell of a secret: hub.token and --api-key do, max_new_tokens and tokenizer don't."""


def redact(text: str) -> str:
    """Return `text` without what stands between :// and @ in an address, after sig= and such in its query, or after Bearer, and hub tokens."""
    text = re.sub(r"\b(?:hf_\w{16,}|(?<=Bearer )[\w.~+/-]{16,}=*)", "***", text)
    text = re.sub(r"://[^/@\s\"]+@", "://***@", text)
    return re.sub(r"([?&;](?:sig|code|token|key|password|AccountKey|SharedAccessKey)=)[^&;\s\"]+", r"\1***", text, flags=re.IGNORECASE)


def redact_arguments(arguments: list[str]) -> list[str]:
    """Return a command line without the values of options and KEY=VALUE pairs whose name tells of a secret."""
    shown, hide = [], False
    for argument in arguments:
        name, equals, _ = argument.partition("=")
        secret = bool(SECRET_NAME.search(name)) and (bool(equals) or name.startswith("-"))
        shown.append("***" if hide else f"{name}=***" if secret and equals else redact(argument))
        hide = secret and not equals
    return shown
