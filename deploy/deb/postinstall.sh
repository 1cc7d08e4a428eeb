#!/bin/sh
set -e
[ "$1" = configure ] || exit 0
install -d -o licensed -g licensed -m 0700 /var/lib/licensed
if [ -d /run/systemd/system ]; then
  systemctl daemon-reload
fi
# Processes continue with the old program: which one restarts first is the operator's choice (docs/guide/upgrades.md).
if [ -n "$2" ]; then
  echo "licensed: installed; restart the processes one after the other: systemctl restart licensed-node@NAME"
fi
