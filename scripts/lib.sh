# Shared by the scripts beside it: sourced, never run. Sets `top` and goes there.
set -eu
top=$(cd "$(dirname "$0")/.." && pwd)
cd "$top"

say() { printf '\n== %s\n' "$*"; }
die() { printf '%s\n' "$*" >&2; exit 1; }

# What a build needs, what the demonstration adds and what the whole test run adds. Debian 12 names.
build_packages='cmake ninja-build g++ pkg-config liburing-dev libisal-dev doctest-dev'
# nbdinfo shows the kind of content by file(1), and rubbish where that is missing.
demo_packages='libnbd-bin file'
test_packages='python3-libnbd qemu-utils qemu-system-common fio nbd-client nbdkit fuse3 libfuse3-dev e2fsprogs clang-format'

installed() { dpkg-query -W -f='${Status}' "$1" 2>/dev/null | grep -q '^install ok installed$'; }

missing_of() {
  for package in "$@"; do
    installed "$package" || printf '%s ' "$package"
  done
}
