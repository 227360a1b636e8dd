SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RUN_READY := $(VENV)/.run-ready
DEV_READY := $(VENV)/.dev-ready
BENCH_READY := $(VENV)-bench/.ready
AIRFLOW_READY := $(VENV)-airflow/.ready
DATABRICKS_READY := $(VENV)-databricks/.ready
SPARK4_READY := $(VENV)-spark4/.ready
SPARK41_READY := $(VENV)-spark41/.ready
PYTHON312_READY := $(VENV)-python312/.ready
PYTHON313_READY := $(VENV)-python313/.ready
DOCS_READY := $(VENV)-docs/.ready
LOWEST_READY := $(VENV)-lowest/.ready
EDITABLE = -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
AIRFLOW_LOCK = $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --no-annotate
# A test that takes longer than faulthandler_timeout (pyproject.toml) ends the run with its name and its stacks.
LIMITED := -o faulthandler_exit_on_timeout=true
# Two processes, each of which runs all tests of a file, in the order of the files.
BY_FILE := --numprocesses 2 --dist loadfile --no-loadscope-reorder $(LIMITED)
OPERATIONS := tests/integration/operations
LATER_RUNS := tests/integration/later_runs
AIRFLOW_PYTEST := $(VENV)-airflow/bin/python -m pytest -o faulthandler_timeout=1800 $(LIMITED)
JARS := build/jars/.ready
SPARKNLP_JARS := build/jars-sparknlp/.ready
SPARK4_JARS := build/jars-spark4/.ready
SPARK41_JARS := build/jars-spark41/.ready
S3_JARS := build/jars-s3/.ready
S3_SERVER := build/s3-server/.ready
PACKAGE := build/package/.ready

.PHONY: help
help: ## show this list
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-17s %s\n", $$1, $$2}'

.PHONY: run
run: $(RUN_READY) $(JARS) ## install what is missing, then run the job on the speeches in this repository
	$(BIN)/python jobs/extract_entities.py --config conf/demo.yaml --show-entities

.PHONY: run-sparknlp
run-sparknlp: $(DEV_READY) $(JARS) $(SPARKNLP_JARS) ## run the demo with Spark NLP's engine and with ours, and compare the entities (ten minutes)
	$(BIN)/python tests/bench/compare_engines.py

.PHONY: lint
lint: $(DEV_READY) ## run ruff and mypy (a minute)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy --config-file tests/mypy.ini

.PHONY: format
format: $(DEV_READY) ## format the code, and fix what ruff can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

.PHONY: test-unit
test-unit: $(DEV_READY) ## run the tests that need no Spark and do not measure time (a minute)
	$(BIN)/python -m pytest $(LIMITED) --numprocesses 2 -m "not slow and not deep" tests/unit

.PHONY: test
test: $(DEV_READY) $(JARS) ## install what is missing, then lint, check types, run unit and stage tests, and tests of whole runs (8 to 14 minutes)
	$(MAKE) lint
	$(BIN)/python -m pytest $(BY_FILE) -m "not deep" --ignore=$(OPERATIONS) --ignore=$(LATER_RUNS)

.PHONY: test-later-runs
test-later-runs: $(DEV_READY) $(JARS) ## test whole runs over changed sources: change feed, slices, passthrough columns, Parquet export (four minutes)
	$(BIN)/python -m pytest $(BY_FILE) -m "not deep" $(LATER_RUNS)

.PHONY: test-operations
test-operations: $(DEV_READY) $(JARS) ## test maintenance, erasure, repair, pages, samples, and other readers of the tables (seven minutes)
	$(BIN)/python -m pytest $(BY_FILE) -m "not deep" $(OPERATIONS)

.PHONY: test-deep
test-deep: $(DEV_READY) $(AIRFLOW_READY) $(SPARK4_READY) $(JARS) $(SPARK4_JARS) ## run the tests that `make test` leaves out: long ones, and further cases (20 to 40 minutes)
	$(BIN)/python -m pytest $(BY_FILE) -m deep
	$(BIN)/python -m pytest $(LIMITED) -m deep tests/spark4
	$(AIRFLOW_PYTEST) -c tests/airflow/pytest.ini --confcutdir tests/airflow -m deep tests/airflow

