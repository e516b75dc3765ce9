"""The `models` section: which file stands behind a model reference, and which digest it must have (ORCH-3037).

What the catalogue of the store adds comes in through `Config.with_catalogue`. To have a reference looked up in the
catalogue as it is now, call `known_models.with_models_now(config, models_dir).artifact(model_ref)`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from supervisor.config.fields import Digest, FilePath, Finding, Section

DIGEST_PREFIX = "sha256:"


class ModelFile(Section):
    """A local model file. `digest` may be left out only where the key itself is the digest."""

    path: FilePath
    digest: Digest | None = None


class CataloguedModel(ModelFile):
    """A model of the store: it lies below `root`, and no link on the way to it is followed."""

    root: Path


@dataclass(frozen=True, slots=True)
class ModelArtifact:
    """A model that can be loaded: its file or folder, and the `sha256:<hex>` to verify before each load.

    With `root` it lies in the store, below that folder, and no symbolic link is followed on the way.
    """

    path: Path
    digest: str
    root: Path | None = None


def artifact_of(models: Mapping[str, ModelFile], model_ref: str) -> ModelArtifact | None:
    """The artifact of a reference: by its own key, else any entry with that digest."""
    for ref in (model_ref, *models):
        entry = models.get(ref)
        digest = _digest_of(ref, entry) if entry is not None else None
        if entry is not None and digest is not None and model_ref in {ref, digest}:
            return ModelArtifact(entry.path, digest, entry.root if isinstance(entry, CataloguedModel) else None)
    return None


def find_model_problems(models: Mapping[str, ModelFile]) -> list[Finding]:
    """Entries whose digest is missing, or contradicts their key."""
    findings = []
    for ref, entry in models.items():
        if _digest_of(ref, entry) is None:
            findings.append(Finding(("models", ref, "digest"), "is required: the file is verified before each load"))
        elif ref.startswith(DIGEST_PREFIX) and entry.digest not in {None, ref}:
            findings.append(Finding(("models", ref, "digest"), "contradicts the digest that is the key"))
    return findings


def _digest_of(ref: str, entry: ModelFile) -> str | None:
    return entry.digest or (ref if ref.startswith(DIGEST_PREFIX) else None)
