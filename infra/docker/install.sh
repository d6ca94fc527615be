#!/bin/sh
# Installs the packages that the project needs with some of its extras into /opt/colorize: `install.sh LOCK EXTRA...`.
# Each has the version that the lock file names; a package that the lock lacks is an error.
set -eu
lock=$1
shift
for extra; do
    shift
    set -- "$@" --extra "$extra"
done

uv venv --quiet "$VIRTUAL_ENV"
uv pip install --quiet --build-constraint "$lock" --constraint "$lock" --requirements setup.py "$@"
if uv pip freeze | grep -vixFf "$lock"; then
    echo "these packages are not in $lock: run make lock" >&2
    exit 1
fi

# Headers, and a parser of C that nothing calls: 240 MB.
rm -rf "$VIRTUAL_ENV"/lib/python3.11/site-packages/tensorflow/include "$VIRTUAL_ENV"/lib/python3.11/site-packages/clang