.PHONY: coverage
coverage: $(DEV_READY) $(JARS) ## measure which branches of the core unit, stage and integration tests run (an hour); TESTS=tests/unit measures a part
	@rm -rf build/coverage
	@mkdir -p build/coverage
	$(BIN)/coverage run -m pytest $(BY_FILE) $(TESTS)
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

# Old packages warn of what newer ones have deprecated. Each release of pydantic writes schemas in its own way, and `make
# schema` uses the locked one.
.PHONY: test-lowest
test-lowest: $(LOWEST_READY) ## run the quick unit tests with the lowest versions of dependencies that pyproject.toml allows (five minutes)
	PYTHONPATH=jobs $(VENV)-lowest/bin/python -m pytest $(LIMITED) --numprocesses 2 -o filterwarnings=default --disable-warnings -m "not slow and not deep" --deselect tests/unit/test_json_schema.py tests/unit

.PHONY: test-sparknlp
test-sparknlp: $(DEV_READY) $(JARS) $(SPARKNLP_JARS) ## test engine sparknlp, and that both engines find the same entities (four minutes)
	$(BIN)/python -m pytest $(LIMITED) tests/spark_nlp

# Without pytest's log of a test, which holds the errors of a thousand runs, and with them all their queries.
.PHONY: test-faults
test-faults: $(DEV_READY) $(JARS) ## crash runs at a thousand points, freeze them, kill them at random, make storage fail (three hours; root for mounts)
	$(BIN)/python -m pytest -s -p no:logging --numprocesses 2 tests/faults/test_crash_points.py
	$(BIN)/python -m pytest -s tests/faults/test_freezes.py
	$(BIN)/python -m pytest --deselect tests/faults/test_crash_points.py --deselect tests/faults/test_freezes.py tests/faults

.PHONY: test-faults-smoke
test-faults-smoke: $(DEV_READY) $(JARS) ## run test-faults at a few points only (five minutes)
	ENTITYMILL_CRASH_POINTS=1 $(BIN)/python -m pytest $(LIMITED) -s -p no:logging tests/faults/test_crash_points.py
	ENTITYMILL_SEED=12 ENTITYMILL_FREEZES=4 $(BIN)/python -m pytest $(LIMITED) -s tests/faults/test_freezes.py
	ENTITYMILL_KILLS=1 $(BIN)/python -m pytest $(LIMITED) tests/faults/test_kills.py -k local-cluster
	$(BIN)/python -m pytest $(LIMITED) tests/faults/test_storage.py -k full_disk

.PHONY: test-fuzz
test-fuzz: $(DEV_READY) $(JARS) $(SPARKNLP_JARS) ## test random hostile inputs: models, networks, texts, ids, settings, messages (an hour)
	ENTITYMILL_FUZZ=full $(BIN)/python -m pytest -s -o faulthandler_timeout=3600 tests/fuzz tests/unit/test_damaged_models.py tests/unit/test_sentences_dl_saved.py

.PHONY: test-fuzz-smoke
test-fuzz-smoke: $(DEV_READY) $(JARS) $(SPARKNLP_JARS) ## run test-fuzz with a few inputs of each kind (four minutes)
	$(BIN)/python -m pytest $(LIMITED) -s tests/fuzz

.PHONY: bench
bench: $(DEV_READY) $(BENCH_READY) $(JARS) ## measure the job, the bare tagger and other taggers, with DistilBERT-base's shape and the bundled model (an hour and a half)
	PYTHONPATH=jobs $(BIN)/python tests/bench/job.py
	PYTHONPATH=jobs $(BIN)/python tests/bench/job.py --shape base
	PYTHONPATH=jobs $(VENV)-bench/bin/python tests/bench/tagger.py --model models/demo
	PYTHONPATH=jobs $(VENV)-bench/bin/python tests/bench/tagger.py

.PHONY: bench-smoke
bench-smoke: $(DEV_READY) $(JARS) $(SPARKNLP_JARS) ## run every benchmark on a few dozen sentences, without useful numbers (five minutes)
	PYTHONPATH=jobs:tests $(BIN)/python tests/bench/smoke.py

.PHONY: bench-engines
bench-engines: $(BENCH_READY) $(JARS) $(SPARKNLP_JARS) ## measure both engines on the same rows (half an hour)
	PYTHONPATH=jobs $(VENV)-bench/bin/python tests/bench/engines.py

.PHONY: bench-growth
bench-growth: $(DEV_READY) $(JARS) ## measure incremental runs on 10^4 to 10^6 documents, without a model (half an hour)
	PYTHONPATH=jobs $(BIN)/python tests/bench/growth.py

