//go:build !plantedbugs

package planted

// Bug reports whether this process has the bug.
func Bug(ID) bool { return false }

// Former returns the value of the call before with that key, or this one if it is the first. Only a bug calls it.
func Former[T any](_ string, value T) T { return value }
