"""Which files beside its model a llama.cpp command line names."""

import pytest

from adapters.llamacpp_beside import files_beside
from adapters.llamacpp_memory import read_memory_flags


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["-m", "m.gguf", "-c", "512"], ()),
        (["-md", "d.gguf"], ("d.gguf",)),
        (["--spec-draft-model=d.gguf", "--mmproj", "p.gguf"], ("d.gguf", "p.gguf")),
        (["--model_draft", "d.gguf"], ("d.gguf",)),
        (["--lora", "a.gguf,b.gguf"], ("a.gguf", "b.gguf")),
        (["--lora-scaled", "c.gguf:0.5,/d/e.gguf:2"], ("c.gguf", "/d/e.gguf")),
        (["--control-vector-scaled", "v.gguf:0.5", "--control-vector", "w.gguf"], ("v.gguf", "w.gguf")),
        (["--grammar-file", "g", "-jf", "s.json", "-lcs", "c"], ("g", "s.json", "c")),
        (["--lora", "a.gguf", "--lora", "a.gguf"], ("a.gguf",)),
        (["-md"], ()),
    ],
)  # fmt: skip
def test_the_files_of_a_command_line(argv: list[str], expected: tuple[str, ...]) -> None:
    assert files_beside(argv, {}) == expected


def test_variables_name_files_too() -> None:
    env = {"LLAMA_ARG_SPEC_DRAFT_MODEL": "d.gguf", "LLAMA_ARG_MMPROJ": "p.gguf", "LLAMA_ARG_MODEL": "m.gguf"}

    assert files_beside([], env) == ("d.gguf", "p.gguf")


@pytest.mark.orch("ORCH-3003")
def test_what_a_variable_says_of_memory_counts_unless_a_flag_says_otherwise() -> None:
    env = {"LLAMA_ARG_CACHE_TYPE_K": "f32", "LLAMA_ARG_UBATCH": "128", "LLAMA_ARG_LOAD_MODE": "none"}

    flags = read_memory_flags(["-ub", "64", "--lora-scaled", "a.gguf:2"], env)

    assert (flags.key_type, flags.ubatch, flags.has_mmap, flags.loras) == ((1, 4), 64, False, ("a.gguf",))
