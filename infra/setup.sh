#!/bin/sh
# Creates the virtual environment $VENV with $PYTHON and installs the packages of requirements.lock, then the project.
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
  echo "creating the environment in $VENV" >&2
  "$PYTHON" -m venv "$VENV" || fail "the environment cannot be created in $VENV" "free some disk space, or remove $VENV"
fi
# Reads pip's output: counts the packages done, of $1 in all, and passes errors through. Overwrites one line on a
# terminal; elsewhere prints a line for every twentieth package.
show_progress() {
  [ -t 2 ] && terminal=1 || terminal=0
  awk -v total="$1" -v terminal="$terminal" '
    /^(Collecting|Ignoring) / {
      done++
      if (terminal) printf "\r  %d of %d packages", done, total
      else if (done % 20 == 0) printf "  %d of %d packages\n", done, total
    }
    /^Installing / { if (terminal) printf "\n"; print "  unpacking them" }
    /^ *(ERROR|error)/ { print }
    { fflush() }
  ' >&2
}

echo "installing everything in requirements.lock (once, about a minute)" >&2
status=$( {
  { "$VENV/bin/pip" install --progress-bar off --disable-pip-version-check --require-hashes --no-deps \
    -r requirements.lock 2>&1 && echo 0 >&3 || echo 1 >&3; } | show_progress "$(grep -c '^[A-Za-z0-9].*==' requirements.lock)"
} 3>&1 )
[ "$status" = 0 ] || fail "the packages cannot be installed" "see the lines above; pip needs an index it can reach"
"$VENV/bin/pip" install --quiet --disable-pip-version-check --no-build-isolation --no-deps --editable . ||
  fail "the project cannot be installed" "see the lines above"
