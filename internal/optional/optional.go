// Package optional says by a type that a process may lack something: by its role, or until it has started it.
package optional

import "sync/atomic"

// Value is something that may be missing. The zero value has nothing. It is safe for concurrent use.
type Value[T any] struct{ p atomic.Pointer[T] }

// Set makes v the value.
func (o *Value[T]) Set(v *T) { o.p.Store(v) }

// Get returns the value; false if it is missing.
func (o *Value[T]) Get() (v *T, ok bool) {
	v = o.p.Load()
	return v, v != nil
}
