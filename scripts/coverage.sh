#!/usr/bin/env bash
# Prints statement coverage by package from a profile, the thinnest first.
set -euo pipefail

awk 'NR > 1 {
  split($1, place, ":")
  sub(/\/[^\/]*$/, "", place[1])
  if (!($1 in statements)) { statements[$1] = $2; package[$1] = place[1] }
  if ($3 > 0) covered[$1] = 1
}
END {
  for (block in statements) {
    all[package[block]] += statements[block]
    if (block in covered) hit[package[block]] += statements[block]
  }
  for (p in all) {
    printf "%5.1f %%  %6d statements  %s\n", 100 * hit[p] / all[p], all[p], p
    total += all[p]; totalHit += hit[p]
  }
  printf "%5.1f %%  %6d statements  %s\n", 100 * totalHit / total, total, "all"
}' "$1" | sort -n
