"""The benchmark tasks by name, a file each."""

from evals.tasks.lambada import LAMBADA
from evals.tasks.task import Task

TASKS: dict[str, Task] = {task.name: task for task in (LAMBADA,)}
