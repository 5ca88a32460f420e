#!/usr/bin/env bash
# What to run before a commit: format, include arrows, clang-tidy on changed files, the cpu tests.
#   scripts/check.sh [--fix]     --fix formats in place
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
format=$(command -v clang-format-14 || true) tidy=$(command -v clang-tidy-14 || true)
[ -n "$format" ] && [ -n "$tidy" ] || { echo "check: run PRAETOR_DEV_TOOLS=1 scripts/bootstrap for clang-format-14 and clang-tidy-14" >&2; exit 69; }
mapfile -t sources < <(git ls-files '*.h' '*.cpp')
if [ "${1:-}" = --fix ]; then "$format" -i "${sources[@]}"; else "$format" --dry-run --Werror "${sources[@]}"; fi
scripts/check-includes
scripts/build
mapfile -t changed < <(git diff --name-only --diff-filter=d "$(git merge-base HEAD origin/main 2>/dev/null || git rev-list --max-parents=0 HEAD | tail -n 1)" -- '*.cpp' | grep -v '^tests/' || true)
# clang-tidy cannot read GCC's precompiled header: the same commands without it.
mkdir -p build/tidy
sed 's/ -Winvalid-pch//; s/ -include [^ ]*cmake_pch.hxx//' build/release/compile_commands.json > build/tidy/compile_commands.json
[ ${#changed[@]} -eq 0 ] || printf '%s\0' "${changed[@]}" | xargs -0 -n 1 -P "$(nproc)" "$tidy" -p build/tidy --quiet
exec ctest --test-dir build/release -L cpu --output-on-failure -j "$(nproc)"
