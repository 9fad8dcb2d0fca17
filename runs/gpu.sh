#!/usr/bin/env bash
# The first hour on a GPU: is everything right, how fast is it, and then the first rows of Table 1. About 25 minutes on an H100.
#
#   bash runs/gpu.sh                 # ends at the first wrong number, with what to try; start it again to go on
#   STAGE=check bash runs/gpu.sh     # or speed, or science: rows 1 to 5 with GPT mini, as far as MINUTES (25) go
#   STAGE=science SIZE=small TOKENS=1.2e8 MINUTES=60 bash runs/gpu.sh    # with GPT small; NOVELS=DIR if it cannot download
#
# Results go to results/gpu/NAME-OF-CHIP/.
SCALE=${SCALE:-gpu} RESULTS=${RESULTS:-results/gpu} STAGE=${STAGE:-all} MINUTES=${MINUTES:-25}
source "$(dirname "$0")/lib.sh"
NAME='import torch; print(torch.cuda.get_device_name().replace(" ", "-") if torch.cuda.is_available() else "cpu")'
PAGE=$RESULTS/$(python -c "$NAME") MADE="${DATA:+--data $DATA}"

right() { also python -m kernels.check --out "$PAGE" $MADE; }

fast() { # what was measured before is not measured again
    local section
    for section in attention loss step evaluation tiles; do
        [ -f "$PAGE/$section.json" ] || also python -m kernels.bench $section --out "$PAGE"
    done
}

rows() { # of Table 1; first the three that the law needs
    corpus clones
    LADDER="0.1 0.5 1" ladder
    run 50-50 1x --ratio 0.5
    run 90-10 1x --ratio 0.9
    ladder
    law
}

law() {
    also python fit_scaling.py "$FOLDER" --out "$PAGE"
    also python -m paper.compare "$FOLDER" --out "$PAGE"
}

science() { # runs that time ends save what they have, and go on when this is started again
    local left=$((60 * MINUTES - SECONDS))
    STAGE=rows timeout $((left > 60 ? left : 60)) bash "$0" || { [ $? = 124 ] || exit 2; law; }
}

into table1
case $STAGE in
all) right; fast; science ;;
check) right ;;
speed) fast ;;
science) science ;;
rows) rows ;;
*) echo "error: STAGE=$STAGE: expected check, speed or science" >&2 && exit 2 ;;
esac
