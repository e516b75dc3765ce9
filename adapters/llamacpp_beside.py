"""Which files beside its model a llama.cpp server is told to load: what decides its answers as the model does.

Pure; reads flags and variables, opens nothing. A shell inside a command is not looked into. The lookup cache that the
server itself writes is left out, and so are templates, which no request of ours uses.
"""

from collections.abc import Mapping, Sequence

_ONE = frozenset(
    {"-md", "--model-draft", "--spec-draft-model", "-mm", "--mmproj", "-lcs", "--lookup-cache-static"}
    | {"--grammar-file", "-jf", "--json-schema-file"}
)
_LISTS = frozenset({"--lora", "--control-vector"})
_SCALED = frozenset({"--lora-scaled", "--control-vector-scaled"})
_VARIABLES = ("LLAMA_ARG_SPEC_DRAFT_MODEL", "LLAMA_ARG_MMPROJ")


def files_beside(argv: Sequence[str], env: Mapping[str, str]) -> tuple[str, ...]:
    """Their names as they are written, in order, each once."""
    found: dict[str, None] = {}
    for at, argument in enumerate(argv):
        if not argument.startswith("-"):
            continue
        flag, equals, value = argument.partition("=")
        flag = flag.replace("_", "-") if flag.startswith("--") else flag
        following = value if equals else argv[at + 1] if at + 1 < len(argv) else ""
        found |= dict.fromkeys(_names(flag, following))
    found |= dict.fromkeys(env[name] for name in _VARIABLES if env.get(name))
    return tuple(found)


def _names(flag: str, value: str) -> list[str]:
    if flag in _ONE:
        return [value] if value else []
    if flag in _LISTS:
        return [name for name in value.split(",") if name]
    if flag in _SCALED:
        return [name for entry in value.split(",") if (name := entry.rpartition(":")[0] or entry)]
    return []
