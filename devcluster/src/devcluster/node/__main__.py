"""`python -m devcluster.node DIRECTORY NAME`: runs the agent of one node of the cluster in that directory."""

import asyncio
import logging
import sys
from pathlib import Path

from devcluster import kernel
from devcluster.layout import StateDirectory
from devcluster.node.agent import Agent

logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
kernel.become_subreaper()
asyncio.run(Agent(StateDirectory(Path(sys.argv[1])), name=sys.argv[2]).run())
