"""``python -m rarkit`` is ``rarkit``; so ``torchrun … -m rarkit run RECIPE``."""

from __future__ import annotations

from rarkit.cli import main

if __name__ == "__main__":
    main()
