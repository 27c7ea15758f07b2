"""Ray's token authentication: one secret, which every node and client of a cluster sends with each request.

It lies in a file that its owner alone may read; no argument, log or record of ours has it. Ray (2.60) looks for it in
RAY_AUTH_TOKEN, in the file that RAY_AUTH_TOKEN_PATH names, and in ~/.ray/auth_token:
https://docs.ray.io/en/latest/ray-security/token-auth.html
"""

import os
import tempfile
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path

from data_pipeline.config import BadInput, Refused

MODE = "RAY_AUTH_MODE"
TOKEN = "RAY_AUTH_TOKEN"
TOKEN_PATH = "RAY_AUTH_TOKEN_PATH"
LEAST_VERSION = (2, 54)
OTHERS = 0o077
"""The permissions of everybody but a file's owner."""


def why_off() -> str | None:
    """What keeps token authentication off, with the remedy; None where nothing does."""
    installed = version("ray")
    if tuple(int(part) for part in installed.split(".")[:2]) < LEAST_VERSION:
        return f"Ray {installed} is too old for it; install ray>={'.'.join(map(str, LEAST_VERSION))}"
    mode = os.environ.get(MODE, "token")
    return None if mode.lower() == "token" else f"{MODE}={mode} turns it off; unset {MODE}"


def token_file() -> Path:
    """Where the token lies, or will lie, unless RAY_AUTH_TOKEN has it."""
    named = os.environ.get(TOKEN_PATH)
    return Path(named) if named else Path.home() / ".ray" / "auth_token"


def token_place() -> str:
    """The same for people."""
    return f"that in {TOKEN}" if os.environ.get(TOKEN) else f"that in {token_file()}"


def is_asked_for() -> bool:
    """Whether this process was told to send the token to every Ray that it talks to."""
    return os.environ.get(MODE, "").lower() == "token"


def token() -> str | None:
    """This user's, as Ray looks for it; None where there is none."""
    given = os.environ.get(TOKEN)
    if given:
        return given
    try:
        return token_file().read_text(encoding="utf-8").strip() or None
    except OSError:
        return None


def turn_on(*, make: bool) -> list[str]:
    """Let this process and what it starts send the token, and ask for it; see `provide`."""
    os.environ[MODE] = "token"  # Ray has no other switch, and reads it as it is imported
    return provide(make=make)


def provide(*, make: bool) -> list[str]:
    """See to it that there is a token that nobody else can read; returns lines on what changed.

    `make`: a missing one is made, as for a new cluster; else it is BadInput.
    """
    if os.environ.get(TOKEN):
        return []
    path = token_file()
    try:
        if path.exists():
            return _keep_private(path)
        if not make:
            raise BadInput(
                f"there is no token in {path}, and the cluster asks for its own; copy this file from the machine of "
                f"its head, readable by you alone (mode 600), or name another one in {TOKEN_PATH}"
            )
        _write(path)
    except OSError as error:
        raise BadInput(f"the token in {path} cannot be read or written: {error.strerror}") from error
    return [f"made a token in {path}, a copy of which whoever joins or submits from elsewhere needs"]


def _keep_private(path: Path) -> list[str]:
    """Take a token file from everybody but its owner: Ray itself makes it readable by all (2.60)."""
    if not path.read_text(encoding="utf-8").strip():
        raise BadInput(f"the token in {path} is empty; remove the file, and `segue cluster start` makes a new one")
    mode = path.stat().st_mode
    if not mode & OTHERS:
        return []
    try:
        path.chmod(mode & ~OTHERS & 0o777)
    except OSError as error:
        problem = f"others may read the token in {path}, and its mode stays: {error.strerror}"
        raise Refused(f"{problem}; change it to 600") from error
    return [f"others could read the token in {path}, and no longer can; where they may have, make another"]


def _write(path: Path) -> None:
    """A new token; where another process makes one at this moment, that one stays."""
    from ray._private.authentication.authentication_token_generator import generate_new_authentication_token

    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor, written = tempfile.mkstemp(dir=path.parent, prefix=".auth_token-")  # of mode 600
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(generate_new_authentication_token())
        with suppress(FileExistsError):
            os.link(written, path)
    finally:
        os.unlink(written)
