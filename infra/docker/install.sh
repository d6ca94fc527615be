#!/bin/sh
# Installs the project with extras into /opt/colorize: `install.sh LOCK EXTRA...`. Every package has the version that
# the lock file names; a package that the lock lacks is an error.
set -eu
lock=$1
shift
for extra; do
    shift
    set -- "$@" --extra "$extra"
done
export UV_NO_CACHE=1 UV_COMPILE_BYTECODE=1 UV_PYTHON_DOWNLOADS=never UV_BUILD_CONSTRAINT="$lock"
export UV_SYSTEM_CERTS=1 # a site's own authorities count, too
export VIRTUAL_ENV=/opt/colorize

uv venv --quiet --python /usr/bin/python3 "$VIRTUAL_ENV"
uv pip install --quiet --constraint "$lock" --requirements setup.py "$@"
if uv pip freeze | grep -vixFf "$lock"; then
    echo "these packages are not in $lock: run make lock" >&2
    exit 1
fi
uv pip install --quiet --no-deps .

# Headers and a parser of C, which nothing reads at run time: 240 MB.
rm -rf "$VIRTUAL_ENV"/lib/python3.11/site-packages/tensorflow/include "$VIRTUAL_ENV"/lib/python3.11/site-packages/clang
