"""The loss of each tiny recipe's twenty steps, as it was when the recipe was recorded.

    .venv/bin/python -m tests.golden.curves tiny_gpt      records (or records anew) one; with no name, all

Record anew only where the mathematics was meant to change, and say so in the commit.
"""

import json
import sys
from pathlib import Path

from pretrain import config
from pretrain.experiment import Experiment
from pretrain.group import Group

FOLDER = Path(__file__).parent
RECIPES = sorted(path.stem for path in (config.RECIPES / "tiny").glob("*.yaml"))


def curve(recipe: str, *overrides: str) -> dict[str, list[float]]:
    """The loss by player and turn, on one worker of the local engine."""
    trainer = config.load(Experiment, config.recipe_path(recipe), overrides).trainer(Group())
    losses: dict[str, list[float]] = {player: [] for player in trainer.engine.model.players}
    for report in trainer.steps():
        for turn in report.turns:
            losses[turn.player].append(turn.loss)
    return losses


def recorded(recipe: str) -> dict[str, list[float]]:
    values: dict[str, list[float]] = json.loads((FOLDER / f"{recipe}.json").read_text())
    return values


def main(names: list[str]) -> None:
    for name in names or RECIPES:
        (FOLDER / f"{name}.json").write_text(json.dumps(curve(name), indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
