"""A launcher whose shards and router are stand-ins: a plan on stdin.

{"shards": [config, …], "router": config, "grace": seconds, "prefix": path, "json": bool,
"stopped_limit": looks}. Prints the log; the last line of a good start is "up <ids of the
children>".
"""

import asyncio
import json
import os
import sys
from pathlib import Path

from penstock_launcher import stopped
from penstock_launcher.child import Program, Role
from penstock_launcher.logs import Log
from penstock_launcher.run_folder import RunFolder
from penstock_launcher.supervisor import Supervisor

STAND_IN = str(Path(__file__).with_name("stand_in.py"))


def program(name: str, role: Role, config: dict) -> Program:
    return Program(name, role, (sys.executable, STAND_IN), config, dict(os.environ))


def main(plan: dict) -> int:
    stopped.LIMIT = plan.get("stopped_limit", stopped.LIMIT)
    log = Log(as_json=plan.get("json", False), secrets=("s3cret-key",))
    with RunFolder(plan["prefix"]) as folder:

        async def bring_up(supervisor: Supervisor) -> None:
            shards = []
            for rank, config in enumerate(plan["shards"]):
                if config.get("end_when_gone") == "shard 0":
                    config["end_when_gone"] = shards[0].group
                shards.append(supervisor.start(program(f"shard {rank}", Role.SHARD, config)))
            log.info("started " + " ".join(str(shard.group) for shard in shards))
            await supervisor.ready(shards)
            config = plan["router"]
            if config.get("end_when_gone") == "shard 0":
                config["end_when_gone"] = shards[0].group
            router = supervisor.start(program("router", Role.ROUTER, config))
            (answer,) = await supervisor.ready([router])
            assert answer == {"url": "http://127.0.0.1:1"}
            log.info("up " + " ".join(str(child.group) for child in (*shards, router)))

        async def supervise() -> int:
            return await Supervisor(log, folder, plan["grace"]).run(bring_up)

        return asyncio.run(supervise())


if __name__ == "__main__":
    sys.exit(main(json.load(sys.stdin)))
