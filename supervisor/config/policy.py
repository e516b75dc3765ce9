"""The `policy` section: a WebAssembly module that has a say in admission and placement (ORCH-3048)."""

from supervisor.config.fields import Digest, FilePath, Section


class PolicyConfig(Section):
    """The module's file, and the digest that it must have where one is given."""

    module: FilePath
    digest: Digest | None = None
