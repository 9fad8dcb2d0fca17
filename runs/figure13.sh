#!/usr/bin/env bash
exec bash "$(dirname "$0")/table4.sh" "$@" # Figure 13, gradients of disjoint languages, comes from the runs of Table 4.
