package client

import "time"

// SetSessionAge sets the age at which sessions give way to others, and returns how to set the former one.
func SetSessionAge(age time.Duration) (reset func()) {
	former := sessionAge
	sessionAge = age
	return func() { sessionAge = former }
}
