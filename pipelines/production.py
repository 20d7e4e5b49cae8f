"""A production job: as many good images as are asked for, in shards, on this machine or on a Ray cluster.

    RAY_ADDRESS=auto python pipelines/production.py models:/faces@champion --profile /mnt/profiles/faces \
        --accepted 1000000 --cluster ray --device cuda --out s3://images/faces

The same as ``qualitygate gate --shards webdataset``, with the same options: `qualitygate gate --help` tells of all of them. Started again,
it makes what is missing.
"""

from __future__ import annotations

import sys

from qualitygate.cli import main

if __name__ == "__main__":
    shards = [] if "--shards" in sys.argv else ["--shards", "webdataset"]
    sys.argv = ["qualitygate", "gate", *sys.argv[1:], *shards]
    main()
