#!/usr/bin/env bash
# Figures 6 and 7: are embeddings of clones aligned, by the share of the second and the frequency of a piece?
# (Takeaway 2) The runs are those of Table 1 and Figure 1. The control, word2vec, uses co-occurrence only.
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
