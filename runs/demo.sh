#!/usr/bin/env bash
# Cloned English on two CPU cores: does a rare clone learn from a dominant one, and how do we know? `make demo`
# runs this; results lie in out/demo.
#
#   SEED=1 bash runs/demo.sh     # another seed, results in out/demo-seed1
SCALE=cpu
source "$(dirname "$0")/lib.sh"
corpus clones
into demo
PAGE=$FOLDER

run 90-10    0.6x   --ratio 0.9
run 50-50    0.6x   --ratio 0.5
LENGTHS="0.4 0.2 0.1 0.05"
yardstick # English alone, in the batch that does best
run no-space 0.6x   --ratio 0.9 --shared                      # 90-10 again, but the clones share nothing
run placebo  0.125x --ratio 0.4 --languages en noise $ALONE   # a partner that has nothing to teach: TEff at most 1
run positive 0.1x   --ratio 0.9 --anchors 1 $ALONE            # EN2 is EN1: TEff is 1 / share = 10

also python fit_scaling.py "$FOLDER" --out "$PAGE"
also python align.py "$FOLDER/90-10" "$FOLDER/50-50" "$FOLDER/no-space" --only embeddings hidden --sequences 40 --out "$PAGE"
sed 's/^/# /' <<END

The key is above: which letter of EN1 the model takes each letter of EN2 for. Pictures: $PAGE/figure.png and
$PAGE/alignment-layers.png; $PAGE/table.md explains the columns.
Next, after source .venv/bin/activate, what the model writes in its rare language:
  python evaluate.py $FOLDER/90-10 --sample "Return the" --as EN2
and an experiment of your own, beside these runs in a table:
  python train.py --ratio 0.7 --tokens 3e6 --out $FOLDER/70-30
  python fit_scaling.py $FOLDER --out $PAGE
README.md goes on from there.
END
