#!/usr/bin/env bash
# Derives a scaling rule for EfficientNet-B0 and ResNet-18 on CIFAR-10 and on Fashion-MNIST, and keeps the records.
#
#   run.sh [standard|quick] [options of `scalesearch run`]      standard: on the GPU; quick: a look at it on the CPU
#
# Run again with the same options, every search goes on where it stopped.
# DATA=FOLDER: where fetch.py writes to, if not runs/data here. ONLY='b0-*': searches by name, if not all.
set -euo pipefail
preset=standard
if [[ $# -gt 0 && $1 != -* ]]; then
    preset="$1"
    shift
fi
case "$preset" in
    standard) suffix="" ;;
    quick) suffix="-quick" && export CUDA_VISIBLE_DEVICES="" ;;
    *) echo "run.sh: $preset is neither standard nor quick" >&2 && exit 2 ;;
esac
options=("$@")
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
mkdir -p "${DATA:=$here/runs/data}"
data="$(cd "$DATA" && pwd)"
cd "$here"

search() { # NAME OPTION...: one search, from where it stopped, and what is kept of it
    local name="$1$suffix" start=$SECONDS code=0
    shift
    # shellcheck disable=SC2053
    [[ $name == ${ONLY:-*} ]] || return 0
    echo "== $name"
    scalesearch run --budget 2x --preset "$preset" "$@" ${options[@]+"${options[@]}"} --out "runs/$name" || code=$?
    echo "$name,$((SECONDS - start)),$code" >> results/times.csv
    [[ $code == 0 || $code == 3 ]] || exit "$code" # 3: finished, and trials.csv names the trials that failed
    mkdir -p "results/$name"
    cp "runs/$name"/{plan.yaml,ranking.json,trials.csv,candidates.csv,environment.json,scan.json} "results/$name/"
    cp "runs/$name/family/manifest.json" "results/$name/"
}

python fetch.py --out "$data"
mkdir -p results
# One row per call: a search that was resumed has several.
[[ -e results/times.csv ]] || echo "search,seconds,exit_code" > results/times.csv
for images in cifar10 fashion-mnist; do
    for base in b0 resnet18; do
        # The answer, with the only look at the test part.
        search "$base-$images" --base "$base" --data "$data/$images.npz" --confirm 5 --check-phi 2
        # Short and long trainings of the same proxies.
        search "$base-$images-race" --base "$base" --data "$data/$images.npz" --policy race
    done
done
