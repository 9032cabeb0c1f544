"""The environment that logins are looked up in: variables, and in their absence files of the same names.

systemd (LoadCredential=) and mounted volumes of a pod give a process its secrets as files in a folder, which no child
process inherits and no listing of processes shows. The folder is $CREDENTIALS_DIRECTORY, as systemd sets it:
https://systemd.io/CREDENTIALS/
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from rotation.declared import ConfigError, Fault

FOLDER: Final = "CREDENTIALS_DIRECTORY"
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class Environ(Mapping[str, str]):
    """Variables first, then files, which are read whenever they are asked for: they may have been renewed.

    Parameters:
        variables: as in os.environ.
    """

    def __init__(self, variables: Mapping[str, str]) -> None:
        self._variables = variables

    def __getitem__(self, name: str) -> str:
        """The value; of a file without the line break at its end.

        Raises:
            KeyError: there is neither a variable nor a file of this name.
            ConfigError: there is a file, and it can not be read.
        """
        if name in self._variables:
            return self._variables[name]
        folder = self._variables.get(FOLDER)
        if not folder or not _NAME.fullmatch(name):
            raise KeyError(name)
        path = Path(folder, name)
        try:
            return path.read_text().removesuffix("\n")
        except FileNotFoundError:
            raise KeyError(name) from None
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else "is not text"
            raise ConfigError([Fault(FOLDER, f"{path} can not be read: {why}")]) from None

    def __iter__(self) -> Iterator[str]:
        """Names of variables. Files are found by those who know their names."""
        return iter(self._variables)

    def __len__(self) -> int:
        return len(self._variables)
