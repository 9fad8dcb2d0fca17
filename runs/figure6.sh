#!/usr/bin/env bash
# Figures 6 and 7: are the embeddings of clones aligned, by the share of the second and by the frequency of a word?
# (Takeaway 2) The runs are those of Table 1 and Figure 1. word2vec, which sees no more than co-occurrence, is the control.
source "$(dirname "$0")/lib.sh"
corpus clones
for SEED in $SEEDS; do
    seed "$SEED"
    clones_by_ratio
done

also python align.py "${RUNS[@]}" --out "$PAGE"
if "$PYTHON" -c 'import gensim' 2>/dev/null; then
    also python -m paper.word2vec "${RUNS[@]}"
else
    echo "# no gensim, so no control: pip install -r requirements-extra.txt"
fi
also python -m paper.figures 6 "${FOLDERS[@]}" --out "$PAGE"
also python -m paper.figures 7 "${FOLDERS[@]}" --out "$PAGE"
