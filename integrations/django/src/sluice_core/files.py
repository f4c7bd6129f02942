"""What a Sluice node says in files beside a database: its role, the primary's name, the position."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple, Optional, Union

PathLike = Union[str, "os.PathLike[str]"]

#: Set by ``sluice exec --on-primary`` for its command: the write lock is lent to it, also on a replica.
BORROWED = "SLUICE_ON_PRIMARY"


class Position(NamedTuple):
    """Where a database is in its history: ``epoch * 2**32 + seq`` of the last commit, and the database's checksum."""

    position: int
    checksum: int

    def __str__(self) -> str:
        return f"{self.position:016x}/{self.checksum:016x}"


def primary_file(db_path: PathLike) -> str:
    """The ``.primary`` file that stands for a database; links are followed, as Sluice follows them."""
    return os.path.join(os.path.dirname(os.path.realpath(db_path)), ".primary")


def is_replica(db_path: PathLike) -> bool:
    """Whether this node may not write the database now. One look at the file system: about a microsecond."""
    return primary_file_exists(primary_file(db_path))


def primary_file_exists(file: str) -> bool:
    """``is_replica`` for those who keep ``primary_file``'s answer."""
    return os.access(file, os.F_OK) and os.environ.get(BORROWED) != "1"


def primary(db_path: PathLike) -> Optional[str]:
    """The primary's name on a replica ("" when it isn't known there); None on the primary."""
    file = primary_file(db_path)
    try:
        return Path(file).read_text(encoding="utf-8").strip() if primary_file_exists(file) else None
    except FileNotFoundError:
        # The node was promoted between the two looks.
        return None


def position(db_path: PathLike) -> Optional[Position]:
    """What ``NAME-pos`` says; None where there is no such file, or nothing whole in it."""
    try:
        text = Path(f"{os.path.realpath(db_path)}-pos").read_text(encoding="ascii")
        first, second = text.strip().split("/")
        return Position(int(first, 16), int(second, 16))
    except (OSError, ValueError):
        return None