.PHONY: test-spark4
test-spark4: $(DEV_READY) $(SPARK4_READY) $(PYTHON312_READY) $(PYTHON313_READY) $(JARS) $(SPARK4_JARS) $(SPARK41_JARS) ## test that the job writes the same tables on Spark 4.0 (Python 3.12) and 4.1 (3.13) as on 3.5 (six minutes)
	$(BIN)/python -m pytest $(LIMITED) tests/spark4/test_spark4.py tests/spark4/test_pipeline.py

.PHONY: test-connect
test-connect: $(DEV_READY) $(SPARK4_READY) $(SPARK4_JARS) ## test that the job writes the same tables through Spark Connect, also where the server refuses what Databricks refuses (five minutes)
	$(BIN)/python -m pytest $(LIMITED) -m "not deep" tests/spark4/test_connect.py

.PHONY: test-report
test-report: $(DEV_READY) ## test the page in headless Chromium, which is installed if missing (a minute; root to install)
	@command -v chromium >/dev/null || { apt-get update -qq && apt-get install -y -qq chromium; }
	CHROMIUM=$$(command -v chromium) $(BIN)/python -m pytest $(LIMITED) tests/browser

.PHONY: test-airflow
test-airflow: $(AIRFLOW_READY) $(DEV_READY) $(JARS) ## test the DAGs: parse them, and run them by a scheduler with spark-submit (six minutes)
	$(BIN)/ruff check --preview --select AIR3 airflow_dags
	MYPYPATH=airflow_dags $(BIN)/mypy --python-executable $(VENV)-airflow/bin/python airflow_dags
	$(AIRFLOW_PYTEST) -c tests/airflow/pytest.ini --confcutdir tests/airflow -m "not deep" tests/airflow

.PHONY: test-databricks
test-databricks: $(AIRFLOW_READY) $(DATABRICKS_READY) $(JARS) ## test the bundle with Databricks' own classes, and run its task's command line (three minutes)
	$(AIRFLOW_PYTEST) -c tests/databricks/pytest.ini --confcutdir tests/databricks tests/databricks

.PHONY: install
install: $(RUN_READY) ## create .venv with everything for a run on Spark 3.5

.PHONY: install-spark4
install-spark4: $(SPARK4_READY) ## create .venv-spark4 with everything for a run on Spark 4.0 or through Spark Connect

.PHONY: install-spark41
install-spark41: $(SPARK41_READY) ## create .venv-spark41 with everything for a run on Spark 4.1 or through its Spark Connect

.PHONY: extras
extras: $(RUN_READY) requirements-extras.lock ## install the packages for the page, metrics, lineage and engine sparknlp into .venv
	utils/install_locked $(BIN)/python requirements-extras.lock

.PHONY: prepare
prepare: $(RUN_READY) requirements-prepare.lock ## install the packages for jobs/prepare_model.py into .venv
	utils/install_locked $(BIN)/python requirements-prepare.lock

.PHONY: jars
jars: $(JARS) ## fetch Delta's jars for Spark 3.5 into build/jars

.PHONY: jars-sparknlp
jars-sparknlp: $(SPARKNLP_JARS) ## for engine sparknlp: fetch Spark NLP and TensorFlow, build OpenVINO for the JVM, into build/jars-sparknlp

.PHONY: jars-spark4
jars-spark4: $(SPARK4_JARS) ## fetch Delta's jars for Spark 4.0 into build/jars-spark4

.PHONY: jars-spark41
jars-spark41: $(SPARK41_JARS) ## fetch Delta's jars for Spark 4.1 into build/jars-spark41

.PHONY: jars-s3
jars-s3: $(S3_JARS) ## fetch the jars for s3a:// paths into build/jars-s3

.PHONY: schema
schema: $(RUN_READY) ## rewrite conf/schema.json and the tables of docs/settings.md after the settings have changed
	PYTHONPATH=jobs $(BIN)/python utils/settings_page.py

# The copies have the same paths as in the repository, so that relative links work in both places.
.PHONY: docs
docs: $(DOCS_READY) ## build the documentation site into build/site; broken links and anchors are errors (half a minute)
	@rm -rf build/pages
	@mkdir -p build/pages
	@cp --recursive --parents README.md CONTRIBUTING.md CHANGELOG.md SECURITY.md docs models/*/README.md models/*/*.svg build/pages
	NO_MKDOCS_2_WARNING=1 $(VENV)-docs/bin/mkdocs build --strict
	@echo 'Read it: $(PYTHON) -m http.server --directory build/site, or open build/site/index.html (without search)'

