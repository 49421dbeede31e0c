"""All rows of the bad-input matrix, B1 to B31, in order."""

from hostile import files, lines

ROWS = sorted([*lines.ROWS, *files.ROWS], key=lambda row: int(row.id[1:]))
