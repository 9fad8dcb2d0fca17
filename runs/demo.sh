#!/usr/bin/env bash
# The paper's second takeaway in about nine minutes on two CPU cores: cloned English, balanced and imbalanced
# (Table 1, rows 1 to 5). Four monolingual runs give the scaling law; 50/50 and 90/10 are compared with it.
#
#   bash runs/demo.sh            # seed 0, results in out/demo
#   SEED=1 bash runs/demo.sh     # another seed, results in out/demo-seed1
#   BATCH=8 bash runs/demo.sh    # four times as many steps on the same tokens, results in out/demo-batch8
#   GPUS=4 bash runs/demo.sh     # four processes under torchrun
BATCH=${BATCH:-32} SCALE=cpu SIZE=nano TOKENS=1e3
RECIPE="--batch $BATCH"
source "$(dirname "$0")/lib.sh"
corpus clones
if [ "$BATCH" = 32 ]; then into demo; else into "demo-batch$BATCH"; fi
PAGE=$FOLDER

ALL=11550 behind=0 trained=0 SECONDS=0 # thousand tokens: of the demo, behind us, trained since the start
step() { # NAME THOUSANDS FLAGS...: one run, after a line that says how far we are and how long the rest will take
    local left="about 8 minutes in all on two cores"
    [ "$trained" = 0 ] || left="about $(((ALL - behind) * SECONDS / trained / 60 + 1)) minutes left"
    [ -n "$DRY" ] || echo "# $((100 * behind / ALL))% done, $left"
    grep -qs '"ppl"' "$FOLDER/$1/result.json" || trained=$((trained + $2))
    run "$1" "$2x" "${@:3}"
    behind=$((behind + $2))
}

#    name       thousand tokens
step mono-100   3000  --ratio 1
step mono-50    1500  --ratio 1
step mono-25    750   --ratio 1
step mono-10    300   --ratio 1
step 50-50      3000  --ratio 0.5
step 90-10      3000  --ratio 0.9

also python fit_scaling.py "$FOLDER" --out "$PAGE"