.PHONY: package
package: $(PACKAGE) ## build the package for a cluster into build/package (docs/cluster.md)

.PHONY: test-cluster
test-cluster: $(DEV_READY) $(AIRFLOW_READY) $(PACKAGE) $(S3_SERVER) ## test on object storage and on a cluster of network namespaces (root; twenty minutes)
	$(BIN)/python -m pytest $(LIMITED) tests/cluster

.PHONY: test-cluster-smoke
test-cluster-smoke: $(DEV_READY) $(JARS) $(S3_JARS) $(S3_SERVER) ## run one test of test-cluster: two drivers at once on object storage (two minutes)
	$(BIN)/python -m pytest $(LIMITED) -k two_drivers_at_once tests/cluster/test_s3.py

.PHONY: lock
lock: $(DEV_READY) ## update all pinned dependencies and their hashes
	for kind in build docs; do \
	  $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header \
	    --no-annotate --group $$kind --output-file requirements-$$kind.lock; \
	done
	extras="--extra spark --extra sparknlp --extra report --extra metrics --extra lineage"; \
	for kind in run extras prepare dev bench spark4 spark41; do \
	  case $$kind in run) groups="--extra spark --extra report";; extras) groups="$$extras";; prepare) groups="--extra spark --group prepare";; \
	    dev) groups="$$extras --group test --group lint --group lock --group prepare";; \
	    bench) groups="--extra spark --extra sparknlp --group bench --group recipe --group prepare";; \
	    spark4) groups="--extra spark4 --extra connect";; spark41) groups="--extra spark41";; esac; \
	  $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header \
	    --no-annotate pyproject.toml $$groups --output-file requirements-$$kind.lock; \
	done

LOWEST = $(BIN)/uv pip compile --quiet --python-version 3.11 --python-platform x86_64-unknown-linux-gnu --no-emit-index-url \
  --no-header --no-annotate pyproject.toml --extra spark --extra report --extra metrics --extra lineage

# Packages for tests and for preparing models, of which no other version is promised, are the newest that fit.
.PHONY: lock-lowest
lock-lowest: $(DEV_READY) ## update the lowest versions of dependencies that pyproject.toml allows, with their hashes
	@mkdir -p build
	$(LOWEST) --resolution lowest-direct --output-file build/lowest.txt
	$(LOWEST) --generate-hashes --group test --group prepare --constraint build/lowest.txt --output-file requirements-lowest.lock

.PHONY: lock-airflow
lock-airflow: $(DEV_READY) ## update the pinned dependencies of the DAGs, their tests and those of the bundle
	$(AIRFLOW_LOCK) airflow_dags/requirements.in --output-file airflow_dags/requirements.lock
	$(AIRFLOW_LOCK) tests/airflow/requirements.in -c airflow_dags/requirements.lock --output-file tests/airflow/requirements.lock
	$(BIN)/uv pip compile --quiet --python-version 3.11 --python-platform x86_64-unknown-linux-gnu --generate-hashes \
	  --no-emit-index-url --no-header --no-annotate pyproject.toml --extra spark -c tests/databricks/runtime.txt \
	  --output-file tests/databricks/runtime.lock

.PHONY: lock-jars
lock-jars: ## rewrite the SHA-256 of the jars in jars/*/pom.xml after a POM has changed; review the difference
	rm -rf build/jars-s3 build/jars-sparknlp
	for kind in s3 sparknlp; do \
	  mvn --quiet --batch-mode --file jars/$$kind/pom.xml dependency:copy-dependencies; \
	  (cd build/jars-$$kind && sha256sum -- *.jar) > jars/$$kind/SHA256SUMS; \
	  rm -rf build/jars-$$kind; \
	done

.PHONY: clean
clean: ## delete build/; the virtual environments stay
	rm -rf build

$(RUN_READY): requirements-run.lock requirements-build.lock
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	utils/install_locked $(BIN)/python $<
	$(BIN)/python $(EDITABLE)
	@touch $@

# Built only if it is missing, because the development environment also contains it.
$(BIN)/entitymill:
	$(MAKE) $(RUN_READY)

