#!/usr/bin/env bash
# The paper's second takeaway on two CPU cores: cloned English, balanced and imbalanced (Table 1, rows 1 to 5), and
# the controls that say why to believe it. `make demo` runs this; results lie in out/demo.
#
#   SEED=1 bash runs/demo.sh     # another seed, results in out/demo-seed1
SCALE=cpu
source "$(dirname "$0")/lib.sh"
corpus clones
into demo
PAGE=$FOLDER

run 90-10      1x    --ratio 0.9
LADDER="0.5 0.3 0.25 0.2 0.1"
ladder # English alone, with the batch that does best at each length
run 50-50      1x    --ratio 0.5
run placebo    0.25x --ratio 0.4 --languages en noise --batch 2 # as many steps, a partner that cannot help: TEff at most 1
run positive   0.1x  --ratio 0.9 --anchors 1 $(batch_of 0.1)    # EN2 is EN1: TEff is 1 / share = 10

also python fit_scaling.py "$FOLDER" --out "$PAGE"
[ -n "$DRY" ] || cat <<END

look at $PAGE/figure.png (as .svg for slides); $PAGE/table.md explains its columns
next, after source .venv/bin/activate, what the model writes in its rare language:
  python evaluate.py $FOLDER/90-10 --sample "Return the" --as EN2
what it looks like inside:
  python align.py $FOLDER/50-50 $FOLDER/90-10 --out $PAGE
and an experiment of your own, beside these runs in a table:
  python train.py --ratio 0.7 --tokens $ONE --out $FOLDER/70-30
  python evaluate.py $FOLDER/70-30
  python fit_scaling.py $FOLDER --out $PAGE
README.md goes on from there
END
