#!/usr/bin/env bash
exec bash "$(dirname "$0")/table2.sh" "$@" # Figure 11, gradients of clones, comes from the same runs and measurements as Table 2.
