#!/usr/bin/env bash
# Install the programs that tests run for real: PostgreSQL, nginx, Caddy, Chromium, ClamAV (and wrk for
# the benchmarks). From Debian's packages where we may install; otherwise the tests use what is there,
# and say what is missing.
set -euo pipefail

declare -A package_of=(
    [nginx]=nginx-light [caddy]=caddy [chromium]=chromium [clamd]=clamav-daemon [wrk]=wrk
)

export PATH="$PATH:/usr/sbin:/sbin"
missing=()
compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null || missing+=(postgresql)
for program in "${!package_of[@]}"; do
    command -v "$program" >/dev/null || missing+=("${package_of[$program]}")
done
[ "${#missing[@]}" = 0 ] && exit 0

install() {
    export DEBIAN_FRONTEND=noninteractive
    "$@" apt-get update -qq
    "$@" apt-get install -y -qq -o Dpkg::Use-Pty=0 --no-install-recommends "${missing[@]}" >/dev/null
    # Tests start a clamd of their own; the package's services would fetch signatures for ever.
    case " ${missing[*]} " in *" clamav-daemon "*)
        "$@" systemctl disable --now clamav-daemon clamav-freshclam >/dev/null 2>&1 || true ;;
    esac
}

echo "Installing what the tests run for real: ${missing[*]}" >&2
if [ "$(id -u)" = 0 ]; then install env >&2
elif command -v sudo >/dev/null && sudo -n true 2>/dev/null; then install sudo env >&2
else echo "Cannot install them (not root): the tests that need them will say so." >&2
fi
