#!/bin/sh
set -e
if [ -d /run/systemd/system ]; then
  systemctl daemon-reload
fi
# /var/lib/licensed stays, also after purge: it may hold commands of devices that were accepted and are not handed in.
if [ "$1" = purge ] && [ -d /var/lib/licensed ]; then
  echo "licensed: /var/lib/licensed is left in place; remove it yourself if nothing in it is needed"
fi
