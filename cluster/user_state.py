"""Where this user's programs keep what is neither settings nor data: jobs and nodes of this machine."""

import os
from pathlib import Path


def user_state() -> Path:
    """By the XDG base directory specification; nothing is made."""
    named = os.environ.get("XDG_STATE_HOME")
    return (Path(named) if named else Path.home() / ".local" / "state") / "segue"
