"""The benchmark tasks by name, a file each."""

from evals.tasks.cbt import CBT_CN, CBT_NE
from evals.tasks.enwik8 import BYTE_TASKS
from evals.tasks.lambada import LAMBADA, LAMBADA_STANDARD, LAMBADA_STANDARD_DEVELOPMENT
from evals.tasks.multiple_choice import MULTIPLE_CHOICE_TASKS
from evals.tasks.one_billion_word import ONE_BILLION_WORD
from evals.tasks.ptb import PTB_TASKS
from evals.tasks.task import Task
from evals.tasks.wikitext import WIKITEXT_TASKS
from evals.tasks.wsc273 import WSC273

ALL: tuple[Task, ...] = (
    LAMBADA,
    LAMBADA_STANDARD,
    LAMBADA_STANDARD_DEVELOPMENT,
    CBT_CN,
    CBT_NE,
    WSC273,
    *PTB_TASKS,
    *WIKITEXT_TASKS,
    *BYTE_TASKS,
    ONE_BILLION_WORD,
    *MULTIPLE_CHOICE_TASKS,
)

TASKS: dict[str, Task] = {task.name: task for task in ALL}
