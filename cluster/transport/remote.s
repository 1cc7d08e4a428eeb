// This file lets remote.go declare functions without a body.
