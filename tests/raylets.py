"""A real Ray cluster on this host, on the loopback device alone: a head without CPUs, and raylets as its nodes.

`python raylets.py` starts the head, tells its address, and obeys: `add CPUS GPUS [PLACE]` tells the process id of a
new raylet, whose workers import what lies in a place before all else. Of GPUs Ray is told, there need not be any. It
ends with its standard input.
"""

import logging
import os
import sys

ALONE = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_USAGE_STATS_ENABLED": "0"}
"""Environment under which Ray keeps to the loopback device."""
SOON = {"health_check_initial_delay_ms": 1000, "health_check_period_ms": 500, "health_check_failure_threshold": 4}
"""A head that misses a node within seconds."""


def main() -> None:
    """Start, and obey."""
    os.environ.update(ALONE)
    from ray.cluster_utils import Cluster

    logging.disable(logging.WARNING)
    store = 100 * 2**20
    cluster = Cluster(
        initialize_head=True,
        head_node_args={
            "num_cpus": 0,
            "include_dashboard": False,
            "_system_config": SOON,
            "object_store_memory": store,
        },
    )
    print(cluster.address, flush=True)
    paths = os.environ.get("PYTHONPATH", "")
    for line in sys.stdin:
        _, cpus, gpus, *places = line.split()
        os.environ["PYTHONPATH"] = os.pathsep.join([*places, paths])
        node = cluster.add_node(wait=False, num_cpus=int(cpus), num_gpus=int(gpus), object_store_memory=store)
        print(node.all_processes["raylet"][0].process.pid, flush=True)
    cluster.shutdown()


if __name__ == "__main__":
    main()
