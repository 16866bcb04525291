"""``python -m ctrs`` is the same program as ``ctrs``."""

from ctrs.cli.app import main

if __name__ == "__main__":
    raise SystemExit(main())
