#!/bin/sh
# Makes the virtual environment $VENV with $PYTHON and installs exactly what requirements.lock names, then the project.
set -eu

fail() {
  echo "error: $1" >&2
  echo " hint: $2" >&2
  exit 1
}

command -v "$PYTHON" >/dev/null 2>&1 || fail "there is no $PYTHON" "install Python 3.11 or newer, or name one: make PYTHON=/path/to/python3"
"$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
  fail "$("$PYTHON" --version) is too old" "install Python 3.11 or newer, or name one: make PYTHON=/path/to/python3"
"$PYTHON" -c 'import venv, ensurepip' 2>/dev/null ||
  fail "$PYTHON has no venv" "install it, on Debian and Ubuntu with: apt-get install python3-venv"

if [ ! -x "$VENV/bin/pip" ]; then
  echo "making the environment in $VENV" >&2
  "$PYTHON" -m venv "$VENV" || fail "the environment cannot be made in $VENV" "free some disk space, or remove $VENV"
fi
echo "installing what requirements.lock names (once)" >&2
"$VENV/bin/pip" install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements.lock ||
  fail "the packages cannot be installed" "see the lines above; pip needs an index it can reach"
"$VENV/bin/pip" install --quiet --disable-pip-version-check --no-build-isolation --no-deps --editable . ||
  fail "the project cannot be installed" "see the lines above"
