"""The base of every configuration class, and the errors a user can cause.

It lives in the lowest package that has configuration, so that every package above can use it; `pretrain.config` adds
reading YAML, dotted overrides and messages with the nearest name.
"""

from pydantic import BaseModel, ConfigDict


class Config(BaseModel):
    """A frozen value with no unknown keys; every configuration class stands beside the class it builds."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, protected_namespaces=())


class SegueError(Exception):
    """What a user can cause and mend: a message naming the field, the value, the rule and the remedy."""

    exit_code = 1


class BadInput(SegueError, ValueError):
    """Exit code 2: something given is wrong (a recipe, a path, a corpus, an argument)."""

    exit_code = 2


class Refused(SegueError):
    """Exit code 3: what was asked would harm a run (it is live, exists already, or its experiment has changed)."""

    exit_code = 3


class Corrupt(SegueError):
    """Exit code 4: stored data or a checkpoint is not what was written."""

    exit_code = 4


class Preempted(SegueError):
    """Exit code 5: asked to stop; the run saved a checkpoint at a step boundary first."""

    exit_code = 5


class GaveUp(SegueError):
    """Exit code 6: too many failures without progress."""

    exit_code = 6
