//go:build !linux

package deploy

import "errors"

// mount is for Linux only.
func mount(string, string) error { return errors.ErrUnsupported }

func unmount(string) error { return errors.ErrUnsupported }
