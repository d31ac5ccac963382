#!/usr/bin/env bash
# Lets libFuzzer invent inputs for the parsers, with what cargo-fuzz builds. By hand, never in the normal run.
#
#   tests/fuzz/run.sh              every target, three minutes each
#   tests/fuzz/run.sh reply        one target
#   SECONDS_EACH=3600 tests/fuzz/run.sh reply nexthop
#
# Needs: rustup toolchain install nightly; cargo install --locked cargo-fuzz; a C++ compiler.
#
# It starts from the fixed corpus (corpus/TARGET), which stays as it is. What it finds to be new goes to found/TARGET,
# an input that breaks a check to artifacts/TARGET, and its name is told. Such an input belongs into the corpus, under
# a name that says what it is, together with the mend; "cargo +nightly fuzz tmin" makes it small.
#
# Exit code: 0 nothing broke, 1 something did, 2 bad usage.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

known=()
for directory in tests/fuzz/corpus/*/; do known+=("$(basename "$directory")"); done
targets=("$@")
[[ $# -gt 0 ]] || targets=("${known[@]}")
for target in "${targets[@]}"; do
    if [[ ! -d tests/fuzz/corpus/$target ]]; then
        printf 'tests/fuzz/run.sh: there is no target %s; there are: %s\n' "$target" "${known[*]}" >&2
        exit 2
    fi
done

# One input: at most 5 s, 512 MB in all, 32 MB at once. 16 KiB and more are needed for the longest replies.
limits=(-timeout=5 -rss_limit_mb=512 -malloc_limit_mb=32 -max_len=20000 -max_total_time="${SECONDS_EACH:-180}")
# Some checks need a queue; libFuzzer ends without giving them the time to remove it.
TMPDIR=$(mktemp -d -p /dev/shm lastmile-fuzz-XXXXXX)
export TMPDIR
# What AddressSanitizer keeps of freed memory would count, too.
export ASAN_OPTIONS=quarantine_size_mb=16
trap 'rm -rf "$TMPDIR"' EXIT
broken=()
for target in "${targets[@]}"; do
    printf '\n=== %s\n' "$target"
    mkdir -p "tests/fuzz/found/$target"
    nice -n 19 cargo +nightly fuzz run --fuzz-dir tests/fuzz "$target" \
        "tests/fuzz/found/$target" "tests/fuzz/corpus/$target" -- "${limits[@]}" -print_final_stats=1 ||
        broken+=("$target")
done
if [[ ${#broken[@]} -gt 0 ]]; then
    printf '\ntests/fuzz/run.sh: broken: %s (see tests/fuzz/artifacts)\n' "${broken[*]}"
    exit 1
fi
printf '\ntests/fuzz/run.sh: nothing broke\n'
