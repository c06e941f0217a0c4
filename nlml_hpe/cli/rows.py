"""A table that is written row by row, so that what was answered is there, whatever ends the work."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import Any

from nlml_hpe.cli.streams import say_error, write_out
from nlml_hpe.cli.tables import as_csv
from nlml_hpe.files.atomic import ArtifactError, atomic_path


class RowTable:
    """CSV to a file or, without one, to stdout, where each row is at once; a context manager.

    A regular file has its name when the work ends, also by an error, if there was a row before it; a
    ``KeyboardInterrupt`` leaves no file. Into a device or a FIFO rows go as they come. Once a file takes no more, the
    table is written to stdout: all of it in place of a regular file, what follows in place of another.

    Parameters
    ----------
    columns : sequence of str
        Names of the columns.
    target : Path or None
        The file; None for stdout.

    Attributes
    ----------
    is_written : bool
        Whether all rows are where they should be.

    Examples
    --------
    >>> with RowTable(("a", "b"), None) as table:
    ...     table.put([{"a": 1}])
    ...     table.put([{"a": 2, "b": 3}])
    a,b
    1,
    2,3
    """

    def __init__(self, columns: Sequence[str], target: Path | None) -> None:
        self.is_written = True
        self._columns, self._target = columns, target
        self._is_begun, self._size, self._stack = False, 0, ExitStack()
        self._file: FileIO | None = None
        self._temporary: Path | None = None

    def put(self, rows: Iterable[dict[str, Any]]) -> None:
        """Write rows; what one does not say is left empty."""
        text = as_csv(self._columns, rows, with_header=not self._is_begun)
        self._is_begun = True
        if self._file is not None:
            try:
                self._write(self._file, text.encode())
            except OSError as error:
                self._give_up(self._file, error)
            else:
                return
        write_out(text)

    def _write(self, file: FileIO, data: bytes) -> None:
        """All of it: what is nearly full takes a part, and says so at the next part alone."""
        rest = memoryview(data)
        while rest:
            rest = rest[file.write(rest) :]
        self._size += len(data)

    def _give_up(self, file: FileIO, error: OSError) -> None:
        """The file takes no more: stdout does from now on."""
        self.is_written, self._file = False, None
        say_error(f"{self._target}: {error.strerror}; the table follows on stdout")
        file.close()
        if self._temporary is not None:
            write_out(self._temporary.read_bytes()[: self._size].decode())
        self._drop()

    def _drop(self) -> None:
        """The file does not take its name."""
        self._stack.__exit__(ArtifactError, ArtifactError("no table"), None)

    def __enter__(self) -> RowTable:
        if self._target is not None:
            place = self._target
            if not self._target.exists() or self._target.is_file():
                place = self._temporary = self._stack.enter_context(atomic_path(self._target))
            self._file = FileIO(place, "w")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None and not self._is_begun:
            self.put([])
        if self._file is not None:
            self._file.close()
        if kind is None or (self._is_begun and issubclass(kind, Exception)):
            self._stack.close()
        else:
            self._drop()
