"""Which models a config may use: those that it declares, and those that the catalogue of its store holds.

A reference is looked up in this order: 1. a key of `models`; 2. a digest in `models`; 3. a name in the catalogue; 4. a
digest in the catalogue; 5. `repo:org/name`, where one model of the catalogue alone came from there. So the file always
wins over what was pulled. Reads the catalogue, a small file; opens no model.
"""

from collections.abc import Mapping
from pathlib import Path

from supervisor.config.catalogue import Catalogue, CatalogueError, read_catalogue
from supervisor.config.load import Loaded, parse
from supervisor.config.model import Config
from supervisor.config.models import CataloguedModel, ModelFile
from supervisor.config.paths import defaults_from_environ
from supervisor.config.places import find_models_dir
from supervisor.config.problems import WHOLE_FILE, ConfigError, Problem
from supervisor.config.source import read_text


def load_known(path: Path, environ: Mapping[str, str], euid: int) -> Loaded:
    """As `load`, with what its store holds. Raises ConfigError, also for a catalogue that cannot be used."""
    source = path.absolute()
    return parse_known(read_text(source), source, environ, euid)


def parse_known(text: str, source: Path, environ: Mapping[str, str], euid: int) -> Loaded:
    """The same of a text; `source` names it in messages. Raises as `load_known`."""
    state_dir = defaults_from_environ(environ, euid).state_dir

    def known(config: Config) -> Mapping[str, ModelFile]:
        models_dir = find_models_dir(config, state_dir)
        try:
            return catalogued_models(read_catalogue(models_dir), models_dir)
        except CatalogueError as error:
            where = WHOLE_FILE
            raise ConfigError([Problem(str(source), where.line, where.column, "", str(error))]) from error

    return parse(text, source, known)


def with_models_now(config: Config, models_dir: Path) -> Config:
    """The config with the models that are in the store at this moment. Raises CatalogueError."""
    return config.with_catalogue(catalogued_models(read_catalogue(models_dir), models_dir))


def catalogued_models(catalogue: Catalogue, models_dir: Path) -> Mapping[str, ModelFile]:
    """The entries of a catalogue by their names, and by repository where that is clear."""
    models: dict[str, ModelFile] = {}
    by_repo: dict[str, dict[str, ModelFile]] = {}
    for entry in catalogue.models:
        path = models_dir / entry.place
        model = CataloguedModel(path=path, digest=entry.digest, root=models_dir)
        models[entry.name] = model
        if entry.origin.kind == "hub" and entry.origin.repo is not None:
            by_repo.setdefault(f"repo:{entry.origin.repo}", {})[entry.digest] = model
    for ref, found in by_repo.items():
        if len(found) == 1:
            models[ref] = next(iter(found.values()))
    return models
