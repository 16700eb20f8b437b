"""The generation engines behind one interface, `generation.Engine`; `open_engine` picks one by the profile.

    with closing(engines.open_engine(stage, model)) as engine:
        groups = engine.generate(requests, seed)

Each opener imports its engine late: a server needs no torch, and vLLM is an extra.
"""

from __future__ import annotations

from pathlib import Path

from rdlib.engines.asking import Settings
from rdlib.engines.generation import Engine
from rdlib.settings import Model


def open_engine(stage, model: Model) -> Engine:
    """The engine that samples from `model` for a stage, with the profile's limits; close it after use."""
    return OPENERS[model.engine](stage, model)


def own(stage, model: Model) -> Model:
    """A model that the study has made, or is about to train, with the engine that samples from such models."""
    return model.model_copy(update={"engine": stage.profile.generation.engine})


def _open_transformers(stage, model: Model) -> Engine:
    from rdlib.engines import models
    from rdlib.engines.transformers_engine import TransformersEngine

    source, generation = models.resolve(model, stage.root), stage.profile.generation
    return TransformersEngine(
        models.load_causal_lm(source, weights=generation.weights).to(models.device()),
        models.load_tokenizer(source),
        generation.batch_size,
        stage.dataset_settings.max_tokens,
        generation.top_p,
        generation.stop,
    )


def _open_vllm(stage, model: Model) -> Engine:
    from rdlib.engines import models
    from rdlib.engines.vllm_engine import VllmEngine

    settings, limit = stage.profile.generation, stage.dataset_settings.max_tokens
    adapter = model.adapter and models.resolve(Model(model=model.adapter), stage.root).model
    found = models.resolve(model, stage.root).model_copy(update={"adapter": adapter})
    return VllmEngine(found, limit, settings.top_p, settings.stop, settings.vllm)


def _open_server(stage, model: Model) -> Engine:
    from rdlib.engines.stored_server import StoredServer

    progress = progress_folder(stage) / f"{stage.label.replace('/', '-')}.json"
    return StoredServer.open(model, server_settings(stage, model), store_path(stage), stage.seed, progress)


def server_settings(stage, model: Model) -> Settings:
    """What a stage's requests to a server have in common."""
    generation = stage.profile.generation
    limit = model.max_tokens or stage.dataset_settings.max_tokens
    return Settings(model.model, limit, generation.top_p, tuple(generation.stop))


def store_path(stage) -> Path:
    """The file that keeps what a study's teachers behind servers answered; outside of its runs, which one deletes."""
    profile = stage.profile
    if profile.responses is not None:
        return stage.root / profile.responses
    return (stage.root / profile.runs).parent / "responses" / f"{profile.name}.sqlite"


def progress_folder(stage) -> Path:
    """Where stages that ask a server say how far they are."""
    return stage.root / stage.profile.runs / stage.profile.name / ".progress"


def _open_replay(stage, model: Model) -> Engine:
    from rdlib.engines.replay import ReplayEngine
    from rdlib.engines.replay_store import StoreReplay

    path = stage.root / model.model
    if path.suffix == ".sqlite":
        return StoreReplay(path, model, stage.seed)
    return ReplayEngine(path, model.drops_thinking)


OPENERS = {
    "transformers": _open_transformers,
    "vllm": _open_vllm,
    "openai": _open_server,
    "replay": _open_replay,
}
