#!/usr/bin/env bash
# The first table of docs/results.md: two real sets, three losses, the same seed and budget. Takes about 25 minutes on 2 cores.
#
#     benchmarks/first_table.sh IMAGERY FOLDER
#
# IMAGERY holds the real sets (see benchmarks/real_sets.py); everything is written to FOLDER, and finished parts are skipped.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
imagery=$(cd "$1" && pwd)
mkdir -p "$2"
cd "$2"
python "$here/real_sets.py" "$imagery" sets
ctrs prepare sets/buildings --test zanzibar_b --test 'catanduanes_*'
ctrs prepare sets/dubai --val 't5_*' --test 't6_*'
for loss in none cl infonce; do
    ctrs train prepared/buildings --config "$here/small_budget.toml" --epochs 8 --loss "$loss" --name "buildings-$loss"
    ctrs eval "runs/buildings-$loss"
    ctrs train prepared/dubai --config "$here/small_budget.toml" --epochs 3 --loss "$loss" --name "dubai-$loss"
    ctrs eval "runs/dubai-$loss"
done
python "$here/first_table.py" runs
