#!/usr/bin/env bash
# Checks types and runs the tests of the package, from its source: nothing has to be installed or built.
#
#   test.sh PYTHON [PYTEST ARGUMENT…]      the Python of the environment that tests/setup.sh makes
set -euo pipefail

[ "$#" -ge 1 ] || { echo "usage: test.sh PYTHON [PYTEST ARGUMENT…]" >&2; exit 2; }
python=$(realpath --no-symlinks "$1") # what the link is called is how Python knows its environment
cd "$(dirname "${BASH_SOURCE[0]}")"

# Leave no caches behind in the tree.
export PYTHONDONTWRITEBYTECODE=1
"$python" -m mypy --no-error-summary --cache-dir=/dev/null
"$python" -m pytest "${@:2}"
