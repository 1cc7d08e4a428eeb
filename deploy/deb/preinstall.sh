#!/bin/sh
set -e
# Before the files, some of which belong to this group.
if ! getent group licensed >/dev/null; then groupadd --system licensed; fi
if ! getent passwd licensed >/dev/null; then
  useradd --system --gid licensed --home-dir /var/lib/licensed --no-create-home --shell /usr/sbin/nologin \
    --comment "Licence accounting" licensed
fi
