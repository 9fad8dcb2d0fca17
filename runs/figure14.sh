#!/usr/bin/env bash
# Figure 14: the token matching of one English-French sentence pair, drawn. The run is Table 3's row 11.
source "$(dirname "$0")/lib.sh"
corpus real
aligned
into table3
run anchored-50-50         1x --languages en fr --vocab anchored --ratio 0.5

also python align.py "$FOLDER/anchored-50-50" --parallel "en=$PARALLEL.en" "fr=$PARALLEL.fr" --out "$PAGE"
