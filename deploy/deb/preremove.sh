#!/bin/sh
set -e
# An upgrade leaves processes running; a removal hands their customers over and stops them.
if [ "$1" = remove ] && [ -d /run/systemd/system ]; then
  systemctl stop 'licensed-gateway@*' 'licensed-node@*'
fi