$(DEV_READY): requirements-dev.lock requirements-build.lock
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	utils/install_locked $(BIN)/python $<
	$(BIN)/python $(EDITABLE)
	@touch $@ $(RUN_READY)

# The environments of benchmarks, the site, other releases of Spark and lowest versions; explicit rules come before this one.
$(VENV)-%/.ready: requirements-%.lock requirements-build.lock
	@test -x $(@D)/bin/python || $(PYTHON) -m venv $(@D)
	utils/install_locked $(@D)/bin/python $<
	@touch $@

# Spark 4.0 on Python 3.12, where the machine has it, and 4.1 on Python 3.13, where Debian has it. Otherwise they run on this
# Python, and a file `another-python` in the environment says so to the tests.
$(PYTHON312_READY): requirements-spark4.lock
	$(call newer_python,Python 3.12,$$(tests/spark4/find_python312),$<)

$(PYTHON313_READY): requirements-spark41.lock
	$(call newer_python,Python 3.13,$$(tests/spark4/unpack_python313 build/python313),$<)

$(PYTHON312_READY) $(PYTHON313_READY): requirements-build.lock tests/spark4/find_python312 tests/spark4/unpack_python313 | $(DEV_READY)

define newer_python
	@rm -rf $(@D)
	python=$(2) || python=; \
	  $${python:-$(PYTHON)} -m venv --without-pip --copies $(@D) && if [ -z "$$python" ]; then \
	  echo "$(1) is not here (see above); the tests run on $(PYTHON) instead" | tee $(@D)/another-python; fi
	utils/install_locked $(@D)/bin/python $(3)
	@touch $@
endef

$(AIRFLOW_READY): airflow_dags/requirements.lock tests/airflow/requirements.lock requirements-build.lock | $(DEV_READY)
	@test -x $(@D)/bin/python || $(PYTHON) -m venv $(@D)
	utils/install_locked $(@D)/bin/python airflow_dags/requirements.lock tests/airflow/requirements.lock
	@touch $@

$(DATABRICKS_READY): tests/databricks/runtime.lock requirements-build.lock | $(DEV_READY)
	@test -x $(@D)/bin/python || $(PYTHON) -m venv $(@D)
	utils/install_locked $(@D)/bin/python $<
	@touch $@

$(JARS): jobs/entitymill/commands/fetch_jars.py jobs/entitymill/spark/installation.py | $(BIN)/entitymill
	$(BIN)/entitymill fetch-jars --spark 3.5 --to build/jars
	@touch $@

$(SPARKNLP_JARS): jars/sparknlp/pom.xml jars/sparknlp/SHA256SUMS jars/check $(wildcard jars/sparknlp/src/main/java/org/intel/openvino/*.java)
	@rm -rf build/jars-sparknlp
	mvn --quiet --batch-mode --file $< package dependency:copy-dependencies
	jars/check jars/sparknlp/SHA256SUMS build/jars-sparknlp entitymill-openvino-1.jar
	@touch $@

$(SPARK4_JARS): jobs/entitymill/commands/fetch_jars.py jobs/entitymill/spark/installation.py | $(BIN)/entitymill
	$(BIN)/entitymill fetch-jars --spark 4.0 --to build/jars-spark4
	@touch $@

$(SPARK41_JARS): jobs/entitymill/commands/fetch_jars.py jobs/entitymill/spark/installation.py | $(BIN)/entitymill
	$(BIN)/entitymill fetch-jars --spark 4.1 --to build/jars-spark41
	@touch $@

$(S3_JARS): jars/s3/pom.xml jars/s3/SHA256SUMS jars/check
	@rm -rf build/jars-s3
	mvn --quiet --batch-mode --file $< dependency:copy-dependencies
	jars/check jars/s3/SHA256SUMS build/jars-s3
	@touch $@

$(S3_SERVER): tests/cluster/server/pom.xml
	@rm -rf build/s3-server
	mvn --quiet --batch-mode --file $< dependency:copy-dependencies
	@touch $@

$(PACKAGE): requirements-run.lock pyproject.toml docs/cluster.md $(JARS) $(S3_JARS) $(wildcard package/* conf/*) $(shell find jobs models -name '*.py' -o -name 'page.html' -o -name 'page.css' -o -name 'page.js' -o -path 'models/*' -type f) | $(RUN_READY)
	package/build.sh
	@touch $@
