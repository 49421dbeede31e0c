"""All rows of the bad-input matrix, B1 to B31, in order."""

from hostile import files, kept, lines

ROWS = sorted([*lines.ROWS, *files.ROWS, *kept.ROWS], key=lambda row: int(row.id[1:]))
