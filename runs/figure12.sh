#!/usr/bin/env bash
# Figures 12 and 13: the same for English and French, anchored and disjoint. Runs and measurements are Table 4's.
exec bash "$(dirname "$0")/table4.sh" "$@"
