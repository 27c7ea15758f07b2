"""Preparing text: documents to token shards, offline and resumable. It imports no torch, so that workers start fast."""

from data_pipeline.prepare.executor import Executor as Executor
from data_pipeline.prepare.executor import LocalExecutor as LocalExecutor
from data_pipeline.prepare.pipeline import prepare as prepare
from data_pipeline.prepare.progress import Progress as Progress
from data_pipeline.prepare.status import Status as Status
from data_pipeline.prepare.status import status as status
