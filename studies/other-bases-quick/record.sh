#!/usr/bin/env bash
# Runs every search of this study from start to emitted family, and records its time, ranking and family.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
rm -rf runs results && mkdir results
echo "base,budget,seconds" > results/times.csv
while read -r base budget; do
    name="$(basename "${base%.yaml}" | tr ':' '.')-$budget"
    start=$(date +%s)
    scalesearch run --base "$base" --budget "$budget" --preset quick --policy grid --quiet --out "runs/$name" > "results/$name.txt"
    echo "$base,$budget,$(($(date +%s) - start))" >> results/times.csv
    cp "runs/$name/ranking.json" "results/$name.json"
    cp "runs/$name/environment.json" results/environment.json
done <<'SEARCHES'
resnet50 4x
resnet18 2x
mobilenet_v1 4x
mobilenet_v2 0.5x
my_net.yaml 2x
mynets:build 2x
SEARCHES
