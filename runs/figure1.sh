#!/usr/bin/env bash
# Figure 1: two clones by the share of the second; perplexity, and with GLUE=DIR accuracy as well. (Takeaway 2)
# 50/50 and 90/10 are Table 1's.
#
#   GLUE=DIR bash runs/figure1.sh      # DIR holds SST-2/train.tsv and the like, as gluebenchmark.com packs them
source "$(dirname "$0")/lib.sh"
corpus clones
into table1
RUNS=("$FOLDER/50-50" "$FOLDER/90-10")
ladder
run 50-50            1x --ratio 0.5
run 90-10            1x --ratio 0.9

SHARED=$FOLDER
into figure1
for share in 95 80 70 60; do
    run $share-$((100 - share)) 1x --ratio 0.$share
    RUNS+=("$FOLDER/$share-$((100 - share))")
done

if [ -n "${GLUE:-}" ]; then
    also python evaluate.py "${RUNS[@]}" --glue "$GLUE"
else
    echo "# no GLUE, so no right half: download its tasks from gluebenchmark.com and give their folder as GLUE=DIR"
fi
also python -m paper.figures 1 "$SHARED" "$FOLDER" --out "$PAGE"
also python fit_scaling.py "$SHARED" "$FOLDER" --out "$PAGE"
