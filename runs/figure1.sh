#!/usr/bin/env bash
# Figure 1: two clones by the share of the second; perplexity, and with GLUE=DIR accuracy as well. (Takeaway 2)
#
#   GLUE=DIR bash runs/figure1.sh      # DIR holds SST-2/train.tsv and the like, as gluebenchmark.com packs them
source "$(dirname "$0")/lib.sh"
corpus clones
for SEED in $SEEDS; do
    seed "$SEED"
    clones_by_ratio
done

if [ -n "${GLUE:-}" ]; then
    also python -m paper.glue "${RUNS[@]}" --glue "$GLUE"
else
    echo "# no GLUE, so no right half: download its tasks from gluebenchmark.com and give their folder as GLUE=DIR"
fi
also python -m paper.figures 1 "${FOLDERS[@]}" --out "$PAGE"
also python fit_scaling.py "${FOLDERS[@]}" --out "$PAGE"
