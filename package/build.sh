#!/usr/bin/env bash
# What a cluster needs, in one directory: see docs/cluster.md. Run by `make package`, which has .venv and build/jars ready.
set -euo pipefail
cd "$(dirname "$0")/.."
python=.venv/bin/python
pip=("$python" -m pip --quiet --disable-pip-version-check)
out=build/package
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
# build/lib is setuptools' own: what was removed from the sources would stay in the wheel.
rm -rf "$out" build/lib build/bdist.*
mkdir -p "$out" "$scratch"/environment/{bin,lib}

# With the setuptools of requirements-build.lock, which .venv has: pip would fetch the newest for an environment of its own.
"${pip[@]}" wheel --no-deps --no-build-isolation --wheel-dir "$out" .

# Spark brings its own pyspark and py4j: an entry of the lock ends where the next name begins.
awk '/^[^ #]/ {skip = /^(pyspark|py4j)==/} !skip' requirements-run.lock > "$scratch/requirements"
"${pip[@]}" install --no-deps --no-compile --require-hashes --only-binary :all: --target "$scratch/environment/lib" -r "$scratch/requirements"
rm -rf "$scratch/environment/lib/bin"
"${pip[@]}" install --no-deps --no-compile --target "$scratch/environment/lib" "$out"/entitymill-*.whl
# Scripts that name this machine's interpreter, and what only other devices than the CPU, or only tests, use.
rm -rf "$scratch"/environment/lib/bin "$scratch"/environment/lib/openvino/libs/libopenvino_intel_{gpu,npu}*
rm -rf "$scratch"/environment/lib/{numpy,pandas,pyarrow}/tests "$scratch"/environment/lib/pyarrow/include
cp package/python "$scratch/environment/bin/python"
"$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])' > "$scratch/environment/python-version"
# The same content gives the same bytes.
tar --create --sort=name --owner=0 --group=0 --numeric-owner --mtime=@0 --directory "$scratch/environment" . \
  | gzip --no-name -1 > "$out/environment.tar.gz"

cp -r conf models "$out"
cp jobs/extract_entities.py jobs/maintain_tables.py jobs/evaluate_entities.py "$out"
rm -rf "$out"/models/*/recipe
# Only the jars: the archive of Java classes next to them fits only this machine.
mkdir "$out/jars" "$out/jars-s3"
cp -L build/jars/*.jar "$out/jars"
cp -L build/jars-s3/*.jar "$out/jars-s3"
cp docs/cluster.md "$out/README.md"
du -sh "$out"/*
