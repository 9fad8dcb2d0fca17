#!/usr/bin/env bash
# Table 1: cloned English. Is a token of a clone worth a token of its own language, and does imbalance help? (Takeaways 1 to 5)
source "$(dirname "$0")/lib.sh"
corpus clones
into table1

ladder # rows 1 to 3, and what else the law needs

#   name             tokens
run 50-50            1x --ratio 0.5              # row 4
run 90-10            1x --ratio 0.9              # row 5
run ten-equal        1x --clones 10 --ratio 0.1  # row 6
run ten-main         1x --clones 10 --ratio 0.5  # row 7
run 100to0           1x --ratio 1,0              # row 8
run 90to10           1x --ratio 0.9,0.1          # row 9
run 50-50-2x         2x --ratio 0.5              # row 10
run 90to10-2x        2x --ratio 0.9,0.1          # row 11
run 50-50-3x         3x --ratio 0.5              # row 12
run 90to10-3x        3x --ratio 0.9,0.1          # row 13

also python fit_scaling.py "$FOLDER" --out "$PAGE"
also python -m paper.compare "$FOLDER" --out "$PAGE"
