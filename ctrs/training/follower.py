"""``python -m ctrs.training.follower``: a process that trains along with the one that started it."""

from __future__ import annotations

import json
import logging
import sys
import warnings

from ctrs.errors import CtrsError
from ctrs.training.distributed import read_task
from ctrs.training.trainer import train_along


def main() -> int:
    """Train until the run ends; tell on standard output what failed."""
    logging.disable()  # the leader says it all
    warnings.simplefilter("ignore")
    try:
        train_along(*read_task())
    except CtrsError as error:
        sys.stdout.write(json.dumps(str(error)) + "\n")
        return 1
    except Exception as error:
        sys.stdout.write(json.dumps(f"{type(error).__name__}: {error}".splitlines()[0]) + "\n")
        raise
    return 0


if __name__ == "__main__":
    sys.exit(main())
