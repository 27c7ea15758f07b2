"""Going on from a checkpoint: only from one whose bytes, shapes and score are those that were saved."""

from contextlib import closing
from dataclasses import fields
from pathlib import Path

from data_pipeline.batch import Batch
from data_pipeline.config import BadInput, Corrupt, Refused
from data_pipeline.mixture import MixtureConfig
from pretrain import checkpoint, config
from pretrain.checkpoint.export import whole
from pretrain.checkpoint.layout import Place, place_of, places, pointer_of
from pretrain.experiment import Experiment
from pretrain.group import Group
from pretrain.run_directory import changes, record_changes, record_event, record_version_changes, refuse_changes
from pretrain.saving import state_pieces
from pretrain.trainer import PROBE, Trainer

PROBE_TOLERANCE = {"float32": 1e-4, "bfloat16": 3e-2}
"""Relative: the same weights on other hardware or another ZeRO stage round differently; wrong weights do worse."""


def restore_newest(
    trainer: Trainer,
    experiment: Experiment,
    directory: Path,
    *,
    allowed: tuple[str, ...] = (),
    before_draw: int | None = None,
) -> Place | None:
    """Restore the newest checkpoint that is good, if there is any; returns which. Collective.

    `before_draw`: only one that has not yet seen this draw. Raises Refused where the experiment or the data are others
    now, Corrupt where there are checkpoints but none is good.
    """
    group = trainer.engine.group

    def tell(line: str) -> None:
        if group.leads:
            record_event(directory, "fallback", message=line)

    def is_early_enough(manifest: checkpoint.Manifest) -> bool:
        return before_draw is None or manifest.counters["draws"] <= before_draw

    problems: list[str] = []
    for reader in checkpoint.good_checkpoints(directory, log=tell, group=group, is_wanted=is_early_enough):
        with closing(reader):
            problem = _restore(trainer, experiment, reader, allowed)
        if problem is None:
            if group.leads:
                record_version_changes(directory, reader.manifest.versions)
                saved, now = (e.model_dump(mode="json") for e in (_saved(reader), experiment))
                record_changes(directory, reader.step, saved, now)
            return place_of(reader.path.name)
        problems.append(problem)
        tell(f"{problem}; going back to the checkpoint before")
    if before_draw is None:
        _refuse_to_begin_anew(directory, group, problems)
    return None


def _refuse_to_begin_anew(directory: Path, group: Group, problems: list[str]) -> None:
    """Raise Corrupt, on every worker as the leader sees it, where there are checkpoints or a pointer to one."""
    there, pointed = group.tell((bool(places(directory)), pointer_of(directory).exists()) if group.leads else None)
    if there:
        raise Corrupt(
            f"{directory}: none of its checkpoints is good; events.jsonl says what is wrong with each (on hardware "
            "that rounds otherwise, --allow probe takes one whose hashes are right)"
            + "".join(f"\n{p}" for p in problems)
        )
    if pointed:
        raise Corrupt(
            f"{pointer_of(directory)} names a checkpoint, but there is none in its directory; bring them back (is the "
            "storage there?), or remove the file to begin again at step 0"
        )


def _restore(
    trainer: Trainer, experiment: Experiment, reader: checkpoint.CheckpointReader, allowed: tuple[str, ...]
) -> str | None:
    """Restore this one; what is wrong with it, or None. Raises Refused where it belongs to another experiment."""
    manifest = reader.manifest
    saved = _saved(reader)
    refuse_changes(saved.identity(), experiment.identity(), allowed, "experiment")
    changed = changes(saved.identity(), experiment.identity())  # all allowed; some show in the data as well
    if isinstance(experiment.data, MixtureConfig) and isinstance(saved.data, MixtureConfig):
        experiment.data.check_past(saved.data, manifest.counters["draws"], experiment.model.reads)
    data_allowed = (*allowed, *(key.rpartition(".")[2] for key in changed))
    refuse_changes(manifest.data_fingerprint, trainer.stream.fingerprint(), data_allowed, "data")
    probe = trainer.stream.micro_batch(0, 0)
    try:
        checkpoint.check_state(reader, state_pieces(trainer, probe), trainer.engine.group)
    except Refused as error:
        if changed:
            raise BadInput(f"what was allowed to change ({', '.join(changed)}) does not fit: {error}") from error
        return str(error)
    damage = None
    try:
        trainer.restore(reader, manifest.counters, skipped=manifest.skipped, losses=manifest.losses)
        stored = stored_probe(reader, like=probe)
    except Corrupt as error:  # storage that gives other bytes than a moment ago, on this worker alone
        damage = error
    damages = trainer.engine.group.agree(damage)
    if damages:
        return f"{reader.path.name} is damaged: {'; '.join(damages)}"
    return None if "probe" in allowed else _probe_problem(trainer, experiment, reader, stored)


def _saved(reader: checkpoint.CheckpointReader) -> Experiment:
    """The experiment that the checkpoint is of."""
    return config.parse(Experiment, dict(reader.manifest.experiment), source=str(reader.path))


def _probe_problem(
    trainer: Trainer, experiment: Experiment, reader: checkpoint.CheckpointReader, stored: Batch
) -> str | None:
    """Score the stored micro-batch again."""
    expected = reader.manifest.probe["nats"]
    assert isinstance(expected, dict)
    found = trainer.probe(stored)
    for player, nats in expected.items():
        assert isinstance(nats, float)
        if abs(found[player] - nats) > PROBE_TOLERANCE[experiment.engine.precision] * max(abs(nats), 1.0):
            scored = f"{found[player]:.6g} nats, it was saved at {nats:.6g}"
            return f"{reader.path.name} scores its probe ({player}) at {scored}"
    return None


def stored_probe(reader: checkpoint.CheckpointReader, *, like: Batch) -> Batch:
    """The micro-batch whose score was saved."""
    return type(like)(**{field.name: whole(reader, f"{PROBE}/{field.name}") for field in fields(like)})
