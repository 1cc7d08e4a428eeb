package deploy

import "golang.org/x/sys/unix"

// mount gives a directory a file system of its own.
func mount(dir, size string) error { return unix.Mount("chaos", dir, "tmpfs", 0, "size="+size) }

func unmount(dir string) error { return unix.Unmount(dir, 0) }
