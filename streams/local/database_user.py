"""Which user runs Postgres: it refuses root, so for root another one must, without opening any folder to that user."""

import os
import pwd
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from schemas.errors import Fatal

# Tried in this order, the least first. A data folder or a checkout below a folder of mode 700 is out of reach for the
# other user; changing modes of folders that are not ours is not an option, one capability for Postgres alone is.
# Containers often have DAC_OVERRIDE but not DAC_READ_SEARCH.
_CAPABILITIES = ("", "+dac_read_search", "+dac_override")
# initdb asks access(2) for its programs, which leaves capabilities out of account for others than root without this.
_HEED_CAPABILITIES = "--securebits=+no_setuid_fixup"


@dataclass(frozen=True)
class DatabaseUser:
    """`prefix` goes before each command of Postgres; `uid` and `gid` own its files. Both as they are when not root."""

    prefix: tuple[str, ...]
    uid: int
    gid: int


def database_user(folder: Path, program: Path) -> DatabaseUser:
    """The user who may enter `folder` (which exists) and run `program`. Raises Fatal when root finds no way.

    For root it is the owner of `folder` where that is somebody else (an earlier run), else nobody.
    """
    if os.geteuid() != 0:
        return DatabaseUser((), os.geteuid(), os.getegid())
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        raise _no_way("setpriv (of util-linux) is missing")
    uid, gid = _owner(folder)
    os.chown(folder, uid, gid)
    for capability in _CAPABILITIES:
        given = (_HEED_CAPABILITIES, f"--inh-caps={capability}", f"--ambient-caps={capability}")
        extra = given if capability else ()
        prefix = (setpriv, f"--reuid={uid}", f"--regid={gid}", "--clear-groups", *extra, "--")
        if _can_run(prefix, folder, program):
            return DatabaseUser(prefix, uid, gid)
    raise _no_way(f"user {uid} can neither enter {folder} nor be given the right to")


def _owner(folder: Path) -> tuple[int, int]:
    status = folder.stat()
    if status.st_uid != 0:
        return status.st_uid, status.st_gid
    try:
        nobody = pwd.getpwnam("nobody")
    except KeyError as error:
        raise _no_way("there is no user nobody") from error
    return nobody.pw_uid, nobody.pw_gid


def _can_run(prefix: tuple[str, ...], folder: Path, program: Path) -> bool:
    # Postgres looks up its own real path, so a program that starts is also one that finds its libraries.
    script = 'cd "$1" && test -w . && exec "$2" --version'
    argv = [*prefix, "/bin/sh", "-c", script, "sh", str(folder), str(program)]
    try:
        return subprocess.run(argv, capture_output=True, cwd="/", timeout=30, check=False).returncode == 0
    except (OSError, subprocess.SubprocessError):
        return False


def _no_way(why: str) -> Fatal:
    hint = "run as another user than root, or set DATABASE_URL to a running Postgres"
    return Fatal("Postgres refuses to run as root", why, hint)
