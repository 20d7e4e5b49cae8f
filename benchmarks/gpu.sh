#!/usr/bin/env bash
# Right and how fast on this machine's GPU, in one run: writes gpu.json and gpu.md.
#
#   benchmarks/gpu.sh --pack FOLDER       where there is a network: the wheels and the face generator that a bare machine lacks (about 20 MB)
#   benchmarks/gpu.sh [--carried FOLDER]  on the machine: torch, numpy, scipy, pyarrow, pillow, pyyaml and safetensors are there, the rest is in FOLDER
#
# Further options: benchmarks/gpu.py --help. PYTHON names the interpreter, of the machine or of the one that wheels are packed for (3.12).
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
carried=carried
if [ "${1:-}" = --pack ]; then
    mkdir -p "${2:?a folder}"
    # with what it needs, in the versions that it needs: pydantic takes one of pydantic_core alone
    "$python" -m pip download --quiet --only-binary=:all: --python-version "${FOR_PYTHON:-3.12}" --implementation cp \
        --platform manylinux_2_17_x86_64 --platform manylinux2014_x86_64 --dest "$2" "pydantic>=2.10"
    "$python" -m pip download --quiet --no-deps --dest "$2" gan_face_generate==1.1.1
    exec du -sh "$2"
fi
if [ "${1:-}" = --carried ]; then carried=${2:?a folder}; shift 2; fi
if [ -d "$carried" ]; then
    site=$(mktemp -d)
    trap 'rm -rf "$site"' EXIT
    "$python" -m pip install --quiet --no-index --no-deps --no-compile --target "$site" "$carried"/pydantic*.whl "$carried"/annotated_types*.whl "$carried"/typing_*.whl
    export PYTHONPATH="$site${PYTHONPATH:+:$PYTHONPATH}"
    set -- --wheel "$carried"/gan_face_generate*.whl "$@"
fi
"$python" benchmarks/gpu.py "$@"
