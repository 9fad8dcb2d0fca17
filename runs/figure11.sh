#!/usr/bin/env bash
# Figure 11: do gradients of the same text in two clones point the same way? (Takeaway 2) Runs and measurements are Table 2's.
exec bash "$(dirname "$0")/table2.sh" "$@"
