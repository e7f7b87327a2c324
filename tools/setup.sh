#!/usr/bin/env bash
# Make .venv and put the project into it; called by make, safe to call again.
#   tools/setup.sh server   what `make demo` and `make serve` need
#   tools/setup.sh dev      the same, and what the checks and tests need
# Works on a bare Debian machine with Python 3.11 and a network: what is missing is installed where
# we may (root, or sudo without a password), and named where we may not.
set -euo pipefail
cd "$(dirname "$0")/.."
what=${1:-server}
stamp=.venv/.made-for-$what
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore

say() { printf '%s\n' "$*" >&2; }

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"
    elif command -v sudo >/dev/null && sudo -n true 2>/dev/null; then sudo "$@"
    else return 1
    fi
}

find_python() {
    local name
    for name in python3 python3.13 python3.12 python3.11; do
        if command -v "$name" >/dev/null \
            && "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            echo "$name"
            return
        fi
    done
    say "AgentSight needs Python 3.11 or newer; none was found (Debian: apt-get install python3)."
    exit 1
}

make_venv() {
    local python
    python=$(find_python)
    rm -rf .venv
    # Debian's python3 comes without ensurepip; its package python3-venv brings it.
    if ! "$python" -m venv .venv >/dev/null 2>&1; then
        rm -rf .venv
        say "Installing Debian's python3-venv."
        if ! { as_root apt-get update -qq \
            && as_root apt-get install -y -qq -o Dpkg::Use-Pty=0 python3-venv; } >/dev/null; then
            say "Python cannot make environments: install it (Debian: apt-get install python3-venv)."
            exit 1
        fi
        "$python" -m venv .venv
    fi
    .venv/bin/python -m pip install --quiet --upgrade 'pip>=25.1'
}

# The Node.js inside basedpyright's and Playwright's wheels needs a library that a bare Debian lacks.
has_libatomic() {
    PATH="$PATH:/sbin:/usr/sbin" ldconfig -p | grep -q 'libatomic\.so\.1'
}

if [ -e "$stamp" ] && [ "$stamp" -nt pyproject.toml ] && [ "$stamp" -nt requirements/constraints.txt ]; then
    exit 0
fi
say "Setting up .venv ($what): a minute the first time, nothing afterwards."
[ -x .venv/bin/python ] && .venv/bin/python -c 'import pip' 2>/dev/null || make_venv
arguments=(--constraint requirements/constraints.txt --editable '.[server]')
[ "$what" = dev ] && arguments+=(--group dev)
.venv/bin/python -m pip install --quiet "${arguments[@]}"
if [ "$what" = dev ] && ! has_libatomic; then
    say "Installing Debian's libatomic1."
    { as_root apt-get update -qq \
        && as_root apt-get install -y -qq -o Dpkg::Use-Pty=0 libatomic1; } >/dev/null \
        || say "Install libatomic1 for the type checker and the browser tests."
fi
touch "$stamp"
[ "$what" = dev ] && touch .venv/.made-for-server
exit 0
