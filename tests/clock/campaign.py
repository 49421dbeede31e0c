"""``make clock``: |sound - picture| after decoding, a line per rate, container, offset, pixel format, sound."""

import sys

from clock.flash_and_beep import measure_clock
from scoreboard import Scoreboard

PROMISE_MS = 20.0


def main() -> int:
    """Measure, print, and return 3 where a line is beyond the promise."""
    board = Scoreboard("clock")
    for number, (name, apart) in enumerate(measure_clock(), start=1):
        board.check(f"K{number}", name, f"{apart:.1f} ms", f"<= {PROMISE_MS:.0f} ms", apart <= PROMISE_MS)
    return board.close()


if __name__ == "__main__":
    sys.exit(main())
