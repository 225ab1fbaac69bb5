"""``attachd``: reads the configuration, assembles the daemon, runs it."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path

from oslo_config import cfg

from attachd import conf
from attachd.errors import AttachdError
from attachd.logs.setup import set_up

LOG = logging.getLogger("attachd")

_FAILED = 1


def main() -> int:
    """Run the daemon; the exit status. What is wrong around it is told without a traceback."""
    try:
        config = conf.load(sys.argv[1:])
        set_up(config, os.environ)
        # Imported only now: the libraries behind them are many, and a mistake in the file is told
        # before they are there; the helper carries what was imported before it is forked.
        from attachd.host.privilege import start_helper  # noqa: PLC0415

        helper = start_helper(cfg.CONF, lock_path=Path(config.host.lock_path), user=config.user)
        from attachd.daemon import assemble  # noqa: PLC0415

        status = assemble(config, os.environ, helper=helper).run()
    except AttachdError as exc:
        problem = exc.problem
        lines = (str(problem), problem.details, problem.resolution)
        print("\n".join(line for line in lines if line), file=sys.stderr)  # noqa: T201
        status = _FAILED
    logging.shutdown()
    sys.stderr.flush()
    # Threads of operations that outlive the stop are journalled, and must not hold it up.
    os._exit(status)


if __name__ == "__main__":
    sys.exit(main())
