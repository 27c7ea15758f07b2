"""What a run may be called: its directory, and jobs and files made for it, bear the name."""

import re

RUN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
