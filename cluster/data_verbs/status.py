"""`prepare --status`: how far each directory is."""

import json
from dataclasses import asdict
from pathlib import Path

from cluster.prepare import to_prepare
from cluster.terminal import say
from data_pipeline.data import DataConfig
from data_pipeline.media.media_data import MediaData
from data_pipeline.media.media_status import media_status
from data_pipeline.prepare.status import status


def show_status(data: DataConfig, *, as_json: bool) -> None:
    """Of all that is made of these data before they are trained on."""
    wanted = to_prepare(data)
    found = [
        (media_status if isinstance(one, MediaData) else status)(Path(one.directory), one.identity()) for one in wanted
    ]
    if as_json:
        print(json.dumps([asdict(one) for one in found], indent=2))
    elif found:
        print("\n".join(map(str, found)))
    else:
        say_nothing(data)


def say_nothing(data: DataConfig) -> None:
    """Of data that need no preparing."""
    say(f"data.kind {data.kind} is made while training: there is nothing to prepare")
