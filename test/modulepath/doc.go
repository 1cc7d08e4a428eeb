// Package modulepath tests that the project can be given another module path, and that other modules can use it then.
package modulepath
