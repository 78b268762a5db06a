"""`python -m diffugen_operator` is the console script."""

from __future__ import annotations

from diffugen_operator.main import main

if __name__ == "__main__":
    main()
