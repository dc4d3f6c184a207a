# The two commands: `make study` and `make test`; `make check` looks at style and types. What they install goes into .venv;
# `make clean` removes it.
# Another interpreter: make study PYTHON=python3.12

PYTHON ?= python3
VENV := .venv
ifeq ($(OS),Windows_NT)
BIN := $(VENV)/Scripts
else
BIN := $(VENV)/bin
endif
STAMP := $(VENV)/installed

# The stages call `python`: the environment's own comes first. DVC sends no usage data.
RUN := PATH="$(CURDIR)/$(BIN):$$PATH" DVC_NO_ANALYTICS=1
# Tests commit in temporary clones, also where nobody has told git a name.
TESTER := GIT_AUTHOR_NAME=lrfr GIT_AUTHOR_EMAIL=lrfr@localhost GIT_COMMITTER_NAME=lrfr GIT_COMMITTER_EMAIL=lrfr@localhost

.PHONY: study test check setup clean

study: $(STAMP)
	$(RUN) lrfr repro

test: $(STAMP)
	$(RUN) $(TESTER) OMP_NUM_THREADS=1 python -m pytest -n auto --dist loadfile --no-loadscope-reorder

check: $(STAMP)
	$(RUN) ruff check
	$(RUN) ruff format --check
	$(RUN) mypy

setup: $(STAMP)

# Runs again only when the versions or the metadata have changed.
$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c "import sys; sys.exit(None if sys.version_info >= (3, 11) else 'lrfr needs Python 3.11 or newer; name one, as in: make setup PYTHON=python3.11')"
	@$(PYTHON) -m venv $(VENV) || { echo "Python's venv module does not work here; on Debian and Ubuntu install python3-venv." >&2; exit 1; }
	$(RUN) python -m pip install --disable-pip-version-check -r requirements.lock
	$(RUN) python -m pip install --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $(STAMP)

clean:
	rm -rf $(VENV) build lrfr.egg-info
